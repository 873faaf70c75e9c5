"""A real S3 server for the tests, in this process: moto's, behind an application that refuses some requests."""

import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

BUCKET = "bucket"
Environment = dict[str, Any]
Application = Callable[[Environment, Callable[..., Any]], Iterable[bytes]]


class Faulty:
    """Answers every so manieth request with 503 or, by turns, with a connection that is cut."""

    def __init__(self, application: Application) -> None:
        self.every = 0
        """0: every request is answered."""
        self.requests = self.refused = 0
        self._application, self._lock = application, threading.Lock()

    def __call__(self, environment: Environment, start_response: Callable[..., Any]) -> Iterable[bytes]:
        with self._lock:
            self.requests += 1
            refuse = self.every and self.requests % self.every == 0
            self.refused += bool(refuse)
            cut = self.refused % 2
        if not refuse:
            return self._application(environment, start_response)
        if cut:
            environment["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        start_response("503 Service Unavailable", [("Content-Length", "0")])
        return []


@contextmanager
def object_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    """A server with an empty bucket, which this process and its children find through their environment."""
    faulty = Faulty(DomainDispatcherApplication(create_backend_app))
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, faulty, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    try:
        yield faulty
    finally:
        faulty.every = 0
        # The next server must find no bucket: moto keeps them for the process.
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
            for content in page.get("Contents", []):
                client.delete_object(Bucket=BUCKET, Key=content["Key"])
        client.delete_bucket(Bucket=BUCKET)
        server.shutdown()
        server.server_close()

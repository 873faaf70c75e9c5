"""What the tests of Ray clusters share: the keys of their configuration, and one that grows on this machine."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import yaml

COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
"""The keys of a cluster's configuration that hold shell commands."""


HEAD = "ray.head.default"
"""What Ray's simulated provider calls its head."""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def growing_cluster(patch: pytest.MonkeyPatch, kinds: Mapping[str, Any], most: int) -> Iterator[tuple[str, Path]]:
    """A Ray head whose autoscaler starts nodes of some kinds on this machine: its address, and its folder."""
    # Not pytest's folder: sockets lie in it, whose paths have 107 characters at most.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    port = free_port()
    address = f"{ray.util.get_node_ip_address()}:{port}"
    config = {
        "cluster_name": "growing",
        "max_workers": most,
        "upscaling_speed": 10,
        "idle_timeout_minutes": 10,
        "provider": {"type": "fake_multinode", "gcs_address": address, "disable_node_updaters": True},
        "auth": {"ssh_user": "nobody"},
        "head_node_type": HEAD,
        "available_node_types": kinds,
        "file_mounts": {},
        "cluster_synced_files": [],
        **{name: [] for name in COMMANDS},
    }
    (folder / "growing.yaml").write_text(yaml.safe_dump(config))
    patch.setenv("RAY_AUTH_MODE", "token")
    patch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 2)
    fake = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    own = {name: amount for name, amount in kinds[HEAD]["resources"].items() if name != "CPU"}
    options = ["--head", "--block", f"--port={port}", f"--ray-client-server-port={free_port()}", "--num-cpus=0"]
    options += ["--object-store-memory=100000000", "--include-dashboard=false", "--dashboard-agent-listen-port=0"]
    options += [f"--temp-dir={folder}", f"--autoscaling-config={folder / 'growing.yaml'}"]
    options += [f"--resources={json.dumps(own)}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", "start", *options],
        env=os.environ | fake,
        stdout=(folder / "head.txt").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 60
        while "Ray runtime started" not in (folder / "head.txt").read_text():
            assert process.poll() is None and time.monotonic() < end, (folder / "head.txt").read_text()
            time.sleep(0.2)
        yield address, folder
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
        # The workers are no children of the head, and would wait for it a minute.
        for left in ours(folder):
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()
        shutil.rmtree(folder, ignore_errors=True)


def ours(folder: Path) -> list[psutil.Process]:
    """The processes of the cluster in the folder."""
    processes = psutil.process_iter(["cmdline", "name"])
    return [process for process in processes if any(str(folder) in word for word in process.info["cmdline"] or [])]

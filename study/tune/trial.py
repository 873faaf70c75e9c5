"""One trial of the Ray Tune experiment: read the parents, run the stage through Ray Train, store it."""

import json
import platform
import socket
import subprocess
import tempfile
import time
import traceback
from base64 import b64decode, b64encode
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from study.keys import Contents, contents
from study.settings.resources import ResourceConfig
from study.storage import Storage, StorageError
from study.tune.advice import out_of_memory, unusable_gpu
from study.tune.faults import LostProcessError, cause_of
from trainables import data, objects
from trainables.data import Places
from trainables.devices import release_memory, usable_gpu
from trainables.hyperparameters import ReferenceParams, StageSpec
from trainables.results import StageResult
from trainables.sessions import LeavingError, Session, TrainSession, TuneSession
from trainables.settings import Hyperparameters
from trainables.stages import run_stage

ERROR = "stage_error"
"""Key of a trial's last report that carries the stage's error: such a stage failed for good and is not retried."""
LOST = "stage_lost"
"""Key of the same report if a stage that it needs is not complete any more, as when it was damaged: that stage."""
STORED = "stored"
"""Key of the last report of a trial whose stage is complete."""
TRACEBACK = "stage_traceback"
"""Key of the same report that carries the Python traceback."""


class ContentsError(Exception):
    """A stage would read something else here than what its key was made of; nothing is trained."""


class Task(Hyperparameters):
    """What a trial receives: a stage, and where and how to run it. Travels as JSON."""

    key: str
    spec: StageSpec
    parents: dict[str, str]
    contents: Contents
    """What the key was made of, where the study was planned."""
    storage: str
    resources: ResourceConfig = ResourceConfig()
    places: Places
    functions: str | None = None
    """Networks and data sets that were passed as Python functions, by their names; pickled, in base 64."""

    @classmethod
    def of(cls, content: str) -> "Task":
        """The task of a JSON text, its functions known to this process."""
        task = cls.model_validate_json(content)
        if task.functions is not None:
            from ray import cloudpickle

            objects.take(cloudpickle.loads(b64decode(task.functions)))
        return task


def pickled_functions(spec: StageSpec) -> str | None:
    """What :attr:`Task.functions` holds."""
    functions = objects.among([spec.network, spec.data.name])
    if not functions:
        return None
    from ray import cloudpickle

    return b64encode(cloudpickle.dumps(functions)).decode()


def run_trial(config: dict[str, Any]) -> None:
    """The Tune trainable. An error of the stage itself is reported; what is raised stands for a lost process."""
    from ray import tune

    tune.report(complete(Task.of(config["task"]), TuneSession))


def complete(task: Task, session: Callable[..., Session]) -> dict[str, Any]:
    """Train and store a task's stage, unless it is stored, and return its last report, which may be of an error.

    Args:
        task: the stage, and where and how to run it.
        session: makes the session of a training in this process.

    Raises:
        LostProcessError, LeavingError: the stage has lost a process, or its node is about to be taken away.
    """
    try:
        storage = Storage(task.storage)
        # Another study on this storage may have been faster.
        if not storage.has(task.key):
            _train(task, storage, session)
        metrics = storage.manifest(task.key)["metrics"]
    except (LostProcessError, LeavingError):
        raise
    except Exception as error:
        return {ERROR: _in_words(error, task), TRACEBACK: traceback.format_exc()} | _lost_parent(task)
    # What Tune sees, it could decide by: the test set's numbers go only to the result tables.
    shown = {name: value for name, value in metrics.items() if value is not None and not name.startswith("test_")}
    return shown | {STORED: 1}


def _in_words(error: Exception, task: Task) -> str:
    text = f"{type(error).__name__}: {error}"
    asked = task.resources
    now = {"images_a_pass": asked.images_a_pass or "the whole batch", "gpus": asked.gpus, "cpus": asked.cpus}
    return out_of_memory(text, now) or unusable_gpu(text) or text


def _lost_parent(task: Task) -> dict[str, str]:
    """A parent that is not complete: who finds a stage damaged withdraws it."""
    try:
        storage = Storage(task.storage)
        lost = [key for key in task.parents.values() if not storage.has(key)]
    except StorageError:
        return {}
    return {LOST: lost[0]} if lost else {}


def run_task(task: Task, storage: Storage, session: Session) -> None:
    """Run a task's stage in the calling process and store it (in a worker group: all run, the first stores).

    Raises:
        ContentsError: data, weights or network are not here what they were where the study was planned.
    """
    torch.set_num_threads(task.resources.threads)
    _require_contents(task)
    started, clock = datetime.now(UTC), time.monotonic()
    parents = {role: storage.artifact(key) for role, key in task.parents.items()}
    try:
        result = run_stage(task.spec, parents, session)
    finally:
        release_memory(session.device)
    if session.rank == 0:
        storage.store(task.key, result, stage_row(task, result, session, started, time.monotonic() - clock))


def _require_contents(task: Task) -> None:
    data.reopen()
    here = contents(task.spec, task.places)
    named = {"data": task.spec.data.name, "network": task.spec.network, "weights": _weights_file(task.spec)}
    for what, name in named.items():
        planned, found = getattr(task.contents, what), getattr(here, what)
        if planned != found:
            raise ContentsError(
                f"the {what} {name} differ from what the study was planned with: {planned} there, {found} on "
                f"{socket.gethostname()}. If they were changed since, run the command again, which plans with what is "
                "there now; if this node has others, give it the same"
            )


def _weights_file(spec: StageSpec) -> str | None:
    return spec.params.weights.file if isinstance(spec.params, ReferenceParams) and spec.params.weights else None


def _train(task: Task, storage: Storage, session: Callable[..., Session]) -> None:
    """Run the task through Ray Train: in this process, or in a group of workers.

    Raises:
        LostProcessError: the group lost a process, or found no room. Any other error is the stage's own.
        DeviceError: Ray assigns the stage a GPU that PyTorch cannot use.
    """
    from ray.train import ControllerError, FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
    from ray.train.torch import TorchTrainer

    resources = task.resources
    if resources.workers == 0:
        device = usable_gpu() if resources.gpus else "cpu"

        def run() -> None:
            settings = (resources.checkpoint_seconds, resources.images_a_pass, task.places)
            run_task(task, storage, session(storage.checkpoint(task.key), device, *settings))

        TorchTrainer(run, scaling_config=ScalingConfig(num_workers=0)).fit()
        return
    from ray.tune.integration.ray_train import TuneReportCallback

    trainer = TorchTrainer(
        _run_worker,
        train_loop_config={"task": task.model_dump_json(by_alias=True)},
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus > 0,
            resources_per_worker={"CPU": resources.cpus, "GPU": resources.gpus},
        ),
        run_config=RunConfig(
            name=task.key,
            storage_path=tempfile.mkdtemp(prefix="train-"),
            callbacks=[TuneReportCallback()],
            # Who starts a stage again is the search algorithm, which knows whether it got any further.
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=2),
        ),
    )
    try:
        trainer.fit()
    except WorkerGroupError as error:
        raise cause_of(error.worker_failures) from error
    except ControllerError as error:
        # The group could not be made. Ray's own errors mean no room in minutes: nodes are gone, or still starting.
        raise cause_of({0: error.controller_failure}) from error


def _run_worker(config: dict[str, Any]) -> None:
    task = Task.of(config["task"])
    resources, storage = task.resources, Storage(task.storage)
    if resources.gpus:
        usable_gpu()
    settings = (resources.checkpoint_seconds, resources.images_a_pass, task.places)
    run_task(task, storage, TrainSession(storage.checkpoint(task.key), *settings))


def stage_row(task: Task, result: StageResult, session: Session, started: datetime, seconds: float) -> dict[str, Any]:
    """The stage's row of the stages table; its seconds are a monotonic clock's, which no time server moves."""
    return {
        "stage": task.key,
        "status": "done",
        **describe(task.spec, task.parents),
        "data_fingerprint": task.contents.data,
        "network_digest": task.contents.network,
        "weights_fingerprint": task.contents.weights,
        **result.metrics,
        "seconds": seconds,
        "started_at": started,
        "resumed_from_epoch": session.resumed_epochs,
        "host": socket.gethostname(),
        "processor": processor(),
        "device": torch.cuda.get_device_name() if session.device.type == "cuda" else "cpu",
        "tf32": _used_tf32(task, session),
        "threads": task.resources.threads,
        "workers": task.resources.workers,
        "images_a_pass": task.resources.images_a_pass,
        "code_version": code_version(),
        "package_versions": package_versions(),
    }


def _used_tf32(task: Task, session: Session) -> bool:
    train = getattr(task.spec.params, "train", None) or getattr(task.spec.params, "retrain", None)
    return session.device.type == "cuda" and train is not None and train.precision == "tf32"


def describe(spec: StageSpec, parents: dict[str, str]) -> dict[str, Any]:
    """What is known of a stage before it runs: its columns of identity."""
    return {
        "kind": spec.kind,
        "network": spec.network,
        "data": spec.data.name,
        "seed": spec.seed,
        "parents": json.dumps(parents),
        "hyperparameters": json.dumps({"data": spec.data.without_paths(), **spec.params.without_paths()}),
    }


@cache
def code_version() -> str:
    """Version of this package, and the git commit if it runs from a checkout."""
    try:
        version = metadata.version("sparse-transfer-study")
    except metadata.PackageNotFoundError:  # a checkout on the path of modules is enough
        version = "not installed"
    root = Path(__file__).parents[2]
    # Installed in an environment within somebody's own repository, that one's commit tells nothing.
    if not (root / ".git").exists():
        return version
    command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return version
    return f"{version}+{commit}"


@cache
def processor() -> str:
    """Model of this machine's CPU, which decides which kernels its arithmetic takes."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@cache
def package_versions() -> str:
    """Versions of what a result can depend on, as JSON."""
    versions = {"python": platform.python_version()}
    for name in (
        "torch",
        "torchvision",
        "ray",
        "numpy",
        "pillow",
        "opencv-contrib-python-headless",
        "opencv-contrib-python",
    ):
        # OpenCV is there only if videos are read.
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return json.dumps(versions)

"""Why a worker group failed: what is tried again with another group, and what is the stage's own error."""

import multiprocessing
from collections.abc import Callable
from multiprocessing import Queue
from pathlib import Path

import pytest
import torch.distributed
from ray.exceptions import ActorDiedError, RayTaskError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from rich.console import Console

from study.config import ResourceConfig, load_config
from study.graph import StageGraph, plan
from study.storage import Storage
from study.tune.cluster import Cluster
from study.tune.experiment import Experiment
from study.tune.faults import LostProcessError, cause_of, lost_connection
from tests.clusters import free_port
from tests.commands import SECONDS
from tests.own import REFUSED
from tests.sharing import share
from trainables.sessions import LeavingError

# As PyTorch, gloo and NCCL say it.
LOST = [
    "[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.7]:45121",
    "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Read error [10.0.0.7]:45121: Connection reset by peer",
    "[../third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 1800000ms for recv operation",
    "Gloo connectFullMesh failed with [../gloo/transport/tcp/pair.cc:144] no error: Connection refused",
    "NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.hpp:275, remote process exited or there was a network "
    "error, NCCL version 2.21.5\nncclRemoteError: A call failed possibly due to a network error or a remote process "
    "exiting prematurely.",
    "NCCL error in: ../torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:2251, unhandled system error\n"
    "ncclSystemError: System call (e.g. socket, malloc) or external library call failed or device error.",
    "[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=17, OpType=ALLREDUCE) ran for 600000 ms",
    "NCCL communicator was aborted on rank 1.",
    "[c10d] The client socket has failed to connect to any network address of (10.0.0.7, 29500).",
    "Failed to recv, got 0 bytes. Connection was likely closed. Did the remote server shutdown or crash?",
    "NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.cpp:77, unhandled system error, NCCL version 2.27.5\n"
    "ncclSystemError: System call (e.g. socket, malloc) or external library call failed or device error.\n"
    "Last error:\nsocketProgress: Connection closed by remote peer node7<45121>",
    "NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.cpp:77, remote process exited or there was a network "
    "error, NCCL version 2.27.5\nncclRemoteError: A call failed possibly due to a network error or a remote process "
    "exiting prematurely.\nLast error:\nNET/IB : Got completion from peer 10.0.0.7<45121> with status=12",
]
OWN = [
    "NCCL error in: ../torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:1331, invalid usage, NCCL version 2.21.5\n"
    "ncclInvalidUsage: This usually reflects invalid usage of NCCL library.\nLast error:\n"
    "Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 1e000",
    "NCCL error in: ../torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:1970, unhandled cuda error\n"
    "ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nCuda failure 2 'out of memory'",
    "NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.cpp:77, unhandled system error, NCCL version 2.27.5\n"
    "ncclSystemError: System call (e.g. socket, malloc) or external library call failed or device error.\n"
    "Last error:\nError while creating shared memory segment /dev/shm/nccl-Ab12Cd (size 9637888), error: "
    "No space left on device (28)",
    "ncclInternalError: Internal check failed.\nLast error:\nBootstrap : no socket interface found",
    "No backend type associated with device type cpu: gloo was not asked for",
    "reading the images timed out",
]

NO_GPU = "ProcessGroupNCCL is only supported with GPUs, no GPUs found!"
NAN = "the loss became nan in epoch 3: try a learning_rate below 0.1"
OWN += [NO_GPU, NAN]


def dead() -> Exception:
    error: Exception = ActorDiedError()
    return error


@pytest.mark.parametrize("text", LOST)
def test_a_lost_connection_is_told_by_its_words(text: str) -> None:
    assert lost_connection(RuntimeError(text))
    assert isinstance(cause_of({0: RuntimeError(text)}), LostProcessError)


@pytest.mark.parametrize("text", OWN)
def test_an_error_of_its_own_is_none(text: str) -> None:
    error = RuntimeError(text)
    assert not lost_connection(error)
    assert cause_of({1: error}) is error


@pytest.mark.parametrize(
    "error",
    [
        torch.distributed.DistStoreError("Timed out after 601 seconds waiting for clients. 1/2 clients joined."),
        torch.distributed.DistStoreError("wait timeout after 600000ms, keys: /default_pg/0//cpu//0"),
        torch.distributed.DistNetworkError("Broken pipe"),
        torch.distributed.DistNetworkError("Remote peer closed the connection."),
    ],
    ids=str,
)
def test_an_error_of_the_store_is_told_by_its_type(error: Exception) -> None:
    assert lost_connection(error)
    assert not lost_connection(RuntimeError(str(error)))


def test_a_group_that_hung_is_tried_again() -> None:
    assert isinstance(cause_of({}), LostProcessError)


@pytest.mark.parametrize("first", [0, 1])
def test_whom_the_others_lost_says_why(first: int) -> None:
    own = RuntimeError(OWN[0])
    assert cause_of({first: own, 1 - first: RuntimeError(LOST[0])}) is own


def test_an_error_within_rays_own_is_looked_for() -> None:
    own = RuntimeError(NO_GPU)
    assert cause_of({0: RayTaskError("setup", "traceback", own)}) is own
    assert isinstance(cause_of({0: RayTaskError("setup", "traceback", RuntimeError(LOST[0]))}), LostProcessError)
    assert isinstance(cause_of({0: WorkerGroupStartupTimeoutError(2)}), LostProcessError)


@pytest.mark.parametrize("gone", [dead, lambda: LeavingError("the node is about to be taken away")])
def test_a_lost_process_counts_whatever_the_others_say(gone: Callable[[], Exception]) -> None:
    for other in (LOST[0], NAN):
        assert isinstance(cause_of({0: RuntimeError(other), 1: gone()}), LostProcessError)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "lost"), [("dead", True), ("absent", True), ("wrong", False)])
def test_what_gloo_raises_is_told_apart(case: str, lost: bool) -> None:
    context = multiprocessing.get_context("spawn")
    errors: Queue[Exception | None] = context.Queue()
    port = free_port()
    workers = [context.Process(target=share, args=(case, rank, port, errors)) for rank in (0, 1)]
    for worker in workers:
        worker.start()
    try:
        error = errors.get(timeout=SECONDS)
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
    assert error is not None and lost_connection(error) == lost, error


@pytest.mark.slow
def test_a_workers_own_error_ends_the_stage_at_once(preset: Path, tmp_path: Path) -> None:
    config = load_config(str(preset), ["network=tests.own:refused_in_second_worker"])
    key, stage = next(iter(plan(config).stages.items()))
    storage = Storage(str(tmp_path))
    resources = ResourceConfig(workers=2)
    experiment = Experiment(StageGraph({key: stage}), storage, "tiny", resources, config.data, Cluster(slots=1))
    experiment.run(Console(quiet=True))
    assert experiment.failed == {key: f"RuntimeError: {REFUSED}"}

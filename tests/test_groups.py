"""Why a worker group failed: what is tried again with another group, and what is the stage's own error."""

from collections.abc import Callable

import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

from study.faults import LostProcessError, cause_of, lost_connection
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
]
OWN = [
    "NCCL error in: ../torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:1331, invalid usage, NCCL version 2.21.5\n"
    "ncclInvalidUsage: This usually reflects invalid usage of NCCL library.\nLast error:\n"
    "Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 1e000",
    "NCCL error in: ../torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:1970, unhandled cuda error\n"
    "ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nCuda failure 2 'out of memory'",
    "ncclInternalError: Internal check failed.\nLast error:\nBootstrap : no socket interface found",
    "ProcessGroupNCCL is only supported with GPUs, no GPUs found!",
    "No backend type associated with device type cpu: gloo was not asked for",
    "the loss became nan in epoch 3: try a learning_rate below 0.1",
    "reading the images timed out",
]


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


@pytest.mark.parametrize("first", [0, 1])
def test_whom_the_others_lost_says_why(first: int) -> None:
    own = RuntimeError(OWN[0])
    assert cause_of({first: own, 1 - first: RuntimeError(LOST[0])}) is own


def test_an_error_within_rays_own_is_looked_for() -> None:
    own = RuntimeError(OWN[3])
    assert cause_of({0: RayTaskError("setup", "traceback", own)}) is own
    assert isinstance(cause_of({0: RayTaskError("setup", "traceback", RuntimeError(LOST[0]))}), LostProcessError)
    assert isinstance(cause_of({0: WorkerGroupStartupTimeoutError(2)}), LostProcessError)


@pytest.mark.parametrize("gone", [dead, lambda: LeavingError("the node is about to be taken away")])
def test_a_lost_process_counts_whatever_the_others_say(gone: Callable[[], Exception]) -> None:
    for other in (LOST[0], OWN[5]):
        assert isinstance(cause_of({0: RuntimeError(other), 1: gone()}), LostProcessError)

"""Why a worker group failed: a process was lost, so that another group resumes the stage, or the stage has an error."""

from collections.abc import Mapping

from torch.distributed import DistNetworkError, DistStoreError

from trainables.sessions import LeavingError

LIBRARIES = ("gloo", "nccl", "tcpstore", "client socket", "remote server")
"""Words of an error of the libraries through which the workers of a group talk."""
STORE_ERRORS = (DistNetworkError, DistStoreError)
"""PyTorch's errors of the store at which workers meet. Their texts do not name it."""
LOST_CONNECTION = (
    "closed by peer",
    "closed by remote peer",
    "peer closed",
    "reset by peer",
    "likely closed",
    "socket closed",
    "unexpectedly closed",
    "broken pipe",
    "connection refused",
    "no route to host",
    "failed to connect",
    "timed out",
    "timeout",
    "communicator was aborted",
)
"""Their words when the worker at the other end is gone."""
REMOTE_ERROR = "ncclremoteerror"
SYSTEM_ERROR = "ncclsystemerror"
"""A socket's error, among others, such as no room for shared memory."""
LAST_ERROR = "last error:"
"""What NCCL puts before the error that it met; the text in front of it explains a whole kind of errors."""


class LostProcessError(Exception):
    """A worker group lost a process or found no room: the stage resumes from its checkpoint with another group."""


def cause_of(failures: Mapping[int, Exception]) -> Exception:
    """Why a worker group failed: a process was lost, or else the error of the lowest worker that has one of its own.

    A worker that lost its connection may have lost it to one that failed with an error of its own.

    Args:
        failures: the errors of a group's workers, by rank.
    """
    if not failures:
        return LostProcessError("a worker group hung, and none of its workers reports why")
    errors = [_unwrapped(failures[rank]) for rank in sorted(failures)]
    if gone := [error for error in errors if _is_gone(error)]:
        return LostProcessError(str(gone[0]))
    if own := [error for error in errors if not lost_connection(error)]:
        return own[0]
    return LostProcessError(str(errors[0]))


def _unwrapped(error: Exception) -> Exception:
    """The error that a process raised, without what Ray puts around it."""
    from ray.exceptions import RayTaskError

    return error.cause if isinstance(error, RayTaskError) and isinstance(error.cause, Exception) else error


def _is_gone(error: Exception) -> bool:
    """Whether Ray reports that a worker's process is lost, or the worker that it has to leave."""
    return type(error).__module__.split(".")[0] == "ray" or isinstance(error, LeavingError)


def lost_connection(error: Exception) -> bool:
    """Whether a worker lost the connection to another one: often the first sign that a process is gone.

    Other errors of the same libraries are the worker's own, such as two workers on one GPU, which NCCL refuses.
    """
    text = str(error).lower()
    if not isinstance(error, STORE_ERRORS) and not any(word in text for word in LIBRARIES):
        return False
    if REMOTE_ERROR in text:
        return True
    met = text.partition(LAST_ERROR)[2].strip()
    if SYSTEM_ERROR in text and met in ("", "unknown nccl error"):
        return True
    return any(word in (met or text) for word in LOST_CONNECTION)

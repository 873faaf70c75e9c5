"""The processes that a machine lends to reading and decoding."""

import multiprocessing
import os
import threading


def worker_context(module: str) -> multiprocessing.context.ForkServerContext:
    """How processes are started: not by fork, as PyTorch's and Ray's threads are running.

    They are forked from a server that has imported the module, so that only the first ones take seconds to start.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", module])
    return context


def end_with_parent(*_: object) -> None:
    """Lets this process end when the one that started it is killed: else it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""Two processes that add tensors through gloo. Imports little, as each process imports it again."""

import os
from datetime import timedelta
from multiprocessing import Queue

import torch
from torch import distributed


def share(case: str, rank: int, port: int, errors: "Queue[Exception | None]") -> None:
    """One of the two processes, and what it raises."""
    if case == "absent" and rank == 1:
        return
    patience = timedelta(seconds=2 if case == "absent" else 60)
    try:
        distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", patience, world_size=2, rank=rank)
        distributed.all_reduce(torch.ones(3))
        if case == "dead" and rank == 1:
            os._exit(1)
        distributed.all_reduce(torch.ones(3, dtype=torch.uint16 if case == "wrong" else torch.float32))
        errors.put(None)
    except Exception as error:
        errors.put(error)

"""Randomness by name: each use of randomness has a seed of its own, derived from the stage's seed and a path.

Because every generator is derived afresh for its purpose and epoch, a resumed run needs no stored generator state, and
adding a consumer of randomness (say an extra branch with dropout) never shifts what another one draws.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive(seed: int, *path: str | int) -> int:
    """A 63-bit seed for the purpose named by ``path``, from SHA-256 so that near paths are unrelated."""
    text = "/".join(str(part) for part in (seed, *path))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *path: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator for the purpose named by ``path``."""
    return torch.Generator(device=device).manual_seed(derive(seed, *path))


@contextmanager
def drawing(seed: int) -> Iterator[None]:
    """Lend PyTorch's own generator on the CPU, seeded, to code that draws from it; it is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield

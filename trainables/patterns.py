"""Patterns of masks that hardware and kernels are made for: N of M inputs (2:4, say), and blocks.

A weight is seen as ``(outputs, positions, inputs)``, positions being those of a convolution's kernel: N of each M
consecutive inputs stay, or blocks of N x M outputs and inputs stay or go as one.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

MOST_LISTED = 16
"""Inputs up to which an error lists the shares that they can have."""


class Pattern(NamedTuple):
    """``N:M`` if ``outputs`` is None, else blocks."""

    outputs: int | None
    inputs: int

    @property
    def in_groups(self) -> bool:
        """Whether N of M inputs stay."""
        return self.outputs is None

    @property
    def block(self) -> int | None:
        """Connections of a block; None if N of M inputs stay."""
        return None if self.outputs is None else self.outputs * self.inputs

    def fits(self, weight: Tensor) -> bool:
        """Whether a weight can have it: one whose inputs are no multiple of M stays dense."""
        return not self.in_groups or weight.shape[1] % self.inputs == 0

    def stay(self, share: float) -> int:
        """N, the inputs of each M that stay.

        Raises:
            ValueError: the share is no whole number of M.
        """
        n = share * self.inputs
        if abs(n - round(n)) > 1e-6 or not 0 < round(n) < self.inputs:
            known = ", ".join(f"{count / self.inputs:g}" for count in range(1, self.inputs))
            known = known if self.inputs <= MOST_LISTED else f"a multiple of 1/{self.inputs} below 1"
            raise ValueError(
                f"of each {self.inputs} inputs, {n:.3g} would stay for the share {share:.3g}: give {known}"
            )
        return round(n)


def parsed(text: str) -> Pattern:
    """A pattern from its text, ``N:4`` or ``4x1``.

    Raises:
        ValueError: it is none.
    """
    if match := re.fullmatch(r"N:(\d+)", text):
        size = int(match[1])
        if size > 1:
            return Pattern(None, size)
    if match := re.fullmatch(r"(\d+)x(\d+)", text):
        outputs, inputs = int(match[1]), int(match[2])
        if outputs * inputs > 1:
            return Pattern(outputs, inputs)
    if match := re.fullmatch(r"(\d+):(\d+)", text):
        share = int(match[1]) / max(int(match[2]), 1)
        raise ValueError(f"{text!r} is a share and a pattern: give keep {share:g} and pattern 'N:{match[2]}'")
    raise ValueError(f"no pattern {text!r}: give N:4 (N of each 4 inputs), or 4x1 (blocks of 4 outputs and 1 input)")


def largest_in_groups(scores: Tensor, alive: Tensor, stay: int, size: int) -> Tensor:
    """Mask of the ``stay`` highest scores among the living of each ``size`` inputs; ties go to the lower index."""
    ranked = torch.where(alive, scores, -1.0).movedim(1, -1)
    groups = ranked.reshape(-1, size)
    order = groups.argsort(dim=1, descending=True, stable=True)
    chosen = torch.zeros_like(groups, dtype=torch.bool).scatter_(1, order[:, :stay], value=True)
    return chosen.view(ranked.shape).movedim(-1, 1).contiguous() & alive


def largest_blocks(scores: Sequence[Tensor], alive: Sequence[Tensor], keep: int, pattern: Pattern) -> list[Tensor]:
    """Masks of the blocks of highest mean score over all weights, of ``keep`` living elements at most.

    What is left to ``keep`` is less than the next block, whichever that is. Blocks at the edges are smaller.
    """
    blocks = [_blocks(weight.shape, pattern).to(weight.device) for weight in scores]
    counts, means = [], []
    for own, weight, living in zip(blocks, scores, alive, strict=True):
        size = int(own.max()) + 1
        count = torch.zeros(size, dtype=torch.int64, device=own.device).index_add_(
            0, own.flatten(), living.flatten().long()
        )
        total = torch.zeros(size, dtype=torch.float64, device=own.device)
        total.index_add_(0, own.flatten(), (weight * living).flatten().double())
        counts.append(count)
        means.append(torch.where(count > 0, total / count.clamp(min=1), -1.0))
    order = torch.cat(means).argsort(descending=True, stable=True)
    taken = torch.cat(counts)[order].cumsum(0) <= keep
    chosen = torch.zeros(len(order), dtype=torch.bool, device=order.device)
    chosen[order[taken]] = True
    parts = chosen.split([len(count) for count in counts])
    return [part[own] & living for part, own, living in zip(parts, blocks, alive, strict=True)]


def _blocks(shape: torch.Size, pattern: Pattern) -> Tensor:
    """The number of each element's block, ``int64`` of the weight's shape."""
    assert pattern.outputs is not None
    rows = torch.arange(shape[0]) // pattern.outputs
    columns = torch.arange(shape[1]) // pattern.inputs
    positions = torch.arange(shape[2:].numel())
    across = int(columns[-1]) + 1
    numbers = (rows[:, None, None] * across + columns[None, :, None]) * len(positions) + positions
    return numbers.view(shape)

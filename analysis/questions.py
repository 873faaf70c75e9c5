"""The questions of the paper that a study has the nets for."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from analysis.loading import Results
from analysis.nets import Net, in_table, nets, plain
from analysis.published import CONNECTIONS, FUSED, HYBRID, KNOWLEDGE_ONLY, NEURONS, PROBE, SPARSE_ONLY, STANDARD
from analysis.streams import better_stream, stream_rows

Kind = Literal["part", "pruning", "control", "probe", "fusion", "further", "between"]
MAIN: Kind = "part"
"""The paper's claim, S and K, alone and together: what seeds are added for until it is settled."""
CONTROL: Kind = "control"
"""Why a part helps: what it is compared with lacks the point of it."""
KNOWLEDGE = "Knowledge (K)"


@dataclass(frozen=True)
class Question:
    """One question of the paper: does ``net`` do better than ``baseline``?

    ``subject`` is what the question is about, as a sentence begins with it; ``than`` is what it is compared with where
    that is not understood.
    """

    kind: Kind
    subject: str
    net: Net
    baseline: Net
    than: str = ""

    @property
    def name(self) -> str:
        """The question on one line; no other question of the study has this name."""
        subject = f"{self.subject} against {self.than}" if self.than else self.subject
        return f"{subject}, {self.net.stream}" if self.net.stream and self.kind != "fusion" else subject


def questions(results: Results, cells: pd.DataFrame) -> list[Question]:
    """The paper's questions that the study has both nets for: the parts, pruning, the controls, then fusion."""
    found: list[Question] = []
    for stream in ["", *results.streams]:
        found += [*_parts(cells, stream), *_pruning(cells, stream)]
    found += [*_probes(cells)]
    found += [*_controls(results, cells), *_fusion(results, cells)]
    return [question for question in found if question.net.stages != question.baseline.stages]


def _parts(cells: pd.DataFrame, stream: str) -> Iterator[Question]:
    standard = plain(cells, STANDARD, stream)
    parts = {"Sparsity (S)": SPARSE_ONLY, KNOWLEDGE: KNOWLEDGE_ONLY, "Sparsity with knowledge (S and K)": HYBRID}
    for subject, name in parts.items():
        net = plain(cells, name, stream)
        if net and standard:
            yield Question("part", subject, net, standard)


def _pruning(cells: pd.DataFrame, stream: str) -> Iterator[Question]:
    """The named nets of Tables 3 and 4; the other points of Figure 3 would only dilute the family."""
    standard = plain(cells, STANDARD, stream)
    named = in_table(cells[cells["stream"] == stream], "table3", "table4")
    for net in nets(named) if standard else []:
        if standard and net.name.startswith((CONNECTIONS, NEURONS)):
            yield Question("pruning", net.variant, net, standard, STANDARD)


def _controls(results: Results, cells: pd.DataFrame) -> Iterator[Question]:
    """What a part is compared with that has all of it but the point: knowledge of another image, random masks."""
    shuffled, random = {"knowledge": "shuffled"}, {"sparsity": "random"}
    own, other = "The image's own knowledge", "that of another image"
    chosen, masks = "Pruning by magnitude", "random masks"
    asked = (
        (own, f"{other} (without S)", KNOWLEDGE_ONLY, shuffled),
        (own, f"{other} (with S)", HYBRID, shuffled),
        (chosen, f"{masks} (without K)", SPARSE_ONLY, random),
        (chosen, f"{masks} (with K)", HYBRID, random),
    )
    for subject, than, name, change in asked:
        net = plain(cells, name)
        if net and (control := _control(cells, net, change)):
            yield Question("control", subject, net, control, than)
    # Elsewhere these would only dilute the family: what K owes to its images is asked above.
    plain_nets = (("none (without S)", STANDARD), ("none (with S)", SPARSE_ONLY))
    for than, name in plain_nets if results.facts.control_study else ():
        net = plain(cells, name)
        if net and (control := _control(cells, net, shuffled)):
            yield Question("control", "Knowledge of another image", control, net, than)


def _probes(cells: pd.DataFrame) -> Iterator[Question]:
    """What fine-tuning adds to the features, and what pruning takes from them."""
    probe, standard = plain(cells, PROBE), plain(cells, STANDARD)
    if probe and standard:
        yield Question("probe", "Fine-tuning", standard, probe, "a linear probe")
    sparse = plain(cells, f"{PROBE}(S+)")
    random = next(iter(nets(cells[cells["net"] == f"{PROBE}(S random)"])), None)
    if probe and sparse:
        yield Question("probe", "Features of the Sparse-SourceNet", sparse, probe, "the reference's (linear probes)")
    if sparse and random:
        yield Question("probe", "Features of the Sparse-SourceNet", sparse, random, "random masks' (linear probes)")


def _control(cells: pd.DataFrame, net: Net, change: dict[str, str]) -> Net | None:
    """The control that differs from a transfer net in only one of its parts."""
    wanted = {key: str(net.cells[key].iloc[0]) for key in ("sparsity", "knowledge")} | change
    same = in_table(cells[cells["stream"] == net.stream], "controls")
    for key, value in wanted.items():
        same = same[same[key] == value]
    found = nets(same)
    return found[0] if found else None


def _fusion(results: Results, cells: pd.DataFrame) -> Iterator[Question]:
    for name, row in stream_rows(results, cells).items():
        better, fused = better_stream(row, results), row.get(FUSED)
        if better and fused:
            yield Question(
                "fusion", f"Fusing the streams of {name}", fused, better, f"its {better.stream} stream alone"
            )

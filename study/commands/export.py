"""``study.export``: a net of a study as a file, or a table of how small and fast its nets are."""

import argparse
import copy
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from study import answers, speed
from study.card import card_of, place_of_card
from study.command import OK, SOME_FAILED, reply
from study.config import ConfigError
from study.storage import Storage
from study.stored_nets import StoredNet, connections, example_images, find_stage, open_net
from trainables import latency
from trainables.export import choosing, compact, whole
from trainables.export.choosing import Call, Choice, OnnxSession
from trainables.export.compact import Stored
from trainables.export.formats import RUNTIMES, WeightType
from trainables.export.unconnected import remove_unconnected
from trainables.seeds import generator

TOLERANCES: dict[WeightType, float] = {"float32": 1e-5, "float16": 1e-2, "int8": 1e-1}
"""Largest difference of an output to the masked net's, as a share of the largest output."""
CHECKED = 64
"""Random images, and as many test images, that a file is checked on."""
SECONDS = 5.0
"""The times of the whole net are measured about so long."""


@dataclass(frozen=True)
class Exported:
    """What became of a net."""

    content: bytes
    chain: nn.Module
    removed: dict[str, int]
    """Cut-off neurons by layer."""
    choices: dict[str, Choice]


@dataclass(frozen=True)
class Agreement:
    """How far outputs are from the masked net's."""

    difference: float
    largest: float
    """Of the masked net's outputs, in absolute value."""
    same_class: int
    images: int


def export(stored: StoredNet, format_: str, kind: WeightType, batch: int, threads: int) -> Exported:
    """A net as the content of a file.

    Args:
        stored: the net.
        format_: ``onnx``, ``pt2`` or ``safetensors``.
        kind: type that weights are stored in.
        batch: images of a pass, for which the kernels are chosen.
        threads: threads of the arithmetic.
    """
    if stored.net.is_traced:
        return Exported(whole.encode(stored.network, stored.net, format_), stored.net, {}, {})
    net = copy.deepcopy(stored.net)
    removed = remove_unconnected(net)
    weights = {name: Stored.of(net.op(name), kind) for name in net.names}
    choices = choosing.choose(net, weights, RUNTIMES[format_], batch, threads)
    kernels = {name: choice.kernel for name, choice in choices.items()}
    chain = compact.assemble(net, weights, kernels)
    example = torch.rand(2, *net.input_shape, generator=generator(0, "export"))
    if format_ == "safetensors":
        content = compact.encode(stored.network, weights, kernels)
    else:
        content = (choosing.onnx if format_ == "onnx" else choosing.pt2)(chain, example)
    return Exported(content, chain, removed, choices)


def read(path: Path, format_: str, threads: int, *, traced: bool = False) -> Call:
    """The net of an exported file, as others read it."""
    if format_ == "safetensors":
        return whole.load(path) if traced else compact.load_exported(path)
    return choosing.read_pt2(path) if format_ == "pt2" else OnnxSession(str(path), threads)


@torch.no_grad()
def agreement(masked: nn.Module, exported: Call, images: Tensor) -> Agreement:
    """Compare the outputs of both."""
    right, given = masked(images), exported(images)
    return Agreement(
        float((given - right).abs().max()),
        float(right.abs().max()),
        int((given.argmax(1) == right.argmax(1)).sum()),
        len(images),
    )


def _export(options: argparse.Namespace) -> int:
    _needs_runtime(options.format == "onnx")
    storage = Storage(options.storage)
    stored = open_net(storage, find_stage(storage, options.stage))
    if stored.net.is_traced and options.weights != "float32":
        raise ConfigError(f"--weights {options.weights}: nets of {stored.network} are exported in float32 only")
    beside = Path(storage.root) / "exports" if storage.folder.is_local else Path("exports")
    out = Path(options.out or beside / f"{stored.key}-{options.weights}" / f"model.{options.format}")
    # The end of the name stays: torch.export goes by it.
    aside = out.with_name(f".{uuid.uuid4().hex}.{out.name}")
    _probe(out, aside)
    try:
        exported = export(stored, options.format, options.weights, options.batch, options.threads)
        card = card_of(storage, stored, options.license, _command(options))
        content = exported.content
        aside.write_bytes(_with_metadata(content, card.metadata()) if options.format == "onnx" else content)
        call = read(aside, options.format, options.threads, traced=stored.net.is_traced)
        difference, problem = _check(storage, stored, call, options)
        if problem:
            print(f"study.export: {problem}. Nothing was written", file=sys.stderr)
            if options.json:
                reply(options, answers.Failure(error=problem))
            return SOME_FAILED
        aside.replace(out)
        (readme := place_of_card(out)).write_text(card.markdown(out.name, options.format), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {error.strerror}") from None
    finally:
        aside.unlink(missing_ok=True)
    if options.json:
        answer = answers.Exported(
            file=str(out),
            card=str(readme),
            bytes=out.stat().st_size,
            dense_bytes=stored.dense_bytes,
            connections=card.connections,
            largest_difference=difference,
        )
        reply(options, answer)
        return OK
    _describe(stored, exported, options.batch)
    _time(stored, call, options)
    size = out.stat().st_size
    smaller = "no smaller than" if stored.net.is_traced else f"{stored.dense_bytes / size:.1f} times smaller than"
    print(f"written: {out}, {size:,} bytes, {smaller} the unpruned net in float32 ({stored.dense_bytes:,} bytes)")
    print(f"model card: {readme}")
    return OK


def _command(options: argparse.Namespace) -> str:
    """The command that makes the same file again."""
    given = {"--format": options.format, "--weights": options.weights, "--storage": options.storage}
    return " ".join(["python -m study.export", options.stage, *(f"{name} {value}" for name, value in given.items())])


def _with_metadata(content: bytes, facts: dict[str, str]) -> bytes:
    """An ONNX file with the facts among its metadata."""
    import onnx

    model = onnx.load_from_string(content)
    onnx.helper.set_model_props(model, facts)
    return bytes(model.SerializeToString())


def _probe(out: Path, aside: Path) -> None:
    """Say that a file cannot be written before anything is measured."""
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder: give the name of a file")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        aside.touch()
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {error.strerror}; give another file with --out") from None


def _check(storage: Storage, stored: StoredNet, call: Call, options: argparse.Namespace) -> tuple[float, str | None]:
    """Compare the file with the masked net, print how far they agree. Return the difference and what is wrong."""
    inputs = {"random": torch.rand(CHECKED, *stored.net.input_shape, generator=generator(0, "check"))}
    if (real := example_images(storage, stored, CHECKED)) is not None:
        inputs["test"] = real
    else:
        print("the study's images are not there: checked on random images only")
    tolerance = options.tolerance if options.tolerance is not None else TOLERANCES[options.weights]
    largest = 0.0
    for name, images in inputs.items():
        found = agreement(stored.net, call, images)
        largest = max(largest, found.difference)
        print(
            f"outputs on {found.images} {name} images: largest difference {found.difference:.2g}, "
            f"of outputs up to {found.largest:.3g}; same class for {found.same_class}"
        )
        if not found.difference <= tolerance * found.largest:
            return largest, f"the outputs differ by more than {tolerance:g} of the largest ({name} images)"
    return largest, None


def _describe(stored: StoredNet, exported: Exported, batch: int) -> None:
    print(f"{stored.key}: {connections(stored.net):,} of {stored.dense_connections:,} connections")
    gone = [f"{count} of {name}" for name, count in exported.removed.items() if count]
    if not stored.net.is_traced:
        print(f"cut-off neurons removed: {', '.join(gone) or 'none'}")
    for name, choice in exported.choices.items():
        times = ", ".join(f"{kernel} {time:.3f}" for kernel, time in choice.milliseconds.items())
        print(f"{name}: {choice.kernel} ({f'ms for a batch of {batch}: {times}' if times else 'no other applies'})")


def _time(stored: StoredNet, call: Call, options: argparse.Namespace) -> None:
    images = torch.rand(options.batch, *stored.net.input_shape, generator=generator(0, "latency"))
    masked, exported = latency.by_turns(
        [lambda: stored.net(images), lambda: call(images)], options.threads, seconds=SECONDS
    )
    print(
        f"time of a batch of {options.batch}: {exported.milliseconds:.2f} ms; "
        f"masked net, executed densely by torch: {masked.milliseconds:.2f} ms"
    )


def main(options: argparse.Namespace) -> int:
    """Run the command. Return the exit status."""
    return _compare(options) if options.compare else _export(options)


def _compare(options: argparse.Namespace) -> int:
    _needs_runtime(True)
    storage = Storage(options.storage)
    storage.probe()
    table = speed.compare(storage, options.compare, options.threads)
    storage.write_study(options.compare, "nets.parquet", table)
    storage.write_study(options.compare, "nets.csv", table.to_pandas().to_csv(index=False).encode())
    if options.json:
        reply(options, answers.ComparedNets(nets=table.to_pylist()))
        return OK
    print(speed.describe(table))
    print(f"written: {storage.study_path(options.compare, 'nets.parquet')} and nets.csv")
    return OK


def _needs_runtime(needed: bool) -> None:
    if not needed:
        return
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise ConfigError("ONNX needs more packages: pip install -c constraints.txt -e '.[export]'") from None

"""``study.data``: looking at a preset's data sets, and decoding them."""

import argparse
import sys
from collections.abc import Iterator

from rich.console import Console

from study import config as study_config
from study.answers import DataCheck, DataState
from study.command import OK, SOME_FAILED, reply
from study.run.decoding import decoded, distinct, progress_bar
from study.run.reference import reference_doubts
from trainables.data import DATA_SETS, LAYOUTS, DataError, ImageSet, Places, load
from trainables.data.decoding import gigabytes
from trainables.data.files import OWN_FOLDER, open_layout, place_of
from trainables.data.inspection import ALL, Count, Decoded, Inspection, inspect
from trainables.data.layouts.catalogue import Layout
from trainables.settings import DataConfig, absolute
from trainables.suggestions import choices

DataSets = list[tuple[list[str], DataConfig]]
SHOWN_CLASSES = 10
"""Classes with a wrong number of items that are shown without ``--classes``."""


def main(options: argparse.Namespace) -> int:
    """Run the command. Return the exit status."""
    config = study_config.read_config(options.preset, options.set)
    places = config.data
    if options.data_root is not None:
        places = places.model_copy(update={"root": absolute(options.data_root)})
        config = config.model_copy(update={"data": places})
    action = {"check": _check, "prepare": _prepare, "fetch": _fetch}[options.command]
    # Every one of them, even where one lacks something; what two domains share is looked at once.
    data_sets = distinct(study_config.data_configs(config))
    if options.json:
        return _reply(config, data_sets, options)
    done = [action(", ".join(names), own, places, options) for names, own in data_sets]
    if options.command == "check" and all(done):
        done.append(_check_reference(config))
    return OK if all(done) else SOME_FAILED


def _reply(config: study_config.StudyConfig, data_sets: DataSets, options: argparse.Namespace) -> int:
    """Check, and print what was found as JSON."""
    if options.command != "check":
        raise study_config.ConfigError(f"--json goes with check; {options.command} prints a line per data set")
    states = [_state(names, own, config.data, options) for names, own in data_sets]
    doubts = _reference_doubts(config) if all(state.complete for state in states) else []
    reply(options, DataCheck(data_sets=states, doubts=doubts))
    return OK if all(state.complete for state in states) and not doubts else SOME_FAILED


def _state(names: list[str], config: DataConfig, places: Places, options: argparse.Namespace) -> DataState:
    layout = LAYOUTS.get(config.name)
    if layout is None:
        content = _content(", ".join(names), config, places)
        return DataState(
            used_by=names,
            title=content.title,
            folder=None,
            parts={ALL: len(content.labels)},
            classes=len(content.class_names),
            problems=[],
            notes=[],
            complete=True,
        )
    found = _inspected(layout, config, places, options)
    totals = {count.what: count.found for count in found.totals}
    return DataState(
        used_by=names,
        title=layout.title,
        folder=str(found.folder) if found.folder else None,
        classes=totals.pop("classes", 0),
        parts=totals,
        problems=[f"{problem.path}: {problem.message}" for problem in found.problems],
        notes=list(found.notes),
        complete=found.is_complete,
    )


def _check(domain: str, config: DataConfig, places: Places, options: argparse.Namespace) -> bool:
    layout = LAYOUTS.get(config.name)
    if layout is None:
        return _package(domain, config, places)
    found = _inspected(layout, config, places, options)
    _say(describe(domain, found, classes=options.classes))
    return found.is_complete


def _inspected(layout: Layout, config: DataConfig, places: Places, options: argparse.Namespace) -> Inspection:
    opens = options.decode and not (options.quick and layout.medium == "stream")
    with progress_bar(f"opening {layout.title}") as progress:
        return inspect(layout, config, places, decode=opens, progress=progress)


def _check_reference(config: study_config.StudyConfig) -> bool:
    doubts = _reference_doubts(config)
    for doubt in doubts:
        _say(doubt)
    return not doubts


def _reference_doubts(config: study_config.StudyConfig) -> list[str]:
    try:
        return reference_doubts(config)
    # A network or weights that are not available: a study reports the same.
    except (KeyError, TypeError, ValueError) as error:
        return [f"reference: {error.args[0]}"]


def _prepare(domain: str, config: DataConfig, places: Places, options: argparse.Namespace) -> bool:
    layout = LAYOUTS.get(config.name)
    if layout is None:
        return _package(domain, config, places)
    try:
        _say(f"{domain}: {decoded(open_layout(layout, config, places))}")
    except DataError as error:
        print(f"{domain}: {error}", file=sys.stderr)
        return False
    return True


def _fetch(domain: str, config: DataConfig, places: Places, options: argparse.Namespace) -> bool:
    layout = LAYOUTS.get(config.name)
    if layout is None:
        return _package(domain, config, places)
    if layout.name == OWN_FOLDER:
        _say(f"{domain}: a folder of your own, so there is nothing to download")
        return True
    try:
        if layout.fetch is None:
            raise DataError(f"{layout.title} cannot be downloaded by a program. Where to get it: {layout.source}")
        folder = place_of(layout, config, places)
        layout.fetch(folder)
    except DataError as error:
        print(f"{domain}: {error}", file=sys.stderr)
        return False
    _say(f"{domain}: {layout.title} is in {folder}")
    return True


def _package(domain: str, config: DataConfig, places: Places) -> bool:
    """A data set that does not lie in files of a known layout."""
    content = _content(domain, config, places)
    count = f"{len(content.labels):,} images in {len(content.class_names)} classes"
    origin = "it comes with a package" if config.name in DATA_SETS else f"{config.name} provides it"
    _say(f"{domain}: {content.title}: {count}; {origin}, so there is nothing to look for or to decode")
    return True


def _content(domain: str, config: DataConfig, places: Places) -> ImageSet:
    try:
        if config.name not in DATA_SETS and ":" not in config.name:
            raise KeyError(f"no data set {config.name!r}: {choices(config.name, [*DATA_SETS, *LAYOUTS])}")
        return load(config, places)
    except KeyError as error:
        raise study_config.ConfigError(f"{domain}: {error.args[0]}") from None


def describe(domain: str, found: Inspection, *, classes: bool = False) -> str:
    """An inspection as text.

    Args:
        domain: whose data it is.
        found: the inspection.
        classes: list every class with its numbers, instead of those with a wrong one.
    """
    lines = [f"{domain}: {found.layout.title}", *_contents(found, classes)]
    if found.problems:
        lines.append(f"  problems: {len(found.problems):,}")
        lines += [f"    {problem.path}: {problem.message}" for problem in found.problems]
    lines.append(f"  {'complete' if found.is_complete else 'NOT complete'}")
    if not found.is_complete and found.folder is not None:
        lines.append(f"  where to get it: {found.layout.source}")
    return "\n".join(lines)


def _contents(found: Inspection, classes: bool) -> Iterator[str]:
    if found.folder is None:
        return
    yield f"  folder: {found.folder}"
    for count in found.totals:
        yield f"  {_words(count)}{_spread(found, count.what)}"
    wrong = [name for name, counts in found.by_class.items() if not all(count.is_right for count in counts)]
    shown = list(found.by_class) if classes else wrong[:SHOWN_CLASSES]
    for name in shown:
        yield f"    {name}: {'; '.join(_words(count) for count in found.by_class[name])}"
    if len(shown) < len(wrong):
        yield f"    and {len(wrong) - len(shown):,} more classes with other numbers; --classes lists every class"
    yield from (f"  {note}" for note in found.notes)
    yield (
        f"  opened: {found.opened:,} {found.layout.things}"
        if found.opened
        else "  opened: none, so broken files were not looked for"
    )
    if found.decoded:
        yield f"  decoded: {_decoded(found.decoded)}"


def _words(count: Count) -> str:
    what = "items" if count.what == ALL else count.what
    if count.official is None:
        return f"{what} {count.found:,}"
    if count.is_right:
        return f"{what} {count.found:,}, as officially"
    many = "too few" if count.found < count.official else "too many"
    return f"{what} {count.found:,}, officially {count.official:,}: {abs(count.official - count.found):,} {many}"


def _spread(found: Inspection, part: str) -> str:
    """How many a class has."""
    numbers = [count.found for counts in found.by_class.values() for count in counts if count.what == part]
    if not numbers:
        return ""
    least, most = min(numbers), max(numbers)
    return f"; {least:,} a class" if least == most else f"; {least:,} to {most:,} a class"


def _decoded(decoded: Decoded) -> str:
    if decoded.is_done:
        return f"{gigabytes(decoded.bytes)} in {decoded.array}"
    room = f"{gigabytes(decoded.free)} free"
    if not decoded.fits:
        room += ": TOO LITTLE, make room or set data.cache to a folder on a larger disk"
    return f"not yet; takes {gigabytes(decoded.bytes)} in {decoded.array} ({room})"


def _say(text: str) -> None:
    Console(highlight=False).print(text, markup=False, soft_wrap=True)

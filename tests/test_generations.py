"""A study's files are of one run, whatever moment a writer dies in, and nothing that was changed is read."""

import itertools
import os
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

import analysis
from study.files import Folder
from study.generations import NEXT, RECORD, ChangedError, read_generation, write_generation
from tests.analysis_study import writer

OLD = {"stages.parquet": b"old stages", "epochs.parquet": b"old epochs", "config.yaml": b"same", "best.yaml": b"gone"}
NEW = {"stages.parquet": b"new stages", "epochs.parquet": b"new epochs", "config.yaml": b"same", "trials.parquet": b"1"}
NAMES = sorted(OLD.keys() | NEW.keys())
CHANGES = ("write", "move", "delete")


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(str(tmp_path / "study"))
    write_generation(folder, OLD, {"title": "old"})
    return folder


def dies_at(monkeypatch: pytest.MonkeyPatch, change: int, die: Any) -> None:
    """From now on the process dies right before the given change of a file system, counted from 0."""
    counted = iter(range(change))

    def counting(name: str) -> Any:
        original = getattr(Folder, name)

        def act(self: Folder, *args: Any) -> Any:
            if next(counted, None) is None:
                die()
            return original(self, *args)

        return act

    for name in CHANGES:
        monkeypatch.setattr(Folder, name, counting(name))


def raise_killed() -> None:
    raise Killed


def generation_of(folder: Folder) -> str:
    """Which generation is read: all of its files, and none of another."""
    found = read_generation(folder, NAMES)
    record = found.pop(RECORD).decode()
    name, files = ("old", OLD) if '"title": "old"' in record else ("new", NEW)
    # What the record does not have belongs to no generation.
    assert {name: content for name, content in found.items() if name in files} == files
    return name


def test_a_writer_that_dies_at_any_change_leaves_one_generation(folder: Folder, tmp_path: Path) -> None:
    seen = []
    for change in itertools.count():
        with pytest.MonkeyPatch.context() as patch:
            dies_at(patch, change, raise_killed)
            try:
                write_generation(folder, NEW, {"title": "new"})
                finished = True
            except Killed:
                finished = False
        seen.append(generation_of(folder))
        if finished:
            break
        # Whoever comes next, also dying somewhere, resumes from there.
        for again in range(change, -1, -3):
            with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
                dies_at(patch, again, raise_killed)
                write_generation(folder, OLD, {"title": "old"})
                write_generation(folder, NEW, {"title": "new"})
                raise Killed
            generation_of(folder)
        write_generation(folder, OLD, {"title": "old"})
        assert generation_of(folder) == "old"
    assert seen[0] == "old" and seen[-1] == "new" and seen == sorted(seen, reverse=True)
    assert {path.name for path in (tmp_path / "study").iterdir()} == {*NEW, RECORD}


def _write_and_die(path: str, change: int) -> None:
    dies_at(pytest.MonkeyPatch(), change, lambda: os._exit(9))
    write_generation(Folder(path), NEW, {"title": "new"})


def test_a_process_that_is_gone_leaves_one_generation(folder: Folder) -> None:
    for change in (0, 3, 6):
        process = get_context("fork").Process(target=_write_and_die, args=(folder.at(), change))
        process.start()
        process.join()
        assert process.exitcode == 9
        generation_of(folder)


def test_nothing_is_written_again_that_is_there(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    original = Folder.write

    def write(self: Folder, name: str, content: bytes) -> None:
        written.append(name)
        original(self, name, content)

    monkeypatch.setattr(Folder, "write", write)
    write_generation(folder, OLD, {"title": "old"})
    assert written == [RECORD]


@pytest.mark.parametrize("name", [*OLD, RECORD])
def test_a_flipped_bit_is_found_and_mended(folder: Folder, name: str) -> None:
    path = Path(folder.at(name))
    content = bytearray(path.read_bytes())
    place = content.find(b"old") if name == RECORD else 0
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(ChangedError, match=rf"{name} is not what the study wrote"):
        read_generation(folder, NAMES)
    write_generation(folder, OLD, {"title": "old"})
    assert generation_of(folder) == "old"


def test_a_reader_starts_over_where_a_writer_comes_between(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Folder.read
    looked: list[str] = []

    def read(self: Folder, name: str) -> bytes | None:
        looked.append(name)
        if len(looked) == 3:
            monkeypatch.setattr(Folder, "read", original)
            write_generation(folder, NEW, {"title": "new"})
        return original(self, name)

    monkeypatch.setattr(Folder, "read", read)
    assert generation_of(folder) == "new"


def test_studies_of_earlier_versions_have_no_checksums(tmp_path: Path) -> None:
    study = writer(tmp_path / "study")()
    assert b"sha256" not in (study / RECORD).read_bytes()
    assert analysis.load(study).facts.name


def test_a_study_says_that_a_table_was_changed(tmp_path: Path) -> None:
    study = writer(tmp_path / "study")()
    tables = {path.name: path.read_bytes() for path in study.glob("*.parquet")}
    facts = analysis.load(study).facts.model_dump(mode="json")
    write_generation(Folder(str(study)), tables, facts)
    assert analysis.load(study).facts.model_dump(mode="json") == facts
    (study / "epochs.parquet").write_bytes(tables["layers.parquet"])
    with pytest.raises(
        analysis.StudyError, match=r"epochs\.parquet is not what the study wrote.*run the study's command"
    ):
        analysis.load(study)


def test_what_waits_next_to_its_place_is_read(folder: Folder) -> None:
    path = Path(folder.at("stages.parquet"))
    path.rename(path.with_name(path.name + NEXT))
    assert generation_of(folder) == "old"

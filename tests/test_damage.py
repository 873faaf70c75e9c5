"""Files that were damaged after they were stored, or could not be: found, said, and made good by the same command."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from study.config import load_config
from study.graph import StageGraph, plan
from study.tune.scheduling import MOST_LOSSES, MOST_LOST_PROCESSES, StageSearcher
from study.tune.trial import ERROR, LOST, STORED
from tests.commands import SECONDS, assert_same_results, command, study, table


@pytest.fixture(scope="module")
def graph(preset: Path) -> StageGraph:
    return plan(load_config(str(preset)))


def flip(path: Path) -> None:
    """Turn one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.slow
def test_damaged_stages_are_trained_again(trained: Path, graph: StageGraph, preset: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "stages", tmp_path / "stages")
    of_kind: dict[str, list[str]] = {}
    for key, stage in graph.stages.items():
        of_kind.setdefault(stage.spec.kind, []).append(key)
    # Tensors are read by a stage that needs them: here by a transfer that was lost, too.
    (reference,), lost = of_kind["reference"], of_kind["transfer"][0]
    assert reference in graph.stages[lost].parents.values()
    shutil.rmtree(tmp_path / "stages" / lost)
    (tensors,) = (tmp_path / "stages" / reference).glob("*/tensors.safetensors")
    flip(tensors)
    (rows,) = (tmp_path / "stages" / of_kind["source_prune"][0]).glob("*/rows.json")
    flip(rows)
    (short,) = (tmp_path / "stages" / of_kind["knowledge"][0]).glob("*/rows.json")
    short.write_bytes(short.read_bytes()[:-20])
    manifest = tmp_path / "stages" / of_kind["target_prune"][0] / "manifest.json"
    manifest.write_text(manifest.read_text()[:-30])

    printed = study(preset, tmp_path)
    for file in (tensors, rows, short, manifest):
        assert printed.count(f"{file} was damaged: the stage is withdrawn") >= 1
    assert "failed" not in printed
    assert "5 stages in" in printed, printed
    assert_same_results(tmp_path, trained)
    assert "nothing to train" in study(preset, tmp_path)


def test_a_stage_that_is_lost_again_and_again_fails(graph: StageGraph) -> None:
    searcher = StageSearcher(graph, set(), lambda key: {"task": "task"})
    reference = next(iter(graph.stages))
    for loss in range(MOST_LOSSES + 1):
        config = searcher.suggest("parent")
        assert isinstance(config, dict) and config["stage"] == reference
        searcher.on_trial_complete("parent", {STORED: 1})
        child = searcher.suggest("child")
        assert isinstance(child, dict)
        searcher.on_trial_complete("child", {ERROR: "was damaged", LOST: reference})
        assert (child["stage"] in searcher.failed) == (loss == MOST_LOSSES)
        assert (child["stage"] in searcher.waiting) == (loss < MOST_LOSSES)


def test_a_stage_that_gets_further_is_never_given_up(graph: StageGraph) -> None:
    searcher = StageSearcher(graph, set(), lambda key: {"task": "task"})
    reference = next(iter(graph.stages))

    def lose_at(epoch: int) -> None:
        config = searcher.suggest("trial")
        assert isinstance(config, dict) and config["stage"] == reference
        searcher.on_trial_result("trial", {"round": 0, "epoch": epoch})
        searcher.on_trial_complete("trial", error=True)

    for epoch in range(1, 3 * MOST_LOST_PROCESSES):
        lose_at(epoch)
    # The last of them was the first at its place; an epoch that is trained again is no progress.
    for epoch in range(1, MOST_LOST_PROCESSES):
        assert reference not in searcher.failed
        lose_at(epoch)
    assert "at the same place" in searcher.failed[reference]
    assert searcher.skipped and not searcher.waiting


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a size that a test can fill."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=260m", "tmpfs", disk], capture_output=True, text=True)
    if mount.returncode != 0:
        pytest.skip(f"a disk to fill cannot be mounted here: {mount.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        for size in (2**20, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_room_lets_it_go_on(trained: Path, preset: Path, small_disk: Path) -> None:
    storage, ballast = small_disk / "results", small_disk / "ballast"
    process = subprocess.Popen(
        command(preset, storage, "--slots", "2"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    end = time.monotonic() + SECONDS
    while not list(storage.glob("stages/*/manifest.json")):
        assert time.monotonic() < end
        time.sleep(0.02)
    fill(ballast)
    printed, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 2, printed
    assert "No space left on device; make room, then run the same command again" in printed
    assert "Traceback" not in printed
    assert not list(storage.rglob("*.tmp"))
    ballast.unlink()
    study(preset, storage)
    assert (table(storage, "stages")["status"] == "done").all()
    assert_same_results(storage, trained)

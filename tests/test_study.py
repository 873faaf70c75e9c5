"""The whole system as its user runs it: the command, and real trainings on Ray."""

import re
from pathlib import Path

import pytest
import torch

from study.config import load_config
from study.graph import plan
from study.storage import Storage
from tests.commands import assert_same_results, study, table

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(preset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A study that ran undisturbed on two slots, and what it printed."""
    storage = tmp_path_factory.mktemp("finished")
    return storage, study(preset, storage, "--slots", "2")


def test_the_command_ends_in_the_papers_tables(finished: tuple[Path, str]) -> None:
    storage, printed = finished
    for words in ("Table 1", "Table 2", "Table 3", "Standard-TransferNet", "sharing saved", "busy", "report:"):
        assert words in printed
    page = Path(re.search(r"report: (.+)", printed)[1])  # type: ignore[index]
    assert "Figure 3" in page.read_text()
    assert not any(line.startswith(("(", "20")) for line in printed.splitlines()), "Ray's own chatter"
    stages = table(storage, "stages")
    assert stages["stage"].is_unique and (stages["status"] == "done").all()
    assert not list((storage / "checkpoints").glob("*")) if (storage / "checkpoints").exists() else True


def test_prune_percent_is_a_recount_of_the_stored_zeros(finished: tuple[Path, str]) -> None:
    storage, _ = finished
    stored, stages = Storage(str(storage)), table(storage, "stages")
    nets = stages[stages["kind"] != "knowledge"]
    assert len(nets) > 8
    for row in nets.itertuples():
        tensors = stored.artifact(str(row.stage)).tensors
        weights = [t for name, t in tensors.items() if name.startswith("main.") and name.endswith(".weight")]
        left = sum(int(torch.count_nonzero(weight)) for weight in weights)
        assert row.connections == left
        assert row.prune_percent == 100 * (1 - left / row.connections_dense)  # type: ignore[operator]


def test_one_slot_gives_the_same_results_as_two(finished: tuple[Path, str], preset: Path, tmp_path: Path) -> None:
    study(preset, tmp_path, "--slots", "1")
    assert_same_results(tmp_path, finished[0])


def test_a_second_run_trains_nothing_and_a_new_seed_only_its_own(finished: tuple[Path, str], preset: Path) -> None:
    storage, _ = finished

    def published() -> dict[str, float]:
        return {path.parent.name: path.stat().st_mtime for path in storage.glob("stages/*/manifest.json")}

    before = published()
    again = study(preset, storage)
    assert "nothing to train" in again and published() == before
    planned = study(preset, storage, "--seeds", "2", "--dry-run")
    config = load_config(str(preset))
    new = set(plan(config.model_copy(update={"seeds": 2})).stages) - set(plan(config).stages)
    assert f"to train: {len(new)} stages" in planned and published() == before
    study(preset, storage, "--seeds", "2", "--name", "two")
    after = published()
    assert set(after) - set(before) == new
    assert {key: after[key] for key in before} == before


def test_a_failed_stage_stands_in_the_report_and_the_others_finish(
    finished: tuple[Path, str], preset: Path, tmp_path: Path
) -> None:
    # The source's stages are taken over; pruning in the target diverges at once.
    (tmp_path / "stages").symlink_to(finished[0] / "stages")
    printed = study(preset, tmp_path, "--set", "target_prune.retrain.learning_rate=1.0e+9", status=1)
    assert "2 stages failed, 3 that need them were skipped" in printed
    assert "DivergedError" in printed and "try a learning_rate below" in printed
    stages = table(tmp_path, "stages").set_index("stage")
    assert stages["status"].value_counts().to_dict() == {"done": 8, "skipped": 3, "failed": 2}
    assert stages.loc[stages["status"] == "skipped", "error"].str.contains("which failed").all()
    page = (tmp_path / "studies" / "tiny" / "report" / "index.html").read_text()
    assert "Failures" in page and "DivergedError" in page
    assert len(list((tmp_path / "studies" / "tiny" / "errors").glob("target_prune-*.txt"))) == 2

"""The process that has the pretended accelerator: it runs all cases there and on the CPU, and reports the outcomes."""

import os
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch
from safetensors.torch import save_file

from tests.accelerator import checks
from tests.accelerator.cases import CASES, HOMES, WEIGHTS
from tests.accelerator.device import DEVICE, register
from tests.accelerator.running import Outcome, Runs
from trainables import images

REPORT = "report.pickle"


@dataclass
class Report:
    """What the process reports."""

    outcomes: dict[tuple[str, str], Outcome]
    """By case, and ``cpu`` or where the pixels were."""
    refusals: dict[str, str | None]
    allowances: dict[str, str]


def main(folder: Path) -> None:
    """Run everything and leave the outcomes in the folder."""
    os.chdir(folder)
    torch.set_num_threads(1)
    # As in a trial: some operations take another way then.
    torch.use_deterministic_algorithms(True, warn_only=True)
    register()
    runs = Runs(CASES)
    save_file(dict(runs.parent("reference").tensors), WEIGHTS)
    outcomes = {}
    for name in CASES:
        outcomes[name, "cpu"] = runs.on_the_cpu(name)
        for home, resident_bytes in HOMES.items():
            with patch.object(images, "RESIDENT_BYTES", resident_bytes):
                outcomes[name, home] = runs.attempt(name, DEVICE)
    report = Report(outcomes, checks.refusals(), checks.allowances())
    (folder / REPORT).write_bytes(pickle.dumps(report))


if __name__ == "__main__":
    # Under the module's name, not as __main__, or the report could not be unpickled elsewhere.
    from tests.accelerator.child import main

    main(Path(sys.argv[1]).resolve())

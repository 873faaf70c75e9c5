"""Run many random schedules of faults; run again with the same record, it resumes.

Every fiftieth seed is run with real signals to the processes of a study on Ray, which takes a minute.
"""

import argparse
import json
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from tests.faults import processes
from tests.faults.checker import Checker
from tests.faults.faults import draw, shortest
from tests.kills import COUNTER

EVERY = 50


def main() -> int:
    """Run the schedules that the record lacks, and print what became of all. Return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000, metavar="N", help="schedules: seeds 0 to N - 1 (%(default)s)")
    parser.add_argument("--record", type=Path, default=Path("faults.jsonl"), metavar="FILE", help="(%(default)s)")
    options = parser.parse_args()
    if options.runs < 1:
        parser.error(f"--runs is {options.runs}: give 1 or more, as a check that checks nothing is none")
    console = Console(highlight=False)
    done = {line["seed"]: line for line in map(json.loads, _lines(options.record))}
    with tempfile.TemporaryDirectory() as folder:
        runner = _Runner(Path(folder), console)
        for seed in track([seed for seed in range(options.runs) if seed not in done], "schedules", console=console):
            done[seed] = {"seed": seed, **runner.run(seed)}
            with options.record.open("a") as record:
                record.write(json.dumps(done[seed]) + "\n")
        epochs = runner.checker.epochs
    return _summarise([done[seed] for seed in sorted(done) if seed < options.runs], epochs, console)


class _Runner:
    """Runs the schedule of a seed, and where it fails looks for the shortest that does."""

    def __init__(self, folder: Path, console: Console) -> None:
        self.checker, self._folder, self._console = Checker(folder), folder, console

    def run(self, seed: int) -> dict[str, Any]:
        """The verdict on a seed, as the record keeps it."""
        if seed % EVERY == EVERY - 1:
            return {**self._with_processes(seed), "processes": True}
        schedule = draw(seed)
        verdict = self.checker.run(schedule)
        if verdict.wrong is not None:
            self._console.print(f"seed {seed}: {verdict.wrong}", markup=False)
            schedule = shortest(schedule, self.checker.fails)
            self._console.print(f"the shortest that fails:\n{schedule}", markup=False)
        return {**verdict.record(), "schedule": str(schedule)}

    def _with_processes(self, seed: int) -> dict[str, Any]:
        count = self._folder / "processes.epochs"
        os.environ[COUNTER] = str(count)
        places = (self._folder / "small.yaml", self._folder / "processes", self._folder / "undisturbed", count)
        verdict = processes.run(seed, *places, self.checker.epochs)
        if verdict.wrong is not None:
            self._console.print(f"seed {seed}, with processes: {verdict.wrong}", markup=False)
        return verdict.record()


def _lines(record: Path) -> list[str]:
    return record.read_text().splitlines() if record.exists() else []


def _summarise(lines: list[dict[str, Any]], epochs: int, console: Console) -> int:
    faults: Counter[str] = Counter()
    for line in lines:
        faults.update(line["faults"])
    wrong = [line for line in lines if line["wrong"] is not None]
    ratios = sorted(line["epochs"] / epochs for line in lines)
    console.print(f"{len(lines)} schedules, {sum(line['drivers'] for line in lines)} drivers, {faults.total()} faults")
    console.print(", ".join(f"{kind} {count}" for kind, count in faults.most_common()), soft_wrap=True)
    if ratios:
        mean, nine_tenths = sum(ratios) / len(ratios), ratios[int(0.9 * (len(ratios) - 1))]
        console.print(f"epochs begun, of those of an undisturbed study: mean {mean:.3f}, 90 % below {nine_tenths:.3f}")
    console.print(f"wrong: {len(wrong)}" + (f" (seeds {[line['seed'] for line in wrong]})" if wrong else ""))
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())

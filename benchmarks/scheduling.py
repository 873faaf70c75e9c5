"""``python -m benchmarks.scheduling``: what a study takes beyond the time that its stages take.

The stages sleep for a second each, and train a small net by two steps; they are scheduled, published and written to
Parquet like any others. The least there is are the same stages one after the other in a bare process, without Ray and
without a storage, divided by the slots. Ray's own figure for 10,000 trials of one second on 16 CPUs is 1.14 times the
least (Ray Tune's guide, "Scalability and overhead benchmarks"). Stages that do not sleep show whether the last of
thousands costs more than the first.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from statistics import median

import torch

from benchmarks.goals import Goal, show
from benchmarks.studies import run_stages
from study.config import StudyConfig, load_config
from study.graph import Stage, StageGraph
from study.keys import contents, stage_key
from study.run.tables import write_tables
from trainables.data import ArrayPixels, ImageSet, Pixels, Places
from trainables.hyperparameters import ReferenceParams, StageSpec, TrainConfig
from trainables.sessions import Session
from trainables.settings import DataConfig
from trainables.stages import run_stage

SLOTS, SECONDS, OVERHEAD, FLAT = 2, 1.0, 1.10, 1.10
WINDOW = 200
"""So many stages at the beginning are compared with as many at the end, without the very first ones."""
WARM_UP = 20
TRAIN = TrainConfig(epochs=1, learning_rate=0.01, batch_size=8)


def one_second(config: DataConfig, places: Places) -> ImageSet:
    """Two classes of noise; who opens the pixels sleeps for a second."""
    return _noise(SECONDS)


def no_time(config: DataConfig, places: Places) -> ImageSet:
    """The same without a rest."""
    return _noise(0)


def _noise(seconds: float) -> ImageSet:
    shape, labels = (1, 24, 24), torch.arange(32) % 2
    images = torch.randint(256, (len(labels), *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def pixels() -> Pixels:
        time.sleep(seconds)
        return ArrayPixels(images)

    return ImageSet("noise", labels, ("0", "1"), shape, f"noise, {seconds} s", pixels)


def bare(stages: int = 11) -> float:
    """Seconds of such a stage in this process, with nothing around it: the median, without the first one's imports."""
    torch.set_num_threads(1)
    seconds = []
    for stage in references(load_config("digits"), stages, "one_second").stages.values():
        started = time.perf_counter()
        run_stage(stage.spec, {}, Session())
        seconds.append(time.perf_counter() - started)
    return median(seconds[1:])


@dataclass(frozen=True)
class Timing:
    """How long a run took."""

    seconds: float
    """From the first stage's start to the end of the experiment, without the start of Ray."""
    starts: list[float]
    """When each stage began, in seconds, ascending."""

    def pace(self, first: int) -> float:
        """Seconds from stage to stage, in a window that begins with the given one."""
        return (self.starts[first + WINDOW] - self.starts[first]) / WINDOW


def references(config: StudyConfig, count: int, data_set: str) -> StageGraph:
    """So many stages, which need nothing of each other."""
    images = DataConfig(name=f"{__spec__.name}:{data_set}", test_share=0.25, val_per_class=4)
    graph, params = StageGraph(), ReferenceParams(train=TRAIN)
    for seed in range(count):
        spec = StageSpec(kind="reference", network="small_alexnet", data=images, seed=seed, params=params)
        graph.add_stage(Stage(stage_key(spec, {}, config.data), spec, {}, 1, contents(spec, config.data)))
    return graph


def run(count: int, data_set: str) -> Timing:
    """Run N stages as a study does."""
    config = load_config("digits")
    with tempfile.TemporaryDirectory() as folder:
        graph = references(config, count, data_set)
        experiment = run_stages(config, graph, folder, SLOTS)
        write_tables(experiment, config)
        rows = experiment.storage.rows("stages", graph.stages)
        starts = [start.timestamp() for start in rows["started_at"].to_pylist()]
    return Timing(experiment.seconds, sorted(starts))


def main() -> int:
    """Measure, print, and give the exit status."""
    parser = argparse.ArgumentParser(allow_abbrev=False, prog="python -m benchmarks.scheduling", description=__doc__)
    parser.add_argument("--stages", type=int, default=200, help="stages of a second (default: %(default)s)")
    parser.add_argument("--many", type=int, default=2000, help="stages without a rest (default: %(default)s)")
    options = parser.parse_args()
    slept, awake = run(options.stages, "one_second"), run(options.many, "no_time")
    alone = bare()
    least = options.stages * alone / SLOTS
    first, last = awake.pace(WARM_UP), awake.pace(options.many - WINDOW - 1)
    print(
        f"{options.stages} stages of {alone:.3f} s ({SECONDS:g} s of it asleep) on {SLOTS} slots: "
        f"{slept.seconds:.1f} s, the least is {least:.1f} s"
    )
    print(
        f"{options.many} stages without a rest: {1000 * first:.1f} ms from stage to stage, {1000 * last:.1f} at the end"
    )
    return show(
        [
            Goal(f"time of {options.stages} stages of a second over the least", slept.seconds / least, "<=", OVERHEAD),
            Goal(f"cost of the last {WINDOW} of {options.many} stages over the first", last / first, "<=", FLAT),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())

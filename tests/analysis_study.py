"""A small synthetic study for the tests of ``analysis``: every number in it is one that a test can work out by hand."""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

import analysis
from analysis.figures.paper import Plot
from analysis.loading import Results, frame
from analysis.nets import outcomes
from analysis.reporting import page, table_files, tables
from analysis.tables import writing
from analysis.tables.table import Table
from study import schema
from study.facts import StudyFacts
from study.files import Folder

SEEDS = (0, 1, 2)
PACKAGES = json.dumps({"python": "3.11.9", "torch": "2.9.0", "ray": "2.60.0"})
ACCURACY = {
    "Standard-TransferNet": 80.0,
    "Hybrid-TransferNet(S+K-)": 80.5,
    "Hybrid-TransferNet(S-K+)": 81.0,
    "Hybrid-TransferNet": 82.0,
}
CURVE = {0.2: 82.5, 0.1: 83.0, 0.05: 83.5, 0.025: 81.0, 0.0125: 77.0}
# Other seeds have none: they are for accuracies that are drawn again.
OFFSET = defaultdict(float, {0: -0.5, 1: 0.1, 2: 0.4})
WIGGLE = defaultdict(float, {0: 0.1, 1: -0.2, 2: 0.3})
DENSE = 57_000
STREAMS = ("spatial", "temporal", "two-stream")
STREAM_ACCURACY = {
    "Standard-TransferNet": (43.0, 59.0, 61.0),
    "Hybrid-TransferNet": (44.0, 59.5, 61.6),
    "Sparse-TargetNet_C85": (44.5, 60.5, 63.0),
}
STREAM_PRUNE = {
    "Standard-TransferNet": (0.0, 0.0, 0.0),
    "Hybrid-TransferNet": (78.2, 78.5, 78.3),
    "Sparse-TargetNet_C85": (85.0, 85.0, 85.0),
}


class Study:
    """A study folder in the making; tests change its rows, then write it."""

    def __init__(self, seeds: tuple[int, ...] = SEEDS, **description: Any) -> None:
        self.description: dict[str, Any] = {
            "name": "digits",
            "title": "Letters to digits",
            "source": {"name": "letters", "title": "Letters", "classes": 26},
            "target": {"name": "digits", "title": "Digits", "classes": 3},
            "network": "small_alexnet",
            "seeds": list(seeds),
            "published": "Flower102",
            "same_data": False,
            "tau": 4.0,
            "streams": [],
            "fusion": {},
            "evaluation": "",
        } | description
        self.rows: dict[str, list[dict[str, Any]]] = {name: [] for name in schema.TABLES}
        for seed in seeds:
            self._seed(seed)

    def _seed(self, seed: int) -> None:
        self._stage("reference", f"reference-{seed}", seed, 90.0, 0.0)
        self._stage("source_prune", f"sparse-{seed}", seed, 89.0, 88.0)
        self._stage("knowledge", f"knowledge-{seed}", seed, None, None)
        for net, accuracy in ACCURACY.items():
            knowledge = "none" if net in ("Standard-TransferNet", "Hybrid-TransferNet(S+K-)") else "reference"
            sparsity = "none" if net in ("Standard-TransferNet", "Hybrid-TransferNet(S-K+)") else "magnitude"
            stage, offset = (
                f"{net}-{seed}",
                OFFSET[seed] + WIGGLE[seed] * (net != "Standard-TransferNet"),
            )
            self._stage("transfer", stage, seed, accuracy + offset, 63.8 if sparsity == "magnitude" else 0.0)
            tables = ["table1"] + ["table3"] * (net in ("Standard-TransferNet", "Hybrid-TransferNet"))
            self._cell("paper", net, tables, seed, stage, sparsity=sparsity, knowledge=knowledge)
            self._epochs(stage, knowledge != "none")
        self._knowledge(f"Hybrid-TransferNet-{seed}", seed)
        for keep, accuracy in CURVE.items():
            name = f"C{100 - 100 * keep:g}"
            for curve, loss in (("Sparse-TargetNet", 0.0), ("Sparse-TargetNet(K-)", 0.7)):
                stage = f"{curve}_{name}-{seed}"
                self._stage("target_prune", stage, seed, accuracy - loss + OFFSET[seed], 100 - 100 * keep)
                tables = ["table3"] * (loss == 0 and keep in (0.1, 0.0125))
                target = "none" if loss else "reference"
                self._cell(
                    "paper", f"{curve}_{name}", tables, seed, stage, curve=curve, keep=keep, target_knowledge=target
                )
        stage = f"neurons-{seed}"
        self._stage("neuron_prune", stage, seed, 80.1 + OFFSET[seed], 98.9 + 0.01 * seed)
        self._cell(
            "paper", "Sparse-TargetNet_N", ["table2", "table3"], seed, stage, keep=0.0125, target_knowledge="reference"
        )
        self._layers(stage, seed)
        for sparsity, knowledge in (("random", "reference"), ("magnitude", "shuffled"), ("random", "shuffled")):
            stage = f"control-{sparsity}-{knowledge}-{seed}"
            self._stage("transfer", stage, seed, 79.0 + OFFSET[seed], 63.8)
            self._cell(
                "controls", "Hybrid-TransferNet", ["controls"], seed, stage, sparsity=sparsity, knowledge=knowledge
            )

    def results(self) -> Results:
        """The study as the analysis reads it, without a folder."""
        frames = {name: frame(name, schema.table(name, rows)) for name, rows in self.rows.items()}
        return Results(Folder("."), StudyFacts.model_validate(self.description), **frames)

    def _stage(self, kind: str, stage: str, seed: int, accuracy: float | None, prune: float | None) -> None:
        row: dict[str, Any] = {"stage": stage, "kind": kind, "status": "done"}
        row |= {"network": "small_alexnet", "data": "digits"}
        row |= {"seed": seed, "parents": "{}", "hyperparameters": "{}", "rounds": 1, "epochs": 4, "images": 100}
        row |= {"test_accuracy": accuracy, "prune_percent": prune, "connections_dense": DENSE, "seconds": 1.5}
        row |= {"connections": None if prune is None else round(DENSE * (1 - prune / 100))}
        row |= {"val_accuracy": None if accuracy is None else accuracy - 1}
        row |= {"package_versions": PACKAGES, "code_version": "0.1.0 (abc1234)", "device": "cpu"}
        self.rows["stages"].append(row)

    def _cell(self, ablation: str, net: str, tables: list[str], seed: int, stage: str, **more: Any) -> None:
        row = {"ablation": ablation, "net": net, "tables": tables, "seed": seed, "stage": stage, "n_m": 2}
        row |= {"sparsity": "magnitude", "knowledge": "reference", "target_knowledge": "none"}
        row |= {"path": [f"reference-{seed}", f"sparse-{seed}", f"knowledge-{seed}", stage]} | more
        if row["knowledge"] != "none":
            row |= {"tau": 4.0, "lambda_": 1.0, "n_e": 2}
        self.rows["cells"].append(row)

    def _epochs(self, stage: str, knowledge: bool) -> None:
        for epoch in range(1, 5):
            row = {"stage": stage, "round": 0, "epoch": epoch, "learning_rate": 0.01, "loss": 1.0, "loss_main": 1.0}
            row |= {"train_accuracy": 60.0 + 8 * epoch, "val_accuracy": 58.0 + 6 * epoch if epoch % 2 == 0 else None}
            if knowledge:
                row |= {
                    "loss_extra": 2.0,
                    "loss_ratio": 2.0 / epoch,
                    "kl_ratio": 0.2 / epoch,
                    "gradient_ratio": 0.4 / epoch,
                }
            self.rows["epochs"].append(row)

    def _knowledge(self, stage: str, seed: int) -> None:
        shares = {"zero": (0.5, 0.2, 0.1, 0.08, 0.06, 0.04), "one": (0.3, 0.2, 0.15, 0.1, 0.05, 0.04)}
        shares["eight"] = (0.2, 0.18, 0.16, 0.14, 0.12, 0.1)
        for target, probabilities in shares.items():
            for rank, (source, share) in enumerate(zip("OIBSQZ", probabilities, strict=True), start=1):
                row = {"stage": stage, "tau": 4.0, "target_class": target, "images": 50, "class_rank": rank}
                row |= {"source_class": source, "probability": share + 0.001 * (seed - 1) * (rank == 1)}
                self.rows["knowledge"].append(row)

    def _layers(self, stage: str, seed: int) -> None:
        sizes = [
            ("conv1", "convolution", 32, 32, 900, 800),
            ("fc6", "inner_product", 256, 128, 4000, 2000 + 100 * seed),
        ]
        sizes += [("fc7", "inner_product", 128, 96, 2000, 1000), ("fc8", "inner_product", 3, 3, 300, 200)]
        for index, (layer, kind, neurons_before, neurons, before, after) in enumerate(sizes, start=1):
            row = {"stage": stage, "layer_index": index, "layer": layer, "type": kind, "connections_dense": 10 * before}
            row |= {"connections_before": before, "connections": after}
            row |= {"neurons_before": neurons_before, "neurons": neurons}
            self.rows["layers"].append(row)

    def axis(
        self, ablation: str, points: Mapping[str, float | None], own: str, values: Mapping[str, float], **more: Any
    ) -> None:
        """Add an axis: each point's number, the own one, and each point's accuracy (seeds as :data:`OFFSET` has them).

        The own point is the paper's stage where the study has it, as the stage graph shares it.
        """
        net = more.pop("net", "Hybrid-TransferNet")
        for seed in self.description["seeds"]:
            for index, (point, value) in enumerate(points.items()):
                shared = f"{net}-{seed}"
                stage = shared if point == own and self._has(shared) else f"{ablation}-{net}-{point}-{seed}"
                if not self._has(stage):
                    self._stage(
                        "transfer",
                        stage,
                        seed,
                        values[point] + OFFSET[seed] + WIGGLE[seed] * index,
                        63.8,
                    )
                place = {"point": point, "point_index": index, "point_value": value, "own_point": point == own}
                self._cell(ablation, net, [], seed, stage, **(place | more))

    def two_stream(self) -> None:
        """Turn the study into one of two streams and their fusion (seeds as :func:`stream_accuracy` has them)."""
        self.description |= {"streams": ["spatial", "temporal"], "fusion": {"spatial": 1, "temporal": 4}}
        self.description |= {"evaluation": "ten crops", "published": "HMDB51"}
        for net, rates in STREAM_PRUNE.items():
            for stream, prune in zip(STREAMS, rates, strict=True):
                for seed in self.description["seeds"]:
                    self._stream_cell(net, stream, seed, prune)
        self.only("two-stream")

    def _stream_cell(self, net: str, stream: str, seed: int, prune: float) -> None:
        stage, fused, pruned = f"{stream}-{net}-{seed}", stream == "two-stream", net.endswith("C85")
        kind = "fusion" if fused else "target_prune" if pruned else "transfer"
        self._stage(kind, stage, seed, stream_accuracy(net, stream, seed), prune)
        self.rows["stages"][-1] |= {"test_top5_accuracy": stream_accuracy(net, stream, seed) + 20}
        plain = net == "Standard-TransferNet"
        more: dict[str, Any] = {"stream": stream, "sparsity": "none" if plain else "magnitude"}
        more |= {"knowledge": "none" if plain else "reference", "keep": 0.15 if pruned else None}
        parts = [f"{part}-{net}-{seed}" for part in STREAMS[:2]] if fused else []
        self._cell("two-stream", net, ["table4"], seed, stage, **more, path=[f"reference-{seed}", *parts, stage])
        if kind == "transfer":
            self._epochs(stage, not plain)
            if not plain:
                self._knowledge(stage, seed)

    def confuse(self, stage: str, images: Mapping[str, Mapping[str, int]]) -> None:
        """Plant a stage's confusion: images by target class and predicted class."""
        self.rows["confusion"] += [
            {"stage": stage, "target_class": target, "predicted_class": predicted, "images": number}
            for target, taken in images.items()
            for predicted, number in taken.items()
        ]

    def control_study(self) -> None:
        """Turn the study into a control study, with the controls of the nets that have but one of S and K."""
        self.description["control_study"] = True
        for seed in self.description["seeds"]:
            for sparsity, knowledge, name in (
                ("none", "shuffled", "S-, K shuffled"),
                ("random", "none", "S random, K-"),
            ):
                stage, net = f"control-{sparsity}-{knowledge}-{seed}", f"Hybrid-TransferNet({name})"
                self._stage("transfer", stage, seed, 79.0 + OFFSET[seed], 0.0 if sparsity == "none" else 63.8)
                self._cell("controls", net, ["controls"], seed, stage, sparsity=sparsity, knowledge=knowledge)

    def simulate(self, gains: Mapping[str, float], spread: float = 0.3, seed: int = 0) -> None:
        """Draw every net's accuracy again: 80 %, what its seed does, a gain by net or control, and normal noise."""
        rng = np.random.default_rng(seed)
        of_seed = {number: rng.normal(0, 2) for number in self.description["seeds"]}
        for row in self.rows["stages"]:
            if row["kind"] in ("transfer", "target_prune", "neuron_prune"):
                net = row["stage"].removesuffix(f"-{row['seed']}")
                row["test_accuracy"] = 80 + of_seed[row["seed"]] + gains.get(net, 0.0) + rng.normal(0, spread)

    def search(
        self,
        trials: Mapping[int, Mapping[str, Any]],
        finalists: Mapping[str, float],
        importance: Mapping[str, Sequence[float]] | None = None,
        **more: Any,
    ) -> None:
        """Turn the study into a search.

        Args:
            trials: columns of each trial, by number; the mean of ``val_accuracies`` is added.
            finalists: accuracy of each finalist in the final test (seeds as :data:`OFFSET` and :data:`WIGGLE` have
                them), the study's own settings first.
            importance: each hyperparameter's share, one value a seed of the search.
            more: columns of the finalists' cells.
        """
        own = next(iter(finalists))
        self.axis("search", dict.fromkeys(finalists), own, finalists, **more)
        self.only("search")
        shares = importance or {}
        self.rows["trials"] = [_trial(number, columns) for number, columns in trials.items()]
        self.rows["importance"] = [
            {"hyperparameter": name, "seed": seed, "importance": share, "trials": len(trials)}
            for name, values in shares.items()
            for seed, share in enumerate(values)
        ]

    def _has(self, stage: str) -> bool:
        return any(row["stage"] == stage for row in self.rows["stages"])

    def only(self, *ablations: str) -> None:
        """Keep the cells of these ablations, and the stages that they need."""
        self.rows["cells"] = [row for row in self.rows["cells"] if row["ablation"] in ablations]
        needed = {stage for row in self.rows["cells"] for stage in row["path"]}
        for name in ("stages", "epochs", "layers", "knowledge", "confusion"):
            self.rows[name] = [row for row in self.rows[name] if row["stage"] in needed]

    def fail(self, stage: str, error: str, *, skipped: tuple[str, ...] = ()) -> None:
        """Let a stage fail, and its children be skipped."""
        for row in self.rows["stages"]:
            if row["stage"] == stage:
                row |= {
                    "status": "failed",
                    "error": error,
                    "test_accuracy": None,
                    "val_accuracy": None,
                    "prune_percent": None,
                }
            if row["stage"] in skipped:
                row |= {
                    "status": "skipped",
                    "error": f"{stage} failed",
                    "test_accuracy": None,
                    "val_accuracy": None,
                    "prune_percent": None,
                }

    def write(self, folder: Path) -> Path:
        """Write the folder as a study does."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "study.json").write_text(json.dumps(self.description), encoding="utf-8")
        for name, rows in self.rows.items():
            pq.write_table(schema.table(name, rows), folder / f"{name}.parquet")
        return folder


def stream_accuracy(net: str, stream: str, seed: int) -> float:
    """Test accuracy in % of a net of :meth:`Study.two_stream`; its validation accuracy is one less."""
    place = STREAMS.index(stream)
    return (
        STREAM_ACCURACY[net][place] + OFFSET[seed] + WIGGLE[seed] * (place + 2 * list(STREAM_ACCURACY).index(net) % 3)
    )


def _trial(number: int, columns: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"trial": number, "state": "complete", "origin": "sampler", "best": False, "stages": []}
    row |= {"val_accuracies": [], "hyperparameters": {}} | dict(columns)
    values = row["val_accuracies"]
    mean = sum(values) / len(values) if values else None
    return row | {"hyperparameters": json.dumps(row["hyperparameters"]), "val_accuracy": mean}


def writer(folder: Path) -> Callable[..., Path]:
    """Gives a function that writes the study with changes to its rows and its description, and returns the folder."""

    def _write(change: Callable[[Study], object] = lambda study: None, **kwargs: Any) -> Path:
        study = Study(**kwargs)
        change(study)
        return study.write(folder)

    return _write


def table(folder: Path, name: str) -> Table:
    return next(table for table in tables(analysis.load(folder)) if table.name == name)


def records(folder: Path, name: str) -> dict[str, dict[str, str]]:
    """The rows of the table's CSV by point, by layer or else by net."""
    rows = csv.DictReader(io.StringIO(writing.csv(table(folder, name))))
    return {row.get("point") or row.get("layer") or row["net"]: row for row in rows}


def shown(folder: Path, name: str) -> dict[str, list[str]]:
    """The cells of the table's Markdown by the first column."""
    return columns(writing.markdown(table(folder, name)))


def draw(figure: Callable[[Results, pd.DataFrame], Plot | None], folder: Path) -> Plot:
    results = analysis.load(folder)
    plot = figure(results, outcomes(results))
    assert plot is not None
    return plot


def page_of(folder: Path) -> str:
    """The report's page without its pictures, which take most of a report's time."""
    results = analysis.load(folder)
    return page(results, outcomes(results), tables(results), {})


def files_of(folder: Path) -> dict[str, str]:
    """The report's files of tables, by name."""
    return {name: content.decode() for name, content in table_files(tables(analysis.load(folder))).items()}


def columns(markdown: str) -> dict[str, list[str]]:
    """The first table of a Markdown text, by the first column."""
    lines = [line.strip("| ").split("|") for line in markdown.splitlines() if line.startswith("|")]
    return {line[0].strip(): [text.strip() for text in line[1:]] for line in lines}

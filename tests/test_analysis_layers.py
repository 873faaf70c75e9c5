"""The figure of what each layer keeps, and learning curves of a single epoch."""

from collections.abc import Callable
from pathlib import Path

import pytest

import analysis
from analysis.figures.layers import layers_figure
from analysis.figures.paper import learning_curves
from tests.analysis_study import SEEDS, Study, draw, writer

DENSE = {"conv1": (1_000, 32), "fc6": (40_000, 256), "fc8": (3_000, 3)}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    return writer(tmp_path / "study")


def plant(study: Study, net: str, share: Callable[[int], float], neurons: int = 256) -> None:
    for seed in SEEDS:
        for index, (layer, (connections, width)) in enumerate(DENSE.items(), start=1):
            kept = round(connections * share(seed))
            row = {"stage": f"{net}-{seed}", "layer_index": index, "layer": layer, "connections_dense": connections}
            row |= {"type": "convolution" if layer == "conv1" else "inner_product", "connections_before": connections}
            row |= {"neurons_before": width, "neurons": neurons if layer == "fc6" else width, "connections": kept}
            study.rows["layers"].append(row)


def test_every_layer_stands_with_what_it_keeps(write: Callable[..., Path]) -> None:
    def change(study: Study) -> None:
        study.rows["layers"].clear()
        plant(study, "Standard-TransferNet", lambda seed: 1.0)
        plant(study, "Sparse-TargetNet_C90", lambda seed: 0.1)
        plant(study, "neurons", lambda seed: 0.02 + 0.01 * seed, neurons=64)

    folder = write(change)
    data = draw(layers_figure, folder).data.set_index(["net", "layer"])
    assert [*data.index.unique("net")] == ["Standard-TransferNet", "Sparse-TargetNet_C90", "Sparse-TargetNet_N"]
    assert data.loc[("Sparse-TargetNet_C90", "fc6"), "connections_mean"] == pytest.approx(10)
    assert data.loc[("Sparse-TargetNet_N", "fc6"), "connections_mean"] == pytest.approx(3)
    assert data.xs("Sparse-TargetNet_N")["neurons_mean"].to_dict() == {"conv1": 100, "fc6": 25, "fc8": 100}
    report = analysis.report(folder).parent
    assert (report / "layers.png").exists() and 'id="layers"' in (report / "index.html").read_text(encoding="utf-8")


def test_where_no_neuron_is_pruned_none_are_shown(write: Callable[..., Path]) -> None:
    def change(study: Study) -> None:
        study.rows["layers"].clear()
        plant(study, "Standard-TransferNet", lambda seed: 1.0)

    plot = draw(layers_figure, write(change))
    assert len(plot.figure.axes) == 1 and "neurons_mean" not in plot.data


@pytest.mark.parametrize("epochs", [1, 4])
def test_a_learning_curve_of_one_point_has_a_marker(write: Callable[..., Path], epochs: int) -> None:
    def change(study: Study) -> None:
        study.rows["epochs"] = [row for row in study.rows["epochs"] if row["epoch"] <= epochs]
        for row in study.rows["epochs"]:
            row["val_accuracy"] = 50.0

    lines = draw(learning_curves, write(change)).figure.axes[0].lines
    assert lines and {line.get_marker() for line in lines} == ({"o"} if epochs == 1 else {""})

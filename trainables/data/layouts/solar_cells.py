"""Photographs of solar cells, as the package elpv-dataset carries them."""

from pathlib import Path

import torch

from trainables.data.layouts.catalogue import Catalogue, Problem, layout
from trainables.hyperparameters import DataConfig

LABELS = "labels.csv"
CLASSES = ("functional", "defective")


@layout(
    "elpv",
    title="ELPV solar cells",
    medium="images",
    source="the package elpv-dataset (pip install -c constraints.txt -e '.[solar]'), or its folder elpv_dataset/data",
    totals={"all": 2624, "classes": 2},
    package="elpv_dataset/data",
)
def elpv(folder: Path, config: DataConfig) -> Catalogue:
    """``images/cell0001.png`` ..., with the probability of a defect and the cell's kind in ``labels.csv``.

    Electroluminescence images of 300 x 300 pixels (Deitsch et al. 2019, "Automatic classification of defective
    photovoltaic module cells in electroluminescence images"). A cell is defective where that is more likely than not.
    """
    problems: list[Problem] = []
    files, labels = [], []
    try:
        lines = (folder / LABELS).read_text(encoding="utf-8").splitlines()
        rows = [line.split() for line in lines if line.strip()]
        cells = [(name, float(probability)) for name, probability, _kind in rows]
    except FileNotFoundError:
        cells = []
        problems.append(Problem(str(folder / LABELS), "the list of images is not there"))
    except (OSError, ValueError) as error:
        cells = []
        wanted = "lines should be <image> <probability of a defect> <kind of cell>"
        problems.append(Problem(str(folder / LABELS), f"{wanted}: {error}"))
    for name, probability in cells:
        if not (folder / name).is_file():
            problems.append(Problem(str(folder / name), "the image is not there"))
            continue
        files.append(name)
        labels.append(int(probability > 0.5))
    return Catalogue(CLASSES, tuple(files), torch.tensor(labels, dtype=torch.int64), problems=tuple(problems))

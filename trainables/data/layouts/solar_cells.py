"""Photographs of solar cells, as the package elpv-dataset carries them."""

from pathlib import Path

import torch

from trainables.data.layouts.catalogue import Catalogue, Problem, layout
from trainables.data.layouts.lists import lines_of, relative_path
from trainables.settings import DataConfig

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
    cells: list[tuple[str, float]] = []
    for number, line in lines_of(folder / LABELS, problems, what="the list of images"):
        try:
            file, probability, _kind = line.split()
            cells.append((relative_path(file), float(probability)))
        except ValueError:
            wanted = "<image> <probability of a defect> <kind of cell>"
            problems.append(Problem(str(folder / LABELS), f"line {number} should be {wanted}: {line!r}"))
    for name, likely in cells:
        if not (folder / name).is_file():
            problems.append(Problem(str(folder / name), "the image is not there"))
            continue
        files.append(name)
        labels.append(int(likely > 0.5))
    return Catalogue(CLASSES, tuple(files), torch.tensor(labels, dtype=torch.int64), problems=tuple(problems))

"""``python -m benchmarks.inputs``: images a second of the input path alone, next to the usual one.

The project decodes and resizes once into a memory-mapped uint8 array, and crops, mirrors and normalises whole batches.
The usual path opens each JPEG with PIL in every epoch, in a DataLoader with torchvision's transforms. Both give the
same views: one of the classic ten crops, 224 of 256 pixels, of a few hundred generated JPEGs.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from benchmarks.goals import Goal, show
from benchmarks.step import finish
from trainables import data
from trainables.data import Places, Split
from trainables.images import Images
from trainables.seeds import generator
from trainables.settings import DataConfig

CLASSES, A_CLASS, WIDTH, HEIGHT = 4, 75, 500, 375
SIDE, SIZE, BATCH, ROUNDS = 256, 224, 25, 5
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FASTER = 10
ON_HOST = "memory-mapped uint8, too large for the GPU"
TRIED = (
    "images, crops and mirrored ones are copied whole, not by index arrays, and normalised in place, which is most of "
    "what is left; where there is a GPU it does all but reading"
)


def make_tree(root: Path) -> None:
    """``<class>/<n>.jpg``: noise made smooth, so that JPEG has about as much to decode as in a photograph."""
    draw = np.random.Generator(np.random.PCG64(0))
    for label in range(CLASSES):
        (root / str(label)).mkdir(parents=True)
        for n in range(A_CLASS):
            small = draw.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
            Image.fromarray(small).resize((WIDTH, HEIGHT)).save(root / str(label) / f"{n}.jpg", quality=90)


def project(root: Path, cache: Path, device: str) -> tuple[Callable[[int], int], float]:
    """An epoch of the project's input path, and the seconds that decoding took once."""
    config = DataConfig(name="folder", path=str(root), views="ten", size=SIDE, mean=MEAN, std=STD)
    started = time.perf_counter()
    content = data.load(config, Places(cache=str(cache)))
    none, items = torch.empty(0, dtype=torch.int64), torch.arange(len(content.labels))
    images = Images.open(content, Split(items, none, none), config, (SIZE, SIZE), torch.device(device))
    decoding = time.perf_counter() - started

    def epoch(number: int) -> int:
        views = images.views(0, number)
        order = items[torch.randperm(len(items), generator=generator(0, number))]
        pieces = [(batch, views.placement[batch]) for batch in order.split(BATCH)]
        count = sum(len(seen) for seen in images.stream(pieces))
        finish(device)
        return count

    return epoch, decoding


def usual(root: Path, workers: int, device: str) -> Callable[[int], int]:
    """An epoch of PIL and a DataLoader."""
    views = [transforms.CenterCrop(SIZE), transforms.RandomCrop(SIZE)]
    transform = transforms.Compose(
        [
            transforms.Resize(SIDE),
            transforms.RandomChoice(views),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    loader = DataLoader(
        datasets.ImageFolder(str(root), transform),
        BATCH,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )

    def epoch(number: int) -> int:
        count = sum(len(images.to(device)) for images, _ in loader)
        finish(device)
        return count

    return epoch


def main() -> int:
    """Measure, print, and give the exit status."""
    parser = argparse.ArgumentParser(allow_abbrev=False, prog="python -m benchmarks.inputs", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the images are wanted")
    parser.add_argument("--workers", type=int, default=2, help="processes of the DataLoader")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "images"
        make_tree(root)
        ours, decoding = project(root, Path(folder) / "cache", options.device)
        paths = {
            "memory-mapped uint8, this process": ours,
            "PIL + DataLoader, this process": usual(root, 0, options.device),
            f"PIL + DataLoader, {options.workers} workers": usual(root, options.workers, options.device),
        }
        if options.device != "cpu":
            with patch("trainables.images.RESIDENT_BYTES", 0):
                paths[ON_HOST], _ = project(root, Path(folder) / "cache", options.device)
        rates: dict[str, list[float]] = {name: [] for name in paths}
        for number in range(ROUNDS + 1):
            for name, epoch in paths.items():
                started = time.perf_counter()
                count = epoch(number + 1)
                if number:  # the first one starts the workers and fills the page cache
                    rates[name].append(count / (time.perf_counter() - started))
    print(f"{CLASSES * A_CLASS} JPEGs of {WIDTH} x {HEIGHT}; decoding them once took {decoding:.1f} s")
    for name, each in rates.items():
        print(f"  {name:36} {median(each):8.0f} images/s")
    on_host = rates.pop(ON_HOST, [])
    first, *others = rates.values()
    goals = []
    for name, other in zip(list(rates)[1:], others, strict=True):
        for ours_name, each in (("memory-mapped", on_host or first), ("on the device", first if on_host else [])):
            if each:
                faster = median(a / b for a, b in zip(each, other, strict=True))
                goals.append(Goal(f"{ours_name} over {name}", faster, ">=", FASTER, TRIED))
    return show(goals)


if __name__ == "__main__":
    sys.exit(main())

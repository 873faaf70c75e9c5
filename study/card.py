"""The model card of an exported net: what it takes, what it returns, how good it is, and what made it.

The same facts go into an ONNX file's metadata. The card's head is the YAML that model hubs read (metrics as
``model-index``).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from analysis.statistics.intervals import wilson
from study.run.standing import study_state
from study.storage import Storage, StorageError
from study.stored_nets import StoredNet, all_cells, connections
from trainables.data import LAYOUTS
from trainables.settings import DataConfig

MARK = "<!-- written by study.export -->"


@dataclass(frozen=True)
class Card:
    """What is known of a net."""

    title: str
    stage: str
    kind: str
    network: str
    seed: int | None
    nets: list[tuple[str, str]]
    """Study and name, as the tables call it."""
    class_names: list[str]
    """In the order of the outputs; empty if the net is not one of the target."""
    input_shape: tuple[int, int, int]
    data: DataConfig
    data_title: str
    test_accuracy: float | None
    """In percent."""
    test_images: int
    over_seeds: str
    """Mean test accuracy of this net over the study's seeds with its interval; empty if it has one seed."""
    connections: int
    dense_connections: int
    license: str
    command: str
    code_version: str

    @property
    def interval(self) -> tuple[float, float] | None:
        """The test accuracy's 95 % interval over test images, in percent (Wilson 1927)."""
        if self.test_accuracy is None or not self.test_images:
            return None
        bounds = wilson(self.test_accuracy / 100, self.test_images)
        assert bounds.low is not None and bounds.high is not None
        return 100 * bounds.low, 100 * bounds.high

    def metadata(self) -> dict[str, str]:
        """The facts as texts, each value JSON: what a program needs to feed the net and to read its outputs."""
        low, high = self.interval or (None, None)
        facts: dict[str, Any] = {
            "title": self.title,
            "class_names": self.class_names,
            "input_shape": list(self.input_shape),
            "resize": self.data.size if self.data.name in LAYOUTS else None,
            "crop": list(self.input_shape[1:]),
            "mean": self._per_channel(self.data.mean),
            "std": self._per_channel(self.data.std),
            "test_accuracy": self.test_accuracy,
            "test_accuracy_low": low,
            "test_accuracy_high": high,
            "test_images": self.test_images,
            "data": self.data_title,
            "network": self.network,
            "stage": self.stage,
            "seed": self.seed,
            "nets": [f"{study}:{net}" for study, net in self.nets],
            "license": self.license,
            "command": self.command,
            "code_version": self.code_version,
        }
        return {name: json.dumps(value, ensure_ascii=False) for name, value in facts.items()}

    def _per_channel(self, value: float | tuple[float, ...]) -> list[float]:
        return list(value) if isinstance(value, tuple) else [value] * self.input_shape[0]

    def markdown(self, file: str, format_: str) -> str:
        """The card as a README.md for a file of this name."""
        head = {
            "license": self.license,
            "pipeline_tag": "image-classification",
            "library_name": "onnx" if format_ == "onnx" else "pytorch",
            "tags": ["image-classification", "transfer-learning", "pruning", "sparse"],
            **({"model-index": [self._index()]} if self.test_accuracy is not None else {}),
        }
        sections = [
            f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n{MARK}\n",
            f"# {self.title}\n",
            f"`{file}`: {self.network}, transferred and pruned ({self.kind}). {self.connections:,} of "
            f"{self.dense_connections:,} connections are left ({self._pruned():.1f} % pruned).\n",
            "## Input and output\n",
            *self._input(),
            "\n## Accuracy\n",
            *self._accuracy(),
            "\n## Use\n",
            *self._use(file, format_),
            "\n## Origin\n",
            *self._origin(),
            "\n## Licence\n",
            f"This net: {self.license}. The licences of the images and of any pretrained weights it was made from "
            "apply too; check them before you publish it.",
        ]
        return "\n".join(sections) + "\n"

    def _pruned(self) -> float:
        return 100 - 100 * self.connections / self.dense_connections

    def _index(self) -> dict[str, Any]:
        metric: dict[str, Any] = {
            "type": "accuracy",
            "value": round(self.test_accuracy or 0, 4),
            "name": "Test accuracy, %",
        }
        data = {"type": self.data.name, "name": self.data_title, "split": "test"}
        task = {"type": "image-classification", "name": "Image classification"}
        return {"name": self.title, "results": [{"task": task, "dataset": data, "metrics": [metric]}]}

    def _input(self) -> list[str]:
        channels, height, width = self.input_shape
        lines = [f"- Input `images`: float32, batch x {channels} x {height} x {width}."]
        if self.data.name in LAYOUTS and self.data.modality == "rgb":
            lines.append(
                f"- Preprocessing: RGB; the largest centred square resized to {self.data.size} x {self.data.size} "
                f"pixels (bilinear, antialiased); centre crop of {height} x {width}."
            )
        lines.append(
            f"- Normalisation per channel: (pixel / 255 - mean) / std with mean {self._per_channel(self.data.mean)} "
            f"and std {self._per_channel(self.data.std)}."
        )
        names = f": {', '.join(self.class_names)}" if self.class_names else ", in the order of the data set"
        return [*lines, f"- Output `logits`: one per class{names}."]

    def _accuracy(self) -> list[str]:
        if self.test_accuracy is None:
            return ["No test accuracy was measured."]
        lines = [f"- Test accuracy: {self.test_accuracy:.2f} %"]
        if (bounds := self.interval) is not None:
            lines[0] += (
                f", 95 % interval over the {self.test_images:,} test images {bounds[0]:.2f} to {bounds[1]:.2f} %"
            )
        lines[0] += f" ({self.data_title})."
        return [*lines, *([f"- {self.over_seeds}"] if self.over_seeds else [])]

    def _use(self, file: str, format_: str) -> list[str]:
        if format_ == "safetensors":
            return ["`trainables.export` reads the file as an `nn.Module`: see docs/export.md of the project."]
        if format_ == "pt2":
            return [f'```python\nimport torch\n\nnet = torch.export.load("{file}").module()\n```']
        return (
            [f"```python\n{EXAMPLE.format(file=file)}```"]
            if self.data.name in LAYOUTS
            else [f'```python\nimport onnxruntime\n\nsession = onnxruntime.InferenceSession("{file}")\n```']
        )

    def _origin(self) -> list[str]:
        named = [f"- {net} of the study {study}, seed {self.seed}." for study, net in self.nets]
        code = f", code {self.code_version}" if self.code_version else ""
        return [*named, f"- Stage `{self.stage}`{code}.", f"- Written by `{self.command}`."]


EXAMPLE = """import json
import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession("{file}")
about = {{key: json.loads(text) for key, text in session.get_modelmeta().custom_metadata_map.items()}}
size, (height, width) = about["resize"], about["crop"]
photo = Image.open("photo.jpg")
photo.draft("RGB", (size, size))  # decodes a large JPEG at a smaller scale, as the study does
square = ImageOps.fit(photo.convert("RGB"), (size, size), Image.Resampling.BILINEAR)
top, left = (size - height) // 2, (size - width) // 2
pixels = np.asarray(square, np.float32)[top : top + height, left : left + width] / 255
images = ((pixels - np.float32(about["mean"])) / np.float32(about["std"])).transpose(2, 0, 1)[None]
(logits,) = session.run(None, {{"images": images.astype(np.float32)}})
shares = np.exp(logits[0] - logits[0].max())
shares /= shares.sum()
print(about["class_names"][shares.argmax()], shares.max())
"""
"""A user's own program; the test of docs/export.md runs it."""


def card_of(storage: Storage, stored: StoredNet, license_: str, command: str) -> Card:
    """The card of a stored net.

    Raises:
        StorageError: the storage cannot be read.
    """
    (row,) = storage.rows("stages", [stored.key]).to_pylist()
    confusion = storage.rows("confusion", [stored.key]).to_pylist()
    # In the order of labels; a class without a test image has no row, and then the names are not known.
    names = list(dict.fromkeys(pair["target_class"] for pair in confusion))
    nets = _nets(storage, stored)
    title = f"{nets[0][1]} of {nets[0][0]}" if nets else stored.key
    return Card(
        title=title,
        stage=stored.key,
        kind=stored.kind,
        network=stored.network,
        seed=row["seed"],
        nets=nets,
        class_names=names if len(names) == stored.net.classes else [],
        input_shape=stored.net.input_shape,
        data=DataConfig.model_validate(json.loads(row["hyperparameters"])["data"]),
        data_title=row["data"],
        test_accuracy=row["test_accuracy"],
        test_images=sum(pair["images"] for pair in confusion),
        over_seeds=_over_seeds(storage, nets),
        connections=connections(stored.net),
        dense_connections=stored.dense_connections,
        license=license_,
        command=command,
        code_version=row["code_version"] or "",
    )


def _nets(storage: Storage, stored: StoredNet) -> list[tuple[str, str]]:
    own = (pair for pair in all_cells(storage) if pair[1]["stage"] == stored.key and pair[1]["point"] is None)
    return list(dict.fromkeys((study, cell["net"]) for study, cell in own))


def _over_seeds(storage: Storage, nets: list[tuple[str, str]]) -> str:
    for study, name in nets:
        try:
            shown = study_state(storage, study).nets
        except StorageError:
            continue
        for net in shown:
            if net.net == name and net.point is None and net.half_width is not None and net.stream is None:
                return (
                    f"Over the {len(net.seeds)} seeds of the study {study}: {net.test_accuracy:.2f} ± "
                    f"{net.half_width:.2f} % (mean and 95 % interval)."
                )
    return ""


def place_of_card(out: Path) -> Path:
    """Where the card of a file is written: README.md next to it, unless there is one that is not a card."""
    beside = out.with_name("README.md")
    if beside.is_file() and MARK not in beside.read_text(encoding="utf-8", errors="replace"):
        return out.with_name(f"{out.stem}-README.md")
    return beside

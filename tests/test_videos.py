"""Videos: catalogues of the official layouts, frames, flow, and the clips that stand in for real videos."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests import clips
from trainables import networks
from trainables.data import LAYOUTS, Catalogue, DataError
from trainables.data.flow import displacement, estimator, mirror, quantise
from trainables.data.videos import decode_item, shape, starts, verify
from trainables.settings import DataConfig, FlowMethod

UCF101 = DataConfig(name="ucf101")
HMDB51 = DataConfig(name="hmdb51")
METHODS: list[FlowMethod] = ["tvl1", "dis"]


def read(root: Path, config: DataConfig) -> Catalogue:
    return LAYOUTS[config.name].read(root, config)


def flow_config(**fields: Any) -> DataConfig:
    return DataConfig(**{"name": "ucf101", "modality": "flow", "flow": "dis", "size": 64, "positions": 3, **fields})


@pytest.fixture(scope="module")
def ucf101(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ucf101")
    clips.make_ucf101(root)
    return root


@pytest.fixture(scope="module")
def hmdb51(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hmdb51")
    clips.make_hmdb51(root)
    return root


def test_official_totals() -> None:
    assert LAYOUTS["ucf101"].totals == {"train": 9537, "test": 3783, "classes": 101}
    assert LAYOUTS["hmdb51"].totals == {"train": 3570, "test": 1530, "classes": 51}
    assert {LAYOUTS[name].medium for name in ("ucf101", "hmdb51")} == {"videos"}


def test_ucf101_is_read_by_its_lists(ucf101: Path) -> None:
    catalogue = read(ucf101, UCF101)
    assert catalogue.problems == ()
    assert catalogue.class_names == ("MoveLeft", "MoveRight", "MoveUp", "MoveDown")
    assert catalogue.files[0] == "UCF-101/MoveLeft/v_MoveLeft_g01_c01.avi"
    assert catalogue.labels.bincount().tolist() == [12] * 4
    for part, groups in (("train", (8, 9, 10, 11)), ("test", (1, 2))):
        files = [catalogue.files[item] for item in catalogue.parts[part].tolist()]
        assert files == [
            f"UCF-101/{label}/v_{label}_g{group:02d}_c{clip:02d}.avi"
            for label in catalogue.class_names
            for group in groups
            for clip in (1, 2)
        ]


@pytest.mark.parametrize("videos", ["{label}", "."])
def test_ucf101_unpacked_otherwise_has_the_same_items(ucf101: Path, tmp_path: Path, videos: str) -> None:
    clips.make_ucf101(tmp_path, videos=videos)
    official, other = read(ucf101, UCF101), read(tmp_path, UCF101)
    assert other.problems == ()
    assert [Path(file).name for file in other.files] == [Path(file).name for file in official.files]
    assert torch.equal(other.labels, official.labels)
    assert all((tmp_path / file).is_file() for file in other.files)


def test_hmdb51_is_read_by_its_lists(hmdb51: Path) -> None:
    catalogue = read(hmdb51, HMDB51)
    assert catalogue.problems == ()
    assert catalogue.class_names == ("move_down", "move_left", "move_right", "move_up")
    assert len(catalogue.files) == 4 * 12  # the unused clip of each class is no item
    assert {part: len(items) for part, items in catalogue.parts.items()} == {"train": 4 * 8, "test": 4 * 4}
    assert all((hmdb51 / file).is_file() for file in catalogue.files)
    assert [catalogue.class_names[label] for label in catalogue.labels.tolist()] == [
        file.partition("/")[0] for file in catalogue.files
    ]


def _remove(name: str) -> Callable[[Path], object]:
    def damage(root: Path) -> None:
        path = root / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()

    return damage


def _append(name: str, line: str) -> Callable[[Path], object]:
    def damage(root: Path) -> None:
        with (root / name).open("a") as file:
            file.write(line + "\n")

    return damage


def _empty(name: str) -> Callable[[Path], object]:
    return lambda root: (root / name).write_text("")


LISTS = "ucfTrainTestlist"
SPLITS = "testTrainMulti_7030_splits"
LEFT = "UCF-101/MoveLeft"


@pytest.mark.parametrize(
    ("config", "damage", "path", "message"),
    [
        (UCF101, _remove("."), "", "no such folder"),
        (UCF101, _remove(LISTS), LISTS, "folder of the split is not there"),
        (UCF101, _remove(f"{LISTS}/classInd.txt"), f"{LISTS}/classInd.txt", "the list is not there"),
        (UCF101, _remove(f"{LISTS}/testlist01.txt"), f"{LISTS}/testlist01.txt", "the list is not there"),
        (UCF101, _empty(f"{LISTS}/trainlist01.txt"), f"{LISTS}/trainlist01.txt", "empty"),
        (
            UCF101,
            _append(f"{LISTS}/trainlist01.txt", "v_x.avi"),
            f"{LISTS}/trainlist01.txt",
            "line 33 should look like",
        ),
        (UCF101, _append(f"{LISTS}/classInd.txt", "5 Archery"), "", "class Archery has no train video"),
        (UCF101, _append(f"{LISTS}/testlist01.txt", "Archery/v_a.avi"), "", "class Archery, which is not in the list"),
        (
            UCF101,
            _append(f"{LISTS}/testlist01.txt", "MoveLeft/v_MoveLeft_g08_c01.avi"),
            f"{LISTS}/trainlist01.txt",
            "more than once",
        ),
        (
            UCF101,
            _remove(f"{LEFT}/v_MoveLeft_g08_c02.avi"),
            f"{LEFT}/v_MoveLeft_g08_c02.avi",
            "trainlist01.txt names this video, but it is not there",
        ),
        (UCF101, _remove(LEFT), f"{LEFT}/v_MoveLeft_g08_c01.avi", "and 11 more of class MoveLeft"),
        (UCF101, _remove("UCF-101"), "", "no .avi file"),
        (HMDB51, _remove("."), "", "no such folder"),
        (HMDB51, _remove(SPLITS), SPLITS, "folder of the split is not there"),
        (
            HMDB51,
            _remove(f"{SPLITS}/move_up_test_split1.txt"),
            f"{SPLITS}/move_up_test_split1.txt",
            "the list is not there",
        ),
        (
            HMDB51,
            _append(f"{SPLITS}/move_up_test_split1.txt", "a.avi 3"),
            f"{SPLITS}/move_up_test_split1.txt",
            "line 14 should look like",
        ),
        (HMDB51, _remove("move_up"), "move_up/Shapes_move_up_f_nm_np1_fr_med_0.avi", "and 11 more of class move_up"),
    ],
)
def test_what_is_missing_is_a_problem(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    config: DataConfig,
    damage: Callable[[Path], object],
    path: str,
    message: str,
) -> None:
    root = tmp_path / "data"
    shutil.copytree(request.getfixturevalue(config.name), root)
    damage(root)
    catalogue = read(root, config)
    assert [problem.path for problem in catalogue.problems if message in problem.message] == [str(root / path)]
    assert len(catalogue.files) == len(catalogue.labels) == sum(len(items) for items in catalogue.parts.values())
    assert all((root / file).is_file() for file in catalogue.files)


def test_a_missing_list_of_classes_leaves_the_classes_of_the_split(ucf101: Path, tmp_path: Path) -> None:
    shutil.copytree(ucf101, tmp_path, dirs_exist_ok=True)
    (tmp_path / LISTS / "classInd.txt").unlink()
    assert read(tmp_path, UCF101).class_names == ("MoveDown", "MoveLeft", "MoveRight", "MoveUp")


@pytest.mark.parametrize(
    ("frames", "positions", "needed", "expected"),
    [
        (100, 4, 1, [12, 37, 62, 87]),
        (20, 3, 11, [1, 5, 8]),  # ten starts: 0 to 9
        (11, 3, 11, [0, 0, 0]),
        (5, 2, 11, [0, 0]),
        (2, 4, 1, [0, 0, 1, 1]),
        (1, 1, 1, [0]),
    ],
)
def test_positions_are_uniform(frames: int, positions: int, needed: int, expected: list[int]) -> None:
    modality = {"modality": "rgb"} if needed == 1 else {"modality": "flow", "stack": needed - 1}
    assert starts(frames, DataConfig(name="ucf101", positions=positions, **modality)) == expected


def test_shapes() -> None:
    assert shape(DataConfig(name="ucf101", size=240)) == (3, 240, 240)
    assert shape(flow_config()) == (20, 64, 64)


def test_frames_are_those_of_their_numbers(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    written = [clips.texture(rng, 60, 80) for _ in range(17)]
    clips.write(tmp_path / "clip.avi", written)
    config = DataConfig(name="ucf101", size=60, positions=5)
    frames = decode_item(tmp_path / "clip.avi", config)
    assert frames.shape == (5, 3, 60, 60)
    assert frames.dtype == np.uint8
    for frame, number in zip(frames, starts(17, config), strict=True):
        asked = written[number][:, 10:70, ::-1].transpose(2, 0, 1).astype(float)
        errors = [np.abs(frame - other[:, 10:70, ::-1].transpose(2, 0, 1).astype(float)).mean() for other in written]
        assert int(np.argmin(errors)) == number
        assert np.abs(frame - asked).mean() < 20  # JPEG halves the resolution of colour


def test_grey_frames_are_the_luminance_of_the_frames(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    clips.write(tmp_path / "clip.avi", [clips.texture(rng, 60, 60) for _ in range(9)])
    config = DataConfig(name="ucf101", size=60, positions=3)
    colours = decode_item(tmp_path / "clip.avi", config).astype(float)
    grey = decode_item(tmp_path / "clip.avi", config.model_copy(update={"modality": "grey"}))
    assert grey.shape == (3, 1, 60, 60)
    by_hand = 0.299 * colours[:, 0] + 0.587 * colours[:, 1] + 0.114 * colours[:, 2]  # ITU-R BT.601
    assert np.abs(grey[:, 0] - by_hand).max() <= 1


def test_the_short_side_is_resized_and_the_centre_cropped(tmp_path: Path) -> None:
    tall = np.zeros((120, 60, 3), np.uint8)
    tall[40:80] = 200
    clips.write(tmp_path / "clip.avi", [tall] * 3)
    frame = decode_item(tmp_path / "clip.avi", DataConfig(name="ucf101", size=30, positions=1))[0]
    assert frame.shape == (3, 30, 30)
    bright = frame[0].mean(axis=1) > 100
    assert np.flatnonzero(bright).tolist() == list(range(5, 25))  # rows 20 to 40 of 60, of which 15 to 45 are left


def test_decoding_is_deterministic_and_leaves_the_threads_alone(ucf101: Path) -> None:
    path = ucf101 / LEFT / "v_MoveLeft_g01_c01.avi"
    threads = cv2.getNumThreads()
    first, second = (decode_item(path, flow_config()) for _ in range(2))
    assert np.array_equal(first, second)
    assert cv2.getNumThreads() == threads


@pytest.mark.parametrize("method", METHODS)
def test_the_flow_of_a_known_shift(method: FlowMethod) -> None:
    texture = clips.texture(np.random.default_rng(2), 100, 120)[..., 0].copy()
    first, second = texture[10:90, 10:110].copy(), texture[12:92, 7:107].copy()  # content moves by (3, -2)
    flow = displacement(quantise(estimator(method)(first, second)))
    inner = flow[10:-10, 10:-10]
    assert np.abs(np.median(inner, axis=(0, 1)) - [3, -2]).max() < 0.3
    assert (np.abs(inner - [3, -2]).max(axis=2) < 0.3).mean() > 0.95


def test_bytes_of_displacements() -> None:
    flow = np.array([-30, -20, -0.2, 0, 0.2, 20, 30], np.float32)
    assert quantise(flow).tolist() == [0, 0, 126, 128, 129, 255, 255]
    inside = np.linspace(-20, 20, 1001, dtype=np.float32)
    assert np.abs(displacement(quantise(inside)) - inside).max() <= 20 / 255 + 1e-5


def _sliding(frames: int, shift: int = 2) -> list[NDArray[np.uint8]]:
    wide = clips.texture(np.random.default_rng(3), 64, 160)
    return [wide[:, shift * time :][:, :64].copy() for time in range(frames)]


def test_stacks_hold_the_fields_that_follow_their_start(tmp_path: Path) -> None:
    # The picture slides left by 1, 2, ... 6 pixels: each field tells which one it is.
    offsets = np.cumsum(range(7))
    wide = cv2.resize(clips.texture(np.random.default_rng(4), 32, 48), (96, 64)).astype(np.uint8)
    clips.write(tmp_path / "clip.avi", [wide[:, offset : offset + 64].copy() for offset in offsets])
    config = flow_config(stack=3, positions=4)
    stacks = decode_item(tmp_path / "clip.avi", config)
    assert stacks.shape == (4, 6, 64, 64)
    for stack, start in zip(displacement(stacks), starts(7, config), strict=True):
        horizontal, vertical = np.median(stack[0::2], axis=(1, 2)), np.median(stack[1::2], axis=(1, 2))
        expected = [-(start + step + 1) for step in range(3)]
        assert np.abs(horizontal - expected).max() < 0.3
        assert np.abs(vertical).max() < 0.3


def test_each_pair_of_frames_is_estimated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counting(method: FlowMethod) -> Callable[..., NDArray[np.float32]]:
        compute = estimator(method)
        return lambda first, second: calls.append(1) or compute(first, second)  # type: ignore[func-returns-value]

    monkeypatch.setattr("trainables.data.videos.estimator", counting)
    clips.write(tmp_path / "clip.avi", _sliding(20))
    decode_item(tmp_path / "clip.avi", flow_config(positions=9))
    assert len(calls) == 19


def test_a_short_video_repeats_its_last_field(tmp_path: Path) -> None:
    clips.write(tmp_path / "clip.avi", _sliding(4))
    stacks = decode_item(tmp_path / "clip.avi", flow_config(positions=2))
    assert np.array_equal(stacks[0], stacks[1])
    fields = stacks[0].reshape(10, 2, 64, 64)
    assert not np.array_equal(fields[1], fields[2])
    assert all(np.array_equal(field, fields[2]) for field in fields[3:])


def test_a_single_frame_stands_still(tmp_path: Path) -> None:
    clips.write(tmp_path / "clip.avi", _sliding(1))
    assert (decode_item(tmp_path / "clip.avi", flow_config()) == 128).all()
    assert decode_item(tmp_path / "clip.avi", DataConfig(name="ucf101", size=64)).shape == (25, 3, 64, 64)


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "no such file"), (b"", "the file is empty"), (b"RIFF" + b"no video" * 50, "broken")]
)
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "clip.avi"
    if content is not None:
        path.write_bytes(content)
    for attempt in (verify, lambda path: decode_item(path, UCF101)):
        with pytest.raises(DataError, match=f"{path}: no frame could be read: .*{reason}"):
            attempt(path)


def test_verify_counts_frames(tmp_path: Path) -> None:
    clips.write(tmp_path / "clip.avi", _sliding(15))
    assert verify(tmp_path / "clip.avi") == (15, 15)


def test_without_opencv_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, ucf101: Path) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(DataError, match=r"pip install -c constraints.txt -e '.\[video\]'"):
        decode_item(ucf101 / LEFT / "v_MoveLeft_g01_c01.avi", UCF101)
    assert read(ucf101, UCF101).problems == ()


@pytest.mark.parametrize("method", METHODS)
def test_the_mirrored_flow_is_the_flow_of_the_mirrored_video(method: FlowMethod, tmp_path: Path) -> None:
    frames = _sliding(5)
    clips.write(tmp_path / "seen.avi", frames)
    clips.write(tmp_path / "mirrored.avi", [frame[:, ::-1].copy() for frame in frames])
    config = flow_config(flow=method, stack=2, positions=2)
    seen, mirrored = (torch.from_numpy(decode_item(tmp_path / f"{name}.avi", config)) for name in ("seen", "mirrored"))
    difference = (mirror(seen, "flow").int() - mirrored.int()).abs()[..., 8:-8, 8:-8]
    assert difference.float().mean() < 1  # of 255 levels
    assert (mirror(seen, "rgb").int() - mirrored.int()).abs()[:, 0::2].float().mean() > 20


def test_mirroring_twice_changes_nothing() -> None:
    images = torch.randint(256, (3, 4, 5, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    assert torch.equal(mirror(mirror(images, "flow"), "flow"), images)
    assert torch.equal(mirror(images, "rgb"), images.flip(-1))
    assert torch.equal(mirror(images, "flow")[:, 0], 255 - images.flip(-1)[:, 0])
    assert torch.equal(mirror(images, "flow")[:, 1], images.flip(-1)[:, 1])
    assert torch.equal(images, before)


def test_clips_are_the_same_for_the_same_seed(tmp_path: Path, hmdb51: Path) -> None:
    clips.make_hmdb51(tmp_path / "again")
    clips.make_hmdb51(tmp_path / "other", seed=1)
    for file in read(hmdb51, HMDB51).files:
        original = (hmdb51 / file).read_bytes()
        assert (tmp_path / "again" / file).read_bytes() == original
        assert (tmp_path / "other" / file).read_bytes() != original


def _nearest_mean(train: NDArray[Any], train_labels: NDArray[Any], test: NDArray[Any]) -> NDArray[np.int64]:
    means = np.stack([train[train_labels == label].mean(axis=0) for label in np.unique(train_labels)])
    return np.asarray(np.linalg.norm(test[:, None] - means, axis=2).argmin(axis=1))


def test_motion_tells_the_class_of_a_clip_and_a_single_frame_does_not(tmp_path: Path) -> None:
    clips.make_ucf101(tmp_path, groups=(1, 2, 3, 4, 8, 9, 10, 11), clips=4)
    catalogue = read(tmp_path, UCF101)
    labels = catalogue.labels.numpy()
    train, test = (catalogue.parts[part].numpy() for part in ("train", "test"))
    paths = [tmp_path / file for file in catalogue.files]
    stacks = np.stack([decode_item(path, flow_config(positions=1)) for path in paths])
    motion = displacement(stacks).reshape(len(paths), 10, 2, -1).mean(axis=(1, 3))
    assert (_nearest_mean(motion[train], labels[train], motion[test]) == labels[test]).mean() > 0.98
    rgb = DataConfig(name="ucf101", size=16, positions=1)
    frames = np.stack([decode_item(path, rgb) for path in paths]).reshape(len(paths), -1).astype(float)
    guesses = _nearest_mean(frames[train], labels[train], frames[test])
    assert (guesses == labels[test]).mean() < 0.45  # chance is 0.25, of 64 clips


def test_the_temporal_stream_is_a_vgg16_of_20_channels() -> None:
    spatial, temporal = (networks.connection_counts(name, 51) for name in ("vgg16", "vgg16_flow"))
    assert list(spatial) == list(temporal)
    assert temporal.pop("conv1_1") == 64 * 20 * 3 * 3
    assert spatial.pop("conv1_1") == 64 * 3 * 3 * 3
    assert spatial == temporal
    with torch.device("meta"):
        assert networks.NETWORKS["vgg16_flow"](51).input_shape == (20, 224, 224)

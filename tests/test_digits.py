"""The digits that come with packages."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from trainables.data import Places, digits
from trainables.settings import DataConfig


def test_packaged_digits_are_parsed_once_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, places = DataConfig(name="digits8"), Places(cache=str(tmp_path))
    first = digits.digits8(config, places)
    monkeypatch.setattr(digits, "_of_scikit_learn", lambda: pytest.fail("parsed again"))
    again = digits.digits8(config, places)
    assert again.fingerprint == first.fingerprint and torch.equal(again.labels, first.labels)
    monkeypatch.undo()
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:100])  # cut
    assert digits.digits8(config, places).fingerprint == first.fingerprint


def test_small_digits_are_ucis_own_and_means_of_mnists(tmp_path: Path) -> None:
    places = Places(cache=str(tmp_path))
    large, small = (make(DataConfig(name="mnist5k"), places) for make in (digits.mnist5k, digits.mnist5k_8x8))
    assert small.shape == (1, 8, 8) and torch.equal(small.labels, large.labels)
    rows = torch.tensor([0, 1234, 4999])
    box = large.pixels().fetch(rows)[:, 0, 2:22, 2:22].double().numpy()
    starts, ends = [5 * i // 2 for i in range(8)], [-(-5 * (i + 1) // 2) for i in range(8)]
    for y, x in np.ndindex(8, 8):
        mean = box[:, starts[y] : ends[y], starts[x] : ends[x]].mean(axis=(1, 2))
        assert np.abs(small.pixels().fetch(rows)[:, 0, y, x].numpy() - mean).max() <= 0.501
    uci = digits.digits8_8x8(DataConfig(name="digits8-8x8"), places)
    bunch = load_digits()
    assert torch.equal(uci.labels, torch.from_numpy(bunch.target).long())
    sixteenths = uci.pixels().fetch(torch.arange(len(uci.labels)))[:, 0].double() * 16 / 255
    assert np.abs(sixteenths.numpy() - bunch.images).max() < 0.04

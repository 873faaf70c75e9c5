"""The losses and their gradients against a float64 NumPy oracle written from the paper's equations."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from trainables.hybrid import extra_loss, knowledge_entropy, main_loss

Array = NDArray[np.float64]


def softmax(a: Array) -> Array:
    e = np.exp(a - a.max(axis=1, keepdims=True))
    result: Array = e / e.sum(axis=1, keepdims=True)
    return result


@pytest.fixture
def logits() -> tuple[Array, Array, Array, NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    return rng.normal(0, 3, (6, 5)), rng.normal(0, 3, (6, 8)), rng.normal(0, 3, (6, 8)), rng.integers(0, 5, 6)


@pytest.mark.parametrize("tau", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("weight", [0.0, 1.0, 2.0])
def test_total_loss_and_gradients(
    logits: tuple[Array, Array, Array, NDArray[np.int64]], tau: float, weight: float
) -> None:
    main, extra, reference, labels = logits
    rows = np.arange(len(labels))
    target = softmax(reference / tau)
    expected = np.mean(-np.log(softmax(main)[rows, labels])) + weight * np.mean(
        -(target * np.log(softmax(extra / tau))).sum(axis=1)
    )
    one_hot = np.eye(5)[labels]
    expected_main_gradient = (softmax(main) - one_hot) / len(labels)
    expected_extra_gradient = weight * (softmax(extra / tau) - target) / tau / len(labels)

    a_main = torch.tensor(main, requires_grad=True)
    a_extra = torch.tensor(extra, requires_grad=True)
    a_reference = torch.tensor(reference)
    total = (main_loss(a_main, torch.tensor(labels)) + weight * extra_loss(a_extra, a_reference, tau)).mean()
    total.backward()
    assert total.item() == pytest.approx(expected, rel=1e-12)
    assert a_main.grad is not None and a_extra.grad is not None
    np.testing.assert_allclose(a_main.grad, expected_main_gradient, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(a_extra.grad, expected_extra_gradient, rtol=1e-10, atol=1e-14)


def test_the_extra_loss_is_least_where_the_branches_agree() -> None:
    reference = torch.randn(4, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    extra = reference.clone().requires_grad_()
    extra_loss(extra, reference, 4.0).sum().backward()
    assert extra.grad is not None
    assert extra.grad.abs().max().item() < 1e-12


@pytest.mark.parametrize("tau", [0.5, 4.0])
def test_what_is_above_the_entropy_is_the_divergence(
    logits: tuple[Array, Array, Array, NDArray[np.int64]], tau: float
) -> None:
    _, extra, reference, _ = logits
    p, q = softmax(reference / tau), softmax(extra / tau)
    divergence = (p * np.log(p / q)).sum(axis=1)
    a_extra, a_reference = torch.tensor(extra), torch.tensor(reference)
    above = extra_loss(a_extra, a_reference, tau) - knowledge_entropy(a_reference, tau)
    np.testing.assert_allclose(above.numpy(), divergence, rtol=1e-10)
    np.testing.assert_allclose(knowledge_entropy(a_reference, tau).numpy(), -(p * np.log(p)).sum(axis=1), rtol=1e-12)

"""Networks trained side by side, and the head that is made of one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bases import single
from regraft.training import Layers, fit_path, mlp_out_of_fold
from regraft.training import mlp as module
from regraft.training.mlp import _Problem

LAYERS = Layers("mlp", 16, 0.2)


@pytest.fixture
def rings() -> tuple[np.ndarray, np.ndarray]:
    """Three rings, on two features of very different size."""
    rng = np.random.default_rng(0)
    labels, angle = rng.integers(0, 3, 300), rng.uniform(0, 2 * np.pi, 300)
    values = (labels + 0.7)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1) + rng.normal(
        size=(300, 2)
    ) * 0.1
    return (values * [100, 0.01] + [5, 50]).astype(np.float32), labels


def test_it_learns_what_no_line_divides(rings) -> None:
    values, labels = rings
    found = mlp_out_of_fold(values, labels, np.ones(300), single(3), LAYERS, 0.01, 60)
    path = fit_path(values, labels, np.ones(300), single(3))
    assert np.array_equal(found.rows, path.rows)
    assert (found.logits.argmax(1) == labels).mean() > (path.logits.argmax(1) == labels).mean() + 0.2
    assert 1 <= found.epochs <= 60


def test_a_head_on_raw_features_says_what_its_network_said_of_scaled_ones(rings) -> None:
    values, labels = rings
    problem = _Problem(values, labels, np.ones((1, 300)), single(3))
    networks = problem.solve(LAYERS, 0.01, 3, 0, lambda *_: False)
    with torch.no_grad():
        raw = problem.head(networks)(torch.from_numpy(values)).numpy()
        side_by_side = networks(problem.scaled(np.arange(300)))[0].numpy()
    np.testing.assert_allclose(raw, side_by_side, atol=1e-3)
    np.testing.assert_allclose(problem.logits(networks, 0, np.arange(300)), side_by_side, atol=1e-5)


def test_held_out_examples_teach_nothing(rings) -> None:
    values, labels = rings
    wrong, shares = labels.copy(), np.ones((2, 300))
    wrong[:100] = (labels[:100] + 1) % 3
    shares[0, :100] = 0  # the first network is not shown what has changed, the second is
    networks = [
        _Problem(values, y, shares, single(3)).solve(LAYERS, 0.01, 3, 0, lambda *_: False)
        for y in (labels, wrong)
    ]
    right, other = (found.last.numpy() for found in networks)
    assert np.array_equal(right[0], other[0])
    assert not np.allclose(right[1], other[1])


def test_of_very_many_examples_fewer_epochs_are_tried(rings, monkeypatch: pytest.MonkeyPatch) -> None:
    values, labels = rings
    heard: list[int] = []
    monkeypatch.setattr(module, "STEPS", 1)
    mlp_out_of_fold(
        values,
        labels,
        np.ones(300),
        single(3),
        LAYERS,
        0.01,
        60,
        tick=lambda **fields: heard.append(fields["total"]),
    )
    assert set(heard) == {module.FEWEST_EPOCHS}


def test_features_too_large_for_memory_are_read_a_batch_at_a_time(rings, tmp_path) -> None:
    values, labels = rings
    np.save(tmp_path / "x.npy", values)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    one, other = (
        mlp_out_of_fold(x, labels, np.ones(300), single(3), LAYERS, 0.01, 5) for x in (values, mapped)
    )
    assert np.array_equal(one.logits, other.logits)

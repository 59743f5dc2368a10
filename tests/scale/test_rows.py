"""The head on features that workers hold: the same optimum as at home, and what a lost worker costs."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from bases import single
from regraft.crew import Crew
from regraft.errors import UsageError
from regraft.training import fit_linear, fit_path, linear_outputs
from regraft.training import rows as module
from regraft.training.rows import Here, Piece, Shard, pareto_scaling, rows_of

COUNT, WIDTH, CLASSES = 600, 20, 4
RNG = np.random.default_rng(0)
X = (RNG.normal(size=(COUNT, WIDTH)) @ RNG.normal(size=(WIDTH, WIDTH)) + 3).astype(np.float32)
Y = (X[:, :CLASSES] + 2 * RNG.gumbel(size=(COUNT, CLASSES))).argmax(axis=1)
W = RNG.uniform(0.5, 1.5, COUNT)
TASK = single(CLASSES)


@pytest.fixture
def spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of any size are held by workers."""
    monkeypatch.setattr(module, "SPREAD", 0)


@pytest.mark.ray
@pytest.mark.usefixtures("spread")
def test_workers_reach_the_optimum_of_home(crew: Crew) -> None:
    home, away = fit_linear(X, Y, W, TASK, 0.01), fit_linear(X, Y, W, TASK, 0.01, crew=crew)
    np.testing.assert_allclose(linear_outputs(X, *away), linear_outputs(X, *home), atol=0.02)
    alone, together = fit_path(X, Y, W, TASK), fit_path(X, Y, W, TASK, crew=crew)
    assert together.l2 == alone.l2
    assert together.chosen == alone.chosen
    assert np.array_equal(together.rows, alone.rows)
    np.testing.assert_allclose(together.losses, alone.losses, rtol=1e-3)
    np.testing.assert_allclose(together.logits, alone.logits, atol=0.05)


@pytest.mark.ray
@pytest.mark.usefixtures("spread")
def test_a_lost_worker_costs_a_pass_over_its_part(crew: Crew, told: list[str]) -> None:
    shares = (W / W.sum())[None]
    with rows_of(X, Y, shares, TASK, crew=crew) as (held, space):
        here = Here(X, Y, shares, TASK, pareto_scaling(X))
        before = held.covariance()
        np.testing.assert_allclose(before, here.covariance(), atol=1e-5)
        mine = psutil.Process().children(recursive=True)
        pids = [child.pid for child in mine if "_Holder" in " ".join(child.cmdline())]
        assert len(pids) == 2
        os.kill(pids[0], signal.SIGKILL)
        assert np.array_equal(held.covariance(), before)
    assert any("another takes the part it held" in line for line in told)
    np.testing.assert_allclose(space.mean, pareto_scaling(X)[0], rtol=1e-5)


@pytest.mark.ray
@pytest.mark.usefixtures("spread")
def test_features_that_are_no_numbers_are_refused_as_at_home(crew: Crew) -> None:
    bad = X.copy()
    bad[7, 3] = np.nan
    for who in (None, crew):
        with pytest.raises(UsageError, match="nan"):
            fit_linear(bad, Y, W, TASK, 0.01, crew=who)


def test_small_features_stay_here(tmp_path: Path) -> None:
    class Nobody:
        workers = 2

    home = fit_linear(X, Y, W, TASK, 0.01)
    again = fit_linear(X, Y, W, TASK, 0.01, crew=Nobody())  # type: ignore[arg-type]
    assert all(map(np.array_equal, home, again))


def test_the_parts_of_shards_add_up_to_the_whole() -> None:
    shares = np.stack([W / W.sum(), np.where(np.arange(COUNT) % 2, 2 / COUNT, 0)])
    scaling = pareto_scaling(X)
    whole = Here(X, Y, shares, TASK, scaling)
    shards = [Shard(Piece(a, X[a:b], Y[a:b], shares[:, a:b], TASK)) for a, b in ((0, 250), (250, COUNT))]
    np.testing.assert_allclose(sum(shard.total() for shard in shards), X.sum(axis=0, dtype=np.float64))
    theta = np.random.default_rng(1).normal(size=whole.shape).astype(np.float32)

    at = torch.from_numpy(theta)
    gradient = torch.zeros_like(at)
    value = whole.slope(at, 0.0, gradient)
    parts = [shard.slope(scaling, theta) for shard in shards]
    assert sum(part[0] for part in parts) == pytest.approx(value, rel=1e-5)
    np.testing.assert_allclose(sum(part[1] for part in parts), gradient, atol=1e-5)
    rows = np.arange(3, COUNT, 7)
    folds = rows % 2
    logits = np.concatenate([shard.logits(scaling, theta, folds, rows) for shard in shards])
    np.testing.assert_allclose(logits, whole.logits(at, folds, rows), atol=1e-4)

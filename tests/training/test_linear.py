"""Our logistic regression is scikit-learn's, and its path is chosen without looking at what it is fitted
on.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import regraft
from bases import single
from regraft.errors import UsageError
from regraft.evaluation import folds_of
from regraft.training import fit_linear, fit_path, linear_outputs
from regraft.training import linear as module
from regraft.training.rows import Here, pareto_scaling


@pytest.fixture
def iris() -> tuple[np.ndarray, np.ndarray]:
    values, labels = load_iris(return_X_y=True)
    return values.astype(np.float32), labels.astype(np.int64)


@pytest.mark.parametrize("l2", [1.0, 0.01])
def test_the_solution_is_that_of_scikit_learn(iris, l2: float) -> None:
    values, labels = iris
    mean, scale = pareto_scaling(values)
    weight, bias = fit_linear(values, labels, np.ones(150), single(3), l2, tolerance=1e-6)
    scaled = (values - mean) / scale
    peer = LogisticRegression(C=1 / (150 * l2), tol=1e-8, max_iter=5000).fit(scaled, labels)
    ours = linear_outputs(values, weight, bias)
    shares = np.exp(ours) / np.exp(ours).sum(1, keepdims=True)
    np.testing.assert_allclose(shares, peer.predict_proba(scaled), atol=2e-3)


def test_streaming_from_disk_gives_the_same(iris, monkeypatch: pytest.MonkeyPatch) -> None:
    values, labels = iris
    whole = fit_linear(values, labels, np.ones(150), single(3), 0.1)
    monkeypatch.setattr("regraft.training.rows.CHUNK", 16 * values.shape[1] * 4)
    monkeypatch.setattr("regraft.training.rows.WHOLE", 0)
    parts = fit_linear(values, labels, np.ones(150), single(3), 0.1)
    np.testing.assert_allclose(whole[0], parts[0], atol=1e-3)


def test_pure_noise_gets_the_strongest_penalty() -> None:
    rng = np.random.default_rng(0)
    path = fit_path(
        rng.normal(size=(120, 50)).astype(np.float32), rng.integers(0, 2, 120), np.ones(120), single(2)
    )
    assert path.chosen == 0


def test_weights_count_like_copies(iris) -> None:
    values, labels = iris
    some = np.arange(0, 150, 3)
    weights = np.ones(150)
    weights[some] = 2
    weighted = fit_linear(values, labels, weights, single(3), 0.1, scaling=(values.mean(0), values.std(0)))
    copies = fit_linear(
        np.concatenate([values, values[some]]),
        np.concatenate([labels, labels[some]]),
        np.ones(200),
        single(3),
        0.1,
        scaling=(values.mean(0), values.std(0)),
    )
    np.testing.assert_allclose(weighted[0], copies[0], atol=1e-2)


def test_folds_solved_together_are_those_solved_alone(iris, monkeypatch: pytest.MonkeyPatch) -> None:
    values, labels = iris
    monkeypatch.setattr(module, "GRID", (0.01,))
    path = fit_path(values, labels, np.ones(150), single(3), folds=3, seed=1)
    assert np.array_equal(path.rows, np.arange(150))
    scaling = pareto_scaling(values)
    for train, held in folds_of(labels, 3, 1):
        alone = fit_linear(
            values[train], labels[train], np.ones(len(train)), single(3), 0.01, scaling=scaling
        )
        np.testing.assert_allclose(path.logits[held], linear_outputs(values[held], *alone), atol=0.1)


def test_of_many_examples_not_every_fold_is_tried(iris, monkeypatch: pytest.MonkeyPatch) -> None:
    values, labels = iris
    monkeypatch.setattr(module, "ENOUGH", 40)
    path = fit_path(values, labels, np.ones(150), single(3))
    assert len(path.rows) == len(path.logits) == 60  # two folds of five
    assert (path.logits.argmax(1) == labels[path.rows]).mean() > 0.9
    monkeypatch.setattr(module, "ENOUGH", 31)  # one more than a fold has: that is near enough
    assert len(fit_path(values, labels, np.ones(150), single(3)).rows) == 30


def test_where_it_starts_changes_nothing(iris) -> None:
    values, labels = iris
    cold = fit_linear(values, labels, np.ones(150), single(3), 0.01, tolerance=1e-6)
    some = np.arange(0, 150, 2)
    other = fit_linear(values[some], labels[some], np.ones(75), single(3), 0.01)
    warm = fit_linear(values, labels, np.ones(150), single(3), 0.01, start=other, tolerance=1e-6)
    np.testing.assert_allclose(linear_outputs(values, *cold), linear_outputs(values, *warm), atol=5e-3)


def test_preconditioned_and_plain_reach_the_same_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = [0]
    slope = module._Problem.slope

    def counted(self, theta, l2):
        passes[0] += 1
        return slope(self, theta, l2)

    monkeypatch.setattr(module._Problem, "slope", counted)

    def solved(seed: int) -> tuple[np.ndarray, int, float]:
        rng = np.random.default_rng(seed)
        values = (rng.normal(size=(400, 30)) @ rng.normal(size=(30, 30))).astype(np.float32)
        labels = (values[:, :4] + rng.gumbel(size=(400, 4))).argmax(axis=1)
        passes[0] = 0
        rows = Here(values, labels, np.full((1, 400), 1 / 400), single(4), pareto_scaling(values))
        problem = module._Problem(rows, single(4).link)
        theta = problem.solve(1e-3, None, 1e-4, 1e-12)
        taken = passes[0]
        found = rows.logits(theta, np.zeros(400, dtype=np.int64), np.arange(400))
        return found, taken, float(problem.slope(theta, 1e-3)[1].norm())

    # Rounding moves the passes of one problem by some
    fast, few, small = zip(*map(solved, range(3)), strict=True)
    monkeypatch.setattr(
        module._Problem, "_preconditioner", lambda *_: module._Preconditioner(None, None, 1.0)
    )
    plain, many, also = zip(*map(solved, range(3)), strict=True)
    assert max(*small, *also) <= 1.1e-4
    np.testing.assert_allclose(fast, plain, atol=0.02)
    assert sum(few) < sum(many) / 2


def test_few_logits_at_once_and_a_sample_of_the_held_out_give_the_same_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All logits of a million examples of 1,000 classes would take 4 GB, several times over."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(300, 12)).astype(np.float32)
    labels = (values[:, :5] + rng.gumbel(size=(300, 5))).argmax(axis=1)
    whole = module.fit_path(values, labels, np.ones(300), single(5))
    most = []
    given = Here._outputs
    monkeypatch.setattr(Here, "_outputs", lambda *args: most.append(given(*args).numel()) or given(*args))
    monkeypatch.setattr("regraft.training.rows.LOGITS", 1_000)
    monkeypatch.setattr(module, "HELD", 100)
    some = module.fit_path(values, labels, np.ones(300), single(5), l2=whole.l2[whole.chosen])
    assert max(most) <= 1_000
    assert len(some.rows) == 100
    assert set(some.rows) < set(whole.rows)
    place = np.searchsorted(whole.rows, some.rows)
    np.testing.assert_allclose(some.logits, whole.logits[place], atol=0.05)


def few_of_many_features(count: int = 60, width: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Features that lie in a hundred directions, one of which does not vary, and three classes."""
    rng = np.random.default_rng(5)
    values = (rng.normal(size=(count, 100)) @ rng.normal(size=(100, width))).astype(np.float32)
    labels = (values[:, :3] + 8 * rng.gumbel(size=(count, 3))).argmax(axis=1)
    values[:, 7] = 3.0
    return values, labels


def test_in_the_space_of_the_rows_the_solution_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    values, labels = few_of_many_features()
    ask = values, labels, np.ones(len(labels)), single(3)
    turned = fit_linear(*ask, 0.03, tolerance=1e-6), fit_path(*ask)
    warm = fit_linear(*ask, 0.03, start=turned[0], tolerance=1e-6)
    monkeypatch.setattr("regraft.training.rows.WHOLE", 0)  # then features are taken as they are
    plain = fit_linear(*ask, 0.03, tolerance=1e-6), fit_path(*ask)
    for weight, bias in (turned[0], warm):
        assert weight.shape == (3, 200)
        np.testing.assert_allclose(weight, plain[0][0], atol=2e-4)
        np.testing.assert_allclose(bias, plain[0][1], atol=2e-3)
    assert turned[1].chosen == plain[1].chosen
    np.testing.assert_allclose(turned[1].losses, plain[1].losses, rtol=5e-3)


def test_few_rows_are_solved_in_fewer_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    values, labels = few_of_many_features()
    shapes = []
    solve = module._Problem.solve
    monkeypatch.setattr(
        module._Problem, "solve", lambda self, *a: shapes.append(self.shape) or solve(self, *a)
    )
    fit_linear(values, labels, np.ones(len(labels)), single(3), 0.1)
    assert shapes == [(1, 3, 60)]  # 59 directions, as the mean is taken off, and the bias


def test_a_head_of_numbers_gives_them_in_their_units_and_one_of_labels_passes_over_what_is_not_known() -> (
    None
):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(300, 6)).astype(np.float32)
    true = values @ rng.normal(size=(6, 2)) * (1_000, 0.01) + (5_000, 0.2)
    true[::4, 1] = np.nan
    head = regraft.fit_head(values, true, l2=1e-9, task="regression")
    told = head(torch.from_numpy(values)).detach().numpy()
    np.testing.assert_allclose(told[1::4], true[1::4], rtol=1e-2, atol=1e-3)
    chosen = regraft.fit_head(values, true[:, 0], task="regression", groups=np.arange(300) // 3)
    np.testing.assert_allclose(chosen(torch.from_numpy(values)).detach().numpy()[:, 0], true[:, 0], atol=200)
    labels = (values[:, :2] > 0.5).astype(float)
    labels[::3, 0] = np.nan
    peer = LogisticRegression(C=1 / (200 * 1e-3), max_iter=5_000)
    head = regraft.fit_head(values, labels, task="multi")
    said = head(torch.from_numpy(values)).detach().numpy()
    known = np.isfinite(labels[:, 0])
    own = peer.fit(values[known], labels[known, 0]).predict(values)
    assert ((said[:, 0] > 0) == own).mean() > 0.97
    assert ((said[:, 1] > 0) == labels[:, 1]).mean() > 0.97


@pytest.mark.parametrize(
    ("targets", "task", "words"),
    [
        ([[0, 1], [1, 2], [0, 0]], "multi", "0 or 1 each"),
        ([[0, 1], [1, 1], [0, 1]], "multi", "label 1: there is nothing to learn"),
        ([1.0, 1.0, np.nan], "regression", "nothing is known of row 2"),
        ([1.0, 1.0, 1.0], "regression", "number 0 is always the same"),
        ([1.0, np.inf, 1.0], "regression", "numbers are finite"),
        (["a", "b", "c"], "regression", "targets are numbers"),
        ([0, 1, 1], "ranks", "one of single, multi, regression"),
        ([[0, 1], [1, 0], [1, 1]], "single", r"single classes are \(N,\)"),
    ],
)
def test_targets_of_no_task_are_refused_with_the_reason(targets: list, task: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        regraft.fit_head(np.eye(3), targets, task=task)

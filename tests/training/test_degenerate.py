"""Features that are constant, copies of others, all zero, or far larger than others; weights of 0, huge and
tiny ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import regraft
from bases import IMAGES, facts_of, single
from regraft.data import Part
from regraft.data.audit import Near, Seen, audit_features, find_near
from regraft.errors import UsageError
from regraft.evaluation import folds_of, knn_logits, knn_out_of_fold, logme
from regraft.tasks.imbalance import class_weighted
from regraft.training import Layers, fit_linear, fit_path, mlp_head, mlp_out_of_fold, shuffled
from regraft.training import linear as module

CLASSES = 3
HARM: dict[str, Callable[[np.ndarray], None]] = {
    "all zero": lambda x: x.fill(0),
    "constant": lambda x: x[:, ::2].fill(0.1),
    "large constant": lambda x: x[:, ::2].fill(12345.678),
    "copies": lambda x: np.copyto(x, x[:, :1]),
    "rows alike": lambda x: np.copyto(x, x[:1]),
    "one huge": lambda x: np.copyto(x[:, :1], x[:, :1] * np.float32(1e30)),
    "one row huge": lambda x: np.copyto(x[:1], x[:1] * np.float32(1e30)),
    "all huge": lambda x: np.copyto(x, np.clip(x, -3, 3) * np.float32(1e38)),
    "tiny": lambda x: np.copyto(x, x * np.float32(1e-38)),
    "dust": lambda x: np.copyto(x[:, 2:], x[:, 2:] * np.float32(1e-20)),
}
harmed = st.lists(st.sampled_from(sorted(HARM)), min_size=1, max_size=2)
few = settings(max_examples=15, deadline=None)


def made(harms: list[str], count: int = 60, width: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    values, labels = rng.normal(size=(count, width)).astype(np.float32), np.arange(count) % CLASSES
    with np.errstate(over="ignore"):
        for harm in harms:
            HARM[harm](values)
    values[~np.isfinite(values)] = np.float32(3e38)
    return values, labels


@few
@given(harmed, st.integers(0, 99), st.sampled_from([60, 6, 12]), st.sampled_from([None, 1e-30, 1e-3, 1e6]))
def test_a_head_is_finite_whatever_the_features(
    harms: list[str], seed: int, count: int, l2: float | None
) -> None:
    values, labels = made(harms, count, seed=seed)
    head = regraft.fit_head(values, labels, l2)
    assert all(bool(parameter.isfinite().all()) for parameter in head.parameters())
    path = fit_path(values, labels, np.ones(count), single(CLASSES))
    assert np.isfinite(path.losses).all()
    assert np.isfinite(path.logits).all()


@few
@given(harmed, st.integers(0, 99))
def test_an_mlp_is_finite_whatever_the_features(harms: list[str], seed: int) -> None:
    values, labels = made(harms, seed=seed)
    layers = Layers("mlp", 4, 0.3)
    assert np.isfinite(
        mlp_out_of_fold(values, labels, np.ones(60), single(CLASSES), layers, 5.0, 3).logits
    ).all()
    head = mlp_head(values, labels, np.ones(60), single(CLASSES), layers, 5.0, 2)
    assert all(bool(parameter.isfinite().all()) for parameter in head.parameters())


@few
@given(harmed, st.integers(0, 99))
def test_neighbours_and_scores_of_transferability_are_finite(harms: list[str], seed: int) -> None:
    values, labels = made(harms, seed=seed)
    logits, k = knn_logits(values, labels, values[:7], CLASSES)
    assert np.isfinite(logits).all()
    assert k >= 1
    assert set(knn_out_of_fold(values, labels, folds_of(labels, 3, 0))) <= set(range(CLASSES))
    assert np.isfinite(logme(values, labels))
    assert np.isfinite(logme(values[:6], labels[:6]))  # fewer rows than columns


@few
@given(harmed, st.integers(0, 99))
def test_the_audit_says_something_in_words_whatever_the_features(harms: list[str], seed: int) -> None:
    values, labels = made(harms, seed=seed)
    names = tuple(f"{i}.png" for i in range(60))
    paths: tuple = names
    inputs = Part(
        name="train", ids=names, sources=names, items=paths, identities=names, facts=facts_of([(40, 40)] * 60)
    )
    rng = np.random.default_rng(seed)
    pictures = {name: rng.integers(0, 255, (64, 64, 3)).astype(np.uint8) for name in names}
    likeness = replace(IMAGES.likeness(inputs.facts), read=lambda path: pictures[str(path)])
    near = find_near(inputs, None, (values, None), likeness, lambda **_: None)
    shares = rng.dirichlet(np.ones(CLASSES), 60)
    seen = Seen(
        ("a", "b", "c"),
        inputs,
        ("train",) * 60,
        labels,
        values,
        np.arange(60),
        shares,
        None,
        Near(near.pairs),
    )
    for finding in audit_features(seen):
        assert "nan" not in finding.message


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_features_that_are_no_numbers_are_refused_with_the_row(wrong: float) -> None:
    values, labels = made(["copies"])
    values[7, 2] = wrong
    for call in (
        lambda: regraft.fit_head(values, labels),
        lambda: fit_path(values, labels, np.ones(60), single(CLASSES)),
        lambda: knn_logits(values, labels, values, CLASSES),
        lambda: knn_out_of_fold(values, labels, folds_of(labels, 3, 0)),
        lambda: logme(values, labels),
    ):
        with pytest.raises(UsageError, match="row 7"):
            call()


def test_a_decomposition_that_fails_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    values, labels = made([], 200)
    expected = fit_linear(values, labels, np.ones(200), single(CLASSES), 0.1)

    def fails(*_: object) -> None:
        raise torch._C._LinAlgError("linalg.eigh: The algorithm failed to converge")

    monkeypatch.setattr(torch.linalg, "eigh", fails)
    found = fit_linear(values, labels, np.ones(200), single(CLASSES), 0.1)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-3)
    assert np.isfinite(fit_path(values, labels, np.ones(200), single(CLASSES)).losses).all()


def test_few_of_many_features_that_vary_are_decomposed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,400 examples of 1,280 features of which 20 vary: of the others there is nothing to decompose."""
    values = np.full((300, 128), 0.1, dtype=np.float32)
    values[:, :5] = np.random.default_rng(0).normal(size=(300, 5))
    asked: list[torch.Tensor] = []
    decompose = torch.linalg.eigh

    def heard(matrix: torch.Tensor) -> object:
        asked.append(matrix)
        return decompose(matrix)

    monkeypatch.setattr(torch.linalg, "eigh", heard)
    weight, _ = fit_linear(values, (values[:, 0] > 0).astype(int), np.ones(300), single(2), 0.01)
    assert [(tuple(matrix.shape), matrix.dtype) for matrix in asked] == [((5, 5), torch.float64)]
    assert np.isfinite(weight).all()


@pytest.mark.parametrize(
    ("features", "labels", "more", "words"),
    [
        (np.zeros((4,)), [0, 1, 0, 1], {}, "features"),
        (np.zeros((4, 2)), [0, 1, 0], {}, "features"),
        (np.zeros((0, 2)), [], {}, "features"),
        (np.zeros((4, 0)), [0, 1, 0, 1], {}, "features"),
        (np.zeros((4, 2)), [0, 0, 0, 0], {}, "two classes"),
        (np.zeros((4, 2)), [-1, 0, 1, 1], {}, "from 0"),
        (np.zeros((4, 2)), [0.5, 1, 1, 0], {}, "whole numbers"),
        (np.zeros((3, 2)), [0, 1, 1], {}, "single example"),
        (np.zeros((4, 2)), [0, 0, 1, 1], {"groups": "aabb"}, "one group"),
        (np.zeros((4, 2)), [0, 0, 1, 1], {"groups": "aab"}, "groups"),
        (np.zeros((4, 2)), [0, 0, 1, 1], {"l2": 0.0}, "above 0"),
        (np.full((4, 2), 1e300), [0, 0, 1, 1], {}, "infinity"),
    ],
)
def test_what_no_head_can_be_fitted_to_is_refused(
    features: np.ndarray, labels: list, more: dict, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        regraft.fit_head(features, labels, **more)


def test_random_labels_in_groups_get_the_strongest_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    """60 patients with 6 pictures each, alike among themselves: folds that part them find a rule where
    there is none.
    """
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(60), 6)
    values = (rng.normal(size=(60, 64))[patients] + 0.1 * rng.normal(size=(360, 64))).astype(np.float32)
    labels, asked = rng.integers(0, 2, 60)[patients], []
    fit = module.fit_linear
    monkeypatch.setattr(
        "regraft.training.network.fit_linear", lambda *a, **k: asked.append(a[4]) or fit(*a, **k)
    )
    regraft.fit_head(values, labels)
    regraft.fit_head(values, labels, groups=[f"patient {n}" for n in patients])
    regraft.fit_head(values, labels, groups=[(int(n), "left") for n in patients])
    assert asked[0] < module.GRID[2]
    assert asked[1] == asked[2] == module.GRID[0]


weights = st.lists(st.sampled_from([0.0, 1e-320, 1e-30, 1.0, 3.0, 1e30, 1e308]), min_size=30, max_size=30)


@few
@given(weights, st.booleans())
def test_any_weights_give_finite_heads(given_: list[float], balanced: bool) -> None:
    values, labels = made([], 30)
    used = class_weighted(labels, np.array(given_), balanced, CLASSES)
    assert np.isfinite(used).all()
    assert used.mean() == pytest.approx(1.0) or not any(given_)
    assert not used[np.array(given_) == 0].any()
    assert all(np.isfinite(part).all() for part in fit_linear(values, labels, used, single(CLASSES), 0.1))
    path = fit_path(values, labels, used, single(CLASSES))
    assert np.isfinite(path.losses).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = mlp_out_of_fold(values, labels, used, single(CLASSES), Layers("mlp", 4, 0.3), 5.0, 2)
    assert np.isfinite(out.logits).all()


def test_weights_of_a_class_or_of_all_may_be_zero() -> None:
    values, labels = made([], 30)
    nobody = np.zeros(30)
    for weights_ in (nobody, (labels > 0).astype(float)):
        for balanced in (False, True):
            used = class_weighted(labels, weights_, balanced, CLASSES)
            assert all(
                np.isfinite(part).all() for part in fit_linear(values, labels, used, single(CLASSES), 0.1)
            )
            assert np.isfinite(
                mlp_out_of_fold(values, labels, used, single(CLASSES), Layers("mlp", 4), 5.0, 2).logits
            ).all()
    weight, bias = fit_linear(values, labels, nobody, single(CLASSES), 0.1)
    assert not weight.any()
    assert not bias.any()
    assert shuffled(0, 0, 1, 16) == []


@pytest.mark.parametrize("wrong", [-1.0, np.nan, np.inf])
def test_weights_that_are_no_weights_are_refused(wrong: float) -> None:
    with pytest.raises(UsageError, match="from 0 up"):
        class_weighted(np.array([0, 1]), np.array([1.0, wrong]), False, 2)


def test_balanced_classes_count_the_same_where_some_examples_have_no_weight() -> None:
    labels, given_ = np.array([0, 0, 0, 0, 1, 1]), np.array([1.0, 1, 0, 0, 1, 0])
    used = class_weighted(labels, given_, True, 2)
    assert used[labels == 0].sum() == pytest.approx(used[labels == 1].sum())

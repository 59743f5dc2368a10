"""Metrics of several labels and of numbers: scikit-learn's and scipy's values, masks, promises."""

from __future__ import annotations

import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    hamming_loss,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)

from regraft.evaluation import (
    SEVERAL,
    Flagged,
    Told,
    best_threshold,
    conformal_width,
    conformal_widths,
    coverage,
    estimates,
    in_words,
    knn_means,
    numbers_metrics,
    paired_mean,
    paired_precisions,
    per_label,
    promised_threshold,
)


def made(n: int = 300, k: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(n, k) targets and logits that tell something of them; logits are rounded, so that some tie."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, k)) < np.linspace(0.1, 0.6, k)).astype(np.float32)
    return targets, np.round(2 * targets - 1 + rng.normal(0, 1.5, (n, k)), 1)


def test_metrics_of_several_labels_are_those_of_scikit_learn() -> None:
    y, z = made()
    said = z > 0
    found = {name: e.value for name, e in estimates(SEVERAL, Flagged(y, z, said), resamples=50).items()}
    assert found["map"] == pytest.approx(average_precision_score(y, z, average="macro"))
    assert found["roc_auc"] == pytest.approx(roc_auc_score(y, z, average="macro"))
    for name in ("macro", "micro", "weighted"):
        assert found[f"{name}_f1"] == pytest.approx(f1_score(y, said, average=name))
    assert found["hamming_loss"] == pytest.approx(hamming_loss(y, said))
    assert found["subset_accuracy"] == pytest.approx((y == said).all(axis=1).mean())


def test_a_mean_average_precision_that_a_few_examples_decide_has_a_wider_interval() -> None:
    rng, widths = np.random.default_rng(0), []
    for share in (0.02, 0.5):
        y = (np.arange(400) < 400 * share).astype(np.float32)[:, None]
        z = 2 * y + rng.normal(0, 1.5, y.shape)
        facts = Flagged(y, z, z > 0)
        found = estimates(SEVERAL[:1], facts)["map"]
        moved = facts.curves[1][:, 1, 0]
        error = np.sqrt((moved**2).sum() * 400 / 399) / (found.value * (1 - found.value))
        low, high = np.log(found.low / (1 - found.low)), np.log(found.high / (1 - found.high))
        widths.append((high - low) / (2 * error))
    assert widths[0] > 2.2 > widths[1] > 1.96, (
        "quantiles of Student's, by how few examples bring the variance"
    )


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_average_precisions_under_weights_are_those_of_repeated_examples(seed: int) -> None:
    y, z = made(60, 3, seed)
    facts = Flagged(y, z, z > 0)
    weights = np.random.default_rng(seed).integers(0, 3, 60)
    again = np.repeat(np.arange(60), weights)
    found = facts.precisions(weights[None].astype(np.float64))[0]
    for place, label in enumerate(facts.told):
        if y[again, label].any():
            wanted = average_precision_score(y[again, label], z[again, label])
            assert found[place] == pytest.approx(wanted)


def test_what_is_not_known_counts_nowhere() -> None:
    y, z = made()
    hidden = np.random.default_rng(1).random(y.shape) < 0.3
    masked = np.where(hidden, np.nan, y)
    other = np.where(hidden, 9.0, z)
    ours, theirs = (Flagged(masked, logits, logits > 0) for logits in (z, other))
    once = np.ones((1, len(y)))
    for metric in SEVERAL:
        if metric.value is not None:
            assert metric.value(ours, once)[0] == pytest.approx(metric.value(theirs, once)[0]), metric.name
    row = per_label(ours, ("a", "b", "c", "d"))[2]
    known = ~hidden[:, 2]
    assert row["known"] == known.sum()
    assert row["ap"] == pytest.approx(average_precision_score(y[known, 2], z[known, 2]))


def test_a_threshold_has_the_highest_f1_and_a_promise_is_kept() -> None:
    rng = np.random.default_rng(0)
    shares = rng.random(4_000)
    held = rng.random(4_000) < shares**2
    at = best_threshold(held, shares)
    tried = [f1_score(held, shares >= cut) for cut in np.linspace(0.01, 0.99, 99)]
    assert f1_score(held, shares >= at) >= max(tried) - 1e-9
    promised = promised_threshold(held, shares, 0.8)
    assert promised is not None
    assert held[shares >= promised].mean() > 0.8
    new = rng.random(4_000)
    truth = rng.random(4_000) < new**2
    assert truth[new >= promised].mean() > 0.8
    assert promised_threshold(held[:30], shares[:30], 0.99) is None
    assert best_threshold(np.zeros(5, dtype=bool), shares[:5]) == 0.5


def test_metrics_of_numbers_are_those_of_scikit_learn_and_scipy() -> None:
    rng = np.random.default_rng(0)
    y = rng.exponential(5, (250, 1))
    p = y + rng.normal(0, 2, y.shape)
    found = estimates(numbers_metrics("cm"), Told(y, p), resamples=400)
    assert found["mae"].value == pytest.approx(mean_absolute_error(y, p))
    assert found["rmse"].value == pytest.approx(root_mean_squared_error(y, p))
    assert found["r2"].value == pytest.approx(r2_score(y, p))
    assert found["spearman"].value == pytest.approx(scipy.stats.spearmanr(y[:, 0], p[:, 0]).statistic)
    assert found["median_error"].value == pytest.approx(np.median(np.abs(y - p)), rel=0.02)
    assert all(e.low < e.value < e.high for e in found.values())
    assert numbers_metrics("cm")[0].shown(1.5) == "1.500 cm"
    assert numbers_metrics("cm")[0].ends(1.5, 2) == ("1.500", "2.000"), "the unit stands with the value"


def test_numbers_that_are_not_known_count_nowhere_and_r_squared_minds_no_offset() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(0, 1, (200, 2))
    p, masked = y + rng.normal(0, 0.3, y.shape), y.copy()
    masked[::3, 1] = np.nan
    one = Told(masked, p)
    other = Told(masked, np.where(np.isnan(masked), 99.0, p))
    weights = rng.integers(0, 3, (3, 200)).astype(np.float64)
    for metric in numbers_metrics("")[:5]:
        assert metric.value is not None
        np.testing.assert_allclose(metric.value(one, weights), metric.value(other, weights))
    r2 = numbers_metrics("")[2]
    assert r2.value is not None
    far = Told(masked + 1e6, p + 1e6)
    np.testing.assert_allclose(r2.value(far, weights), r2.value(one, weights), atol=1e-4)
    again = np.repeat(np.arange(200), weights[0].astype(int))
    kept = again[np.isfinite(masked[again, 1])]
    wanted = (r2_score(y[again, 0], p[again, 0]) + r2_score(y[kept, 1], p[kept, 1])) / 2
    assert r2.value(one, weights[:1])[0] == pytest.approx(wanted)


def test_conformal_widths_hold_what_they_promise_and_count_blocks_once() -> None:
    rng, held = np.random.default_rng(0), []
    for _ in range(400):
        width = conformal_width(rng.standard_t(3, 60), 0.9)
        held.append(np.mean(np.abs(rng.standard_t(3, 500)) <= width))  # type: ignore[operator]
    assert 0.89 < np.mean(held) < 0.92
    assert conformal_width(np.ones(8), 0.9) is None, "nine at least can tell"
    assert conformal_width(np.arange(9.0), 0.9) == 8
    errors = np.r_[np.full(50, 9.0), np.arange(19.0)]
    blocks = np.r_[np.zeros(50), np.arange(1, 20)]
    assert conformal_width(errors, 0.9) == 12
    assert conformal_width(errors, 0.9, blocks) == 17
    facts = Told(
        np.arange(90.0)[:, None], np.zeros((90, 1)), None, (np.full((90, 1), -1.0), np.full((90, 1), 44.5))
    )
    told = coverage(facts, 0)
    assert told["value"] == 0.5
    assert [part["value"] for part in told["parts"]] == [1, 0.5, 0]
    groups = np.r_[np.repeat([7, 8, 9], 25), np.arange(10, 25)]  # of those of one example nothing is told
    assert coverage(facts, 0, groups)["groups"] == {"count": 3, "lowest": 0, "highest": 1}


def test_intervals_are_wider_where_errors_are_larger_and_only_where_out_of_fold_says_so() -> None:
    rng = np.random.default_rng(0)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        told = rng.gamma(3, 1, count)
        return told, rng.normal(size=count) * (0.2 + told / 2)

    (told, errors), (new, of_new) = draw(1_000), draw(20_000)
    width, sizes = conformal_widths(told, errors, 0.9)
    assert width is not None
    assert sizes is not None
    inside = np.abs(of_new) <= width * sizes.at(new)
    large = new > np.quantile(new, 2 / 3)
    assert 0.87 < inside.mean() < 0.93
    assert 0.85 < inside[large].mean() < 0.95
    assert (np.abs(of_new) <= conformal_width(errors, 0.9))[large].mean() < 0.82, "as wide everywhere"
    assert sizes.at(np.array([0.0, 1e9])).tolist() == [sizes.size[0], sizes.size[-1]]
    even = rng.normal(size=1_000)
    assert conformal_widths(told, even, 0.9) == (conformal_width(even, 0.9), None)
    assert conformal_widths(told, errors, 0.9, np.arange(1_000) // 20)[1] is None, "too few blocks to say"
    assert conformal_widths(np.ones(1_000), errors, 0.9)[1] is None, "nothing to tell errors apart by"


def test_intervals_of_squared_errors_know_long_tails_and_hold_no_more_than_there_is() -> None:
    rng, held = np.random.default_rng(0), {"rmse": 0, "r2": 0}
    metrics = [metric for metric in numbers_metrics("") if metric.name in held]
    for number in range(80):
        told = rng.gamma(3, 1, 100)
        facts = Told((told + rng.standard_t(3, 100))[:, None], told[:, None])
        found = estimates(metrics, facts, seed=number)
        held["rmse"] += found["rmse"].low <= 3**0.5 <= found["rmse"].high
        held["r2"] += found["r2"].low <= 0.5 <= found["r2"].high <= 1
    assert min(held.values()) > 70, "where BCa held it in about 65 of 80"
    y, p = rng.normal(size=(60, 2)), rng.normal(size=(60, 2))
    y[:20, 1] = np.nan
    whole = estimates(metrics, Told(y, p))
    blocks = estimates(metrics, Told(np.repeat(y, 4, 0), np.repeat(p, 4, 0)), np.repeat(np.arange(60), 4))
    for name in held:
        assert whole[name].low < whole[name].value < whole[name].high
        for end in ("value", "low", "high"):
            assert getattr(blocks[name], end) == pytest.approx(getattr(whole[name], end)), (
                "copies add nothing"
            )
    assert np.isnan(estimates(metrics, Told(y[40:44], p[40:44]))["rmse"].low)
    perfect = estimates(metrics, Told(y, y))
    assert (perfect["rmse"].high, perfect["r2"].low) == (0, 1)


def test_paired_differences_of_numbers_and_of_metrics() -> None:
    y, z = made()
    better, worse = Flagged(y, z, z > 0), Flagged(y, z[:, ::-1], z > 0)
    found = paired_precisions(better, worse, "the other", groups=np.arange(300) // 3)
    assert 0 < found.low < found.difference < found.high
    assert found.p_value < 0.01
    same = paired_precisions(better, better, "itself")
    assert (same.difference, same.p_value) == (0, 1)
    alike = 0
    for seed in range(200):  # two that are equally good, on few examples
        rng = np.random.default_rng(seed)
        y = (rng.random((60, 3)) < 0.3).astype(np.float32)
        ours, theirs = (Flagged(y, some, some > 0) for some in 2 * y + rng.normal(0, 1.5, (2, 60, 3)))
        told = paired_precisions(ours, theirs, "an equal")
        assert (told.p_value < 0.05) == (told.low > 0 or told.high < 0)
        alike += told.p_value < 0.05
    assert 2 <= alike <= 20, "one in twenty"
    gains = np.random.default_rng(0).normal(0.3, 1, 200)
    told = paired_mean(gains, "the other", unit="cm", of="error lower")
    assert told.low < gains.mean() < told.high
    assert in_words(told).startswith("better than the other: error lower by 0.")
    worse = paired_mean(-gains, "the other", unit="cm", of="error lower")
    assert in_words(worse).startswith("worse than the other: error higher by 0."), (
        "no error is lower by less than 0"
    )
    assert "[-" not in in_words(worse)
    assert told.p_value < 0.01


def test_the_mean_of_neighbours_passes_over_what_is_not_known() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (200, 8)).astype(np.float32)
    y = np.stack([x[:, 0] * 10, np.full(200, np.nan)], axis=1)
    y[:5, 1] = 3
    found, k = knn_means(x, y, x[:20] * 1.01)
    assert found.shape == (20, 2)
    assert k > 0
    assert np.abs(found[:, 0] - y[:20, 0]).mean() < np.abs(y[:20, 0]).mean()
    np.testing.assert_allclose(found[:, 1], 3)

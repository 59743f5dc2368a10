"""The temperature that was put in is found again, and certainty is never bought with a few right answers."""

from __future__ import annotations

import numpy as np
import pytest

from regraft.evaluation import fit_temperature, log_losses


@pytest.mark.parametrize("truth", [0.5, 1.0, 3.0])
def test_a_planted_temperature_is_found(truth: float) -> None:
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(4000, 5))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    assert fit_temperature(labels, logits * truth) == pytest.approx(truth, rel=0.08)


def test_it_never_raises_the_log_loss_on_many_examples() -> None:
    rng = np.random.default_rng(1)
    logits = 3 * rng.normal(size=(500, 4))
    labels = rng.integers(0, 4, 500)
    t = fit_temperature(labels, logits)
    assert t > 5
    assert log_losses(labels, logits / t).mean() < log_losses(labels, logits).mean()


def test_ten_right_answers_do_not_make_it_certain() -> None:
    labels = np.arange(10) % 2
    logits = 8.0 * np.eye(2)[labels]
    t = fit_temperature(labels, logits)
    shares = np.exp(8 / t) / (1 + np.exp(8 / t))
    assert shares == pytest.approx(11 / 12, abs=0.01)


def test_nothing_to_learn_from_changes_nothing() -> None:
    assert fit_temperature([], np.zeros((0, 3))) == 1.0

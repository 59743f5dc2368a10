"""What stands beside a network counts where held-out examples say so, by more than the noise."""

from __future__ import annotations

import numpy as np

from regraft.steps.beside import mix
from regraft.tasks import Single, chosen_by

TASK = Single(("a", "b", "c"))
METRIC = chosen_by(TASK, "accuracy")


def told(count: int, strength: float, seed: int) -> np.ndarray:
    """Logits that tell the labels with so much strength in so much noise."""
    labels = np.random.default_rng(1).integers(0, 3, count)
    return strength * np.eye(3)[labels] + np.random.default_rng(seed).normal(size=(count, 3))


LABELS = np.random.default_rng(1).integers(0, 3, 400)


def test_what_knows_as_much_and_errs_elsewhere_is_mixed_in() -> None:
    found = mix(TASK, METRIC, LABELS, told(400, 1.5, 2), told(400, 1.5, 3), None)
    assert found.weight > 0
    assert found.gain > found.error
    before = TASK.losses(LABELS, told(400, 1.5, 2), refined=True).mean()
    assert TASK.losses(LABELS, found.logits, refined=True).mean() < before


def test_noise_is_hardly_ever_mixed_in_and_a_copy_never() -> None:
    weights = [
        mix(TASK, METRIC, LABELS, told(400, 1.5, 2), told(400, 0.0, seed), None).weight for seed in range(40)
    ]
    assert np.mean(np.array(weights) > 0) <= 0.1
    assert mix(TASK, METRIC, LABELS, told(400, 3.0, 2), told(400, 3.0, 2), None).weight == 0


def test_as_asked_it_counts_whatever_the_examples_say() -> None:
    assert mix(TASK, METRIC, LABELS, told(400, 1.5, 2), told(400, 0.0, 5), None, always=True).weight == 0.25


def test_the_error_counts_blocks_and_not_rows() -> None:
    first, second = told(400, 1.5, 8), told(400, 1.5, 9)
    labels, first, second = (np.repeat(each[:20], 20, axis=0) for each in (LABELS, first, second))
    alone = mix(TASK, METRIC, labels, first, second, None)
    together = mix(TASK, METRIC, labels, first, second, np.arange(400) // 20)
    assert together.error > 3 * alone.error


def test_what_lowers_the_loss_and_the_metric_too_is_left_out() -> None:
    labels = LABELS[:200]
    right, wrong = 0.1 * np.eye(3)[labels], 0.1 * np.eye(3)[(labels + 1) % 3]
    few = np.arange(200) % 10 == 0
    logits = np.where(few[:, None], 80 * wrong, 3 * right)  # mostly right, and now and then surely wrong
    other = np.where(few[:, None], 60 * right, 8 * np.where((np.arange(200) % 3 == 0)[:, None], wrong, right))
    found = mix(TASK, METRIC, labels, logits, other, None)
    accuracy = (found.logits.argmax(1) == labels).mean()
    assert accuracy >= (logits.argmax(1) == labels).mean() - 0.02

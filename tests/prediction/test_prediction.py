"""How outputs become predictions: the most probable names, and what a promised precision lets one answer."""

from __future__ import annotations

import json

import numpy as np
import pytest

from regraft.errors import Unreadable, UsageError
from regraft.prediction import UNFAMILIAR, Prediction, Reading
from regraft.tasks.single import Single
from regraft.tasks.temperature import Temperature

TASK = Single(("a", "b", "c"))
PROMISING = Temperature("", 1.0, (), {0.95: 0.6, 0.99: 0.9})


def read(
    outputs: list[list[float]], top: int | None = None, precision: float | None = None
) -> list[Prediction]:
    reading = Reading.of(TASK, PROMISING, top, precision)
    return reading(["x"] * len(outputs), np.log(np.array(outputs)), [None] * len(outputs))


def test_top_leaves_the_largest_probabilities_in_their_order() -> None:
    (found,) = read([[0.2, 0.1, 0.7]], top=2)
    assert list(found.probabilities) == ["c", "a"]
    assert (found.label, found.probability) == ("c", pytest.approx(0.7))
    assert list(read([[0.2, 0.1, 0.7]], top=9)[0].probabilities) == ["c", "a", "b"]
    with pytest.raises(UsageError, match="1 or more; found 0"):
        read([[0.2, 0.1, 0.7]], top=0)


def test_an_answer_is_sure_from_the_threshold_on() -> None:
    rows = [[0.61, 0.2, 0.19], [0.59, 0.2, 0.21], [0.95, 0.04, 0.01]]
    assert [found.sure for found in read(rows, precision=0.95)] == [True, False, True]
    assert [found.sure for found in read(rows, precision=0.97)] == [False, False, True]
    assert [found.sure for found in read(rows)] == [None, None, None]


def test_a_precision_that_is_not_promised_is_refused_with_the_reason() -> None:
    with pytest.raises(UsageError, match=r"100% of its answers are right: it promises 0.95, 0.99 at most"):
        read([[0.2, 0.1, 0.7]], precision=0.999)
    with pytest.raises(UsageError, match="too few held-out examples proved any promise"):
        Reading.of(TASK, Temperature(), None, 0.95)
    with pytest.raises(UsageError, match="between 0 and 1"):
        read([[0.2, 0.1, 0.7]], precision=95)


def test_plain_values_say_all() -> None:
    familiar = Prediction("x", "a", 0.5, {"a": 0.5}, familiarity=UNFAMILIAR)
    strange = Prediction("x", "a", 0.5, {"a": 0.5}, sure=False, familiarity=99.5)
    assert (familiar.unfamiliar, strange.unfamiliar) == (False, True)
    said = json.loads(json.dumps(strange.to_dict()))
    assert said == {
        "source": "x",
        "label": "a",
        "probability": 0.5,
        "probabilities": {"a": 0.5},
        "labels": None,
        "values": None,
        "intervals": None,
        "sure": False,
        "familiarity": 99.5,
        "unfamiliar": True,
        "note": "",
        "error": None,
    }
    reading = Reading.of(TASK, PROMISING, None, 0.95)
    assert reading.unreadable("y", Unreadable("torn")).to_dict()["error"] == "torn"

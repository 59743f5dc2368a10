"""Names of classes are learnt from where held-out examples say so."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from regraft.artifacts import Events
from regraft.data.part import Part
from regraft.inference import FeatureStore
from regraft.modalities import modality_of
from regraft.recipe import Recipe
from regraft.steps import names
from regraft.steps.context import Context
from regraft.steps.names import FEW, with_names
from regraft.steps.train import Heads, apply_head, train_head
from regraft.tasks import Single, chosen_by
from regraft.training import Layers

CLASSES = tuple(f"kind_{number}" for number in range(20))
TASK = Single(CLASSES)
CENTRES = np.random.default_rng(0).normal(size=(len(CLASSES), 16))


def context(**head: Any) -> Context:
    recipe = Recipe.build({"head": head})
    return Context(recipe, FeatureStore(None), torch.device("cpu"), Events(None, ()), modality_of("text"))


@dataclass(frozen=True)
class Named:
    """Stands for the frozen base: features of names are what is given."""

    context: Context
    values: np.ndarray

    def __call__(self, part: Part) -> np.ndarray:
        assert part.items == tuple(f"kind {number}".encode() for number in range(20))
        return self.values.astype(np.float32)


def few(count: int) -> Part:
    """So many noisy examples of each class."""
    labels = np.arange(count * len(CLASSES)) % len(CLASSES)
    values = CENTRES[labels] + 2.0 * np.random.default_rng(count).normal(size=(len(labels), 16))
    return Part(values=values.astype(np.float32), labels=labels, weights=np.ones(len(labels)))


def taught(known: Part, values: np.ndarray, **head: Any) -> tuple[Heads, Heads, Context]:
    """The heads before and after names were asked."""
    here = context(**head)
    count, metric = len(known) - 20, chosen_by(TASK, "accuracy")
    before = train_head((Layers("linear"),), known, count, TASK, here)
    return before, with_names(before, known, count, Named(here, values), metric, here), here  # type: ignore[arg-type]


def test_names_that_lie_amid_their_classes_are_learnt_from() -> None:
    known, unseen = few(4), few(50)
    before, after, here = taught(known, CENTRES)
    assert here.decisions.settled["head.names"].value is True

    def right(head: torch.nn.Module) -> float:
        return float((apply_head(head, unseen.values).argmax(1) == unseen.labels).mean())

    assert right(after.refitted) > right(before.refitted) + 0.05
    assert right(after.on_train) > right(before.on_train) + 0.05
    assert after.oof_logits is not None
    assert before.oof_logits is not None
    assert after.oof_logits.shape == before.oof_logits.shape
    loss = [
        TASK.losses(known.labels, each, refined=True).mean() for each in (before.oof_logits, after.oof_logits)
    ]
    assert loss[1] < loss[0]


def test_names_that_say_nothing_leave_the_heads_as_they_were() -> None:
    misleading = 3 * np.random.default_rng(9).normal(size=CENTRES.shape)
    before, after, here = taught(few(4), misleading)
    assert after is before
    assert here.decisions.settled["head.names"].value is False


def test_neither_gains_by_being_surer() -> None:
    """Easy classes and a strong penalty: both are unsure, and were once compared with one of them made larger."""
    known = few(2)
    known = replace(known, values=(CENTRES[known.labels] + 0.05 * known.values).astype(np.float32))
    here = context()
    here = replace(here, recipe=Recipe.build({"train": {"l2": 1.0}}))
    before = train_head((Layers("linear"),), known, len(known), TASK, here)
    with_names(before, known, len(known), Named(here, CENTRES), chosen_by(TASK, "accuracy"), here)  # type: ignore[arg-type]
    assert here.decisions.settled["head.names"].value is True


def test_names_that_do_no_harm_are_learnt_from_where_they_are_words(monkeypatch: pytest.MonkeyPatch) -> None:
    known, centred = few(4), np.repeat(CENTRES.mean(axis=0)[None], len(CLASSES), axis=0)
    values = centred - 0.02 * CENTRES  # they tell next to nothing
    assert taught(known, values)[2].decisions.settled["head.names"].value is True
    monkeypatch.setattr(names, "are_words", lambda _: False)
    assert taught(known, values)[2].decisions.settled["head.names"].value is False


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (("card arrival", "top_up"), True),
        (("LOC", "NUM"), True),
        (("1", "2"), False),
        (("spam", "x_9"), False),
    ],
)
def test_numbers_and_letters_are_no_words(said: tuple[str, ...], expected: bool) -> None:
    assert names.are_words(said) is expected


@pytest.mark.parametrize(
    ("count", "head"), [(FEW + 1, {}), (4, {"names": False})], ids=["many examples", "not wanted"]
)
def test_where_names_are_not_asked_the_heads_are_as_they_were(count: int, head: dict[str, Any]) -> None:
    before, after, here = taught(few(count), CENTRES, **head)
    assert after is before
    assert here.decisions.settled["head.names"].value is False


def test_wanted_names_are_learnt_from_among_many_examples_too() -> None:
    before, after, here = taught(few(FEW + 1), CENTRES, names=True)
    assert after.chosen == replace(before.chosen, named=after.chosen.named)
    assert here.decisions.settled["head.names"].value is True


def test_the_name_of_a_class_is_a_text_whatever_stands_between_its_words() -> None:
    item = modality_of("text").item_of_name
    assert item is not None
    assert item("card_payment-fee/charged?") == b"card payment fee charged"
    assert item("***") == b"***"
    assert modality_of("image").item_of_name is None

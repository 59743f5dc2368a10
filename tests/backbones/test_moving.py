"""Batches reach a device that computes aside one ahead, and nothing is read before it is there."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cards import SlowCard
from regraft.backbones import Answers, moving, one_ahead

CPU = torch.device("cpu")


def given(count: int) -> list[Any]:
    return [({"a": torch.full((2,), n), "b": torch.full((1,), -n)}, torch.tensor(n), n) for n in range(count)]


def test_a_cpu_is_given_the_very_tensors_one_at_a_time() -> None:
    drawn: list[int] = []

    def batches() -> Any:
        for batch in given(3):
            drawn.append(batch[2])
            yield batch

    for number, (inputs, label, plain) in enumerate(one_ahead(batches(), CPU)):
        assert drawn == list(range(number + 1))
        assert inputs["a"].tolist() == [number] * 2
        assert (inputs["b"].tolist(), int(label), plain) == ([-number], number, number)


@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_card_is_sent_the_next_batch_before_this_one_is_worked_with(count, monkeypatch) -> None:
    monkeypatch.setattr(moving, "computes_aside", lambda device: True)
    monkeypatch.setattr(moving, "Card", SlowCard)
    monkeypatch.setattr(SlowCard, "log", [])
    for number, (inputs, label, plain) in enumerate(one_ahead(given(count), CPU)):
        assert SlowCard.log.count("sent") == min(number + 2, count)
        assert SlowCard.log.count("awaited") == number + 1
        assert inputs["a"].tolist() == [number] * 2
        assert (inputs["b"].tolist(), int(label), plain) == ([-number], number, number)
    assert SlowCard.log.count("awaited") == count


def test_answers_of_a_card_are_whole_once_they_were_waited_for() -> None:
    computed = [torch.arange(3.0), torch.ones(2)]
    coming = Answers(computed, SlowCard(CPU))
    assert coming.tensors[0].tolist() == [77] * 3
    assert [tensor.tolist() for tensor in coming.result()] == [[0, 1, 2], [1, 1]]
    assert [tensor.tolist() for tensor in Answers(computed).result()] == [[0, 1, 2], [1, 1]]

"""Batches on their way to a GPU and answers on their way back, beside what it computes.

On any other device nothing is on its way: what is asked for is there at once, and nothing of this changes a bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

Nest = TypeVar("Nest")  # a tensor, a tuple or dictionary of nests, or what stays as it is


def computes_aside(device: torch.device) -> bool:
    """Whether a device works through what it is told while the interpreter goes on: then copies and answers
    are worth being waited for later.
    """
    return device.type == "cuda"


class Card:
    """The calls of CUDA by which copies run beside passes: page-locked memory, a stream of copies, events."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.copies = device, torch.cuda.Stream(device)

    def send(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], Any]:
        """The tensors on the device, where they are once the event has happened."""
        with torch.cuda.stream(self.copies):
            locked = (tensor if tensor.is_pinned() else tensor.pin_memory() for tensor in tensors)
            there = [tensor.to(self.device, non_blocking=True) for tensor in locked]
            return there, self._event(self.copies)

    def await_sent(self, tensors: Sequence[Tensor], event: Any) -> None:
        """What the device computes from now on waits for the event; this process does not."""
        passes = torch.cuda.current_stream(self.device)
        passes.wait_event(event)
        for tensor in tensors:
            tensor.record_stream(passes)  # their memory is not reused before the passes are done with it

    def fetch(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], Any]:
        """Copies in page-locked memory, which are whole once the event has happened."""
        here = [
            torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
            for tensor in tensors
        ]
        return here, self._event(torch.cuda.current_stream(self.device))

    def _event(self, stream: Any) -> Any:
        event = torch.cuda.Event()
        event.record(stream)
        return event


class Answers:
    """Tensors that a device is still computing; `result` waits for them. `card` is None for a device that
    does not compute aside.
    """

    def __init__(self, tensors: Sequence[Tensor], card: Card | None = None) -> None:
        self.tensors, self.event = list(tensors), None
        if card is not None:
            self.tensors, self.event = card.fetch(tensors)

    def result(self) -> list[Tensor]:
        """The tensors, on the CPU where a card computed them."""
        if self.event is not None:
            self.event.synchronize()
        return self.tensors


def sent(given: Nest, device: torch.device, card: Card | None) -> Nest:
    """Tensors on a device; with a `card` they are on their way, and what it computes with them waits for them."""
    if card is None:
        return _each(given, iter([tensor.to(device) for tensor in _flat(given)]))
    there, event = card.send(list(_flat(given)))
    card.await_sent(there, event)
    return _each(given, iter(there))


def one_ahead(batches: Iterable[Nest], device: torch.device) -> Iterator[Nest]:
    """Batches (nests of tensors) on a device, each sent there while the one before it is worked with."""
    if not computes_aside(device):
        yield from (sent(batch, device, None) for batch in batches)
        return
    card, waiting = Card(device), None
    for batch in batches:
        following = batch, *card.send(list(_flat(batch)))
        if waiting is not None:
            yield _arrived(*waiting, card)
        waiting = following
    if waiting is not None:
        yield _arrived(*waiting, card)


def _arrived(given: Nest, there: list[Tensor], event: Any, card: Card) -> Nest:
    card.await_sent(there, event)
    return _each(given, iter(there))


def _flat(given: Any) -> Iterator[Tensor]:
    """The tensors of a nest, from left to right."""
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, (dict, tuple)):
        for one in given.values() if isinstance(given, dict) else given:
            yield from _flat(one)


def _each(given: Nest, others: Iterator[Tensor]) -> Nest:
    """A nest with other tensors in place of its own, from left to right."""
    other: Any = given
    if isinstance(given, Tensor):
        other = next(others)
    elif isinstance(given, dict):
        other = {name: _each(one, others) for name, one in given.items()}
    elif isinstance(given, tuple):
        other = tuple(_each(one, others) for one in given)
    return other  # type: ignore[no-any-return]

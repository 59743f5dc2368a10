"""A stand-in for a GPU's streams: what is copied lies there only once somebody has waited for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch


class Event:
    """It happens when it is waited for."""

    def __init__(self, happening: Callable[[], None]) -> None:
        self.happening: Callable[[], None] | None = happening

    def synchronize(self) -> None:
        if self.happening is not None:
            self.happening()
            self.happening = None


class SlowCard:
    """In place of `Card`, on the CPU. `log` tells of what was sent, awaited and fetched, in order."""

    log: list[str] = []

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def send(self, tensors: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], Event]:
        self.log.append("sent")
        return _later(tensors)

    def await_sent(self, tensors: Sequence[torch.Tensor], event: Any) -> None:
        self.log.append("awaited")
        event.synchronize()

    def fetch(self, tensors: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], Event]:
        self.log.append("fetched")
        return _later([tensor.detach().clone() for tensor in tensors])


def _later(tensors: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], Event]:
    empty = [torch.full_like(tensor, 77) for tensor in tensors]

    @torch.inference_mode()
    def fill() -> None:
        for tensor, source in zip(empty, tensors, strict=True):
            tensor.copy_(source)

    return empty, Event(fill)

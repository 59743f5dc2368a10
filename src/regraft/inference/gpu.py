"""The engine of GPUs: PyTorch, with copies to and from the device beside its passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from regraft.backbones import (
    Answers,
    Arithmetic,
    Backbone,
    Batch,
    Card,
    Tapped,
    find_folds,
    length,
    padded,
    sent,
    split,
    tensors,
)
from regraft.inference.engines import TorchEngine

FOLDED, COMPILED = "folded", "compiled"


class GpuEngine(TorchEngine):
    """PyTorch on a device that computes aside, channels last, in inference mode.

    `begin` tells the device what to do and comes back; so one batch is copied, and one is read by the
    processors, while another is computed. `way` says how the passes are run beside that: "" as PyTorch does,
    "folded" with norms folded into convolutions anew in every pass, "compiled" by `torch.compile`. Which of them
    is fastest depends on network, batch and card, so a trial tells (`trial.py`).
    """

    def __init__(
        self,
        backbone: Backbone,
        device: torch.device,
        batch: int = 256,
        precision: str = "float32",
        depths: tuple[int, ...] = (),
        cut: int | None = None,
        way: str = "",
    ) -> None:
        super().__init__(backbone, device, batch, precision, depths, cut)
        self.way = way
        if way:
            self.name = f"{self.name}-{way}"
            self.numerics = f"{self.numerics}-{way}"
        self.card: Card | None = None
        self.passes: Callable[..., Any] | None = None

    def begin(self, batch: Batch) -> Features:
        """The features of one batch of at most `self.batch` examples, which the device begins to compute."""
        count = length(batch)
        return Features(self._begin(padded(batch, self.batch)), count, batch)

    def run(self, batch: Batch) -> list[np.ndarray]:
        """Features of one batch of at most `self.batch` examples."""
        return self.begin(batch).result()

    def forward(self, batch: Batch) -> list[np.ndarray]:
        """Features of one batch, run in the very shape it has."""
        return Features(self._begin(batch), length(batch), batch).result()

    def _begin(self, batch: Batch) -> list[Answers]:
        module, windows = self._current().eval(), getattr(self.backbone.preprocess, "windows", 1)
        passes = self.passes or module
        step = length(batch) if windows == 1 else max(1, self.batch // windows)
        answers = []
        with torch.inference_mode(), self.arithmetic():
            for some in split(batch, step):
                given = sent(tensors(some), self.device, self.card)
                answers.append(Answers([found.float() for found in passes(given)], self.card))
        return answers

    def _ready(self) -> Tapped:
        module = super()._ready()
        self.card = Card(self.device)
        blank = tensors(self.backbone.preprocess.blank(2), self.device)
        folds = find_folds(module, blank) if self.way == FOLDED else {}
        self.arithmetic = Arithmetic(self.precision, self.device, folds)
        self.passes = torch.compile(module, dynamic=False) if self.way == COMPILED else None
        return module


class Features:
    """The features of a batch that a device is computing, in several pieces; `result` waits for them."""

    def __init__(self, answers: list[Answers], count: int, batch: Batch) -> None:
        self.answers, self.count = answers, count
        self.batch = batch  # its memory may be what the device still copies from

    def result(self) -> list[np.ndarray]:
        """(B, width) float32, then whatever other depths the engine was made for."""
        pieces = zip(*(answer.result() for answer in self.answers), strict=True)
        joined = (torch.cat(some) if len(some) > 1 else some[0] for some in pieces)
        return [values[: self.count].numpy() for values in joined]

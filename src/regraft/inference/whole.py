"""A whole network, from prepared items to outputs and features, as one graph of OpenVINO."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from regraft.backbones import Batch, Tapped, tensors
from regraft.inference.graphs import silence
from regraft.inference.outcome import Outcome
from regraft.inference.predictor import Finished, Predictor


class _Whole(nn.Module):
    """A batch's arrays in a row to (B, K) outputs and (B, width) features."""

    def __init__(self, model: Finished, names: tuple[str, ...]) -> None:
        super().__init__()
        self.tapped, self.head, self.names = Tapped(model.backbone), model.head, names
        self.beside = model.beside

    def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        batch = dict(zip(self.names, values, strict=True))
        (features,) = self.tapped(batch)
        outputs = self.head(features)
        return outputs if self.beside is None else outputs + self.beside(batch), features


def converted(library: Any, model: Finished) -> Any:
    """The graph of a model for one item at a time; the length of an item that has one of its own is free.

    Raises whatever the converter does where it cannot.
    """
    preprocess = model.backbone.preprocess
    blank = preprocess.blank(1)
    module = _Whole(model, tuple(blank)).to("cpu").eval()
    shapes = [
        library.PartialShape([1, -1, *array.shape[2:]] if name in preprocess.varying else array.shape)
        for name, array in blank.items()
    ]
    with silence(), torch.no_grad():
        graph = library.convert_model(module, example_input=tuple(tensors(blank).values()), input=shapes)
    for port, name in zip(graph.inputs, blank, strict=True):
        port.get_tensor().set_names({name})
    return graph


def answered(model: Finished, batch: Batch) -> Outcome:
    """What float32 PyTorch says of a batch of one, on the CPU."""
    return Predictor(model, torch.device("cpu")).of_batch(batch)[0]

"""A finished model as one graph: preparation, backbone, head and calibrated answer, and what is to be known of
it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import nn

from regraft._version import __version__
from regraft.exporting.proof import Subject
from regraft.model import Model

FEATURES = "features"
SCHEMA = 1


class Graph(nn.Module):
    """A model's inputs to (B, M) float32 answers, such as probabilities, and (B, width) float32 features.

    It holds copies of the model's networks, in float32. What goes in is said by `intake`, what comes out by
    `answer`; `files` are what the preprocessing keeps beside it.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        preprocess = model.backbone.preprocess
        self.intake, self.files = preprocess.intake(), dict(preprocess.files)
        self.answer = model.task.in_graph(model.calibrated)
        self.prepare = self.intake.module
        self.enter = preprocess.device()
        self.backbone = copy.deepcopy(model.backbone.module).cpu().float()
        self.head = copy.deepcopy(model.head).cpu().float()
        self.beside = copy.deepcopy(model.beside)
        self.read = self.answer.module
        self.eval()

    def forward(self, *arrays: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Answers and features of one batch."""
        batch = self.prepare(*arrays)
        features = self.backbone(self.enter(batch))
        outputs = self.head(features)
        return self.read(outputs if self.beside is None else outputs + self.beside(batch)), features

    def prepared(self, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The batch that the graph makes of its inputs, before it goes to the network."""
        with torch.inference_mode():
            batch = self.prepare(*(torch.tensor(array) for array in given.values()))
        return {name: values.numpy() for name, values in batch.items()}

    def example(self) -> tuple[torch.Tensor, ...]:
        """Inputs to trace with."""
        return tuple(torch.zeros(one.example, dtype=getattr(torch, one.dtype)) for one in self.intake.inputs)

    @property
    def names(self) -> tuple[list[str], list[str]]:
        """What its inputs and its outputs are called."""
        return [one.name for one in self.intake.inputs], [self.answer.name, FEATURES]

    def spelled_out(self) -> Graph:
        """The same with attention of the library transformers as plain products: what is fused falls apart
        into views that do not fit in exporters that take it apart (of T5's encoder).
        """
        for part in self.backbone.modules():
            if hasattr(part, "set_attn_implementation"):
                part.set_attn_implementation("eager")  # type: ignore[operator]
        return self

    def program(self) -> torch.export.ExportedProgram:
        """It traced, with every size that may vary left open."""
        free = torch.export.Dim.DYNAMIC
        shapes = tuple(
            {axis: free for axis, size in enumerate(one.shape) if isinstance(size, str)}
            for one in self.intake.inputs
        )
        with torch.no_grad():
            return torch.export.export(self, self.example(), dynamic_shapes={"arrays": shapes})


def described(graph: Subject, model: Model, versions: Mapping[str, Any]) -> dict[str, Any]:
    """What is to be known of an export: what goes in and comes out, the names, where it all comes from.

    `versions` are those of what made it.
    """
    provenance = asdict(model.backbone.provenance)
    answer: dict[str, Any] = {
        "name": graph.answer.name,
        "names": list(graph.answer.names),
        "one": graph.answer.one,
    }
    if graph.answer.said_from:
        answer["said_from"] = list(graph.answer.said_from)
    if any(width is not None for width in graph.answer.within):
        answer["within"] = list(graph.answer.within)
    if any(graph.answer.sizes):
        answer["sizes"] = [None if one is None else asdict(one) for one in graph.answer.sizes]
    return {
        "schema": SCHEMA,
        "model": model.name,
        **({"note": model.note} if model.note else {}),
        "version": f"regraft {__version__}",
        "made_with": dict(versions),
        "task": model.task.kind,
        "inputs": [
            {"name": one.name, "dtype": one.dtype, "shape": list(one.shape)} for one in graph.intake.inputs
        ],
        "outputs": [
            {**answer, "shape": ["batch", len(graph.answer.names)]},
            {"name": FEATURES, "shape": ["batch", model.backbone.width]},
        ],
        "classes": list(model.classes),
        "calibration": model.calibrated.saved(),
        "thresholds": {f"{wanted:g}": at for wanted, at in sorted(model.thresholds.items())},
        "licence": provenance["licence"],
        "provenance": provenance,
        "preprocess": model.backbone.preprocess.to_dict(),
        "settings": dict(graph.intake.settings),
    }

"""A program of torch.export (.pt2): it runs where PyTorch is, and needs neither timm nor regraft."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regraft.exporting.graph import Graph
from regraft.exporting.onnx import quiet

FILE = "model.pt2"


def versions() -> dict[str, Any]:
    """The version of what makes and runs the file."""
    return {"torch": torch.__version__}


def write(graph: Graph, about: Mapping[str, Any], folder: Path) -> Path:
    """Write model.pt2 into a folder, `about` in its extra file export.json."""
    with quiet():
        program = graph.program()
        for module in program.graph_module.modules():
            for node in getattr(getattr(module, "graph", None), "nodes", ()):
                node.meta.pop("stack_trace", None)  # paths of this machine
        extra = {"export.json": json.dumps(about, ensure_ascii=False)}
        torch.export.save(program, folder / FILE, extra_files=extra)
    return folder / FILE


class Runner:
    """The program on the CPU."""

    name = "torch.export"

    def __init__(self, place: Path) -> None:
        with quiet():
            self.program = torch.export.load(place).module()

    def run(self, given: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """(B, M) answers and (B, width) features of one batch."""
        with torch.inference_mode():
            numbers, features = self.program(*(torch.tensor(array) for array in given.values()))
        return numbers.numpy(), features.numpy()

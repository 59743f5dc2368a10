"""OpenVINO's own format: model.xml and model.bin, converted from the ONNX graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regraft.errors import UsageError
from regraft.exporting import onnx
from regraft.exporting.graph import Graph
from regraft.inference.graphs import openvino as load_openvino

FILE = "model.xml"


def versions() -> dict[str, Any]:
    """The versions of what makes and runs the files. Raises UsageError where something is not installed."""
    try:
        library = load_openvino()
    except ImportError:
        raise UsageError(
            "exporting to OpenVINO needs openvino, which is not installed: pip install openvino"
        ) from None
    return {**onnx.versions(), "openvino": library.__version__}


def write(graph: Graph, about: Mapping[str, Any], folder: Path) -> Path:
    """Write model.xml and model.bin into a folder, `about` as the runtime information `regraft`."""
    return convert(onnx.write(graph, about, folder), about, folder)


def convert(source: Path, about: Mapping[str, Any], folder: Path) -> Path:
    """Make model.xml and model.bin of an ONNX file, which is removed."""
    library = load_openvino()
    model = library.convert_model(str(source))
    for key, value in onnx.metadata(about).items():
        model.set_rt_info(value, ["regraft", key])
    library.save_model(model, str(folder / FILE), compress_to_fp16=False)
    source.unlink()
    return folder / FILE


class Runner:
    """The files in OpenVINO on the CPU, in float32 where nothing else is named, with as many threads as
    PyTorch has.

    What a processor has by itself may be bfloat16, which is too coarse to resize in.
    """

    name = "OpenVINO"

    def __init__(self, place: Path, precision: str = "f32") -> None:
        how = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        self.compiled = load_openvino().Core().compile_model(str(place), "CPU", how)

    def run(self, given: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """(B, M) answers and (B, width) features of one batch."""
        said = self.compiled(dict(given))
        return np.array(said[0]), np.array(said[1])

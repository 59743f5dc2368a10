"""ONNX, for ONNX Runtime: one file, traced by PyTorch's own exporter."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regraft.errors import UsageError
from regraft.exporting.graph import Graph

OPSET = 18
FILE = "model.onnx"
PART = "part"  # of a node's metadata: "prepare", "enter", "backbone", "head" or "read"


def versions() -> dict[str, Any]:
    """The opset, and the versions of what makes and runs the file. Raises UsageError where something is not
    installed.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript
    except ImportError as error:
        raise UsageError(
            f"exporting to ONNX needs {error.name}, which is not installed: pip install 'regraft[export]'"
        ) from None
    used = {"onnx": onnx, "onnxscript": onnxscript, "onnxruntime": onnxruntime}
    return {"opset": OPSET, "torch": torch.__version__, **{k: v.__version__ for k, v in used.items()}}


def write(graph: Graph, about: Mapping[str, Any], folder: Path) -> Path:
    """Write model.onnx into a folder, `about` in its metadata; gives its path."""
    try:
        made = _converted(graph)
    except torch.onnx.OnnxExporterError:
        made = _converted(graph.spelled_out())
    assert made is not None  # what it gives where it traces nothing itself
    made.model.producer_name, made.model.producer_version = "regraft", str(about["version"])
    _name_sizes(made.model, graph)
    _strip(made.model)
    made.model.metadata_props.update(metadata(about))
    place = folder / FILE
    made.save(str(place))
    return place


def _converted(graph: Graph) -> Any:
    """What PyTorch's exporter makes of it."""
    inputs, outputs = graph.names
    with quiet():
        return torch.onnx.export(
            graph.program(), dynamo=True, opset_version=OPSET, input_names=inputs, output_names=outputs
        )


def _name_sizes(model: Any, graph: Graph) -> None:
    """Call what may vary by its name, which the exporter does not take on for sizes left open."""
    for value, one in zip(model.graph.inputs, graph.intake.inputs, strict=True):
        value.shape = type(value.shape)(one.shape)
    for value in model.graph.outputs:
        value.shape = type(value.shape)(("batch", *list(value.shape)[1:]))


def _strip(model: Any) -> None:
    """Of where in the sources each node comes from, which names paths of this machine, keep the part of the
    graph that it is in.
    """
    for node in model.graph.all_nodes():
        scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
        node.metadata_props.clear()
        node.doc_string = None
        if len(scopes) > 1:
            node.metadata_props[PART] = str(scopes[1]).partition(".")[0]


def metadata(about: Mapping[str, Any]) -> dict[str, str]:
    """What is known of an export as names and texts; what is no text already is JSON."""
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in about.items()
    }


class Runner:
    """A file in ONNX Runtime on the CPU, with as many threads as PyTorch has."""

    name = "ONNX Runtime"

    def __init__(self, place: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(place), options, providers=["CPUExecutionProvider"])

    def run(self, given: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """(B, M) answers and (B, width) features of one batch."""
        numbers, features = self.session.run(None, dict(given))
        return numbers, features


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporter tells each of its stages on standard output, and warns of its own future."""
    import logging

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

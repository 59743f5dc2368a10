"""What there is to export to: one Format each, found by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from regraft.errors import UsageError
from regraft.exporting import layouts, onnx, openvino, program
from regraft.exporting.graph import Graph
from regraft.exporting.proof import Runner
from regraft.model import Model


@dataclass(frozen=True)
class Format:
    """One way out. `begin` makes what is exported of a model, or raises UsageError where it does not suit;
    `write` puts it and what is known of it into a folder and gives the file, which `runner` runs.

    For use without regraft: `needs` are packages, `imports` and `running` the Python that imports them and
    defines `run(arrays)`, `usage` the lines of a README where there is no such program; `web` says that a
    browser can run it.
    """

    title: str
    versions: Callable[[], dict[str, Any]]
    begin: Callable[[Model], Any]
    write: Callable[[Any, Mapping[str, Any], Path], Path]
    runner: Callable[[Path, Any], Runner]
    needs: tuple[str, ...] = ()
    imports: str = ""
    running: str = ""
    usage: str = ""
    web: bool = False


RUN_ONNX = """session = onnxruntime.InferenceSession(str(HERE / "model.onnx"))


def run(arrays):
    return session.run(None, arrays)"""
RUN_OPENVINO = """exact = {"INFERENCE_PRECISION_HINT": "f32"}  # bfloat16 is too coarse to resize in
compiled = openvino.Core().compile_model(HERE / "model.xml", "CPU", exact)


def run(arrays):
    said = compiled(arrays)
    return said[0], said[1]"""
RUN_PROGRAM = """program = torch.export.load(HERE / "model.pt2").module()


def run(arrays):
    with torch.inference_mode():
        return program(*(torch.tensor(array) for array in arrays.values()))"""
USE_TIMM = """model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
probabilities = (model(transform(image)[None]) / TEMPERATURE).softmax(dim=1)"""
USE_TRANSFORMERS = """model = AutoModelForImageClassification.from_pretrained("FOLDER").eval()
processor = AutoImageProcessor.from_pretrained("FOLDER")
logits = model(**processor(image, return_tensors="pt")).logits
probabilities = (logits / TEMPERATURE).softmax(dim=1)"""


def _layout(kind: type[layouts.Layout], usage: str) -> Format:
    def write(layout: Any, about: Mapping[str, Any], folder: Path) -> Path:
        return Path(layout.write(folder))

    library = kind.library
    return Format(
        library, partial(layouts.versions, library), kind, write, lambda place, layout: layout, usage=usage
    )


FORMATS: dict[str, Format] = {
    "onnx": Format(
        "ONNX Runtime",
        onnx.versions,
        Graph,
        onnx.write,
        lambda place, graph: onnx.Runner(place),
        ("onnxruntime",),
        "import onnxruntime",
        RUN_ONNX,
        web=True,
    ),
    "openvino": Format(
        "OpenVINO",
        openvino.versions,
        Graph,
        openvino.write,
        lambda place, graph: openvino.Runner(place),
        ("openvino",),
        "import openvino",
        RUN_OPENVINO,
    ),
    "torch": Format(
        "PyTorch",
        program.versions,
        Graph,
        program.write,
        lambda place, graph: program.Runner(place),
        ("torch",),
        "import torch",
        RUN_PROGRAM,
    ),
    "timm": _layout(layouts.Timm, USE_TIMM),
    "transformers": _layout(layouts.Transformers, USE_TRANSFORMERS),
}


def format_of(name: str) -> Format:
    """The format of a name. Raises UsageError where there is none."""
    if name not in FORMATS:
        raise UsageError(f"there is no export to {name!r}; there are {', '.join(FORMATS)}.")
    return FORMATS[name]

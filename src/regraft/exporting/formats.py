"""What there is to export to: one Format each, found by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regraft.errors import UsageError
from regraft.exporting import onnx
from regraft.exporting.graph import Graph
from regraft.exporting.proof import Runner


@dataclass(frozen=True)
class Format:
    """One way out. `write` puts a graph and what is known of it into a folder, and gives the file, which
    `runner` runs.

    For use without regraft: `needs` are packages, `imports` and `running` the Python that imports them and
    defines `run(arrays)`.
    """

    title: str
    versions: Callable[[], dict[str, Any]]
    write: Callable[[Graph, Mapping[str, Any], Path], Path]
    runner: Callable[[Path], Runner]
    needs: tuple[str, ...]
    imports: str
    running: str


FORMATS: dict[str, Format] = {
    "onnx": Format(
        title="ONNX Runtime",
        versions=onnx.versions,
        write=onnx.write,
        runner=onnx.Runner,
        needs=("onnxruntime",),
        imports="import onnxruntime",
        running='session = onnxruntime.InferenceSession(str(HERE / "model.onnx"))\n\n\n'
        "def run(arrays):\n    return session.run(None, arrays)",
    )
}


def format_of(name: str) -> Format:
    """The format of a name. Raises UsageError where there is none."""
    if name not in FORMATS:
        raise UsageError(f"there is no export to {name!r}; there are {', '.join(FORMATS)}.")
    return FORMATS[name]

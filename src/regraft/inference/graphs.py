"""Networks as OpenVINO keeps them: its graphs in the cache. Imports no torch."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any

_turn = Lock()


def openvino() -> Any:
    """The library, its telemetry kept from loading (it then uses a stub of its own).

    What it sets up at its first use is set up here, on one thread: two threads that give it their first
    arrays at once would wait for each other for ever (2026.4).
    """
    name = "openvino_telemetry"
    with _turn:
        before = sys.modules.get(name)
        sys.modules[name] = None  # type: ignore[assignment]
        try:
            import openvino
        finally:
            del sys.modules[name]
            if before is not None:
                sys.modules[name] = before
        openvino.Type.f32.to_dtype()
    return openvino


def kept(core: Any, place: Path | None) -> Any:
    """The graph that was kept at a place; None where there is none that can be read."""
    if place is None or not os.path.isfile(place.with_suffix(".bin")):
        return None
    with contextlib.suppress(OSError):  # it can be read, and not be written
        os.utime(place)  # what was used last is deleted last
    try:
        return core.read_model(place)
    except (
        OSError,
        RuntimeError,
        ValueError,
    ):  # torn, of another version, or of a name it cannot take: converted anew
        return None


def keep(library: Any, model: Any, place: Path | None) -> None:
    """The weights first, then the description, each renamed into place: half a pair is no pair."""
    if place is None:
        return
    with contextlib.suppress(
        OSError, RuntimeError, ValueError
    ):  # a full disk costs the next run a second, not this run
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.with_name(f".{place.stem}.{os.getpid()}.xml")
        try:
            library.save_model(model, temporary, compress_to_fp16=False)
            os.replace(temporary.with_suffix(".bin"), place.with_suffix(".bin"))
            os.replace(temporary, place)
        finally:
            for leftover in (temporary, temporary.with_suffix(".bin")):
                leftover.unlink(missing_ok=True)


def convert(library: Any, module: Any, example: Any, shapes: list[Any]) -> Any:
    """The graph of a PyTorch module for arrays of these shapes, traced once on an example.

    Left to itself the converter traces twice and compares the two, which takes as long as all the rest. The
    answers of a converted graph are compared with PyTorch's own before it is used (regraft.inference.trial).
    """
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    traced = TorchScriptPythonDecoder(module, example_input=example, trace_kwargs={"check_trace": False})
    return library.convert_model(traced, example_input=example, input=shapes)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """The converter warns of every Python branch in the network."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

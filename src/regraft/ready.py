"""A model that is ready for a few items without PyTorch, whose import takes longer than they do.

The first call for a few items leaves the whole network, head included, as a graph of OpenVINO in the cache,
under a hash of the model folder's files. Later ones need the graph, the preprocessing and the task only.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.artifacts import RunFolder, file_sha256, fingerprint, openable, read_json
from regraft.data.lineage import FILE as SEEN
from regraft.errors import Unreadable, UsageError
from regraft.evaluation import Familiarity
from regraft.inference import Outcome, batched, prefetch
from regraft.inference.graphs import keep, kept, openvino
from regraft.modalities import Preprocess, modality_of, parts_of
from regraft.prediction import Answering
from regraft.tasks import Calibration, Task, task_of

if TYPE_CHECKING:
    from regraft.inference.predictor import Finished

SCHEMA = 1  # of regraft.json
FAMILIARITY = "familiarity.safetensors"  # beside the weights; older models have none
BESIDE = "beside.safetensors"  # what stands beside the network, where regraft.json names it
AHEAD = 8  # items that are read ahead at a time
CLOSE = 1e-3  # of the largest output: what a graph may differ from PyTorch by
VERSION = "1"  # of what is kept


@dataclass
class Ready(Answering):
    """A model folder's network as one graph, with what its outputs are read by. Float32, on the CPU."""

    task: Task
    calibration: Calibration
    preprocess: Preprocess
    familiarity: Familiarity | None
    request: Any
    turn: Lock = field(default_factory=Lock)

    @property
    def calibrated(self) -> Calibration:
        """The calibration of the model."""
        return self.calibration

    @property
    def modality(self) -> str:
        """The name of the modality of what it predicts."""
        return str(self.preprocess.modality)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self.task.classes

    @classmethod
    def of(cls, folder: Path, cache: Path | None) -> Ready | None:
        """The model of a run's folder or a model folder, where its graph was kept; else None.

        Raises UsageError for what is no model.
        """
        folder, about = described(folder)
        if cache is None or not (cache / "openvino").is_dir():
            return None
        try:
            library = openvino()
        except ImportError:
            return None
        core = library.Core()
        graph = kept(core, _place(folder, cache, library.__version__))
        if graph is None:
            return None
        settings = {"INFERENCE_PRECISION_HINT": "f32", **_threads()}
        request = core.compile_model(graph, "CPU", settings).create_infer_request()
        preprocess = preprocess_of(folder, about)
        task = task_of(about["task"], about["classes"], about.get("settings"))
        return cls(task, task.calibration(about), preprocess, familiarity_of(folder), request)

    def rows(self, items: Iterable[Any]) -> Iterator[Outcome | Unreadable]:
        """For each item, in order, its outputs and features, or the Unreadable that it is."""
        for some, raws in prefetch(batched(items, AHEAD), self._read_one):
            for _, raw in zip(some, raws, strict=True):
                yield raw if isinstance(raw, Unreadable) else self.run(self.preprocess.collate([raw]))

    def parts(self, item: Any) -> list[tuple[str, Any]]:
        """The parts of an item that the network looks at one by one."""
        return parts_of(self.preprocess, item)

    def run(self, batch: dict[str, np.ndarray]) -> Outcome:
        """Outputs and features of a batch of one."""
        with self.turn:
            self.request.infer(batch, share_inputs=True)
            outputs, features = (
                np.array(self.request.get_output_tensor(number).data[0], dtype=np.float32)
                for number in range(2)
            )
        return Outcome(outputs, features)

    def _read_one(self, item: Any) -> Any:
        try:
            return self.preprocess.host(item)
        except Unreadable as error:
            return error


def make_ready(model: Finished, folder: Path, cache: Path | None) -> bool:
    """Keep the graph of a model that was loaded from a folder, unless it is there; whether it is there now.

    What OpenVINO cannot convert, or answers otherwise than PyTorch, is left: PyTorch runs it then.
    """
    from regraft.inference.whole import converted

    if cache is None:
        return False
    with contextlib.suppress(ImportError):
        library, (folder, _) = openvino(), described(folder)
        place = _place(folder, cache, library.__version__)
        if kept(library.Core(), place) is None:
            try:
                graph = converted(library, model)
            except Exception:  # whatever a converter stumbles over: nothing depends on it
                return False
            keep(library, graph, place)
        return _same(model, folder, cache, place)
    return False


def _same(model: Finished, folder: Path, cache: Path, place: Path) -> bool:
    """Whether the graph that was kept says what the model says of noise; one that does not is thrown away."""
    from regraft.inference.whole import answered

    ready = Ready.of(folder, cache)
    if ready is None:
        return False
    blank = ready.preprocess.blank(1, np.random.default_rng(0))
    ours, theirs = ready.run(blank).outputs, answered(model, blank).outputs
    if np.abs(ours - theirs).max() <= CLOSE * max(1.0, float(np.abs(theirs).max())):
        return True
    for leftover in (place, place.with_suffix(".bin")):
        leftover.unlink(missing_ok=True)
    return False


def described(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The model folder of a run's folder or a model folder, and what its regraft.json holds; of a run without
    a model the one with the head alone, where that is kept. Raises UsageError for what is none of these, and
    for a model of another version.
    """
    run = RunFolder(folder)
    whole = (place for place in (run.model, run.head_only) if (place / "regraft.json").is_file())
    folder = next(whole, folder)
    if not (folder / "regraft.json").is_file():
        raise UsageError(
            f"{folder} holds no finished model (no regraft.json). Give the folder of a finished run."
        )
    about = read_json(folder / "regraft.json")
    if about.get("schema") != SCHEMA:
        raise UsageError(
            f"{folder}/regraft.json has schema {about.get('schema')!r}; this regraft reads {SCHEMA}."
        )
    return folder, about


def preprocess_of(folder: Path, about: dict[str, Any]) -> Preprocess:
    """The preprocessing that a model folder's regraft.json tells `about`, with its files that lie there.
    Raises UsageError where one is missing.
    """
    values = about["preprocess"]
    try:
        files = {name: (folder / name).read_bytes() for name in values.get("files", ())}
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror or error}. The model needs this file.") from None
    modality = modality_of(values["modality"])
    return modality.preprocess_from({**values, "files": files} if files else values)


def familiarity_of(folder: Path) -> Familiarity | None:
    """What a model folder tells of the examples the model was made with."""
    from safetensors.numpy import load_file

    if not (folder / FAMILIARITY).is_file():
        return None
    with openable(folder / FAMILIARITY) as place:
        return Familiarity(**load_file(place))


def _place(folder: Path, cache: Path, version: str) -> Path:
    """Where the graph of a model folder is kept: it goes by the content of all that makes the network."""
    beside = (FAMILIARITY, SEEN, "README.md")
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name not in beside)
    made_of = [(path.name, file_sha256(path)) for path in files]
    return cache / "openvino" / f"{fingerprint('ready', VERSION, version, made_of)}.xml"


def _threads() -> dict[str, int]:
    """As many threads as the user allows, as PyTorch reads it."""
    named = os.environ.get("OMP_NUM_THREADS", "")
    return {"INFERENCE_NUM_THREADS": int(named)} if named.isdigit() and int(named) else {}

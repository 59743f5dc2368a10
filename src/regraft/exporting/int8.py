"""A graph whose backbone counts in 8 bits, by ONNX Runtime's static quantisation, and what that costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from regraft.artifacts import RunFolder
from regraft.data import Examples
from regraft.errors import UsageError
from regraft.exporting import onnx
from regraft.exporting.graph import Graph
from regraft.exporting.openvino import Runner as OpenVino
from regraft.exporting.proof import Runner
from regraft.inference.graphs import openvino as load_openvino
from regraft.modalities import Unreadable
from regraft.model import Model
from regraft.tasks import task_of

CALIBRATED_ON = 100  # examples of train that show how large activations are
JUDGED_ON = 500  # most examples of val that the cost is measured on
AGREEING = 0.97  # the share of answers that are the same as the model's, from files: below it is refused
TIMED, ROUNDS = 8, 5  # examples a batch whose speed is measured, and how often
OPERATORS = ["Conv", "Gemm", "MatMul"]


@dataclass(frozen=True)
class Cost:
    """What int8 costs: the headline metric on `n` examples of val in float32 and in int8, and their paired
    difference with its 95 % interval; and examples a second from decoded input to answer, by what runs them.
    """

    metric: str
    float32: float
    int8: float
    difference: float
    low: float
    high: float
    n: int
    speed: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def examples_of(run: RunFolder | None, data: str | Path | None) -> Examples:
    """The examples of a run, with what it learnt from. Raises UsageError for a model without its run."""
    if run is None:
        raise UsageError(
            "int8 is calibrated on the examples that the model was trained on: export from its run's folder."
        )
    examples = Examples.load(run.examples, task_of)
    return examples if data is None else examples.moved_to(data)


def quantise(source: Path, place: Path, graph: Graph, examples: Examples, tick: Callable[..., None]) -> None:
    """Make a file in int8 of one in float32: weights by channel, activations by the range that they have on
    examples of train. Preparation, head and answer stay float32, and what of the backbone is sensitive. Raises
    UsageError where nothing is left.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    items = _evenly(examples.part("train").items, CALIBRATED_ON)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """One example after the other."""

        def __init__(self) -> None:
            self.left: Iterator[dict[str, np.ndarray]] = _read(graph, items, tick)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    ready = place.with_name("ready.onnx")
    with onnx.quiet():
        quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
    inside = _robust(source, ready)
    if not inside:
        raise UsageError("nothing of this network can be put in int8.")
    with onnx.quiet():
        quantize_static(
            str(ready),
            str(place),
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=OPERATORS,
            nodes_to_quantize=inside,
            per_channel=True,
            reduce_range=True,  # else processors without VNNI overflow where they add
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    ready.unlink()


def _robust(source: Path, ready: Path) -> list[str]:
    """The names of the nodes of a file that is made `ready` which are put in int8: all products of the
    backbone with weights but the first convolution, and those that see one channel each, whose ranges differ
    by channel more than 8 bits hold. Which are the backbone's only the `source` says: making ready loses it.
    """
    import onnx as library

    known = library.load(str(source), load_external_data=False).graph.node
    backbone = {
        node.name
        for node in known
        if {one.key: one.value for one in node.metadata_props}.get(onnx.PART) == "backbone"
    }
    graph, inside, first = library.load(str(ready)).graph, [], True
    weights = {one.name for one in graph.initializer}
    for node in graph.node:
        if node.op_type == "Conv":
            grouped = any(one.name == "group" and one.i > 1 for one in node.attribute)
            inside += [] if first or grouped else [node.name]
            first = False
        elif node.op_type in OPERATORS and node.name in backbone and not weights.isdisjoint(node.input):
            inside.append(node.name)
    return inside


def cost_of(
    model: Model, graph: Graph, examples: Examples, runners: Mapping[str, Runner], tick: Callable[..., None]
) -> Cost | None:
    """What the runner "int8" costs beside "float32", on val, and how fast each of them is; None where there
    is no val set.
    """
    part = examples.part("val")
    rows = _evenly(range(len(part)), JUDGED_ON)
    said: dict[str, list[np.ndarray]] = {"float32": [], "int8": []}
    kept: list[int] = []
    given: dict[str, np.ndarray] = {}
    for row, given in zip(rows, _read(graph, [part.items[row] for row in rows], tick), strict=False):
        kept.append(row)
        for name, numbers in said.items():
            numbers.append(runners[name].run(given)[0][0])
    if not kept:
        return None
    task, targets, groups = model.task, part.labels[kept], part.clusters()
    outputs = {name: graph.answer.outputs(np.stack(numbers)) for name, numbers in said.items()}
    ours, theirs = (task.answers(outputs[name]) for name in ("int8", "float32"))
    paired = task.paired(targets, ours, theirs, "float32", None if groups is None else groups[kept])
    worth = {name: float(task.worth(targets, task.answers(outputs[name])).mean()) for name in said}
    return Cost(
        metric=task.headline.words,
        float32=worth["float32"],
        int8=worth["int8"],
        difference=paired.difference,
        low=paired.low,
        high=paired.high,
        n=len(kept),
        speed=speeds(runners, given),
    )


def speeds(runners: Mapping[str, Runner], given: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Examples a second of each, on the same batch, taking turns; the best of several."""
    batch = {name: np.repeat(array, TIMED, axis=0) for name, array in given.items()}
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, runner in runners.items():
            began = time.perf_counter()
            runner.run(batch)
            best[name] = max(best.get(name, 0.0), TIMED / (time.perf_counter() - began))
    return best


def bfloat16(place: Path) -> dict[str, Runner]:
    """The graph in bfloat16, by its name, where OpenVINO is installed and the processor has units for it."""
    try:
        library = load_openvino()
    except ImportError:
        return {}
    if "BF16" not in library.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return {}
    return {"bfloat16, OpenVINO": OpenVino(place, "bf16")}


def _read(graph: Graph, items: Sequence[Any], tick: Callable[..., None]) -> Iterator[dict[str, np.ndarray]]:
    for number, item in enumerate(items, start=1):
        tick(label="reading for int8", done=number, total=len(items))
        try:
            yield graph.intake.read(item)
        except Unreadable:
            continue


def _evenly(items: Sequence[Any], most: int) -> list[Any]:
    places = np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)
    return [items[place] for place in places.tolist()]

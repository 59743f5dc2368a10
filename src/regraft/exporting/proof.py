"""An export held against the model it is of, on real examples: it is handed over only where both agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch

from regraft.backbones import tensors
from regraft.errors import RegraftError
from regraft.exporting.examples import Real
from regraft.inference import TorchEngine, agreement
from regraft.modalities import Intake, Unreadable
from regraft.model import Model
from regraft.tasks import InGraph

AGREEING = 0.995  # the share of answers that are the same from files, in float32
THEIR_OWN = 0.9  # the same where another library resizes by its own code, which no export can change


class Subject(Protocol):
    """What is exported of a model: how it takes items, what of an item it prepares, and what it answers."""

    @property
    def intake(self) -> Intake: ...

    @property
    def answer(self) -> InGraph: ...

    @property
    def files(self) -> Mapping[str, bytes]:
        """What lies beside the export, by name."""

    def prepared(self, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The batch that its inputs become, before it goes to the network."""


class Runner(Protocol):
    """An export in the library that it is for."""

    @property
    def name(self) -> str:
        """The library's."""

    def run(self, given: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """(B, M) answers and (B, width) features of one batch of the graph's inputs."""


@dataclass(frozen=True)
class Difference:
    """Answers against those of the model: the largest and the mean difference of a number, in the units of its
    scale (1 for probabilities), and the share that agree.
    """

    largest: float
    mean: float
    agreement: float
    n: int


@dataclass(frozen=True)
class Proof:
    """How an export differs from its model on `n` real examples, those that `of` names.

    `same` is on the same prepared input: the model is given what the graph makes of an item. `files` is
    from the files on, against `Model.predict`; where graphs prepare items themselves, `preparing` are the
    mean and the largest difference to what the model's own preprocessing makes, in its units. `stored` is
    against the answers that the run has kept. `features` is the least cosine of the features.
    """

    runner: str
    of: str
    n: int
    same: Difference
    files: Difference
    preparing: Mapping[str, float]
    features: float
    stored: Difference | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def faults(self, same: float, agreeing: float = AGREEING) -> list[str]:
        """What is beyond the limits, in words: the largest difference on the same input, and the least share of
        answers that are the same from files on.
        """
        wrong = []
        if not self.same.largest <= same:
            wrong.append(
                f"on the same input the largest difference is {self.same.largest:.2g}, more than {same:g}"
            )
        if not self.files.agreement >= agreeing:
            wrong.append(
                f"from files {self.files.agreement:.2%} of {self.n} answers are the same, fewer than {agreeing:.1%}"
            )
        return wrong


class RefusedError(RegraftError):
    """An export that does not answer as its model does; nothing was written."""


@dataclass(frozen=True)
class _Compared:
    """One example: its `place` among them, the numbers of the export, of the model from the file on and from
    what the graph prepared, the features of both, and how far apart what is prepared is.
    """

    place: int
    said: np.ndarray
    from_file: np.ndarray
    from_prepared: np.ndarray
    features: tuple[np.ndarray, np.ndarray]
    apart: tuple[float, float]


def prove(
    runner: Runner, graph: Subject, model: Model, real: Real, tick: Callable[..., None] = lambda **_: None
) -> Proof:
    """Run an export on real examples, beside the model. Raises RefusedError where none can be read, and where
    a batch of two is answered otherwise than one example.
    """
    engine = TorchEngine(model.backbone, torch.device("cpu"), 1, "float32")
    compared: list[_Compared] = []
    given: dict[str, np.ndarray] = {}
    for place, (item, outputs) in enumerate(zip(real.items, model.outputs(real.items), strict=True)):
        tick(label="comparing with the model", done=place + 1, total=len(real))
        if isinstance(outputs, Unreadable):
            continue
        given = graph.intake.read(item)
        said, features = runner.run(given)
        batch, raw = graph.prepared(given), model.backbone.preprocess.host(item)
        ours = engine.forward(batch)[0]
        both = _numbers(model, graph, np.stack([outputs, _outputs(model, ours, batch)[0]]))
        apart = _apart(batch, model.backbone.preprocess.collate([raw]))
        compared.append(_Compared(place, said[0], both[0], both[1], (ours[0], features[0]), apart))
    if not compared:
        raise RefusedError(
            f"none of the {len(real)} examples ({real.of}) could be read: nothing was compared."
        )
    _check_batches(runner, graph, given, compared[-1].said)
    ours, theirs = (np.stack([one.features[side] for one in compared]) for side in (0, 1))
    said = np.stack([one.said for one in compared])
    return Proof(
        runner=runner.name,
        of=real.of,
        n=len(compared),
        same=_difference(model, graph, np.stack([one.from_prepared for one in compared]), said),
        files=_difference(model, graph, np.stack([one.from_file for one in compared]), said),
        preparing={
            "mean": float(np.mean([one.apart[0] for one in compared])),
            "largest": max(one.apart[1] for one in compared),
        },
        features=float(agreement(ours, theirs).min()),
        stored=_beside_stored(model, graph, real, {one.place: one.said for one in compared}),
    )


def _numbers(model: Model, graph: Subject, outputs: np.ndarray) -> np.ndarray:
    """(N, M) what the model says, of its (N, K) outputs."""
    return graph.answer.numbers(model.calibrated.applied(outputs.astype(np.float64)))


def _outputs(model: Model, features: np.ndarray, batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """(N, K) outputs by the features of a batch, and by what stands beside the network."""
    with torch.inference_mode():
        outputs = model.head.to("cpu").eval()(torch.from_numpy(features))
        if model.beside is not None:
            outputs = outputs + model.beside(tensors(dict(batch), torch.device("cpu")))
    return np.asarray(outputs.numpy())


def _apart(batch: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """The mean and the largest difference of two batches of one example."""
    gaps = [np.abs(batch[name].astype(np.float64) - other[name]).ravel() for name in other]
    together = np.concatenate(gaps)
    return float(together.mean()), float(together.max())


def _difference(model: Model, graph: Subject, expected: np.ndarray, said: np.ndarray) -> Difference:
    """(N, M) numbers of the export against those that are expected."""
    gaps, task = np.abs(expected - said) / graph.answer.scale, model.task.decided(model.calibrated)
    ours, theirs = (task.answers(graph.answer.outputs(numbers)) for numbers in (expected, said))
    agree = task.same(ours, theirs)
    return Difference(float(gaps.max()), float(gaps.mean()), float(agree.mean()), len(said))


def _check_batches(
    runner: Runner, graph: Subject, given: Mapping[str, np.ndarray], alone: np.ndarray
) -> None:
    """Two of a batch are answered as one is. Raises RefusedError where they are not."""
    twice = {name: np.concatenate([array, array]) for name, array in given.items()}
    numbers, _ = runner.run(twice)
    if not (np.abs(numbers - alone) / graph.answer.scale).max() <= graph.answer.alike:
        raise RefusedError(f"{runner.name} answers other things of a batch of two than of one example.")


def _beside_stored(
    model: Model, graph: Subject, real: Real, said: Mapping[int, np.ndarray]
) -> Difference | None:
    """The difference to the answers that the run has kept; None where there are none."""
    rows = [(row, place) for row, place in enumerate(real.positions) if place in said]
    if real.stored is None or not rows:
        return None
    expected = graph.answer.numbers(model.task.outputs_in(real.stored))[[row for row, _ in rows]]
    ours = np.stack([said[place] for _, place in rows])
    return _difference(model, graph, expected, ours)

"""An export from beginning to end: made, held against the model, and handed over only where they agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regraft.exporting.examples import real_examples, run_of
from regraft.exporting.folder import complete, place_for, whole
from regraft.exporting.formats import format_of
from regraft.exporting.graph import Graph, described
from regraft.exporting.proof import Proof, RefusedError, prove
from regraft.model import Model


@dataclass(frozen=True)
class Exported:
    """A folder with an export, in one of the formats, and how it differs from its model; None where no
    examples were at hand to compare with.
    """

    path: Path
    format: str
    proof: Proof | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "path": str(self.path),
            "format": self.format,
            "proof": self.proof.to_dict() if self.proof else None,
        }


def export(
    place: Path,
    to: str,
    out: str | Path | None = None,
    data: str | Path | None = None,
    tick: Callable[..., None] = lambda **_: None,
) -> Exported:
    """Export the model of a run or a model folder. Nothing is written where it does not answer as the model
    does.

    `data` says where the run's data are now, or names examples to compare a model without its run with.
    Raises RefusedError, UsageError.
    """
    form = format_of(to)
    versions = form.versions()
    model, run = Model.load(place), run_of(place)
    target = place_for(out, place, run, to)
    real = real_examples(model, run, data)
    tick(label=f"making the graph for {form.title}", done=0, total=1)
    graph = Graph(model)
    about = {**described(graph, model, versions), "format": to}
    with whole(target) as folder:
        runner = form.runner(form.write(graph, about, folder))
        proof = proven(prove(runner, graph, model, real, tick), to) if len(real) else None
        complete(folder, form, graph, model.task.question(), about, proof)
    return Exported(target, to, proof)


def proven(proof: Proof, to: str) -> Proof:
    """The proof, where it holds. Raises RefusedError with what is beyond the limits."""
    if faults := proof.faults():
        raise RefusedError(
            f"the export to {to} was refused, and nothing was written: {'; '.join(faults)} "
            f"({proof.n} real examples: {proof.of})."
        )
    return proof

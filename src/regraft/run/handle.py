"""A run as Python users hold it."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.artifacts import RunFolder, read_json
from regraft.errors import UsageError
from regraft.evaluation import Estimate
from regraft.run.listed import headline
from regraft.tasks import Task, task_of_run

if TYPE_CHECKING:
    from regraft.model import Model


class Run:
    """A run's folder, read: `path`, `state`, `metrics` with Estimates, `model`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not (self.path / "run.json").is_file():
            raise UsageError(f"{self.path} is no run (no run.json in it).")
        self.state: dict[str, Any] = RunFolder(self.path).read_state()
        raw = read_json(self.path / "metrics.json") if (self.path / "metrics.json").is_file() else {}
        self.metrics: dict[str, Any] = {
            **raw,
            **{
                s: {n: Estimate.from_dict(e) for n, e in raw[s].items()}
                for s in ("val", "test", "cv")
                if s in raw
            },
        }

    @property
    def task(self) -> Task:
        """What was asked of the model."""
        return task_of_run(self.state)

    @property
    def strategies(self) -> dict[str, Any]:
        """The freezing strategies that were tried: `trials` (a dictionary each), `chosen`, `advice`."""
        place = RunFolder(self.path).strategies
        return read_json(place) if place.is_file() else {"trials": [], "chosen": None, "advice": ""}

    @property
    def model(self) -> Model:
        """The finished model."""
        from regraft.model import Model

        return Model.load(self.path)

    def headline(self) -> str:
        """One line: what came out, and with which certainty."""
        return headline(self.task.headline, self.metrics, self.state["state"])

    def write_report(self) -> Path:
        """Write report.html again, from the run's files, with pictures where it has none yet; gives its
        path.
        """
        from regraft.report import write_gallery, write_report

        folder = RunFolder(self.path)
        if folder.predictions.is_file() and folder.examples.is_file() and not folder.gallery.is_file():
            write_gallery(self.path, self.model)
        return write_report(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}: {self.headline()})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{split}</td><td>{html.escape(name)}</td><td>{e.value:.4f}</td><td>{e.low:.4f} "
            f"to {e.high:.4f}</td></tr>"
            for split in ("val", "test", "cv")
            for name, e in self.metrics.get(split, {}).items()
        )
        return f"<table><caption>{html.escape(repr(self))}</caption>{rows}</table>"

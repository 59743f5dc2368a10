"""A run's events for TensorBoard, MLflow or Weights & Biases, through their own libraries, which are not
installed with regraft.

Each hears the same: a scalar an epoch and a step of the head's L2 path, and when the run is finished its
metrics, the seconds of each step and the recipe. A tracker that fails is said to have failed, once, and the
run goes on without it.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from regraft.artifacts import Events, Listener, RunFolder, read_json
from regraft.errors import UsageError
from regraft.recipe import read_recipe

KEPT = ("recipe.yaml", "metrics.json", "report.html")  # files a tracker that keeps files is given
EPOCH = ("train_loss", "examples_per_second")  # and all that is told of val


class Tracker(Protocol):
    """What an adapter does with its library. `settings` is the flat recipe; `axis` names what `at` counts."""

    def open(self, folder: RunFolder, name: str) -> None: ...
    def scalars(self, values: dict[str, float], axis: str, at: int) -> None: ...
    def results(self, values: dict[str, float], settings: dict[str, Any]) -> None: ...
    def close(self, files: Sequence[Path]) -> None: ...


class TensorBoard:
    """Event files in the run's folder `tensorboard`."""

    def __init__(self, offline: bool) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._make = SummaryWriter

    def open(self, folder: RunFolder, name: str) -> None:
        """Begin to write."""
        self._writer = self._make(str(folder.tensorboard))

    def scalars(self, values: dict[str, float], axis: str, at: int) -> None:
        """A point of each curve."""
        for key, value in values.items():
            self._writer.add_scalar(key, value, at)

    def results(self, values: dict[str, float], settings: dict[str, Any]) -> None:
        """The results as curves of one point, the recipe as a table."""
        self.scalars(values, "", 0)
        table = "\n".join(
            ["| setting | value |", "|---|---|", *(f"| {key} | {value} |" for key, value in settings.items())]
        )
        self._writer.add_text("recipe", table)

    def close(self, files: Sequence[Path]) -> None:
        """Write what is left."""
        self._writer.close()


class MLflow:
    """A run of MLflow, at the tracking URI the user has set (MLFLOW_TRACKING_URI), else where MLflow itself
    puts it.
    """

    def __init__(self, offline: bool) -> None:
        import mlflow

        self._mlflow, uri = mlflow, str(mlflow.get_tracking_uri())
        if offline and uri.startswith(("http:", "https:", "databricks")):
            raise UsageError(
                f"--offline, but MLflow's tracking URI is {uri}. Unset it, or leave out --track mlflow."
            )

    def open(self, folder: RunFolder, name: str) -> None:
        """Start a run, inside the user's own where there is one."""
        self._mlflow.start_run(run_name=name, nested=self._mlflow.active_run() is not None)

    def scalars(self, values: dict[str, float], axis: str, at: int) -> None:
        """A point of each curve."""
        self._mlflow.log_metrics(values, step=at)

    def results(self, values: dict[str, float], settings: dict[str, Any]) -> None:
        """The results as metrics, the recipe as parameters."""
        self._mlflow.log_metrics(values)
        self._mlflow.log_params(settings)

    def close(self, files: Sequence[Path]) -> None:
        """Keep the files and end the run: as failed where there are none."""
        for file in files:
            self._mlflow.log_artifact(str(file))
        self._mlflow.end_run("FINISHED" if files else "FAILED")


class WandB:
    """A run of Weights & Biases; its own files are in the run's folder. WANDB_MODE, WANDB_PROJECT and the
    like are obeyed.
    """

    def __init__(self, offline: bool) -> None:
        import wandb

        self._wandb, self._mode = wandb, "offline" if offline else None

    def open(self, folder: RunFolder, name: str) -> None:
        """Start a run."""
        project = os.environ.get("WANDB_PROJECT", "regraft")  # an argument would win over the user's setting
        self._run = self._wandb.init(project=project, name=name, dir=str(folder.path), mode=self._mode)

    def scalars(self, values: dict[str, float], axis: str, at: int) -> None:
        """A point of each curve; W&B's own step only counts the calls."""
        self._run.log({**values, axis: at})

    def results(self, values: dict[str, float], settings: dict[str, Any]) -> None:
        """The results as the summary, the recipe as the config."""
        self._run.summary.update(values)
        self._run.config.update(settings)

    def close(self, files: Sequence[Path]) -> None:
        """End the run: as failed where it left no files."""
        self._run.finish(exit_code=0 if files else 1)


TRACKERS: dict[str, type[TensorBoard] | type[MLflow] | type[WandB]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WandB,
}


class Tracking:
    """Turns a run's events into what a tracker takes; it opens when the run begins, so where the run goes
    need not be known.
    """

    def __init__(self, name: str, tracker: Tracker, others: Sequence[Listener]) -> None:
        self.name, self._tracker, self._others = name, tracker, others
        self._folder: RunFolder | None = None
        self._l2: dict[str, int] = {}
        self._finished = self._broken = False

    def __call__(self, event: dict[str, Any]) -> None:
        """Hear an event; never raises."""
        if self._broken or event["kind"] == "tick":
            return
        try:
            self._hear(event)
        except Exception as error:  # whatever a tracker's library may raise
            self._give_up(error)

    def close(self) -> None:
        """The run is over, well or not."""
        if self._folder is None:
            return
        files = [self._folder.path / name for name in KEPT] if self._finished and not self._broken else []
        try:
            self._tracker.close([file for file in files if file.is_file()])
        except Exception as error:
            if not self._broken:
                self._give_up(error)

    def _hear(self, event: dict[str, Any]) -> None:
        kind, fold = event["kind"], f"fold_{event['fold']}/" if "fold" in event else ""
        if kind == "begin" and self._folder is None:  # under --folds each walk begins, and it is one run
            self._folder = RunFolder(Path(event["out"]))
            self._tracker.open(self._folder, self._folder.path.name)
        elif kind == "epoch":
            of = fold + (f"{event['strategy'].replace(' ', '_')}/" if "strategy" in event else "")
            names = [name for name in event if name in EPOCH or name.startswith("val_")]
            values = {f"finetune/{of}{name}": event[name] for name in names if event[name] is not None}
            self._tracker.scalars(values, "epoch", event["epoch"])
        elif kind == "l2":
            curve = f"{fold}l2_{event['class_weights']}", f"{fold}loss_{event['class_weights']}"
            self._l2[curve[0]] = at = self._l2.get(curve[0], -1) + 1
            values = {f"train/{curve[0]}": event["l2"], f"train/{curve[1]}": event["loss"]}
            self._tracker.scalars(values, "l2_step", at)
        elif kind == "finished" and not fold and self._folder is not None:
            self._tracker.results(results(self._folder), settings(self._folder))
            self._finished = True

    def _give_up(self, error: Exception) -> None:
        self._broken = True
        text = (
            f"tracking by {self.name} has failed and is left out from here on: "
            f"{str(error) or type(error).__name__}"
        )
        if self._folder is None or not self._others:
            warnings.warn(text, stacklevel=2)
        if self._folder is not None:
            Events(self._folder.events, tuple(self._others)).emit("note", text=text)


def results(folder: RunFolder) -> dict[str, float]:
    """Flat numbers of a finished run: `test/accuracy`, and `seconds/train` and the like."""
    metrics = read_json(folder.metrics)
    scores = {
        f"{split}/{name}": float(estimate["value"])
        for split in ("val", "test", "cv")
        for name, estimate in (metrics.get(split) or {}).items()
        if estimate["value"] is not None
    }
    return {
        **scores,
        **{f"seconds/{step}": float(said["seconds"]) for step, said in metrics["steps"].items()},
    }


def settings(folder: RunFolder) -> dict[str, Any]:
    """The recipe as `section.name` and its value, a list as text."""
    return {
        f"{section}.{name}": value if isinstance(value, (str, int, float, bool)) else str(value)
        for section, values in read_recipe(folder.recipe).items()
        for name, value in values.items()
    }


@contextlib.contextmanager
def tracked(
    names: Sequence[str], offline: bool, listeners: Sequence[Listener]
) -> Iterator[tuple[Listener, ...]]:
    """The listeners and one for each tracker named, closed at the end. Raises UsageError for one that
    cannot be used.
    """
    trackers = [Tracking(name, tracker(name, offline), listeners) for name in dict.fromkeys(names)]
    try:
        yield (*listeners, *trackers)
    finally:
        for tracking in trackers:
            tracking.close()


def tracker(name: str, offline: bool = False) -> Tracker:
    """The adapter of a tracker's library. Raises UsageError for a name that is none and a library that is
    not installed.
    """
    if name not in TRACKERS:
        raise UsageError(f"--track {name!r} is none of {', '.join(TRACKERS)}.")
    try:
        return TRACKERS[name](offline)
    except ImportError as error:
        raise UsageError(
            f'--track {name} needs a library that is not there ({error}): pip install "regraft[{name}]"'
        ) from None

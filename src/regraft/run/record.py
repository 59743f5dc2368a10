"""What a run writes down of its walk: each step with its time, the model, the end; and what it went
without.
"""

from __future__ import annotations

import contextlib
import functools
import shlex
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np

from regraft.artifacts import RunFolder, read_json, write_bytes, write_json, write_text
from regraft.backbones import Provenance
from regraft.data import Examples, readings
from regraft.data.audit import LISTED, Finding
from regraft.data.part import Part
from regraft.errors import BudgetError, ChangedError, RegraftError
from regraft.model import Model
from regraft.predictions import write_predictions
from regraft.recipe import Recipe
from regraft.report import model_card, write_gallery, write_report
from regraft.report.gallery import SECONDS
from regraft.runtime import peak_memory, versions
from regraft.steps.context import Context, Keeper
from regraft.steps.rank import Ranking
from regraft.tasks import Calibration, Task
from regraft.training import Checkpoint

STEPS = ("obtain", "base", "freeze", "head", "train", "finetune", "evaluate")
HEAD_ONLY = "this is the head alone, kept before fine-tuning while the run went on; it was tested on nothing"
Result = TypeVar("Result")


class Record(Keeper):
    """The record of one run in its folder: run.json, recipe.yaml, metrics.json, the model, the report.

    `state` is the content of run.json, `metrics` that of metrics.json, `predictions` (part, (N, K) logits)
    that of predictions.parquet. Whatever goes wrong from the moment the model is kept is not fatal to it.
    """

    def __init__(
        self, folder: RunFolder, examples: Examples, about: Mapping[str, Any], context: Context
    ) -> None:
        self.folder, self.context = folder, context
        context.keeper = self
        context.events.listeners = (*context.events.listeners, self._count)
        self.passes: Counter[str] = Counter()  # by the step that is under way, or was last
        self.at = ""
        recipe = context.recipe
        self.state: dict[str, Any] = {
            "schema": RunFolder.SCHEMA,
            "state": "running",
            "name": about["name"],
            "data": {**about, "kind": examples.task.kind, "classes": list(examples.task.classes)},
            "steps": {name: {"state": "pending"} for name in STEPS},
            "chosen": None,
            "chosen_why": "",
            "seed": recipe.run.seed,
            "device": str(context.device),
            "versions": versions(),
            "readings": readings(folder),
            "missing": {},
        }
        self.counted(examples)
        self.metrics: dict[str, Any] = {"steps": {}}
        self.predictions: list[tuple[Part, np.ndarray]] = []
        self.settled: Recipe | None = None  # what recipe.yaml holds
        self.kept = self.finished = False  # the model is saved; all that a run must leave is written
        self.write()

    # What goes on

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Around a step: its time and what it decided are written to run.json and recipe.yaml, where it ends
        without an error.
        """
        self.context.events.emit("step", step=name)
        self.at, began = name, time.monotonic()
        yield
        seconds = time.monotonic() - began
        said = self.context.decisions.steps.get(name, {})
        skipped = said.get("decided") == "not done"
        self.state["steps"][name] = {"state": "skipped" if skipped else "done", "seconds": seconds, **said}
        self.metrics["steps"][name] = {"seconds": seconds}
        self.write()

    def _count(self, event: Mapping[str, Any]) -> None:
        """Hear of an event how many passes it stands for: what follows a step, such as a second training, is
        part of that step.
        """
        self.passes[self.at] += event.get("passes", 0)

    def write(self) -> None:
        """Write run.json as it stands, and recipe.yaml where more is settled than it holds."""
        decisions = self.context.decisions
        for name, count in self.passes.items():
            if count and name in self.metrics["steps"]:
                self.state["steps"][name]["passes"] = self.metrics["steps"][name]["passes"] = count
        self.state["settled"] = decisions.reasons()
        self.state["seconds"] = time.monotonic() - self.context.started
        self.state["peak_memory_bytes"] = peak_memory()
        write_json(self.folder.state, self.state)
        merged = decisions.merged(self.context.recipe)
        if merged != self.settled:
            write_text(self.folder.recipe, merged.to_yaml())
            self.settled = merged

    def counted(self, examples: Examples) -> None:
        """Note how many examples each split holds."""
        self.state["data"] |= {"counts": examples.counts(), "class_counts": examples.class_counts()}

    def provenance(self, provenance: Provenance, ranking: Ranking | None) -> None:
        """Note where the weights come from; a comparison of several backbones is kept beside the run."""
        self.state["provenance"] = asdict(provenance)
        if ranking is not None:
            write_json(self.folder.ranking, ranking.to_dict())

    def add_findings(self, findings: list[Finding], anew: frozenset[str]) -> None:
        """Add findings to audit.json, run.json and the log; those of the kinds `anew` that an earlier
        attempt left give way.
        """
        data, place = self.state["data"], self.folder.audit
        before = read_json(place)["findings"] if place.is_file() else data["findings"]
        before = [finding for finding in before if finding["kind"] not in anew]
        write_json(place, {"findings": [*before, *(finding.to_dict() for finding in findings)]})
        listed = [finding.to_dict(LISTED) for finding in findings]
        data["findings"] = [*data["findings"], *listed]
        self.context.events.emit("audit", findings=listed)

    def held_out(self, part: Part, logits: np.ndarray, scores: dict[str, Any]) -> None:
        """Keep what the winner's (N, K) logits say of the held-out examples of val, where there are any."""
        if len(part):
            self.metrics["val"] = scores
            self.predictions.append((part, logits))

    def chosen(self, name: str, why: str) -> None:
        """Note which model won, and why."""
        self.state["chosen"], self.state["chosen_why"] = name, why
        self.context.events.emit("chosen", chosen=name, why=why)
        self.write()

    # What the run can do without

    def optional(self, what: str, make: Callable[[], Result]) -> Result | None:
        """Make something the run can do without; None where that went wrong.

        Raises ChangedError: then nothing is as it was.
        """
        try:
            return make()
        except ChangedError:
            raise
        except Exception as error:  # whatever it is: the run goes on
            self.leave_out(what, reason(error))
            return None

    def in_time(self, what: str, make: Callable[[], Result]) -> Result | None:
        """Make something the run can do without; None where that fails, or the budget is used up."""

        def timely() -> Result:
            if self.context.seconds_left <= 0:
                raise BudgetError("no time was left for it")
            return make()

        return self.optional(what, timely)

    def leave_out(self, what: str, why: str) -> None:
        """Say that the run goes on without something, and keep it in run.json under `missing`."""
        self.state["missing"][what] = why
        self.say(f"without {what}: {why}")

    def say(self, text: str) -> None:
        """Tell a note, heard even where the log cannot be written any more."""
        try:
            self.context.events.emit("note", text=text)
        except OSError:
            for hear in self.context.events.listeners:
                hear({"kind": "note", "text": text})

    # What is kept for the steps while they go on

    def keep_examples(self, examples: Examples) -> None:
        """Write examples.parquet anew, and note the counts of its splits."""
        examples.save(self.folder.examples)
        self.counted(examples)

    def checkpoint(self, name: str) -> Checkpoint:
        """The checkpoint of a training: "finetune", "refit", "scratch", or the number of one of several."""
        of_name = {
            "finetune": self.folder.checkpoint,
            "refit": self.folder.refit,
            "scratch": self.folder.scratch,
        }
        return Checkpoint(of_name[name] if name in of_name else self.folder.numbered(int(name)))

    def first_batch(self, batch: dict[str, np.ndarray]) -> None:
        """Save a picture of what is in the first augmented batch."""

        def save() -> None:
            if sheet := self.context.modality.sheet(batch):
                write_bytes(self.folder.first_batch, sheet)

        self.optional("picture of the first batch", save)

    def strategies(self) -> list[dict[str, Any]]:
        """The trials of strategies.json, where it is there."""
        place = self.folder.strategies
        return list(read_json(place)["trials"]) if place.is_file() else []

    def keep_strategies(self, strategies: dict[str, Any]) -> None:
        """Write strategies.json."""
        write_json(self.folder.strategies, strategies)

    # How the run ends

    def model(self, model: Model) -> Model:
        """Save the model, whole and ready for use, while test is sealed: whatever happens afterwards, it is
        there.
        """
        for place in (self.folder.report, self.folder.gallery):  # of an earlier ending of this run
            place.unlink(missing_ok=True)
        write_json(self.folder.metrics, self.metrics)
        self.state["library"] = model.library
        model.save(self.folder.model, model_card(self.state, self.metrics))
        self.kept = True
        shutil.rmtree(self.folder.head_only, ignore_errors=True)  # only now: there is a model at any moment
        return model

    def head_only(self, make: Callable[[], Model]) -> None:
        """Save the model of the head alone, which can be used while the run goes on and after it was stopped,
        and say so; what goes wrong with that leaves the run as it is.

        It has a folder of its own, so that a kill at any moment leaves this one or the final one whole. A fold
        hands over no model, so it keeps none.
        """
        folder = self.folder.head_only

        def keep() -> None:
            model = make()
            model.note = HEAD_ONLY
            state = {
                **self.state,
                "library": model.library,
                "missing": {"fine-tuning and evaluation": HEAD_ONLY},
            }
            model.save(folder, model_card(state, {}))
            self.context.events.note(
                "a model of the head alone can be used from now on: regraft predict RUN FILES"
            )

        if not self.folder.is_fold and not (folder / "regraft.json").is_file():
            self.optional("model of the head alone", keep)

    def explored(self) -> None:
        """End a run that was to stop before the test set is read."""
        self.state["state"] = "explored"
        self.write()
        self.report()

    def finish(self, model: Model, task: Task, calibration: Calibration) -> None:
        """Write all that is handed back; the word that the run is finished comes last, but for the report."""
        folder = self.folder
        write_predictions(folder.predictions, self.predictions, task, calibration)
        write_json(folder.metrics, self.metrics)
        write_text(folder.model / "README.md", model_card(self.state, self.metrics))
        self.context.events.emit("finished", seconds=time.monotonic() - self.context.started)
        self.state["state"] = "finished"
        self.write()
        self.finished = True
        for place in folder.path.glob("checkpoint*.safetensors"):
            with contextlib.suppress(OSError):
                place.unlink(missing_ok=True)
        self.report(model)

    def report(self, model: Model | None = None) -> None:
        """Write report.html with its photographs; what goes wrong with those is said, and leaves the run as
        it is.
        """
        settled = self.context.decisions.settled.get("finetune.precision")
        precision = "bfloat16" if settled is not None and settled.value == "bfloat16" else "float32"
        seconds, already = min(SECONDS, self.context.seconds_left), len(self.state["missing"])
        gallery = functools.partial(
            write_gallery, self.folder.path, model, self.context.device, seconds, precision
        )
        self.optional(RunFolder.PICTURES, gallery)
        if len(self.state["missing"]) > already:
            self.optional("what is missing in run.json", self.write)
        if self.optional(RunFolder.REPORT, lambda: write_report(self.folder.path)) is None:
            self.optional("what is missing in run.json", self.write)

    def broken_off(self, error: BaseException, tested: bool) -> None:
        """Write down that the run ends early and why, and say what is kept and what is missing.

        `tested` says whether there is a test set. What cannot be written (the disk may be full) is passed
        over, so that the error itself is heard.
        """
        stopped, state = isinstance(error, KeyboardInterrupt), self.state
        why = "stopped by the user" if stopped else reason(error)
        if not self.finished:
            state["state"], state["error"] = "interrupted" if stopped else "failed", str(error)
            if self.kept:
                state["missing"]["result on test" if tested else "evaluation"] = why
        elif not self.folder.report.is_file():
            state["missing"][RunFolder.REPORT] = why
        with contextlib.suppress(OSError):
            state["readings"] = readings(self.folder)
            self.write()
        whole = shlex.quote(str(self.folder.whole))
        if not self.kept and (self.folder.head_only / "regraft.json").is_file():
            self.say(
                f"the model of the head alone is kept and can be used: regraft predict {whole} FILES. It was not "
                f"fine-tuned and tested on nothing.{'' if stopped else f' {self._onwards()}'}"
            )
        if not self.kept or not state["missing"]:
            return
        if not self.finished:
            with contextlib.suppress(Exception):
                write_report(self.folder.path)
        missing = "; ".join(f"{what} ({said})" for what, said in state["missing"].items())
        how = "" if stopped else f" {self._onwards()}"
        self.say(
            f"the model is kept in {self.folder.model} and can be used as it is: regraft predict {whole} FILES. "
            f"Missing: {missing}.{how}"
        )

    def _onwards(self) -> str:
        """The command that goes on with the run."""
        return f"Go on with: regraft fit --resume --out {shlex.quote(str(self.folder.whole))}"


def reason(error: BaseException) -> str:
    """What went wrong, in one line; the kind of error too where the text alone may say little."""
    text = " ".join(str(error).split())
    return (
        text
        if isinstance(error, (RegraftError, OSError)) and text
        else f"{type(error).__name__}: {text}".rstrip(": ")
    )

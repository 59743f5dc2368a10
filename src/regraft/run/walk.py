"""The seven calls, in order. (Examples, Recipe, RunFolder) -> a finished run folder."""

from __future__ import annotations

import contextlib
import functools
import shlex
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from regraft.artifacts import Events, RunFolder, read_json, write_bytes, write_json, write_text
from regraft.backbones import Backbone, Obtained
from regraft.data import Examples, readings
from regraft.data.audit import IN_TEST, LATER, LISTED, Finding, Near, contradicting_test, fatal, find_near
from regraft.data.examples import Inputs, Part
from regraft.data.lineage import in_sample
from regraft.errors import BudgetError, ChangedError, DataError, RegraftError
from regraft.evaluation import Estimate
from regraft.inference import Engine, FeatureStore, feature_key
from regraft.modalities import modality_of
from regraft.model import Model
from regraft.predictions import write_predictions
from regraft.recipe import Recipe
from regraft.report import model_card, write_gallery, write_report
from regraft.report.gallery import SECONDS
from regraft.runtime import keep_large_blocks, peak_memory, pick_device, survive_forks, versions
from regraft.steps.audit import apart, audit, nearly_known, without_near_duplicates
from regraft.steps.base import base
from regraft.steps.context import Context
from regraft.steps.engine import choose_engine
from regraft.steps.evaluate import Verdict, cross_validate, evaluate_test, from_folds, out_of_fold, predicted
from regraft.steps.finetune.explore import explore
from regraft.steps.finetune.judge import Judged, cross_fit, judge
from regraft.steps.finetune.prefix import Data
from regraft.steps.finetune.rules import REFIT, folds, settle, settle_idle
from regraft.steps.finetune.tune import Finetuned, finetune, worth
from regraft.steps.freeze import freeze, planned
from regraft.steps.head import head
from regraft.steps.obtain import obtain
from regraft.steps.scratch import from_scratch
from regraft.steps.train import Features, Heads, apply_head, train_head
from regraft.tasks import Held, Known, chosen_by, task_of
from regraft.training import Checkpoint, FreezePlan, class_weighted

STEPS = ("obtain", "base", "freeze", "head", "train", "finetune", "evaluate")
PROBED = 512  # training examples by which a probe tells whether a way of augmentation suits the data
TRIAL = 4  # the length of fine-tuning is divided by it for the trial of `prefer: speed`
Result = TypeVar("Result")


class Walk:
    """One walk through the seven steps; holds what they share and writes what they decide."""

    def __init__(
        self,
        examples: Examples,
        recipe: Recipe,
        folder: RunFolder,
        cache: Path | None,
        events: Events,
        about: dict[str, Any],
        started: float,
    ) -> None:
        keep_large_blocks()
        survive_forks()
        self.examples, self.recipe, self.folder = examples, recipe, folder
        self.task = task_of(examples.task.kind, examples.task.classes)
        if recipe.run.metric == "auto":
            recipe.run.metric = self.task.headline.name
        chosen_by(self.task, recipe.run.metric)
        device = pick_device(recipe.run.device)
        recipe.run.device = str(device)
        if recipe.run.threads == "auto":
            recipe.run.threads = torch.get_num_threads()
        torch.set_num_threads(int(recipe.run.threads))
        earlier = folder.read_state()["steps"]
        store = FeatureStore(cache, note=events.note)
        self.context = Context(
            recipe,
            store,
            device,
            events,
            modality_of(examples.modality),
            started,
            earlier,
            share=1 / (1 + recipe.data.folds),
        )
        self.state = {
            "schema": RunFolder.SCHEMA,
            "state": "running",
            "name": about["name"],
            "data": {
                **about,
                "kind": self.task.kind,
                "classes": list(self.task.classes),
                "counts": examples.counts(),
                "class_counts": examples.class_counts(),
            },
            "steps": {name: {"state": "pending"} for name in STEPS},
            "chosen": None,
            "chosen_why": "",
            "seed": recipe.run.seed,
            "device": str(device),
            "versions": versions(),
            "readings": readings(folder),
            "missing": {},
        }
        self.metrics: dict[str, Any] = {"steps": {}}
        self.predictions: list[tuple[Part, np.ndarray]] = []
        self.judged: Judged | None = None  # by folds of train and val
        self.held = Held("val", np.zeros(0, np.int64), np.zeros((0, 0)))  # predictions of what won
        self.calibration = self.task.calibrate(self.held)  # of the model that is handed over
        self.interrupted = False  # by the user, while the chosen model was trained once more
        self.kept = self.finished = False  # the model is saved; all that a run must leave is written
        self.near: Near | None = None  # near-duplicates, once they were looked for
        self.tested: Inputs | None = None  # the inputs of test, where they were searched too
        self.nearly_known: frozenset[str] = frozenset()  # test examples with a near-duplicate in train or val

    def step(self, name: str, call: Callable[[], Result]) -> Result:
        """Run one step, its time and decision written to run.json and recipe.yaml."""
        self.context.events.emit("step", step=name)
        began = time.monotonic()
        result = call()
        seconds = time.monotonic() - began
        said = self.context.said.get(name, {})
        skipped = said.get("decided") == "not done"
        self.state["steps"][name] = {"state": "skipped" if skipped else "done", "seconds": seconds, **said}
        self.metrics["steps"][name] = {"seconds": seconds}
        self.write()
        return result

    def write(self) -> None:
        """run.json and recipe.yaml as they stand."""
        self.state["seconds"] = time.monotonic() - self.context.started
        self.state["peak_memory_bytes"] = peak_memory()
        write_json(self.folder.state, self.state)
        write_text(self.folder.recipe, self.recipe.to_yaml())

    def features(
        self, part: Part | Inputs, backbone: Backbone, engine: Engine, view: str = "plain"
    ) -> np.ndarray:
        """(N, width) frozen features of a part, from the store where it has them."""
        views = {probe.setting: probe.view for probe in self.context.modality.probes}
        pre = backbone.preprocess if view == "plain" else views[view](backbone.preprocess)
        key = feature_key(engine, view)
        label = f"features of {part.name}" + ("" if view == "plain" else f" ({view})")
        began = time.monotonic()

        def tick(done: int, total: int, **fields: Any) -> None:
            self.context.events.tick(done=done, total=total, **fields)
            needed = (time.monotonic() - began) / done * (total - done)
            if needed > self.context.seconds_left and done >= 2 * engine.batch:
                raise BudgetError(
                    f"the {label} alone would take {needed:.0f} s more, the budget leaves {self.context.seconds_left:.0f} s. "
                    "Allow more with --budget, or a smaller input with --size."
                )

        return self.context.store.features(part.ids, part.paths, key, pre, engine, tick, label)[0]

    def walk(self, until: str = "evaluate") -> None:
        """The seven steps, or those before `evaluate`: then the test set stays sealed and no model is handed
        back.
        """
        examples, context, classes = self.examples, self.context, self.task.outputs
        fit, val = examples.part("train"), examples.part("val")
        obtained = self.step("obtain", lambda: self.obtain(fit.then(val)))
        self.state["provenance"] = asdict(obtained.provenance)
        backbone = self.step("base", lambda: base(obtained, examples.facts(), context))
        plan = self.step("freeze", lambda: freeze(backbone, context))
        new = self.step("head", lambda: head(backbone.width, classes, len(fit) + len(val), context))
        engine = self.engine(backbone, fit)
        known = self.step("features", lambda: self.extract(fit, val, backbone, engine))
        fit, val, known = self.step("near-duplicates", lambda: self.apart(fit, val, known, backbone, engine))
        heads = self.step("train", lambda: train_head(new, known, len(fit), classes, context))
        look = functools.partial(self.audit, known, heads)
        self.step(
            "audit", look if self.recipe.data.strict else lambda: self.optional("audit of the features", look)
        )
        tuned, stopped = None, False
        try:
            tuned = self.step(
                "finetune", lambda: self.finetune(backbone, plan, heads, fit, val, known, engine)
            )
            stopped = tuned is not None and tuned.trained.stopped == "interrupted"
        except KeyboardInterrupt:
            stopped = True
        if until == "finetune" and not stopped:
            self.state["state"] = "explored"
            self.write()
            self.report()
            return
        model = self.calibrated(self.choose(backbone, heads, tuned, fit, val, stopped))
        self.keep(model)
        if stopped or self.interrupted:
            raise KeyboardInterrupt
        if left := self.recipe.open_choices():
            raise RegraftError(
                f"not decided at the end of the run: {', '.join(left)}; a fault of regraft, please report it"
            )
        self.step("evaluate", lambda: self.evaluate(model, heads, backbone, engine, known, fit, val))
        self.finish(model)

    def keep(self, model: Model) -> None:
        """The model, whole and ready for use, while test is sealed: whatever happens afterwards, it is there."""
        for place in (self.folder.report, self.folder.gallery):  # of an earlier ending of this run
            place.unlink(missing_ok=True)
        write_json(self.folder.metrics, self.metrics)
        model.save(self.folder.model, model_card(self.state, self.metrics))
        self.kept = True

    def optional(self, what: str, make: Callable[[], Result]) -> Result | None:
        """Something a run can do without; None where it went wrong. Raises ChangedError: then nothing is as
        it was.
        """
        try:
            return make()
        except ChangedError:
            raise
        except Exception as error:  # whatever it is: the run goes on
            self.leave_out(what, _reason(error))
            return None

    def leave_out(self, what: str, why: str) -> None:
        """Say that the run goes on without something, and keep it in run.json under `missing`."""
        self.state["missing"][what] = why
        self.say(f"without {what}: {why}")

    def say(self, text: str) -> None:
        """A note, heard even where the log cannot be written any more."""
        try:
            self.context.events.emit("note", text=text)
        except OSError:
            for hear in self.context.events.listeners:
                hear({"kind": "note", "text": text})

    def broken_off(self, error: BaseException) -> None:
        """Write down that the run ends early and why, and say what is kept and what is missing.

        What cannot be written (the disk may be full) is passed over, so that the error itself is heard.
        """
        stopped, state = isinstance(error, KeyboardInterrupt), self.state
        why = "stopped by the user" if stopped else _reason(error)
        if not self.finished:
            state["state"], state["error"] = "interrupted" if stopped else "failed", str(error)
            if self.kept:
                state["missing"]["result on test" if self.examples.counts()["test"] else "evaluation"] = why
        elif not self.folder.report.is_file():
            state["missing"][RunFolder.REPORT] = why
        with contextlib.suppress(OSError):
            state["readings"] = readings(self.folder)
            self.write()
        if not self.kept or not state["missing"]:
            return
        if not self.finished:
            with contextlib.suppress(Exception):
                write_report(self.folder.path)
        missing = "; ".join(f"{what} ({said})" for what, said in state["missing"].items())
        how = (
            ""
            if stopped
            else f" Go on with: regraft fit --resume --out {shlex.quote(str(self.folder.whole))}"
        )
        self.say(
            f"the model is kept in {self.folder.model} and can be used as it is. Missing: {missing}.{how}"
        )

    def obtain(self, both: Part) -> Obtained:
        """Step 1; a comparison of several backbones is kept beside the run."""
        examples, classes = self.examples, self.task.outputs
        obtained, ranking = obtain(both, examples.facts(), examples.counts(), classes, self.context)
        if ranking is not None:
            write_json(self.folder.ranking, ranking.to_dict())
        return obtained

    def engine(self, backbone: Backbone, fit: Part) -> Engine:
        """What runs the frozen base: the recipe's engine, or the fastest that agrees with float32 on some of
        the images.
        """
        return choose_engine(backbone, fit.paths, sum(self.examples.counts().values()), self.context)

    def extract(self, fit: Part, val: Part, backbone: Backbone, engine: Engine) -> Features:
        """The frozen base runs once over train and val; one array holds both, so nothing is copied to join
        them.
        """
        both = fit.then(val)
        return Features(self.features(both, backbone, engine), both.labels, both.weights, both.blocks)

    def apart(
        self, fit: Part, val: Part, known: Features, backbone: Backbone, engine: Engine
    ) -> tuple[Part, Part, Features]:
        """Near-duplicates become one block, and a val set that was cut here holds none of what train has one
        of.

        The features of test are those that step 7 asks for.
        """
        examples, events, test, ahead = self.examples, self.context.events, None, None
        if self.context.out_of_time():
            self.leave_out("near-duplicates", "no time was left to look for them")
            return fit, val, known
        if examples.counts()["test"]:
            test = examples.audit_view("near-duplicates of train and val", events.emit)
            try:
                ahead = self.features(test, backbone, engine)
            except BudgetError as error:
                self.leave_out("near-duplicates of test examples", str(error))
        self.tested = test if ahead is not None else None
        likeness = self.context.modality.likeness(examples.facts())
        near = find_near(
            examples.inputs(),
            self.tested,
            (known.values, ahead),
            likeness,
            events.tick,
            self.context.out_of_time,
        )
        found = apart(examples, near, not self.state["data"].get("val_given"), self.recipe.data.seed)
        self.examples, self.near = found.examples, found.near
        found.examples.save(self.folder.examples)
        fit, val = found.examples.part("train"), found.examples.part("val")
        if found.moved:
            text = f"{found.moved:,} examples changed between train and val, so that no near-duplicates lie in both"
            events.emit("note", text=text)
            self.state["data"] |= {
                "counts": found.examples.counts(),
                "class_counts": found.examples.class_counts(),
            }
            if isinstance(
                known.values, np.memmap
            ):  # the rows lie in the store: reading them again copies nothing
                return fit, val, self.extract(fit, val, backbone, engine)
        both, values = fit.then(val), known.values[found.order] if found.moved else known.values
        return fit, val, Features(values, both.labels, both.weights, both.blocks)

    def audit(self, known: Features, heads: Heads) -> None:
        """The audit on features, beside what the files told."""
        data = self.state["data"]
        if self.near is None or self.context.out_of_time():
            return self.leave_out("audit of features", "no time was left for it")
        kept = frozenset((source, kind) for source, kind in data.get("fixes", {}).get("kept", []))
        found = audit(self.examples, known, heads, self.tested, self.near, kept, self.context)
        self.tell(found, LATER)
        self.nearly_known = nearly_known(found, self.tested)
        if self.recipe.data.strict and (faults := fatal(found)):
            raise DataError(
                "the audit found what --strict does not let pass:", faults, f"Sources: {self.folder.audit}."
            )
        return None

    def tell(self, found: list[Finding], anew: frozenset[str]) -> None:
        """Add findings to audit.json, run.json and the log; those of the kinds `anew` that an earlier attempt
        left give way.
        """
        data, place = self.state["data"], self.folder.audit
        before = read_json(place)["findings"] if place.is_file() else data["findings"]
        before = [finding for finding in before if finding["kind"] not in anew]
        write_json(place, {"findings": [*before, *(finding.to_dict() for finding in found)]})
        listed = [finding.to_dict(LISTED) for finding in found]
        data["findings"] = [*data["findings"], *listed]
        self.context.events.emit("audit", findings=listed)

    def finetune(
        self,
        backbone: Backbone,
        plan: FreezePlan | None,
        heads: Heads,
        fit: Part,
        val: Part,
        known: Features,
        engine: Engine,
    ) -> Finetuned | None:
        """Step 6: judged by folds of train and val, or on val where there are many examples or little time."""
        recipe, context, classes = self.recipe.finetune, self.context, self.task.outputs
        if recipe.epochs == 0 or (plan is not None and plan.strategy == "head"):
            return self.not_finetuned("the head alone was asked for")
        if not len(val) and plan is None:
            return self.not_finetuned("there is no val set to compare strategies on")
        size = backbone.preprocess.size
        settle(recipe, len(fit), context.modality.settings(self.examples.facts(), size), size)
        for probe in context.modality.probes:
            if getattr(recipe, probe.setting) != "auto":
                continue
            step = -(-len(fit) // PROBED)
            try:
                viewed = self.features(fit.every(step), backbone, engine, probe.setting)
            except BudgetError as error:
                return self.not_finetuned(str(error))
            allowed, why = probe.allowed(known.values[: len(fit) : step], viewed)
            setattr(recipe, probe.setting, allowed)
            context.events.emit("note", text=why)
        data, held_out, keeper = self.data(fit), self.data(val), Checkpoint(self.folder.checkpoint)
        if (
            plan is None
        ):  # val compares strategies; a resumed run, its strategy decided, is not to judge them anew
            recipe.folds = 0
        if recipe.folds == "auto":
            unhurried = self.recipe.run.budget_seconds is None and self.recipe.run.prefer == "accuracy"
            recipe.folds = folds(len(fit), len(val), unhurried)
        if plan is not None and (recipe.folds > 1 or not len(val)):
            return self.by_folds(backbone, plan, heads, self.data(fit.then(val)), known, classes, keeper)
        before = apply_head(heads.on_train, known.values[len(fit) :])
        if plan is None:
            return self.explore(backbone, heads, before, data, held_out)
        assert plan is not None
        if self.recipe.run.prefer == "speed" and not self.folder.strategies.is_file():
            trial = context.trial()
            trial.recipe.finetune.epochs = max(1, round(int(recipe.epochs) / TRIAL))
            short = finetune(backbone, plan, heads.on_train, data, held_out, trial)
            if short is not None and short.logits is not None:
                gains, text = worth(val.labels, before, short.logits, val.blocks)
                if not gains:
                    return self.not_finetuned(f"a trial of {trial.recipe.finetune.epochs} epoch(s): {text}")
        tuned = finetune(backbone, plan, heads.on_train, data, held_out, context, self.show_batch, keeper)
        if tuned is not None and tuned.logits is not None:
            said = worth(val.labels, before, tuned.logits, val.blocks)[1]
            context.events.emit("note", text=f"{said} (indicative; the test is in step 7)")
        return tuned

    def data(self, part: Part) -> Data:
        """What fine-tuning is given of a part."""
        balanced, classes = self.recipe.train.class_weights == "balanced", self.task.outputs
        weights = class_weighted(part.labels, part.weights, balanced, classes)
        return Data(part.paths, part.ids, part.labels, weights, part.blocks)

    def numbered(self, number: int) -> Checkpoint:
        """The checkpoint of one of several trainings: of a fold, of a strategy at full length."""
        return Checkpoint(self.folder.numbered(number))

    def by_folds(
        self,
        backbone: Backbone,
        plan: FreezePlan,
        heads: Heads,
        data: Data,
        known: Features,
        classes: int,
        keeper: Checkpoint,
    ) -> Finetuned | None:
        """Fine-tune on all of train and val where folds of them say that it is worth it."""
        found = cross_fit(backbone, plan, heads.chosen, data, known, classes, self.context, self.numbered)
        if found is None:
            return self.not_finetuned("too few examples, or too little time, to judge it by cross-validation")
        self.judged = found
        if not found.share:
            return self.not_finetuned(found.why)
        self.recipe.finetune.interpolation, self.recipe.finetune.refit = found.share, False
        return finetune(backbone, plan, heads.refitted, data, None, self.context, self.show_batch, keeper)

    def explore(
        self, backbone: Backbone, heads: Heads, before: np.ndarray, data: Data, val: Data
    ) -> Finetuned | None:
        """Try freezing strategies against each other; the table is kept, so that a stopped run does not
        repeat it.
        """
        place = self.folder.strategies
        earlier = read_json(place)["trials"] if place.is_file() else []
        found = explore(
            backbone,
            heads.on_train,
            before,
            data,
            val,
            self.context,
            self.show_batch,
            self.numbered,
            earlier,
            lambda trials: write_json(place, {"trials": trials}),
        )
        write_json(
            place,
            {
                "trials": [asdict(trial) for trial in found.trials],
                "chosen": found.chosen,
                "advice": found.advice,
            },
        )
        self.context.events.emit("advice", step="finetune", chosen=found.chosen, text=found.advice)
        if found.tuned is None:
            return self.not_finetuned(found.advice)
        if (
            found.checkpoint
            and found.checkpoint.path
            and found.checkpoint.path.is_file()
            and not found.stopped
        ):
            found.checkpoint.path.replace(
                self.folder.checkpoint
            )  # what a resumed run, its strategy decided, goes on from
        return found.tuned

    def refit(
        self, backbone: Backbone, plan: FreezePlan, heads: Heads, tuned: Finetuned, fit: Part, val: Part
    ) -> Model | None:
        """The chosen model trained once more, on train and val together, for the whole length; None where
        that is not due.

        Nothing is left to judge it by: as VTAB does (Zhai et al. 2019), the settings that val chose are
        trusted.
        """
        recipe, context = self.recipe.finetune, self.context
        if recipe.refit == "auto":
            recipe.refit = len(fit) + len(val) <= REFIT and self.recipe.run.prefer == "accuracy"
        if not recipe.refit or not tuned.trained.epoch or context.out_of_time():
            recipe.refit = False
            return None
        both = self.data(fit.then(val))
        quiet = context.trial()
        again = finetune(
            backbone, plan, heads.refitted, both, None, quiet, checkpoint=Checkpoint(self.folder.refit)
        )
        if again is not None and again.trained.stopped == "interrupted":
            self.interrupted = True
            return None
        if again is None or again.trained.stopped != "length":
            recipe.refit = False
            return None
        context.events.emit(
            "note", text=f"trained once more on train and val, {len(both.items)} examples, as val chose"
        )
        return self.model(again.backbone, again.head)

    def not_finetuned(self, why: str) -> Finetuned | None:
        """Say so, and settle what is left open for a step that is not taken."""
        settle_idle(self.recipe.finetune)
        if self.recipe.freeze.strategy == "auto":
            self.recipe.freeze.strategy = "head"
        self.context.decide("finetune", "not done", why)
        return None

    def show_batch(self, images: np.ndarray) -> None:
        """Save the first augmented batch as a picture."""
        sheet = self.context.modality.sheet
        self.optional(
            "picture of the first batch", lambda: write_bytes(self.folder.first_batch, sheet(images))
        )

    def choose(
        self, backbone: Backbone, heads: Heads, tuned: Finetuned | None, fit: Part, val: Part, stopped: bool
    ) -> Model:
        """The fine-tuned model where it is better than the head alone outside the noise, else the head alone
        (rules 11, 12).

        What was judged on val may be trained once more on train and val.
        """
        both, shown, rows = fit.then(val), val, np.zeros((0, self.task.outputs))
        judged, why = self.judged, "nothing else was trained"
        if judged is None and len(val):
            rows = self.logits(self.model(backbone, heads.on_train), val)
            if tuned is not None:
                of_tuned = self.logits(self.model(tuned.backbone, tuned.head), val)
                place = len(fit) + np.arange(len(val))
                judged = judge(
                    val.labels, {0.0: rows, 1.0: of_tuned}, val.blocks, self.recipe.run.metric, place
                )
        if judged is not None:
            seen = judged.rows >= len(fit)
            shown, rows = val.some(judged.rows[seen] - len(fit)), judged.logits[seen]
            source = (
                "val"
                if self.judged is None
                else f"{len(judged.rows):,} examples held out of train and val in turn"
            )
            why = f"{source}: {judged.why}"
        chosen = "fine-tuned" if judged is not None and judged.share and tuned is not None else "head only"
        if judged is None or chosen == "head only":
            self.held = out_of_fold(heads, both)
        else:
            source = "val" if self.judged is None else "out-of-fold"
            self.held = Held(source, both.labels[judged.rows], judged.logits, both.blocks[judged.rows])
        self.calibration = self.task.calibrate(self.held)
        if learnt := in_sample(self.state["data"]):
            self.calibration = self.calibration.promising_nothing(learnt)
        if len(shown):
            self.metrics["val"] = Verdict(
                shown.labels, self.calibration.applied(rows), shown.clusters()
            ).estimates(self.task)
            self.predictions.append((shown, rows))
        self.state["chosen"], self.state["chosen_why"] = chosen, why
        self.context.events.emit("chosen", chosen=chosen, why=why)
        self.write()
        if chosen != "fine-tuned" or tuned is None:
            if not stopped:
                self.recipe.finetune.refit = False
            return self.model(backbone, heads.refitted)
        if stopped or self.judged is not None:
            return self.model(tuned.backbone, tuned.head)
        again = self.refit(backbone, planned(backbone, self.context)[0], heads, tuned, fit, val)
        return again or self.model(tuned.backbone, tuned.head)

    def model(self, backbone: Backbone, layers: nn.Module) -> Model:
        """A Model of this run's task, not calibrated."""
        settings = {"hidden": self.recipe.head.hidden, "dropout": self.recipe.head.dropout}
        return Model(
            backbone,
            layers,
            self.recipe.head.kind,
            self.task,
            self.state["name"],
            head_settings=settings,
            seen=self.folder.seen,
        )

    def calibrated(self, model: Model) -> Model:
        """The model with the temperature and thresholds of the held-out predictions of what won; metrics.json
        gets the same.

        However a run ends, its model comes through here, and nothing else sets these.
        """
        model.calibration = self.calibration
        self.metrics.update(self.calibration.to_metrics())
        return model

    def logits(self, model: Model, part: Part) -> np.ndarray:
        """(N, K) logits of a part, by the very code that predicts."""
        return predicted(model, part, self.context, self.say)

    def evaluate(
        self,
        model: Model,
        heads: Heads,
        backbone: Backbone,
        engine: Engine,
        known: Features,
        fit: Part,
        val: Part,
    ) -> None:
        """Step 7: test read once; without test, cross-validation of all steps, or of the head where nothing
        was held out.
        """
        if self.examples.counts()["test"]:
            self.read_test(model, heads, backbone, engine, known, fit.then(val))
        elif "cv" in self.metrics:
            metric, folds = self.task.headline, self.recipe.data.folds
            estimate = Estimate(**self.metrics["cv"][metric.name])
            text = f"{metric.said(estimate)} on {estimate.n} examples"
            why = (
                f"each was predicted by one of {folds} walks that had not seen it; this model is made of all"
            )
            self.context.decide("evaluate", f"cross-validated {text}", why)
        elif not len(val):
            if self.state["chosen"] == "fine-tuned":
                self.metrics["cv"] = from_folds(self.task, self.held, self.calibration, self.context)
            else:
                self.metrics["cv"] = cross_validate(self.task, heads.layers, known, self.context)
        else:
            asked = self.state["data"].get("no_test")
            self.context.decide(
                "evaluate", "no test set", "none was to be set apart" if asked else "the data hold none"
            )

    def read_test(
        self, model: Model, heads: Heads, backbone: Backbone, engine: Engine, known: Features, both: Part
    ) -> None:
        """Break the seal and score the model, in full whatever the budget, and the baselines that there is
        time for.
        """
        scratch = (
            self.optional("from scratch", lambda: self.from_scratch(backbone, both))
            if self.recipe.run.scratch
            else None
        )
        reason = "step 7 of the run" + (", again after it was stopped" if self.state["readings"] else "")
        test = self.examples.unseal(reason, self.context.events.emit)
        self.state["readings"] = readings(self.folder)
        self.write()
        if found := contradicting_test(self.examples, test):
            self.optional("contradictions in test", lambda: self.tell(found, frozenset({IN_TEST})))
        rows = self.logits(model, test)
        verdict = Verdict(test.labels, rows, test.clusters())
        baselines = self.baselines(heads, backbone, engine, known, both, test, scratch)
        self.metrics.update(evaluate_test(self.task, verdict, self.calibration, baselines, self.context))
        calibrated = Verdict(test.labels, self.calibration.applied(rows), verdict.clusters)
        self.metrics.update(without_near_duplicates(self.task, calibrated, test.sources, self.nearly_known))
        self.predictions.append((test, rows))

    def baselines(
        self,
        heads: Heads,
        backbone: Backbone,
        engine: Engine,
        known: Features,
        both: Part,
        test: Part,
        scratch: Model | None,
    ) -> dict[str, np.ndarray]:
        """(N, K) logits of test by what the model has to beat; what fails, or there is no time for, is left
        out and said.
        """
        features = functools.cache(lambda: self.features(test, backbone, engine))
        made = self.task.baselines(
            Known(
                known.values,
                known.labels,
                len(test),
                features,
                self.context.events.tick,
                lambda: self.context.seconds_left <= 0,
            )
        )
        if self.state["chosen"] == "fine-tuned":
            of_head = self.task.calibrate(out_of_fold(heads, both))
            made["head only"] = lambda: of_head.applied(apply_head(heads.refitted, features()))
        if scratch is not None:
            made["from scratch"] = lambda: self.logits(scratch, test)
        found = dict([self.task.guess(known.labels, len(test))])
        for name, make in made.items():
            logits = self.optional(name, functools.partial(self.in_time, make))
            if logits is not None:
                found[name] = logits
        return found

    def in_time(self, make: Callable[[], Result]) -> Result:
        """Do it while the budget lasts. Raises BudgetError."""
        if self.context.seconds_left <= 0:
            raise BudgetError("no time was left for it")
        return make()

    def from_scratch(self, backbone: Backbone, both: Part) -> Model:
        """The same network trained from random weights. Raises BudgetError, and KeyboardInterrupt when the
        user stops it.
        """
        checkpoint = Checkpoint(self.folder.scratch)
        made = from_scratch(backbone, self.data(both), self.task.outputs, self.context, checkpoint)
        if made is None:
            raise BudgetError("no time was left for it")
        return Model(*made, "linear", self.task)

    def finish(self, model: Model) -> None:
        """Everything that is handed back; the word that the run is finished comes last, but for the report."""
        write_predictions(self.folder.predictions, self.predictions, self.task, self.calibration)
        write_json(self.folder.metrics, self.metrics)
        write_text(self.folder.model / "README.md", model_card(self.state, self.metrics))
        self.context.events.emit("finished", seconds=time.monotonic() - self.context.started)
        self.state["state"] = "finished"
        self.write()
        self.finished = True
        for place in self.folder.path.glob("checkpoint*.safetensors"):
            with contextlib.suppress(OSError):
                place.unlink(missing_ok=True)
        self.report(model)

    def report(self, model: Model | None = None) -> None:
        """report.html with its photographs; whatever goes wrong with those is said, and leaves the run as it
        is.
        """
        precision = "bfloat16" if self.recipe.finetune.precision == "bfloat16" else "float32"
        seconds, already = min(SECONDS, self.context.seconds_left), len(self.state["missing"])
        self.optional(
            RunFolder.PICTURES,
            lambda: write_gallery(self.folder.path, model, self.context.device, seconds, precision),
        )
        if len(self.state["missing"]) > already:
            self.optional("what is missing in run.json", self.write)
        if self.optional(RunFolder.REPORT, lambda: write_report(self.folder.path)) is None:
            self.optional("what is missing in run.json", self.write)


def _reason(error: BaseException) -> str:
    """What went wrong, in one line; the kind of error too where the text alone may say little."""
    text = " ".join(str(error).split())
    return (
        text
        if isinstance(error, (RegraftError, OSError)) and text
        else f"{type(error).__name__}: {text}".rstrip(": ")
    )

"""The seven calls, in order. (Examples, Recipe, RunFolder) -> a finished run folder."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from regraft.artifacts import Events, RunFolder, atomic, write_json, write_text
from regraft.backbones import Backbone
from regraft.data import Examples
from regraft.data.examples import Part
from regraft.evaluation import score
from regraft.features import FeatureStore, TorchEngine
from regraft.modalities.image import Mirrored
from regraft.model import Model, softmax
from regraft.recipe import Recipe
from regraft.report import model_card, write_report
from regraft.runtime import keep_large_blocks, peak_memory, pick_device, versions
from regraft.steps.base import base
from regraft.steps.context import Context
from regraft.steps.evaluate import cross_validate, estimates, evaluate_test, majority_logits
from regraft.steps.finetune import Data, Finetuned, finetune, mirror_allowed
from regraft.steps.freeze import freeze
from regraft.steps.head import head
from regraft.steps.obtain import obtain
from regraft.steps.train import Features, Heads, apply_head, train_head

STEPS = ("obtain", "base", "freeze", "head", "train", "finetune", "evaluate")
MIRROR_SAMPLE = 512
Result = TypeVar("Result")


class Run:
    """One walk through the seven steps; holds what they share and writes what they decide."""

    def __init__(
        self, examples: Examples, recipe: Recipe, folder: RunFolder, cache: Path | None, events: Events, about: dict[str, Any]
    ) -> None:
        keep_large_blocks()
        self.examples, self.recipe, self.folder = examples, recipe, folder
        device = pick_device(recipe.run.device)
        recipe.run.device = device.type
        if recipe.run.threads == "auto":
            recipe.run.threads = torch.get_num_threads()
        torch.set_num_threads(int(recipe.run.threads))
        self.context = Context(recipe, FeatureStore(cache), device, events)
        self.state = {
            "schema": 1, "state": "running", "name": about["name"],
            "data": {**about, "classes": list(examples.task.classes), "counts": examples.counts(),
                     "class_counts": examples.class_counts()},
            "steps": {name: {"state": "pending"} for name in STEPS}, "chosen": None, "chosen_why": "",
            "seed": recipe.run.seed, "device": device.type, "versions": versions(),
        }  # fmt: skip
        self.metrics: dict[str, Any] = {"steps": {}}

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

    def features(self, part: Part, backbone: Backbone, engine: TorchEngine, view: str = "plain") -> np.ndarray:
        """(N, width) frozen features of a part, from the store where it has them."""
        pre = Mirrored(backbone.preprocess) if view == "mirror" else backbone.preprocess
        key = (backbone.provenance.sha256, backbone.preprocess.fingerprint, view)
        label = f"features of {part.name}" + (" mirrored" if view == "mirror" else "")
        tick = self.context.events.tick
        return self.context.store.features(part.ids, part.paths, key, pre, engine, backbone.width, tick, label)

    def walk(self) -> None:
        """The seven steps."""
        examples, context, classes = self.examples, self.context, len(self.examples.task.classes)
        fit, val = examples.part("train"), examples.part("val")
        obtained = self.step("obtain", lambda: obtain(context))
        backbone = self.step("base", lambda: base(obtained, examples.image_sizes(), context))
        plan = self.step("freeze", lambda: freeze(backbone, context))
        new = self.step("head", lambda: head(backbone.width, classes, context))
        engine = TorchEngine(backbone, context.device, context.recipe.run.feature_batch)
        known, held = self.step("train features", lambda: self.extract(fit, val, backbone, engine))
        heads = self.step("train", lambda: train_head(new, known, held, classes, context))
        tuned = self.step("finetune", lambda: self.finetune(backbone, plan, heads, fit, val, known, held, engine))
        model, final = self.choose(backbone, heads, tuned, held)
        model.save(self.folder.model)
        if tuned is not None and tuned.trained.stopped == "interrupted":
            raise KeyboardInterrupt
        self.step("evaluate", lambda: self.evaluate(model, final, heads, backbone, engine, known, val, held, new))
        self.finish(model)

    def extract(self, fit: Part, val: Part, backbone: Backbone, engine: TorchEngine) -> tuple[Features, Features | None]:
        """The frozen base runs once over train and val."""
        known = Features(self.features(fit, backbone, engine), fit.labels, fit.weights)
        held = Features(self.features(val, backbone, engine), val.labels, val.weights) if len(val) else None
        return known, held

    def finetune(
        self, backbone: Backbone, plan: Any, heads: Heads, fit: Part, val: Part, known: Features, held: Features | None,
        engine: TorchEngine,
    ) -> Finetuned | None:  # fmt: skip
        """Step 6, where there is a val set to judge it by."""
        recipe = self.recipe.finetune
        if held is None:
            recipe.epochs, recipe.mirror = 0, False
            self.context.decide("finetune", "not done", "too few examples to judge it by a validation set")
            return None
        if recipe.mirror == "auto":
            recipe.mirror, why = False, ""
            if recipe.epochs != 0 and plan.strategy != "head":
                some = Part("val", val.ids[:MIRROR_SAMPLE], val.sources[:MIRROR_SAMPLE], val.paths[:MIRROR_SAMPLE],
                            val.labels[:MIRROR_SAMPLE], val.weights[:MIRROR_SAMPLE])  # fmt: skip
                mirrored = apply_head(heads.on_train, self.features(some, backbone, engine, "mirror")).argmax(1)
                straight = apply_head(heads.on_train, held.values[: len(some)]).argmax(1)
                recipe.mirror, why = mirror_allowed(straight == some.labels, mirrored == some.labels)
            self.context.events.emit("note", text=f"mirror images: {'yes' if recipe.mirror else 'no'}; {why}")
        data, judge = (Data(p.paths, p.labels, p.weights) for p in (fit, val))
        classes = len(self.examples.task.classes)
        return finetune(backbone, plan, heads.on_train, data, judge, classes, self.context, self.show_batch)

    def show_batch(self, images: np.ndarray) -> None:
        """Save the first augmented batch as a picture."""
        from PIL import Image

        some = images[:16]
        columns = min(8, len(some))
        some = some[: len(some) // columns * columns]
        grid = np.concatenate([np.concatenate(list(some[i : i + columns]), axis=1) for i in range(0, len(some), columns)])
        with atomic(self.folder.first_batch) as temporary:
            Image.fromarray(grid).save(temporary, format="PNG")

    def choose(self, backbone: Backbone, heads: Heads, tuned: Finetuned | None, held: Features | None) -> tuple[Model, str]:
        """The better of head-only and fine-tuned on val (rule 11); a head that wins is refitted on train and val."""
        settings = {"hidden": self.recipe.head.hidden, "dropout": self.recipe.head.dropout}
        make = lambda b, h: Model(  # noqa: E731
            b, h, self.recipe.head.kind, self.examples.task, self.state["name"], 1.0, settings
        )
        chosen, why = "head only", "nothing else was trained"
        if held is not None:
            metric, val = self.recipe.run.metric, self.examples.part("val")
            logits = {"head only": apply_head(heads.on_train, held.values)}
            if tuned is not None:
                batch = self.recipe.run.feature_batch
                values = TorchEngine(tuned.backbone, self.context.device, batch)
                # the fine-tuned weights are new: their val features are computed here, not stored
                found = FeatureStore(None).features(
                    val.ids, val.paths, (), tuned.backbone.preprocess, values, tuned.backbone.width,
                    self.context.events.tick, "val after fine-tuning",
                )  # fmt: skip
                tuned.backbone.module.to("cpu")
                logits["fine-tuned"] = apply_head(tuned.head, found)
            ranks = {n: (score(val.labels, v, metric), score(val.labels, v, "log_loss")) for n, v in logits.items()}
            chosen = max(ranks, key=lambda name: ranks[name])
            if tuned is not None:
                other = next(name for name in ranks if name != chosen)
                gap, losses = ranks[chosen][0] - ranks[other][0], (-ranks[chosen][1], -ranks[other][1])
                why = f"val {metric} {ranks[chosen][0]:.4f} against {ranks[other][0]:.4f} ({gap:+.4f}) of {other}"
                why += f"; log loss {losses[0]:.3f} against {losses[1]:.3f}"
            self.metrics["val"] = estimates(val.labels, logits[chosen])
            self.val_logits = logits[chosen]
        self.state["chosen"], self.state["chosen_why"] = chosen, why
        self.context.events.emit("chosen", chosen=chosen, why=why)
        if chosen == "fine-tuned" and tuned is not None:
            return make(tuned.backbone, tuned.head), chosen
        return make(backbone, heads.refitted), chosen

    def evaluate(
        self, model: Model, final: str, heads: Heads, backbone: Backbone, engine: TorchEngine, known: Features, val: Part,
        held: Features | None, new: Any,
    ) -> None:  # fmt: skip
        """Step 7: test read once; without test, cross-validation where nothing was held out at all."""
        classes = len(self.examples.task.classes)
        parts = [(val, self.val_logits)] if held is not None else []
        if self.examples.counts()["test"]:
            test = self.examples.unseal("step 7 of the run", self.context.events.emit)
            frozen = apply_head(heads.refitted, self.features(test, backbone, engine))
            rows = frozen
            if final == "fine-tuned":
                tuned_engine = TorchEngine(model.backbone, self.context.device, self.recipe.run.feature_batch)
                values = FeatureStore(None).features(
                    test.ids, test.paths, (), model.backbone.preprocess, tuned_engine, backbone.width,
                    self.context.events.tick, "test",
                )  # fmt: skip
                rows = apply_head(model.head, values)
            baselines = {"majority class": majority_logits(known.labels, len(test), classes), "head only": frozen}
            if final == "head only":
                del baselines["head only"]
            self.metrics.update(evaluate_test(test.labels, rows, baselines, self.examples.task.classes, self.context))
            parts.append((test, rows))
        elif held is None:
            self.metrics["cv"] = cross_validate(new, known, classes, self.context)
        else:
            self.context.decide("evaluate", "no test set", "the data hold none")
        self.write_predictions(parts)
        write_json(self.folder.metrics, self.metrics)

    def write_predictions(self, parts: list[tuple[Part, np.ndarray]]) -> None:
        """predictions.parquet: one row a val or test example."""
        names = self.examples.task.classes
        tables = []
        for part, logits in parts:
            shares = softmax(logits)
            columns: dict[str, Any] = {
                "id": part.ids, "source": part.sources, "split": [part.name] * len(part),
                "label": [names[i] for i in part.labels], "predicted": [names[i] for i in logits.argmax(1)],
            }  # fmt: skip
            columns |= {f"probability:{name}": shares[:, i] for i, name in enumerate(names)}
            columns |= {f"logit:{name}": logits[:, i].astype(np.float32) for i, name in enumerate(names)}
            tables.append(pa.table(columns))
        if tables:
            with atomic(self.folder.predictions) as temporary:
                pq.write_table(pa.concat_tables(tables), temporary)

    def finish(self, model: Model) -> None:
        """Model card, report, and the word that it is done."""
        self.state["state"], self.state["provenance"] = "finished", asdict(model.backbone.provenance)
        self.write()
        write_text(self.folder.model / "README.md", model_card(self.state, self.metrics))
        write_report(self.folder.path)
        shutil.rmtree(self.folder.work, ignore_errors=True)
        self.context.events.emit("finished", seconds=self.state["seconds"])

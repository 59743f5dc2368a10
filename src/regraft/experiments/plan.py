"""What a run would do, and how long it would take; nothing is trained and nothing is written."""

from __future__ import annotations

import time
from typing import Any

from regraft.backbones import length
from regraft.data import Examples
from regraft.inference import TorchEngine
from regraft.run.session import Session
from regraft.steps.base import base
from regraft.steps.estimate import epochs_of, run_seconds, step_seconds
from regraft.steps.freeze import freeze
from regraft.steps.obtain import obtain
from regraft.tasks import task_of_examples


def planned_run(examples: Examples, session: Session) -> dict[str, Any]:
    """What steps 1 to 3 decide (`steps`), the `epochs` of fine-tuning, how many `walks` there would be, and
    the `estimated_seconds` of all of it from a forward pass and a training step that are measured here.
    """
    asked = session.recipe.obtain
    closed = session.recipe.model_copy(update={"obtain": asked.model_copy(update={"network": False})})
    context = session.context(examples).trial(recipe=closed)
    recipe, counts = context.recipe, examples.counts()
    task = task_of_examples(examples)
    both = examples.part("train").then(examples.part("val"))
    choice = obtain(both, examples.facts(), counts, task, context)
    if asked.network:
        obtained = context.decisions.steps["obtain"]
        obtained["why"] += (
            "; --dry-run fetches nothing, so the models that --network would try are not compared"
        )
    body = base(choice.obtained, examples.facts(), context, choice.ranked)
    freeze(body, context)
    size = body.preprocess.size
    engine, blank = TorchEngine(body, context.device), body.preprocess.blank(32)
    engine.run(blank)
    began = time.perf_counter()
    engine.run(blank)
    forward = (time.perf_counter() - began) / length(blank)
    suited = context.modality.settings(examples.facts(), size)
    epochs = epochs_of(recipe, counts, size, suited)
    step = step_seconds(body, counts, task.outputs, recipe, context.device) if epochs else 0.0
    return {
        "steps": context.decisions.steps,
        "epochs": epochs,
        "walks": recipe.data.folds + 1,
        "estimated_seconds": run_seconds(recipe, counts, size, forward, step, suited),
    }

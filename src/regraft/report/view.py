"""From a run's files to what the page shows. Tolerates missing parts; knows no HTML."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from regraft.artifacts import read_events, read_json
from regraft.evaluation import FEW_GROUPS, PairedDifference, in_words
from regraft.report import forms, plots, view_choices, view_data, view_scores, words
from regraft.report.pictures import picture
from regraft.tasks import Task, counted, task_of_run

STEPS = {
    "obtain": "Obtain the pre-trained model",
    "base": "Take its base",
    "freeze": "Freeze the layers",
    "head": "Add new layers",
    "train": "Train the new layers",
    "finetune": "Fine-tune",
    "evaluate": "Evaluate",
}
# What stands beside the answer
LEAK = re.compile(r"(duplicates|groups) across splits|tell the label|leak", re.I)

Json = dict[str, Any]


def view(folder: Path) -> Json:
    """Everything the template asks for, from the files in `folder`; only run.json must be there."""

    def read(name: str) -> Json:
        content = read_json(folder / name) if (folder / name).exists() else {}
        return content if isinstance(content, dict) else {}

    run, metrics, gallery = read("run.json"), read("metrics.json"), read("gallery.json")
    events = view_choices.latest(
        [event for event in read_events(folder / "events.jsonl") if isinstance(event, dict)]
    )
    data: Json = run.get("data") or {}
    steps: Json = run.get("steps") or {}
    task = task_of_run(run)
    classes = list(task.classes)
    split = next((name for name in words.SPLITS if metrics.get(name)), None)
    findings = read("audit.json").get("findings") or data.get("findings") or []
    recipe = _text(folder / "recipe.yaml")
    sections = view_scores.sections(task, metrics, gallery.get("cells") or {})
    galleries = view_data.galleries(gallery.get("galleries") or [], classes, task.spoken.given)
    return {
        "name": str(run.get("name") or folder.name),
        "finished": run.get("state") == "finished",
        "asked": task.question(),
        "answer": _answer(task, metrics, split, str(data.get("modality") or "")),
        "versus": [_versus(item) for item in metrics.get("versus") or []],
        "notices": _notices(run, metrics, split, findings),
        "twins": view_scores.without_duplicates(task.headline, metrics),
        "chosen": run.get("chosen"),
        "chosen_why": words.sentence(str(run.get("chosen_why") or "")),
        "table": view_scores.table(task, metrics, split),
        "promises": [section for section in sections if section["part"] == "promises"],
        "sections": [section for section in sections if section["part"] != "promises"],
        "steps": _steps(steps),
        "counted": any(step.get("passes") for step in steps.values()),
        "drawing": view_choices.network(run, _settings(recipe), task.noun),
        "ranking": view_choices.ranking(read("ranking.json")),
        **_training(steps, events, read("strategies.json"), task),
        "first_batch": picture(folder / "first_batch.png"),
        "pictured": view_data.pictured(gallery.get("galleries") or []),
        "galleries": galleries,
        "filtered": view_data.tells_apart(galleries),
        "sure": task.spread == ("probability",) and task.spoken.fields == ("label", "probability"),
        "fields": ", ".join(f"prediction.{name}" for name in task.spoken.fields),
        "data": {**view_data.data(data), "called": task.noun, "apart": counted(task.noun, len(classes))},
        "item": words.named(str(data.get("modality") or "")),
        "measures": view_data.measures(
            folder, str(data.get("modality") or ""), (_settings(recipe).get("base") or {}).get("size")
        ),
        "quarantined": view_data.quarantined(data.get("quarantined") or []),
        "findings": [view_data.finding(item) for item in findings],
        "provenance": view_data.provenance(run.get("provenance") or {}),
        "machine": _machine(run),
        "versions": sorted((str(k), str(v)) for k, v in (run.get("versions") or {}).items()),
        "plain_timm": bool(read("model/regraft.json").get("plain_timm")),
        "recipe": recipe,
        **_pasted(_shown_path(folder), str(data.get("given") or data.get("source") or "DATA")),
        "seconds": words.duration(run.get("seconds")),
    }


def _training(steps: Json, events: list[Json], tried: Json, task: Task) -> Json:
    """What steps 2, 5 and 6 have shown: forms, heads, L2, the curves of the chosen strategy, and all tried."""
    why = str((steps.get("finetune") or {}).get("why") or "")
    of_chosen = [event for event in events if event.get("strategy") in (None, tried.get("chosen"))]
    return {
        "strategies": view_choices.strategies(tried, why, task.headline),
        "heads": view_choices.heads(events),
        "curves": plots.learning_curves(of_chosen, task.headline),
        "l2": plots.l2_path(events),
        "forms": forms.loss_by_depth(events),
    }


def _pasted(folder: str, source: str) -> Json:
    """Paths as they stand in the commands and the Python of the page, quoted for the shell or as literals."""
    return {
        "run_shell": shlex.quote(folder),
        "run_python": json.dumps(folder, ensure_ascii=False),
        "model_python": json.dumps(f"local-dir:{os.path.join(folder, 'model')}", ensure_ascii=False),
        "recipe_shell": shlex.quote(os.path.join(folder, "recipe.yaml")),
        "source_shell": shlex.quote(source),
    }


def _answer(task: Task, metrics: Json, split: str | None, modality: str) -> Json | None:
    """The headline metric on the best evidence there is, or the first one that this defines."""
    known = {} if split is None else metrics.get(split) or {}
    cells = (
        (metric, words.cell(metric, known.get(metric.name))) for metric in (task.headline, *task.metrics)
    )
    metric, shown = next((told for told in cells if told[1]), (task.headline, None))
    if shown is None:
        return None
    before, after = task.result(metrics)
    if metric.name != task.headline.name:
        before, after = f"{task.headline.words} is not defined; {metric.words}:", ""
    return {
        "split": split,
        "cell": shown,
        "n": words.count(shown.n),
        "noun": words.noun(modality, shown.n),
        "before": before,
        "after": after,
    }


def _versus(item: Mapping[str, Any]) -> Json:
    return {
        "words": words.sentence(in_words(PairedDifference.from_dict(item))),
        "method": str(item["method"]),
    }


def _notices(run: Json, metrics: Json, split: str | None, findings: list[Json]) -> list[str]:
    """What a reader must know before believing the answer, one sentence or two each."""
    notices, data = [], run.get("data") or {}
    if split and split != "test" and data.get("no_test"):
        notices.append(
            "No test set was asked for: "
            "nothing here was measured on examples that had no part in the choices."
        )
    if (
        split != "test"
        and (data.get("counts") or {}).get("test")
        and run.get("state") in ("interrupted", "failed")
    ):
        notices.append(
            "The run ended before its test set was scored: nothing here is a result on new examples."
        )
    for what, why in (run.get("missing") or {}).items():
        notices.append(f"Missing here: {what} ({str(why).rstrip('.')}).")
    if len(readings := run.get("readings") or []) > 1:
        when = "; ".join(
            f"{str(one.get('time', ''))[:16].replace('T', ' ')}, {one.get('reason', '')}" for one in readings
        )
        notices.append(
            f"The test set has been read {len(readings)} times ({when}). Each reading that led to a "
            "change makes the answer look a little better than it is; only a fresh test set mends that."
        )
    if (groups := metrics.get("groups")) is not None and groups < FEW_GROUPS:
        notices.append(
            f"The test examples come from {groups} groups only. Examples of one group are alike, "
            "so the intervals rest on the groups, and with fewer than twenty they are rough."
        )
    for one in findings:
        if one.get("severity") != "info" and LEAK.search(str(one.get("kind") or "")):
            notices.append(words.sentence(str(one.get("message") or "")).rstrip(".") + ".")
    return notices


def _steps(steps: Mapping[str, Any]) -> list[Json]:
    """The seven in order; computing the features, timed on its own, is shown with the training it serves."""
    features: Json = steps.get("features") or {}
    rows = []
    for name, title in STEPS.items():
        step: Json = steps.get(name) or {}
        state = str(step.get("state") or "pending")
        rows.append(
            {
                "name": name,
                "title": title,
                "state": state,
                "spent": _spent(step, features if name == "train" else {}),
                "decided": words.sentence(str(step.get("decided") or "")),
                "why": words.sentence(str(step.get("why") or "")),
                "details": [
                    (str(k).replace("_", " "), words.plain(v)) for k, v in (step.get("details") or {}).items()
                ],
            }
        )
    return rows


def _spent(step: Json, features: Json) -> str:
    """What a step took, with the features it needed: "1.2 s, features 3 s, 840 passes"; a step that was left out
    may have been tried before.
    """
    passes = sum(int(one.get("passes") or 0) for one in (step, features))
    state = step.get("state") or "pending"
    if state != "done" and not passes:
        return "skipped" if state == "skipped" else "not reached"
    said = ["tried and left out"] if state != "done" else []
    said.append(words.duration(step.get("seconds")))
    if features:
        said.append(f"features {words.duration(features.get('seconds'))}")
    if passes:
        said.append(f"{passes:,} passes")
    return ", ".join(said)


def _machine(run: Json) -> list[tuple[str, str]]:
    rows = [
        ("device", str(run.get("device") or "")),
        ("seed", "" if run.get("seed") is None else str(run["seed"])),
        ("time in all", words.duration(run.get("seconds"))),
        ("peak memory", words.memory(run.get("peak_memory_bytes"))),
    ]
    return [row for row in rows if row[1]]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _settings(recipe: str) -> Json:
    """The sections of recipe.yaml; none where it cannot be read."""
    try:
        settings = yaml.safe_load(recipe)
    except yaml.YAMLError:
        return {}
    return settings if isinstance(settings, dict) else {}


def _shown_path(folder: Path) -> str:
    """The folder as one would type it: relative where it lies below the current one."""
    absolute, here = folder.resolve(), Path.cwd().resolve()
    return (
        str(absolute.relative_to(here))
        if absolute.is_relative_to(here) and absolute != here
        else str(absolute)
    )

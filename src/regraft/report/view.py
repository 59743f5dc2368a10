"""From a run's files to what the page shows. Tolerates missing parts; knows no HTML."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from regraft.artifacts import read_events, read_json
from regraft.evaluation import PairedDifference, in_words
from regraft.report import plots, words

STEPS = {
    "obtain": "Obtain the pre-trained model",
    "base": "Take its base",
    "freeze": "Freeze the layers",
    "head": "Add new layers",
    "train": "Train the new layers",
    "finetune": "Fine-tune",
    "evaluate": "Evaluate",
}
SPLITS = {"test": "test", "cv": "cross-validation", "val": "validation"}
TABLE_LIMIT = 15  # classes a confusion matrix can have and still be read as a table
LISTED = 200  # names a list shows before it refers to the file

_KEYS = {"epoch": ("epoch",), "l2": ("l2", "class_weights"), "head": ("layers", "hidden", "dropout")}  # of what is done again

Json = dict[str, Any]


def _latest(events: list[Json]) -> list[Json]:
    """A resumed run does some epochs again: of each, the last one counts."""
    found: dict[tuple[object, ...], Json] = {}
    for number, event in enumerate(events):
        kind = event.get("kind")
        keys = _KEYS.get(str(kind))
        found[(kind, *(map(event.get, keys) if keys else (number,)))] = event
    return list(found.values())


def view(folder: Path) -> Json:
    """Everything the template asks for, from the files in `folder`; only run.json must be there."""
    run: Json = read_json(folder / "run.json")
    metrics: Json = read_json(folder / "metrics.json") if (folder / "metrics.json").exists() else {}
    events = _latest([event for event in read_events(folder / "events.jsonl") if isinstance(event, dict)])
    data: Json = run.get("data") or {}
    split = next((name for name in SPLITS if metrics.get(name)), None)
    ranking: Json = read_json(folder / "ranking.json") if (folder / "ranking.json").exists() else {}
    tried: Json = read_json(folder / "strategies.json") if (folder / "strategies.json").exists() else {"trials": []}
    recipe = folder / "recipe.yaml"
    where = _shown_path(folder)
    return {
        "name": str(run.get("name") or folder.name),
        "finished": run.get("state") == "finished",
        "answer": _answer(metrics, split, str(data.get("modality") or "")),
        "versus": [_versus(item) for item in metrics.get("versus") or []],
        "chosen": run.get("chosen"),
        "chosen_why": words.sentence(str(run.get("chosen_why") or "")),
        "table": _table(metrics, split),
        "steps": _steps(run.get("steps") or {}),
        "ranking": _ranking(ranking),
        "plots": [plot for plot in (plots.learning_curves(events), plots.l2_path(events)) if plot],
        "strategies": _strategies(tried),
        "heads": _heads(events),
        "confusion": _confusion(metrics.get("confusion"), list(map(str, data.get("classes") or []))),
        "per_class": [_class_row(row) for row in metrics.get("per_class") or []],
        "first_batch": plots.picture(folder / "first_batch.png"),
        "data": _data(data),
        "quarantined": _quarantined(data.get("quarantined") or []),
        "findings": [_finding(item) for item in data.get("findings") or []],
        "provenance": _provenance(run.get("provenance") or {}),
        "machine": _machine(run),
        "versions": sorted((str(k), str(v)) for k, v in (run.get("versions") or {}).items()),
        "recipe": recipe.read_text(encoding="utf-8", errors="replace") if recipe.exists() else "",
        "run_shell": shlex.quote(where),
        "run_python": json.dumps(where, ensure_ascii=False),
        "recipe_shell": shlex.quote(os.path.join(where, "recipe.yaml")),
        "source_shell": shlex.quote(str(data.get("source") or "DATA")),
        "seconds": words.duration(run.get("seconds")),
    }


def _answer(metrics: Json, split: str | None, modality: str) -> Json | None:
    """The headline: accuracy on the best evidence there is."""
    shown = words.cell("accuracy", (metrics.get(split) or {}).get("accuracy")) if split else None
    if shown is None:
        return None
    return {"split": split, "cell": shown, "n": words.count(shown.n), "noun": words.noun(modality, shown.n)}


def _table(metrics: Json, split: str | None) -> Json | None:
    """Models down, metrics across: this model on its best evidence, the baselines, and validation for comparison."""
    if split is None:
        return None
    models: list[tuple[str, Json]] = [(f"this model, {SPLITS[split]}", metrics[split])]
    models += [(str(name), values) for name, values in (metrics.get("baselines") or {}).items()]
    if split != "val" and metrics.get("val"):
        models.append(("this model, validation (indicative)", metrics["val"]))
    known = [name for name in words.METRIC_NAMES if any(name in values for _, values in models)]
    others = [n for n, v in metrics[split].items() if n not in words.METRIC_NAMES and isinstance(v, dict) and "value" in v]
    columns = known + others
    rows = [
        {"name": name, "cells": [words.cell(metric, values.get(metric)) for metric in columns], "ours": index == 0}
        for index, (name, values) in enumerate(models)
    ]
    methods = {metric: (words.cell(metric, metrics[split].get(metric))) for metric in columns}
    return {
        "columns": [words.metric_name(metric) for metric in columns],
        "rows": rows,
        "methods": [(words.metric_name(m), shown.method) for m, shown in methods.items() if shown and shown.method],
    }


def _versus(item: Mapping[str, Any]) -> Json:
    return {"words": words.sentence(in_words(PairedDifference.from_dict(item))), "method": str(item["method"])}


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
                "seconds": words.duration(step.get("seconds")) if state == "done" else "",
                "features": words.duration(features.get("seconds")) if name == "train" else "",
                "decided": words.sentence(str(step.get("decided") or "")),
                "why": words.sentence(str(step.get("why") or "")),
                "details": [(str(k).replace("_", " "), _plain(v)) for k, v in (step.get("details") or {}).items()],
            }
        )
    return rows


def _ranking(ranking: Json) -> Json | None:
    """The comparison of backbones: one row a candidate, and what other rules would have taken."""
    if not ranking.get("rows"):
        return None
    rows = [
        {
            "name": str(row["name"]),
            "chosen": row["name"] == ranking.get("chosen"),
            "accuracy": words.cell("accuracy", row["accuracy"]),
            "knn": words.cell("accuracy", row["knn"]),
            "others": [
                f"{row['log_loss']:.3f}", f"{row['logme']:.3f}", words.count(row["examples"]), f"{row['parameters'] / 1e6:.1f} M",
                f"{row['gmacs']:.2f}", f"{row['imagenet_top1']:.1f}%" if row.get("imagenet_top1") else "–",
                f"{row['images_per_second']:.0f}", words.duration(row["run_seconds"]), str(row["licence"]),
            ],
        }
        for row in ranking["rows"]
    ]  # fmt: skip
    return {
        "rows": rows,
        "reason": words.sentence(str(ranking.get("reason") or "")),
        "opinions": [(str(rule), str(name)) for rule, name in (ranking.get("opinions") or {}).items()],
        "left_out": [(str(name), str(why)) for name, why in (ranking.get("left_out") or {}).items()],
        "plot": plots.accuracy_against_cost(ranking),
    }


def _strategies(tried: Json) -> Json | None:
    """The freezing strategies that were compared, each at the most epochs it was given, the best first."""
    if not tried["trials"]:
        return None
    chosen = str(tried.get("chosen") or "")
    longest = {t["strategy"]: t for t in sorted(tried["trials"], key=lambda trial: trial["epochs"])}
    rows = [
        {
            "name": name,
            "chosen": name == chosen,
            "epochs": t["epochs"],
            "loss": f"{t['log_loss']:.3f} ± {t['standard_error']:.3f}",
            "accuracy": words.cell("accuracy", {"value": t["accuracy"], "low": t["low"], "high": t["high"]}),
            "trained": words.count(t["trained"]),
            "seconds": words.duration(t["seconds"]) if t["seconds"] else "",
            "memory": words.memory(t["memory"]) if t["memory"] else "",
        }
        for name, t in sorted(longest.items(), key=lambda item: item[1]["log_loss"])
    ]
    return {"rows": rows, "advice": words.sentence(str(tried.get("advice") or "")),
            "plot": plots.strategies(tried["trials"], chosen)}  # fmt: skip


def _heads(events: list[Json]) -> list[Json]:
    """The new layers that were compared, in the order of their size; empty where there was no choice."""
    return [
        {
            "name": "linear" if event["layers"] == "linear" else f"MLP, {event['hidden']} wide, dropout {event['dropout']:g}",
            "parameters": words.count(event.get("parameters")),
            "log_loss": words.number("log_loss", float(event["log_loss"])),
            "difference": "" if event.get("chosen") else f"{event['difference']:+.3f} ± {event['difference_error']:.3f}",
            "chosen": bool(event.get("chosen")),
        }
        for event in events
        if event.get("kind") == "head"
    ]


def _confusion(counts: Any, classes: list[str]) -> Json | None:
    """A table for few classes, a picture for many, and for both the pairs most often confused."""
    if not counts or len(counts) != len(classes):
        return None
    table = np.asarray(counts, dtype=np.int64)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    wrong = np.where(np.eye(len(classes), dtype=bool), 0, table)
    order = np.argsort(wrong, axis=None, kind="stable")[::-1][:8]
    pairs = [(int(wrong.flat[i]), *divmod(int(i), len(classes))) for i in order if wrong.flat[i] > 0]
    rows = [
        {
            "name": name,
            "cells": [
                {
                    "count": int(table[i, j]),
                    "percent": round(100 * shares[i, j] ** 0.7) if table[i, j] else 0,
                    "deep": bool(shares[i, j] > 0.45),
                    "right": i == j,
                    "title": f"{name} taken for {other}: {table[i, j]}" if i != j else f"{name} right: {table[i, j]}",
                }
                for j, other in enumerate(classes)
            ],
        }
        for i, name in enumerate(classes)
        if len(classes) <= TABLE_LIMIT
    ]
    return {
        "rows": rows,
        "uri": "" if rows else plots.heatmap(shares),
        "pairs": [{"count": n, "true": classes[i], "taken": classes[j]} for n, i, j in pairs],
        "right": int(np.trace(table)),
        "total": int(table.sum()),
        "k": len(classes),
    }


def _class_row(row: Mapping[str, Any]) -> Json:
    def estimate(name: str) -> words.Cell | None:
        keys = {"value": name, "low": f"{name}_low", "high": f"{name}_high"}
        return words.cell(name, {**{key: row.get(field) for key, field in keys.items()}, "n": row.get("support")})

    return {
        "name": str(row.get("class")),
        "precision": estimate("precision"),
        "recall": estimate("recall"),
        "f1": estimate("f1"),
        "support": words.count(row.get("support")),
    }


def _data(data: Json) -> Json:
    counts: Json = data.get("counts") or {}
    per_class: Json = data.get("class_counts") or {}
    modality = str(data.get("modality") or "")
    splits = [name for name in ("train", "val", "test") if counts.get(name) or name in per_class]
    classes = [str(name) for name in data.get("classes") or []]
    return {
        "source": str(data.get("source") or ""),
        "classes": classes,
        "splits": splits,
        "total": words.count(sum(int(counts.get(name) or 0) for name in splits)),
        "noun": words.noun(modality, sum(int(counts.get(name) or 0) for name in splits)),
        "counts": [words.count(counts.get(name) or 0) for name in splits],
        "rows": [
            {"name": name, "counts": [words.count((per_class.get(s) or {}).get(name, 0)) for s in splits]} for name in classes
        ],
    }


def _quarantined(items: list[Json]) -> list[Json]:
    groups: dict[str, list[Json]] = {}
    for item in items:
        groups.setdefault(str(item.get("split") or "no split"), []).append(item)
    return [
        {
            "split": SPLITS.get(split, split),
            "count": len(group),
            "files": [(str(item.get("source")), str(item.get("reason") or "")) for item in group[:LISTED]],
            "more": max(0, len(group) - LISTED),
        }
        for split, group in groups.items()
    ]


def _finding(item: Json) -> Json:
    examples = [str(example) for example in item.get("examples") or []]
    return {
        "kind": str(item.get("kind") or "").replace("_", " "),
        "severity": str(item.get("severity") or ""),
        "message": str(item.get("message") or ""),
        "examples": examples[:LISTED],
        "more": max(0, len(examples) - LISTED),
    }


def _provenance(provenance: Json) -> list[tuple[str, str]]:
    names = {
        "id": "backbone",
        "source": "from",
        "licence": "licence",
        "parameters": "parameters",
        "input_size": "input size",
        "sha256": "SHA-256 of the weights",
    }
    return [
        (label, words.count(value) if key == "parameters" else _plain(value))
        for key, label in names.items()
        if (value := provenance.get(key)) not in (None, "", [])
    ]


def _machine(run: Json) -> list[tuple[str, str]]:
    rows = [
        ("device", str(run.get("device") or "")),
        ("seed", "" if run.get("seed") is None else str(run["seed"])),
        ("time in all", words.duration(run.get("seconds"))),
        ("peak memory", words.memory(run.get("peak_memory_bytes"))),
    ]
    return [row for row in rows if row[1]]


def _plain(value: Any) -> str:
    """A JSON value as text a reader can take in."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list) and all(isinstance(item, (str, int, float)) for item in value):
        return ", ".join(_plain(item) for item in value)
    return json.dumps(value, ensure_ascii=False)


def _shown_path(folder: Path) -> str:
    """The folder as one would type it: relative where it lies below the current one."""
    absolute, here = folder.resolve(), Path.cwd().resolve()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) and absolute != here else str(absolute)

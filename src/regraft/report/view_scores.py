"""Measured numbers for the page: metrics, calibration, thresholds, classes and the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from regraft.evaluation import SHARE, Metric, named, unknown
from regraft.report import plots, view_data, words
from regraft.report.scatter import told_numbers
from regraft.tasks import Confusion, PerClass, Promises, Reliability, Scatter, Task, Together, counted

TABLE_LIMIT = 15  # classes a confusion matrix can have and still be read as a table
CHART_LIMIT, CHART_WORST = 40, 20  # classes a chart can show; of more, the worst so many
SHORT = 3  # letters that fit above a cell of the matrix without being turned
PAIRS = 8  # pairs of classes named as most often confused

ERROR = Metric("ece", "Calibration error (ECE)", unknown, higher=False)

Json = dict[str, Any]


def table(task: Task, metrics: Json, split: str | None) -> Json | None:
    """Metrics down, models across: this model on its best evidence, the baselines, and validation for
    comparison.
    """
    if split is None:
        return None
    models: list[tuple[str, str, Json]] = [("this model", words.SPLITS[split], metrics[split])]
    models += [(str(name), "", values) for name, values in (metrics.get("baselines") or {}).items()]
    if split != "val" and metrics.get("val"):
        models.append(("this model", "validation, indicative", metrics["val"]))
    known = [metric for metric in task.metrics if any(metric.name in values for _, _, values in models)]
    names = {metric.name for metric in task.metrics}
    others = [
        named((), n)
        for n, v in metrics[split].items()
        if n not in names and isinstance(v, dict) and "value" in v
    ]
    rows: list[Json] = []
    methods: dict[str, list[str]] = {}
    for metric in known + others:
        name, plain = metric.title, words.unitless(metric)
        cells = [words.cell(plain, values.get(metric.name)) for _, _, values in models]
        rows.append({"name": words.with_unit(metric), "cells": cells})
        if cells[0] and cells[0].method:
            methods.setdefault(cells[0].method, []).append(name)
    return {
        "models": [{"name": name, "note": note} for name, note, _ in models],
        "rows": rows,
        "lower": words.lower(known),
        "methods": [(method, ", ".join(names)) for method, names in methods.items()],
    }


def without_duplicates(metric: Metric, metrics: Json) -> Json | None:
    """The headline metric on test as it is and without what has a near-duplicate elsewhere."""
    subset: Json = metrics.get("test_without_near_duplicates") or {}
    shown = words.cell(metric, (subset.get("metrics") or {}).get(metric.name))
    whole = words.cell(metric, (metrics.get("test") or {}).get(metric.name))
    if not shown or not whole:
        return None
    return {"left_out": subset.get("left_out"), "metric": metric.words, "cell": shown, "whole": whole}


def sections(task: Task, metrics: Json, cells: Mapping[str, list[Json]]) -> list[Json]:
    """What the task has shown of its results beside the metrics, in its order: `part` names the template.

    `cells` are the pictures behind the confusion matrix.
    """
    parts = []
    for section in task.sections(metrics):
        part, shown = "", None
        if isinstance(section, Promises):
            part, shown = "promises", _promises(section)
        elif isinstance(section, Reliability):
            part, shown = "reliability", _reliability(section)
        elif isinstance(section, PerClass):
            part, shown = "per_class", _per_class(section)
        elif isinstance(section, Confusion):
            part, shown = "confusion", _confusion(section, cells)
        elif isinstance(section, Together):
            part, shown = "together", _together(section)
        elif isinstance(section, Scatter):
            plot = told_numbers(section.name, section.points)
            part, shown = "scatter", {"plot": plot} if plot else None
        else:
            part, shown = "grid", asdict(section)
        if shown:
            parts.append({"part": part, **shown})
    return parts


def _promises(section: Promises) -> Json | None:
    """When to let the model answer: one row a promise asked for."""
    rows = [
        {
            "wanted": _share(offer.get("wanted"), 0),
            "threshold": _number(offer.get("threshold")),
            "answered": _share(offer.get("answered")),
            "precision": _share(offer.get("precision")),
            "bound": _share(offer.get("bound")),
            "why": words.sentence(str(offer.get("why") or "")),
            "indicative": offer.get("indicative"),
            "test": {
                name: words.cell(SHARE, (offer.get("test") or {}).get(name))
                for name in ("answered", "precision")
            },
        }
        for offer in section.rows
    ]
    first: Mapping[str, Any] = section.rows[0] if section.rows else {}
    where = {"val": "the validation set", "out-of-fold": "out-of-fold predictions"}.get(
        str(first.get("chosen_on")), ""
    )
    return {"rows": rows, "chosen_on": where, "n": words.count(first.get("n"))} if rows else None


def _reliability(section: Reliability) -> Json | None:
    """The reliability diagram with its numbers, before and after the temperature."""
    calibration = section.calibration
    states = {
        name: {
            "ece": words.cell(ERROR, {"value": calibration[name].get("ece")}),
            "bins": [_bin(one) for one in calibration[name]["bins"]],
        }
        for name in ("before", "after")
        if (calibration.get(name) or {}).get("bins")
    }
    if not states:
        return None
    return {
        "plot": plots.reliability(calibration),
        "states": states,
        "temperature": _number(calibration.get("temperature")),
        "split": words.SPLITS.get(str(calibration.get("split")), ""),
        "fitted_on": {"val": "the validation set", "out-of-fold": "out-of-fold predictions"}.get(
            str(calibration.get("fitted_on")), ""
        ),
    }


def _confusion(section: Confusion, pictured: Mapping[str, list[Json]]) -> Json:
    """A table for few classes, a picture for many, and for both the pairs most often confused.

    `pictured` are the "true,predicted" cells with pictures.
    """
    classes, table = list(section.classes), np.asarray(section.counts, dtype=np.int64)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    wrong = np.where(np.eye(len(classes), dtype=bool), 0, table)
    order = np.argsort(wrong, axis=None, kind="stable")[::-1][:PAIRS]
    pairs = [(int(wrong.flat[i]), *divmod(int(i), len(classes))) for i in order if wrong.flat[i] > 0]

    def link(i: int, j: int) -> str:
        return f"cell-{i}-{j}" if f"{i},{j}" in pictured and table[i, j] else ""

    rows = [
        {
            "name": name,
            "cells": [
                {
                    "count": int(table[i, j]),
                    "percent": round(100 * shares[i, j] ** 0.7) if table[i, j] else 0,
                    "deep": bool(shares[i, j] > 0.45),
                    "right": i == j,
                    "link": link(i, j),
                    "title": f"{name} taken for {other}: {table[i, j]}"
                    if i != j
                    else f"{name} right: {table[i, j]}",
                }
                for j, other in enumerate(classes)
            ],
        }
        for i, name in enumerate(classes)
        if len(classes) <= TABLE_LIMIT
    ]
    return {
        "rows": rows,
        "short": max(map(len, classes)) <= SHORT,
        "uri": "" if rows else plots.heatmap(shares),
        "pairs": [
            {"count": n, "true": classes[i], "taken": classes[j], "link": link(i, j)} for n, i, j in pairs
        ],
        "right": int(np.trace(table)),
        "total": int(table.sum()),
        "k": len(classes),
        "cells": view_data.cells(pictured, classes, section.counts),
    }


def _together(section: Together) -> Json:
    """Of the examples with one label the share that has another too, as they are and as they are said to be: a
    table each of few labels, a picture of many.
    """
    names, sides = list(section.classes), []
    for title, counts in (("As they are", section.held), ("As the model says", section.said)):
        table = np.asarray(counts, dtype=np.int64)
        shares = table / np.maximum(np.diag(table)[:, None], 1)
        rows = [
            {
                "name": name,
                "cells": [
                    {
                        "percent": round(100 * shares[i, j]),
                        "count": int(table[i, j]),
                        "deep": bool(shares[i, j] > 0.6 and i != j),
                        "own": i == j,
                        "title": f"{other} in {table[i, j]:,} of {table[i, i]:,} with {name}",
                    }
                    for j, other in enumerate(names)
                ],
            }
            for i, name in enumerate(names)
            if len(names) <= TABLE_LIMIT
        ]
        sides.append({"title": title, "rows": rows, "uri": "" if rows else plots.heatmap(shares)})
    return {"sides": sides, "names": names, "short": max(map(len, names)) <= SHORT}


def _per_class(section: PerClass) -> Json | None:
    """The table of classes in their own order, and the chart of them by recall, the worst first."""
    if not section.rows:
        return None
    shown = [_class_row(row) for row in section.rows]
    ordered = sorted((row for row in shown if row["recall"]), key=lambda row: row["recall"].value)
    chart = ordered if len(ordered) <= CHART_LIMIT else ordered[:CHART_WORST]
    said = ""
    if chart:
        worst, best = ordered[0], ordered[-1]
        said = (
            f"Recall goes from {worst['recall'].text} ({worst['name']}) "
            f"to {best['recall'].text} ({best['name']})."
        )
        said += (
            f" Shown are the {counted(section.noun, len(chart))} with the lowest of {len(ordered)}."
            if len(chart) < len(ordered)
            else ""
        )
    nouns = counted(section.noun, 2)[2:]
    return {
        "rows": shown,
        "chart": chart,
        "said": said,
        "long": len(shown) > TABLE_LIMIT,
        "noun": section.noun,
        "nouns": nouns,
    }


def _class_row(row: Mapping[str, Any]) -> Json:
    def estimate(name: str) -> words.Cell | None:
        keys = {"value": name, "low": f"{name}_low", "high": f"{name}_high"}
        return words.cell(
            SHARE, {**{key: row.get(field) for key, field in keys.items()}, "n": row.get("support")}
        )

    return {
        "name": str(row.get("class")),
        "precision": estimate("precision"),
        "recall": estimate("recall"),
        "f1": estimate("f1"),
        "support": words.count(row.get("support")),
    }


def _bin(bin: Mapping[str, Any]) -> Json:
    accuracy = {
        "value": bin.get("accuracy"),
        "low": bin.get("low"),
        "high": bin.get("high"),
        "n": bin.get("n"),
    }
    return {
        "confidence": _share(bin.get("confidence")),
        "accuracy": words.cell(SHARE, accuracy),
        "n": words.count(bin.get("n")),
    }


def _share(value: Any, digits: int = 1) -> Json | None:
    """A share as the exact value and in per cent."""
    return None if value is None else {"value": float(value), "text": f"{100 * float(value):.{digits}f}%"}


def _number(value: Any) -> Json | None:
    return None if value is None else {"value": float(value), "text": f"{float(value):.3f}"}

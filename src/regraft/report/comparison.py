"""Runs compared, as one self-contained page or as its picture alone: the main metric and paired differences
with intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regraft.artifacts import write_text
from regraft.errors import UsageError
from regraft.evaluation import PairedDifference
from regraft.report import words
from regraft.report.templates import templates
from regraft.tasks import Metric

# Of the picture, in its own units; a row has its name above its line
WIDTH, MARGIN, ROW, TOP = (400, 14, 40, 34)
TEMPLATES = {".html": "comparison.html.jinja", ".svg": "comparison.svg.jinja"}

Json = dict[str, Any]


def write_comparison(comparison: Mapping[str, Any], path: Path) -> Path:
    """Write what `Comparison.to_dict` gives to a .html or .svg file, by its ending. Names are escaped;
    nothing is fetched.
    """
    if path.suffix.lower() not in TEMPLATES:
        raise UsageError(f"{path} is neither .html nor .svg.")
    write_text(path, templates().get_template(TEMPLATES[path.suffix.lower()]).render(_view(comparison)))
    return path


def _view(comparison: Mapping[str, Any]) -> Json:
    """Everything the templates ask for."""
    metrics = [Metric.shown_as(metric) for metric in comparison["metrics"]]
    headline, scale = metrics[0], 100 if metrics[0].is_share else 1
    values = [
        {
            "name": row["run"],
            "ours": row["run"] == comparison["best"],
            **_points(row["metrics"][headline.name], "value", scale),
        }
        for row in comparison["rows"]
        if _known(row["metrics"][headline.name]["value"])
    ]
    differences = [
        {
            "name": f"{pair['run']} against {pair['against']}",
            "ours": PairedDifference.from_dict(pair).clear,
            **_points(pair, "difference", scale),
        }
        for pair in comparison["pairs"]
    ]
    points = "points" if headline.is_share else headline.unit
    panels = _stacked(
        _panel(
            f"{headline.title}{f' in {headline.unit}' if headline.unit else ''}, 95% interval", values, None
        ),
        _panel(f"Paired difference{f' in {points}' if points else ''}, 95% interval", differences, 0.0),
    )
    return {
        "best": comparison["best"],
        "count": len(comparison["rows"]),
        "examples": words.count(comparison["examples"]),
        "groups": words.count(comparison["groups"]) if comparison["groups"] else "",
        "caution": comparison["caution"],
        "headline": headline.title,
        "lower": words.lower(metrics),
        "columns": [metric.title for metric in metrics],
        "rows": [
            {
                "name": row["run"],
                "path": row["path"],
                "best": row["run"] == comparison["best"],
                "backbone": row["backbone"],
                "chosen": row["chosen"],
                "parameters": f"{row['parameters'] / 1e6:.1f} M" if row["parameters"] else "",
                "seconds": words.duration(row["seconds"]),
                "cells": [words.cell(metric, row["metrics"].get(metric.name)) for metric in metrics],
            }
            for row in comparison["rows"]
        ],
        "verdicts": [pair["in_words"] for pair in comparison["pairs"]],
        "methods": sorted({str(pair["method"]) for pair in comparison["pairs"]}),
        "width": WIDTH,
        "margin": MARGIN,
        **panels,
    }


def _points(values: Mapping[str, Any], name: str, scale: float) -> Json:
    """A value and its interval, a share in per cent; the value alone where it has none."""
    known = {"value": name, "low": "low", "high": "high"}
    return {
        key: scale * float(values[field if _known(values[field]) else name]) for key, field in known.items()
    }


def _known(value: float | None) -> bool:
    """Whether it is a number: of what a test set does not define there is none."""
    return value is not None and math.isfinite(value)


def _panel(title: str, rows: Sequence[Json], zero: float | None) -> Json:
    """A dot with its interval for each row on one scale; `zero` is a value that is always on it, and
    marked.
    """
    ends: list[float] = [row[key] for row in rows for key in ("low", "high")] + (
        [] if zero is None else [zero]
    )
    low, high = min(ends, default=0.0), max(ends, default=0.0)
    step = _step(max(high - low, 1.0))
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    start, span = first * step, (last - first) * step

    def x(value: float) -> float:
        return round(MARGIN + (value - start) / span * (WIDTH - 2 * MARGIN), 1)

    return {
        "title": title,
        "ticks": [
            {"x": x(k * step), "text": f"{k * step:g}", "zero": k * step == zero}
            for k in range(first, last + 1)
        ],
        "rows": [
            {
                "name": row["name"],
                "ours": row["ours"],
                "x": x(row["value"]),
                "low": x(row["low"]),
                "high": x(row["high"]),
                "text": f"{row['value']:.1f} [{row['low']:.1f}, {row['high']:.1f}]"
                if zero is None
                else f"{row['value']:+.1f} [{row['low']:.1f}, {row['high']:.1f}]",
            }
            for row in rows
        ],
        "height": TOP + ROW * len(rows) + 26,
    }


def _stacked(*panels: Json) -> Json:
    """The panels one below the other: where each begins, and its rows."""
    y = 0
    for panel in panels:
        panel["y"], panel["bottom"] = y, y + panel["height"] - 22
        for number, row in enumerate(panel["rows"]):
            row["y"] = y + TOP + ROW * number
        y += panel["height"] + 16
    return {"panels": list(panels), "height": y - 16}


def _step(span: float) -> float:
    """1, 2 or 5 times a power of ten that cuts the span into about five."""
    power = math.pow(10, math.floor(math.log10(span / 5)))
    return next(factor * power for factor in (1, 2, 5, 10) if span / 5 <= factor * power)

"""Tables that the tasks of several labels and of numbers show of their results, and numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from regraft.tasks.sections import Grid

DIGITS = 5  # that people read of a number
SHORT = 3  # of one in a table
SPACE = "\u00a0"  # between words that stay together


def cutoffs_grid(cutoffs: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> Grid:
    """A row a label: how frequent it is, its average precision, from which probability on it is said."""
    found = {row["class"]: row for row in rows}
    lines = []
    for cut in cutoffs:
        row = found.get(cut["label"]) or {}
        ap = _with_interval(row, "ap")
        promise = "; ".join(
            _whole(_promise(wanted, at, cut)) for wanted, at in (cut.get("promised") or {}).items()
        )
        frequent = _whole(f"{row['support']:,} of {row['known']:,}") if row else ""
        gap = "" if cut.get("ece") is None else f"{cut['ece']:.3f}"
        lines.append((cut["label"], frequent, ap, f"{cut['threshold']:.2f}", gap, promise or "not proven"))
    return Grid(
        "When a label is said",
        (
            "Label",
            "Have it",
            "Average precision [95%]",
            "Said from",
            "Calibration error",
            "Promised to be right",
        ),
        lines,
        "A label is said from the probability on that had the highest F1 on held-out examples, which test had no "
        "part in. The last column: from which probability on so much of what is said is promised to be right, by "
        "held-out examples, and what came of it on test. With a precision, regraft predict says labels by it.",
    )


def _promise(wanted: str, at: float, cut: Mapping[str, Any]) -> str:
    """ "95% from 0.62 on: 97% of 41 right"."""
    said, kept = f"{float(wanted):.0%} from {at:.2f} on", (cut.get("kept") or {}).get(wanted) or {}
    return said if kept.get("value") is None else f"{said}: {kept['value']:.0%} of {kept['n']} right"


def _with_interval(row: Mapping[str, Any], name: str) -> str:
    if row.get(name) is None:
        return ""
    return f"{row[name]:.1%} " + _whole(f"[{row[f'{name}_low']:.1%}, {row[f'{name}_high']:.1%}]")


def digits(value: float) -> str:
    """A number as people read it."""
    if not math.isfinite(value):
        return "not known"
    return f"{value:.{DIGITS}g}" if abs(value) < 10**DIGITS else f"{value:.0f}"


def short(value: float) -> str:
    """A number in a table: 0.884, 1.68, 12,345."""
    return f"{value:.{SHORT}g}" if abs(value) < 10**SHORT else f"{value:,.0f}"


def _whole(text: str) -> str:
    """A text that no line breaks."""
    return text.replace(" ", SPACE)


def by_name(numbers: Mapping[str, float | None]) -> str:
    return "; ".join(
        f"{name} {'not known' if v is None else digits(float(v))}" for name, v in numbers.items()
    )


def intervals_grid(
    names: Sequence[str], intervals: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> Grid:
    """A row a number: how far it lies at most, and how often it did, in all and by the size of the target."""
    held = {row["name"]: row.get("held") or {} for row in rows}
    lines: list[Sequence[str]] = []
    sizes = intervals.get("sizes") or [None] * len(names)
    for name, width, own in zip(names, intervals["widths"], sizes, strict=True):
        found = held.get(name) or {}
        parts = "; ".join(_whole(f"{part['of']}: {part['value']:.0%}") for part in found.get("parts") or [])
        groups = found.get("groups")
        by = f"{groups['lowest']:.0%} to {groups['highest']:.0%} of {groups['count']}" if groups else ""
        lines.append((name, _whole(_within(width, own)), _share(found), parts, _whole(by)))
    heads = ["Number", "Within", "Held [95%]", "By the size of the target", "By group"]
    filled = [place for place in range(len(heads)) if any(line[place] for line in lines)]
    lines, heads = [[line[place] for place in filled] for line in lines], [heads[place] for place in filled]
    wider = (
        " Where it goes from one width to another, it is wider the larger errors are where so much is told."
    )
    on = {"val": "the validation set, which also chose the model", "out-of-fold": "out-of-fold predictions"}
    known = on.get(str(intervals.get("fitted_on")))
    gave = f"{intervals.get('n', 0):,} examples of {known}" if known else "held-out examples"
    measured = " How often it held was measured where the metrics above were." if heads[2:] else ""
    return Grid(
        f"Where {intervals['share']:.0%} of the numbers lie",
        heads,
        lines,
        f"The interval is what is told, plus or minus the width, which {gave} gave."
        f"{measured}{wider if any(sizes) else ''}",
    )


def _within(width: float | None, sizes: Mapping[str, Sequence[float]] | None) -> str:
    """How far a number lies at most: "± 1.68", or "± 0.9 to 2.4" where that goes by what is told."""
    if width is None:
        return "not proven"
    if sizes is None:
        return f"± {short(width)}"
    return f"± {short(width * min(sizes['size']))} to {short(width * max(sizes['size']))}"


def _share(found: Mapping[str, Any]) -> str:
    if found.get("value") is None:
        return ""
    return f"{found['value']:.1%} " + _whole(f"[{found['low']:.1%}, {found['high']:.1%}]")


def numbers_grid(rows: Sequence[Mapping[str, Any]]) -> Grid:
    heads = (
        "Number",
        "Examples",
        "Mean absolute error",
        "Root mean squared error",
        "R squared",
        "Spearman",
        "Median error",
    )
    keys = ("mae", "rmse", "r2", "spearman", "median_error")
    lines = [
        (row["name"], f"{row['n']:,}", *(short(row[key]) if row.get(key) is not None else "" for key in keys))
        for row in rows
    ]
    return Grid("The numbers one by one", heads, lines, "Each in the units of the data.")

"""Numbers as people read them; shared by the page and the card."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from regraft.evaluation import Metric
from regraft.modalities import modality_of, names

# How an item is named in Python, what a map of an answer is called, and what was hidden for it
SPOKEN = {
    "image": ("a.jpg", "Where it looked", "One place after another was hidden by a grey square."),
    "text": ("What a text says.", "Which words mattered", "One word or a few after another were hidden."),
    "audio": (
        "a.wav",
        "Where it listened",
        "One band of tones in one part of the time after another was hidden.",
    ),
}
SPLITS = {"test": "test", "cv": "cross-validation", "val": "validation"}  # the best evidence first


@dataclass(frozen=True)
class Cell:
    """One measured number: the exact value, what is shown, and its interval (texts "" where unknown)."""

    value: float
    text: str
    low_text: str
    high_text: str
    low: float
    high: float
    n: int
    method: str
    is_share: bool


def cell(metric: Metric, estimate: Mapping[str, Any] | None) -> Cell | None:
    """An estimate of metrics.json made ready to show; None where there is none."""
    if not estimate or estimate.get("value") is None:
        return None
    value, low, high = (_float(estimate.get(key)) for key in ("value", "low", "high"))
    return Cell(
        value,
        metric.shown(value),
        *metric.ends(low, high),
        low,
        high,
        int(estimate.get("n") or 0),
        str(estimate.get("method") or ""),
        metric.is_share,
    )


def unitless(metric: Metric) -> Metric:
    """The metric as it stands in a table whose heads name the unit (`with_unit`)."""
    return metric if metric.is_share else replace(metric, unit="")


def with_unit(metric: Metric) -> str:
    """The title with the unit of its values, where they have one: "Mean absolute error, in cm"."""
    return metric.title if metric.is_share or not metric.unit else f"{metric.title}, in {metric.unit}"


def lower(metrics: Sequence[Metric]) -> str:
    """The titles of the metrics of which less is better: "Log loss, Brier score"; "" where there are none."""
    return ", ".join(metric.title for metric in metrics if not metric.higher)


def plain(value: Any) -> str:
    """A JSON value as text a reader can take in."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list) and all(isinstance(item, (str, int, float)) for item in value):
        return ", ".join(plain(item) for item in value)
    return json.dumps(value, ensure_ascii=False)


def duration(seconds: Any) -> str:
    """0.4 s, 12 s, 3 min 20 s, 1 h 5 min; "" for what is not a number."""
    value = _float(seconds)
    if not math.isfinite(value) or value < 0:
        return ""
    if value < 0.05:
        return "< 0.1 s"
    if value < 10:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def memory(size: Any) -> str:
    """Bytes in MB or GB (powers of ten); "" for what is not a number."""
    value = _float(size)
    if not math.isfinite(value) or value <= 0:
        return ""
    return f"{value / 1e9:.1f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"


def count(n: Any) -> str:
    """1,234."""
    return f"{int(n):,}" if isinstance(n, (int, float)) and math.isfinite(n) else "unknown"


def sentence(text: str) -> str:
    """The text with its first letter large, unless it begins with an identifier such as timm:resnet18."""
    first = text.split(" ", 1)[0].rstrip(":;,.")
    return text[:1].upper() + text[1:] if first.isalpha() or "-" in first else text


def noun(modality: str, n: int) -> str:
    """The noun of `n` items: "image" or "images"; "example" where the modality is not known here."""
    singular = modality_of(modality).noun if modality in names() else "example"
    return singular if n == 1 else f"{singular}s"


def named(modality: str) -> str:
    """How an item is named in Python: the name of a file, or a text itself."""
    return SPOKEN.get(modality, (f"path/to/{noun(modality, 1)}",))[0]


def looked(modality: str) -> tuple[str, str]:
    """What a map of what an answer rests on is called, and how it came about."""
    _, title, hidden = SPOKEN.get(modality, ("", "Where it looked", "One place after another was hidden."))
    return title, hidden


def _float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan

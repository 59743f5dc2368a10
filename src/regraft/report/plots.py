"""Pictures for the report, each with a text alternative. No user text passes through matplotlib.

The SVGs carry the page's own colours (CSS variables), so they follow light and dark, and real text, so they stay small.
"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Colours matplotlib writes, and what the page shows in their place.
_INK, _ACCENT, _SECOND, _LINE = "#010203", "#010204", "#010205", "#010206"
_COLOURS = {_INK: "currentColor", _ACCENT: "var(--accent)", _SECOND: "var(--second)", _LINE: "var(--line)"}
_PICTURE_BYTES = 400_000  # a first batch larger than this is made smaller before it goes into the page


@dataclass(frozen=True)
class Plot:
    """Inline SVGs, shown side by side where there is room, with the sentence that stands for them."""

    title: str
    alternative: str
    svgs: tuple[str, ...]


def learning_curves(events: Sequence[dict[str, Any]]) -> Plot | None:
    """Loss and validation accuracy by epoch; None without epochs. Of an epoch run twice (a resume) the last counts."""
    epochs = {int(e["epoch"]): e for e in events if e.get("kind") == "epoch" and _is_number(e.get("epoch"))}
    if not epochs:
        return None
    x = sorted(epochs)
    train, val, accuracy = ([_number(epochs[i].get(key)) for i in x] for key in ("train_loss", "val_log_loss", "val_accuracy"))
    judged = any(math.isfinite(value) for value in val)
    loss, left = _axes("loss: validation (solid), training (dashed)" if judged else "training loss", "epoch")
    left.plot(x, train, color=_SECOND, linestyle="--", **_LINES)
    left.xaxis.get_major_locator().set_params(integer=True)
    title = "Learning curves of fine-tuning"
    if not judged:
        said = f"{len(x)} epochs without a validation set: training loss went from {_said(train[0])} to {_said(train[-1])}."
        return Plot(title, said, (_svg(loss, "loss"),))
    left.plot(x, val, color=_ACCENT, **_LINES)
    share, right = _axes("validation accuracy, %", "epoch")
    right.plot(x, [100 * a for a in accuracy], color=_ACCENT, **_LINES)
    right.xaxis.get_major_locator().set_params(integer=True)
    return Plot(
        title,
        f"{len(x)} epochs: validation log loss went from {_said(val[0])} to {_said(val[-1])}"
        f" (lowest {_said(_best(val, min))}), validation accuracy from {_said(100 * accuracy[0], 1)}%"
        f" to {_said(100 * accuracy[-1], 1)}% (highest {_said(100 * _best(accuracy, max), 1)}%).",
        (_svg(loss, "loss"), _svg(share, "accuracy")),
    )


def l2_path(events: Sequence[dict[str, Any]]) -> Plot | None:
    """Out-of-fold log loss of the head against the strength of its L2 penalty, one line a class weighting."""
    paths: dict[str, dict[float, tuple[float, float]]] = {}
    for event in events:
        if event.get("kind") == "l2" and _is_number(event.get("l2")) and event["l2"] > 0:
            values = _number(event.get("log_loss")), _number(event.get("standard_error"))
            if math.isfinite(values[0]):
                paths.setdefault(str(event.get("class_weights", "none")), {})[float(event["l2"])] = values
    if not paths:
        return None
    figure, axes = _axes("out-of-fold log loss, with one standard error", "L2 penalty")
    for index, path in enumerate(paths.values()):
        l2 = sorted(path)
        loss, error = (np.array([path[value][i] for value in l2]) for i in (0, 1))
        colour, style = ((_ACCENT, "-"), (_SECOND, "--"))[index % 2]
        axes.plot(l2, loss, color=colour, linestyle=style, **_LINES)
        axes.fill_between(l2, loss - np.nan_to_num(error), loss + np.nan_to_num(error), color=colour, alpha=0.15)
    axes.set_xscale("log")
    axes.minorticks_off()
    known = [name if name in ("none", "balanced") else "other" for name in paths]
    lines = "; ".join(
        f"{style} line, class weights {name}: lowest log loss {_said(min(v[0] for v in path.values()))}"
        f" at L2 {min(path, key=lambda key: path[key][0]):.3g}"
        for (name, path), style in zip(zip(known, paths.values(), strict=True), ("solid", "dashed") * len(known), strict=False)
    )
    return Plot("Choosing the head's L2 penalty", f"{lines[0].upper()}{lines[1:]}.", (_svg(figure, "l2"),))


def accuracy_against_cost(ranking: Mapping[str, Any]) -> Plot | None:
    """Each candidate's probe accuracy with its interval against the time of an image; the chosen one is ringed."""
    rows = [row for row in ranking.get("rows") or [] if _is_number(row.get("images_per_second"))]
    if len(rows) < 2:
        return None
    figure, axes = _axes("probe accuracy, %, with its 95% interval", "milliseconds an image")
    for row in rows:
        chosen = row["name"] == ranking.get("chosen")
        value, low, high = (100 * row["accuracy"][key] for key in ("value", "low", "high"))
        colour, cost = (_ACCENT if chosen else _SECOND), 1000 / row["images_per_second"]
        axes.plot([cost, cost], [low, high], color=colour, linewidth=1.2, alpha=1.0 if chosen else 0.5)
        axes.plot([cost], [value], color=colour, marker="o", markersize=6 if chosen else 3.5, linestyle="none")
    axes.set_xscale("log")
    axes.minorticks_off()
    slowest, quickest = (pick(rows, key=lambda row: row["images_per_second"]) for pick in (min, max))
    least, most = (100 * pick(row["accuracy"]["value"] for row in rows) for pick in (min, max))
    return Plot(
        "Backbones compared: accuracy against cost",
        f"{len(rows)} candidates from {1000 / quickest['images_per_second']:.2g} to {1000 / slowest['images_per_second']:.2g} ms"
        f" an image and from {least:.1f}% to {most:.1f}% out-of-fold probe accuracy; the large point is the one chosen.",
        (_svg(figure, "cost"),),
    )


def strategies(trials: Sequence[dict[str, Any]], chosen: str) -> Plot | None:
    """Val accuracy of each freezing strategy against the seconds it took, each at the most epochs it was given."""
    longest = {str(t["strategy"]): t for t in sorted(trials, key=lambda trial: trial["epochs"]) if t["seconds"]}
    if len(longest) < 2:
        return None
    figure, axes = _axes("val accuracy, %, with 95 % interval", "seconds")
    for name, t in longest.items():
        colour = _ACCENT if name == chosen else _SECOND
        errors = [[100 * (t["accuracy"] - t["low"])], [100 * (t["high"] - t["accuracy"])]]
        axes.errorbar([t["seconds"]], [100 * t["accuracy"]], yerr=errors, color=colour, fmt="o", markersize=4, linewidth=1)
        axes.annotate(name, (t["seconds"], 100 * t["accuracy"]), xytext=(4, 3), textcoords="offset points", fontsize=7,
                      color=_INK)  # fmt: skip
    axes.set_xscale("log")
    axes.minorticks_off()
    best = longest.get(chosen)
    front = [n for n, t in longest.items() if not any(o["seconds"] < t["seconds"] and o["accuracy"] >= t["accuracy"]
                                                      for o in longest.values())]  # fmt: skip
    said = f"Not beaten by anything cheaper: {', '.join(front)}."
    if best:
        said = f"Chosen: {chosen}, {_said(100 * best['accuracy'], 1)}% right on val in {best['seconds']:.0f} s. {said}"
    return Plot("Freezing strategies, accuracy against cost", said, (_svg(figure, "strategies"),))


def heatmap(shares: NDArray[np.float64]) -> str:
    """A (K, K) confusion matrix with rows summing to one as a PNG data URI: clear = 0, full blue = 1; for large K."""
    from PIL import Image

    k = len(shares)
    pixels = np.zeros((k, k, 4), np.uint8)
    pixels[..., :3] = (46, 111, 158)
    pixels[..., 3] = np.round(255 * np.sqrt(np.clip(shares, 0, 1)))  # the root keeps rare confusions visible
    side = k * max(1, 480 // k)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST).save(buffer, "PNG", optimize=True)
    return _uri("image/png", buffer.getvalue())


def picture(path: Path) -> str:
    """A picture file as a data URI, made smaller when it is large; "" if there is none or it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.format == "PNG" and path.stat().st_size <= _PICTURE_BYTES:
                return _uri("image/png", path.read_bytes())
            small = image.convert("RGB")
        small.thumbnail((1200, 1200))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=80)
        return _uri("image/jpeg", buffer.getvalue())
    except OSError:
        return ""


_LINES: dict[str, Any] = {"marker": "o", "markersize": 3, "linewidth": 1.6}


def _axes(title: str, x_label: str) -> tuple[Any, Any]:
    """A small figure and its axes, in the page's dress; small, so that its text can be read on a phone."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.0, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=9.5, loc="left", color=_INK)
    axes.set_xlabel(x_label, fontsize=9, color=_INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_LINE)
    axes.tick_params(colors=_INK, labelsize=8.5, color=_LINE)
    axes.grid(axis="y", color=_LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Any, name: str) -> str:
    """The figure as an inline SVG: no prologue, no metadata, ids of its own, the page's font and colours."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        FigureCanvasAgg(figure)  # Agg measures the text; the file itself is SVG
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'font: ([\d.]+px)[^;"]*', r"font-size: \1", text)
    text = text.replace('id="', f'id="{name}-').replace('xlink:href="#', f'href="#{name}-')
    text = text.replace("url(#", f"url(#{name}-").replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)
    for written, shown in _COLOURS.items():
        text = text.replace(written, shown)
    return text.strip()


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _number(value: Any) -> float:
    return float(value) if _is_number(value) else math.nan


def _best(values: Sequence[float], choose: Any) -> float:
    known = [value for value in values if math.isfinite(value)]
    return float(choose(known)) if known else math.nan


def _said(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "unknown"

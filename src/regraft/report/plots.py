"""Pictures for the report, each with a text alternative. No user text passes through matplotlib.

The SVGs carry the page's own colours (CSS variables), so they follow light and dark, and real text, so they
stay small.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.evaluation import Metric
from regraft.report.pictures import png
from regraft.runtime import ready_matplotlib

# Colours matplotlib writes, and what the page shows in their place.
_INK, _ACCENT, _SECOND, _LINE = "#010203", "#010204", "#010205", "#010206"
BARS, WIDE = (
    40,
    20.0,
)  # bars of a histogram at most; times the least value from which on its axis is logarithmic
_COLOURS = {_INK: "currentColor", _ACCENT: "var(--accent)", _SECOND: "var(--second)", _LINE: "var(--line)"}


@dataclass(frozen=True)
class Plot:
    """Inline SVGs, shown side by side where there is room, with the sentence that stands for them."""

    title: str
    alternative: str
    svgs: tuple[str, ...]


def _scaled(metric: Metric, value: float) -> float:
    """A value as an axis shows it: a share in per cent."""
    return 100 * value if metric.is_share else value


def _axis(metric: Metric) -> str:
    """What stands beside an axis of a metric: its name and unit."""
    return f"{metric.words}, {metric.unit}" if metric.unit else metric.words


def learning_curves(events: Sequence[dict[str, Any]], metric: Metric) -> Plot | None:
    """Loss and a metric of val by epoch; None without epochs. Of an epoch run twice (a resume) the last
    counts.
    """
    epochs = {int(e["epoch"]): e for e in events if e.get("kind") == "epoch" and _is_number(e.get("epoch"))}
    if not epochs:
        return None
    x = sorted(epochs)
    train, val, values = (
        [_number(epochs[i].get(key)) for i in x] for key in ("train_loss", "val_loss", f"val_{metric.name}")
    )
    judged = any(math.isfinite(value) for value in val)
    loss, left = _axes("loss: validation (solid), training (dashed)" if judged else "training loss", "epoch")
    left.plot(x, train, color=_SECOND, linestyle="--", **_LINES)
    _whole_epochs(left, x)
    title = "Learning curves of fine-tuning"
    if len(x) == 1 and judged:
        said = f"One epoch: training loss {_said(train[0])}, validation loss {_said(val[0])}"
        return Plot(
            title, f"{said}, validation {metric.words} {metric.shown(values[0])}. A curve takes two.", ()
        )
    if len(x) == 1:
        return Plot(title, f"One epoch: training loss {_said(train[0])}. A curve takes two.", ())
    if not judged:
        said = (
            f"{_epochs(x)} without a validation set: "
            f"training loss went from {_said(train[0])} to {_said(train[-1])}."
        )
        return Plot(title, said, (_svg(loss, "loss"),))
    left.plot(x, val, color=_ACCENT, **_LINES)
    share, right = _axes(f"validation {_axis(metric)}", "epoch")
    right.plot(x, [_scaled(metric, value) for value in values], color=_ACCENT, **_LINES)
    _whole_epochs(right, x)
    return Plot(
        title,
        f"{_epochs(x)}: validation loss went from {_said(val[0])} to {_said(val[-1])} (lowest "
        f"{_said(_best(val, min))}), validation {metric.words} from {metric.shown(values[0])} to "
        f"{metric.shown(values[-1])} (best {metric.shown(_best(values, max if metric.higher else min))}).",
        (_svg(loss, "loss"), _svg(share, metric.name)),
    )


def l2_path(events: Sequence[dict[str, Any]]) -> Plot | None:
    """Out-of-fold loss of the head against the strength of its L2 penalty, one line a class weighting."""
    paths: dict[str, dict[float, tuple[float, float]]] = {}
    for event in events:
        if event.get("kind") == "l2" and _is_number(event.get("l2")) and event["l2"] > 0:
            values = _number(event.get("loss")), _number(event.get("standard_error"))
            if math.isfinite(values[0]):
                paths.setdefault(str(event.get("class_weights", "none")), {})[float(event["l2"])] = values
    if not paths:
        return None
    figure, axes = _axes("out-of-fold loss, with one standard error", "L2 penalty")
    for index, path in enumerate(paths.values()):
        l2 = sorted(path)
        loss, error = (np.array([path[value][i] for value in l2]) for i in (0, 1))
        colour, style = ((_ACCENT, "-"), (_SECOND, "--"))[index % 2]
        axes.plot(l2, loss, color=colour, linestyle=style, **_LINES)
        axes.fill_between(
            l2, loss - np.nan_to_num(error), loss + np.nan_to_num(error), color=colour, alpha=0.15
        )
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(lambda value, _: _power(value))
    known = [name if name in ("none", "balanced") else "other" for name in paths]
    lines = "; ".join(
        f"{f'{style} line, class weights {name}: ' * (len(paths) > 1)}lowest loss {_said(min(v[0] for v in path.values()))}"
        f" at L2 {min(path, key=lambda key: path[key][0]):.3g}"
        for (name, path), style in zip(
            zip(known, paths.values(), strict=True), ("solid", "dashed") * len(known), strict=False
        )
    )
    return Plot("Choosing the head's L2 penalty", f"{lines[0].upper()}{lines[1:]}.", (_svg(figure, "l2"),))


def score_against_cost(ranking: Mapping[str, Any]) -> Plot | None:
    """The first score of each candidate, with its interval, against the time of an example; the chosen one
    is ringed.
    """
    rows = [row for row in ranking.get("rows") or [] if _is_number(row.get("examples_per_second"))]
    if len(rows) < 2:
        return None
    metric = Metric.shown_as(rows[0]["scores"][0])
    scale = 100 if metric.is_share else 1
    unit = f", {metric.unit}" if metric.unit else ""
    figure, axes = _axes(f"{metric.words}{unit}, with its 95% interval", "milliseconds an example")
    for row in rows:
        chosen, score = row["name"] == ranking.get("chosen"), row["scores"][0]
        colour, cost = (_ACCENT if chosen else _SECOND), 1000 / row["examples_per_second"]
        if _is_number(score["low"]) and _is_number(score["high"]):
            ends = [scale * score["low"], scale * score["high"]]
            axes.plot([cost, cost], ends, color=colour, linewidth=1.2, alpha=1.0 if chosen else 0.5)
        size = 6 if chosen else 3.5
        axes.plot(
            [cost], [scale * score["value"]], color=colour, marker="o", markersize=size, linestyle="none"
        )
    _log_scale(axes, [1000 / row["examples_per_second"] for row in rows])
    slowest, quickest = (pick(rows, key=lambda row: row["examples_per_second"]) for pick in (min, max))
    least, most = (metric.shown(pick(row["scores"][0]["value"] for row in rows)) for pick in (min, max))
    return Plot(
        f"Backbones compared: {metric.words} against cost",
        f"{len(rows)} candidates from {1000 / quickest['examples_per_second']:.2g} to "
        f"{1000 / slowest['examples_per_second']:.2g} ms an example, and from {least} to {most} "
        f"out of fold in {metric.words}; the large point is the one chosen.",
        (_svg(figure, "cost"),),
    )


def strategies(trials: Sequence[dict[str, Any]], chosen: str, metric: Metric) -> Plot | None:
    """A metric on val of each freezing strategy against the seconds it took, each at the most epochs it was
    given.
    """
    longest = {
        str(t["strategy"]): t for t in sorted(trials, key=lambda trial: trial["epochs"]) if t["seconds"]
    }
    if len(longest) < 2:
        return None
    sign = 1 if metric.higher else -1
    front = [
        n
        for n, t in longest.items()
        if not any(
            o["seconds"] < t["seconds"] and sign * o["value"] >= sign * t["value"] for o in longest.values()
        )
    ]
    front.sort(key=lambda name: longest[name]["seconds"])
    figure, axes = _axes(f"val {_axis(metric)}, with its 95% interval", "seconds")
    _cost_points(axes, longest, front, chosen, metric)
    best = longest.get(chosen)
    said = f"Not beaten by anything cheaper: {', '.join(front)}."
    if best:
        said = (
            f"Chosen: {chosen}, val {metric.words} "
            f"{metric.shown(best['value'])} in {best['seconds']:.0f} s. {said}"
        )
    return Plot(f"Freezing strategies, {metric.words} against cost", said, (_svg(figure, "strategies"),))


def _cost_points(
    axes: Any, longest: Mapping[str, Mapping[str, Any]], front: list[str], chosen: str, metric: Metric
) -> None:
    """Draw each strategy at its seconds with its interval, and join and name those of the `front`."""
    for name, t in longest.items():
        colour, faint = (_ACCENT, 1.0) if name == chosen else (_SECOND, 0.35)
        axes.plot(
            [t["seconds"]] * 2,
            [_scaled(metric, t["low"]), _scaled(metric, t["high"])],
            color=colour,
            linewidth=1.2,
            alpha=faint,
        )
        axes.plot(
            [t["seconds"]],
            [_scaled(metric, t["value"])],
            color=colour,
            marker="o",
            markersize=5 if name == chosen else 3.5,
        )
    seconds = [longest[name]["seconds"] for name in front]
    axes.plot(
        seconds,
        [_scaled(metric, longest[name]["value"]) for name in front],
        color=_INK,
        linewidth=0.8,
        linestyle=":",
    )
    also = [chosen] if chosen in longest and chosen not in front else []
    for name in [*front, *also]:  # left of the front nothing lies
        place = longest[name]["seconds"], _scaled(metric, longest[name]["value"])
        axes.annotate(
            name,
            place,
            xytext=(-6, 0),
            textcoords="offset points",
            fontsize=8,
            ha="right",
            va="center",
            color=_INK,
        )
    _log_scale(axes, [t["seconds"] for t in longest.values()], room=0.5)


def reliability(calibration: Mapping[str, Any]) -> Plot | None:
    """How often answers were right against how sure they were, with Wilson's interval, before and after the
    temperature.
    """
    states = {"before": "before calibration", "after": "as the model answers now"}
    svgs, said = [], []
    for number, (name, title) in enumerate(states.items()):
        fitted: Mapping[str, Any] = calibration.get(name) or {}
        bins = [
            b
            for b in fitted.get("bins") or []
            if _is_number(b.get("confidence")) and _is_number(b.get("accuracy"))
        ]
        if not bins:
            continue
        colour = (_SECOND, _ACCENT)[number]
        figure, axes = _axes(f"{title}: right, %", "how sure it was, %")
        columns = (
            np.array([_number(b.get(k)) for b in bins])
            for k in ("confidence", "accuracy", "low", "high", "n")
        )
        sure, right, low, high, share = columns
        sure, right, low, high = 100 * sure, 100 * right, 100 * low, 100 * high
        axes.bar(sure, 22 * share / share.max(), width=3, color=colour, alpha=0.2)
        axes.plot([0, 100], [0, 100], color=_INK, linewidth=0.8, linestyle=":")
        axes.errorbar(
            sure,
            right,
            yerr=np.nan_to_num([right - low, high - right]).clip(0),
            color=colour,
            fmt="o",
            markersize=4,
            linewidth=1.2,
        )
        axes.set_xlim(min(95.0, 5 * math.floor(sure.min() / 5 - 0.5)), 101.5)
        axes.set_ylim(0, 103)
        svgs.append(_svg(figure, f"reliability-{name}"))
        if _is_number(fitted.get("ece")):
            said.append(f"{title} the two lie {100 * fitted['ece']:.1f} points apart on average")
    if not svgs:
        return None
    words = "How often it was right against how sure it was; on the dotted line the two agree."
    words += f" {'; '.join(said).capitalize()}." if said else ""
    return Plot(
        "Does it know how sure it is?",
        f"{words} The pale bars show how many answers there were.",
        tuple(svgs),
    )


def spread(title: str, unit: str, values: NDArray[np.float64], seen: float) -> Plot | None:
    """How many examples have which of (N,) positive values; dashed what a network takes at once. Words alone
    where all have the same, and None without any.
    """
    known = values[np.isfinite(values) & (values > 0)]
    if not len(known):
        return None
    least, usual, most = float(known.min()), float(np.median(known)), float(known.max())
    if least == most:
        return Plot(title, f"All have {_long(least)} {unit}; the network takes {_long(seen)} at once.", ())
    wide, bins = most > WIDE * least, min(BARS, max(5, round(len(known) ** 0.5)))
    if wide:
        edges = np.geomspace(least, most, bins + 1)
    elif (known == np.rint(known)).all():  # whole numbers, as many to each bar
        step = math.ceil((most - least + 1) / bins)
        edges = np.arange(least - 0.5, most + step, step)
    else:
        edges = np.linspace(least, most, bins + 1)
    figure, axes = _axes("examples", unit)
    axes.hist(known, edges, color=_ACCENT, alpha=0.75)
    axes.yaxis.get_major_locator().set_params(integer=True)
    if wide:
        _log_scale(axes, [least, most])
    if least <= seen <= most:
        axes.axvline(seen, color=_SECOND, linestyle="--", linewidth=1.6)
    longer = int((known > seen).sum())
    beyond = "none has" if not longer else "1 has" if longer == 1 else f"{longer:,} have"
    said = f"From {_long(least)} to {_long(most)} {unit}, half of them {_long(usual)} at most; {beyond} more than "
    said += f"the {_long(seen)} that the network takes at once"
    return Plot(
        title, f"{said} (dashed)." if least <= seen <= most else f"{said}.", (_svg(figure, "lengths"),)
    )


def _long(value: float) -> str:
    """A length: 0.945, 12.5, 4,000."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def heatmap(shares: NDArray[np.float64]) -> str:
    """A (K, K) confusion matrix with rows summing to one as a PNG data URI: clear = 0, full green = 1; for
    large K.
    """
    k = len(shares)
    pixels = np.zeros((k, k, 4), np.uint8)
    pixels[..., :3] = (60, 150, 122)
    pixels[..., 3] = np.round(255 * np.sqrt(np.clip(shares, 0, 1)))  # the root keeps rare confusions visible
    return png(pixels, k * max(1, 480 // k))


_ROOM = {
    "top": 0.9,
    "bottom": 0.175,
    "right": 0.965,
}  # of a figure, for its title, its x axis and the last tick
_LINES: dict[str, Any] = {"marker": "o", "markersize": 3, "linewidth": 1.6}


def _axes(title: str, x_label: str) -> tuple[Any, Any]:
    """A small figure and its axes, in the page's dress; small, so that its text can be read on a phone."""
    ready_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.0, 2.6))
    axes = figure.subplots(gridspec_kw=_ROOM)
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


def _log_scale(axes: Any, values: Sequence[float], room: float = 0.0) -> None:
    """A logarithmic x axis with a few round numbers written out; `room` on the left, as a share of the
    values' span.
    """
    least, most = 0.9 * min(values), 1.1 * max(values)
    steps = [step * 10.0**power for power in range(-5, 8) for step in (1, 2, 5)]
    round_ones = [step for step in steps if least <= step <= most]
    axes.set_xscale("log")
    axes.set_xlim(least * (least / most) ** room, most)
    axes.minorticks_off()
    axes.set_xticks(
        round_ones or values[:1], [f"{step:g}" for step in round_ones or [float(f"{values[0]:.2g}")]]
    )


def _power(value: float) -> str:
    """A value of a logarithmic axis as plain text: 10⁻³, 0.002. matplotlib's own way, a formula, takes as long
    as all the rest of a figure.
    """
    exponent = round(math.log10(value))
    if not math.isclose(value, 10.0**exponent):
        return f"{value:g}"
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _whole_epochs(axes: Any, x: Sequence[int]) -> None:
    """Ticks at whole numbers, where there is a curve and where there is a single point."""
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlim(x[0] - 0.4, x[-1] + 0.4)


def _epochs(x: Sequence[int]) -> str:
    return f"{len(x)} epoch{'s' if len(x) > 1 else ''}"


def _leave_room(figure: Any, renderer: Any) -> None:
    """Leave room for what stands left of the axes; all else takes the same room in every figure. A layout of
    matplotlib's measures all of it twice, which takes as long as drawing.
    """
    (axes,) = figure.axes
    beyond = axes.bbox.x0 - axes.yaxis.get_tightbbox(renderer).x0
    figure.subplots_adjust(left=(beyond + 0.05 * figure.dpi) / figure.bbox.width)


def _svg(figure: Any, name: str) -> str:
    """The figure as an inline SVG: no prologue, no metadata, ids of its own, the page's font and colours."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        canvas = FigureCanvasAgg(figure)  # Agg measures the text; the file itself is SVG
        _leave_room(figure, canvas.get_renderer())
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'font: ([\d.]+px)[^;"]*', r"font-size: \1", text)
    text = text.replace('id="', f'id="{name}-').replace('xlink:href="#', f'href="#{name}-')
    text = text.replace("url(#", f"url(#{name}-").replace(
        "<svg", '<svg aria-hidden="true" focusable="false"', 1
    )
    for written, shown in _COLOURS.items():
        text = text.replace(written, shown)
    return text.strip()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _number(value: Any) -> float:
    return float(value) if _is_number(value) else math.nan


def _best(values: Sequence[float], choose: Any) -> float:
    known = [value for value in values if math.isfinite(value)]
    return float(choose(known)) if known else math.nan


def _said(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "unknown"

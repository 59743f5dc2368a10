"""The picture of what step 2 compared: the loss by the depth of the network and the size of its input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from regraft.report.plots import _ACCENT, _INK, _LINES, _SECOND, Plot, _axes, _is_number, _said, _svg


def loss_by_depth(events: Sequence[dict[str, Any]]) -> Plot | None:
    """The out-of-fold loss of a linear head against the number of stages, a line an input size, with the standard
    error of the difference to the usual form; what was taken is marked. None where nothing was compared.
    """
    rows = [event for event in events if event.get("kind") == "form" and _is_number(event.get("loss"))]
    if len(rows) < 2:
        return None
    figure, axes = _axes("out-of-fold loss, by input size", "stages kept")
    sizes = sorted({int(row["size"]) for row in rows}, reverse=True)
    for number, size in enumerate(sizes):
        own = sorted((row for row in rows if row["size"] == size), key=lambda row: row["depth"])
        depth, loss, error = (
            np.array([row[key] for row in own], dtype=np.float64)
            for key in ("depth", "loss", "difference_error")
        )
        colour, style = ((_ACCENT, "-"), (_SECOND, "--"))[number % 2]
        axes.errorbar(depth, loss, yerr=error, color=colour, linestyle=style, **_LINES, elinewidth=1.0)
        place = depth[-1], loss[-1]
        axes.annotate(
            str(size), place, xytext=(-9, 5), textcoords="offset points", fontsize=8.5, ha="right", color=_INK
        )
        for row in own:
            if row.get("chosen"):
                axes.plot([row["depth"]], [row["loss"]], color=colour, marker="o", markersize=8)
    axes.xaxis.get_major_locator().set_params(integer=True)
    best = min(rows, key=lambda row: row["loss"])
    taken = next((row for row in rows if row.get("chosen")), best)
    at = " and ".join(map(str, sizes))
    said = (
        f"{len(rows)} forms of the network at input size {at}: lowest {_said(best['loss'])} by {_of(best)}. "
    )
    said += (
        "It was taken."
        if best is taken
        else f"Taken (the large point): {_of(taken)}, {_said(taken['loss'])}."
    )
    said += " The bars are the standard error of the difference to the whole network at its usual size. Where a form is "
    said += "clearly worse than that, less deep ones, or smaller inputs, were not looked at."
    return Plot("Depth and input size", said, (_svg(figure, "forms"),))


def _of(row: dict[str, Any]) -> str:
    """A form in words."""
    return f"{row['depth']} of {row['stages']} stages at {row['size']}"

"""The picture of numbers: what was told against what it is, and by how much it was off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from regraft.report.plots import _ACCENT, _INK, Plot, _axes, _svg

MANY = 100  # points from which on they are paler


def told_numbers(name: str, points: Sequence[Sequence[float]]) -> Plot | None:
    """What was told against what it is, and the errors against what was told; None without two points."""
    both = np.array([point for point in points if np.isfinite(point).all()], dtype=np.float64).reshape(-1, 2)
    if len(both) < 2:
        return None
    truth, told = both.T
    dots: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 3, "color": _ACCENT}
    dots["alpha"] = 0.35 if len(both) > MANY else 0.7
    left, axes = _axes("what was told", "what it is")
    ends = [float(both.min()), float(both.max())]
    axes.plot(ends, ends, color=_INK, linewidth=0.8, linestyle=":")
    axes.plot(truth, told, **dots)
    right, axes = _axes("told less what it is", "what was told")
    axes.axhline(0, color=_INK, linewidth=0.8, linestyle=":")
    axes.plot(told, told - truth, **dots)
    errors = told - truth
    half = np.quantile(np.abs(errors), 0.5)
    words = (
        f"{len(both):,} examples of {name}: what was told against what it is, and the errors against what was "
        f"told; on the dotted lines there is none. Half of the errors are below {half:.3g}, and what is told is "
        f"{abs(errors.mean()):.3g} too {'large' if errors.mean() > 0 else 'small'} on average."
    )
    return Plot(f"{name}: told and true", words, (_svg(left, "told"), _svg(right, "errors")))

"""Results into a page: between its marks, and as a picture beside it."""

from __future__ import annotations

from pathlib import Path


def between_marks(page: Path, name: str, table: str) -> None:
    """Replace what stands between `<!-- name: begin -->` and `<!-- name: end -->`. Raises SystemExit where
    they are not.
    """
    text, begin, end = page.read_text(encoding="utf-8"), f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if begin not in text or end not in text:
        raise SystemExit(f"{page} lacks the marks {begin} and {end}")
    start, _, rest = text.partition(begin)
    page.write_text(f"{start}{begin}\n{table}\n{end}{rest.partition(end)[2]}", encoding="utf-8")


def bars(
    place: Path, names: list[str], values: list[float], lows: list[float], highs: list[float], label: str
) -> None:
    """Horizontal bars on a logarithmic scale, each with its least and its most; an SVG file."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "regraft"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 0.34 * len(names) + 0.9))
    rows = range(len(names))
    axes.barh(rows, values, color="#3a7ca5", height=0.62)
    axes.hlines(rows, lows, highs, color="#16324f", linewidth=1.5)
    for row, value, high in zip(rows, values, highs, strict=True):
        axes.text(max(value, high) * 1.05, row, f"{value:.1f}", va="center", fontsize=8)
    axes.axvline(1, color="#888888", linewidth=0.8)
    axes.set(yticks=list(rows), yticklabels=names, xscale="log", xlabel=label)
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=8, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.savefig(place, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)


def lines(place: Path, series: dict[str, tuple[list[float], list[float]]], x: str, y: str) -> None:
    """Curves on logarithmic scales; an SVG file."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "regraft"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.4))
    for name, (xs, ys) in series.items():
        axes.plot(xs, ys, marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(place, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)

"""Results as tables on standard output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from regraft.console.screen import MARKS
from regraft.evaluation import SHARE, named, with_error
from regraft.tasks import Confusion, Grid, Metric, PerClass, Together, task_of

FEW_CLASSES = 12  # whose confusion can be read as a table on a terminal
SHARES = ("recall", "precision", "f1")  # of a class
PAIRS_NAMED = 8  # pairs of classes that are named where it cannot
SHOWN = 5  # examples of a finding


def findings_table(audit: dict[str, Any]) -> None:
    """What an audit found, as `Audit.to_dict` gives it, on standard output: a few examples of each."""
    console = Console(highlight=False)
    counts = ", ".join(f"{n:,} {split}" for split, n in audit["counts"].items() if n)
    ending = "" if len(audit["findings"]) == 1 else "s"
    console.print(
        f"[bold]{escape(audit['name'])}[/]: {counts}; {len(audit['findings'])} finding{ending}",
        soft_wrap=True,
    )
    for finding in audit["findings"]:
        what = f"[bold]{escape(finding['kind'])}[/]: {escape(finding['message'])}"
        console.print(f"{MARKS[finding['severity']]} {what}", soft_wrap=True)
        pairs, notes = finding.get("pairs", []), finding.get("notes", {})
        lines = [f"{a} = {b} ({similarity:.2f})" for a, b, similarity in pairs]
        lines = lines or [
            f"{source}: {notes[source]}" if source in notes else source for source in finding["examples"]
        ]
        for line in lines[:SHOWN]:
            console.print(f"    [dim]{escape(line)}[/]", soft_wrap=True)
        if len(lines) > SHOWN:
            console.print(
                f"    [dim]and {len(lines) - SHOWN} more, with --json or --export[/]", soft_wrap=True
            )


def ranking_table(ranking: dict[str, Any]) -> None:
    """A comparison of backbones, as `Ranking.to_dict` gives it, on standard output."""
    console, table = _console(), Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column("candidate", overflow="fold")
    scores = [Metric.shown_as(score) for score in ranking["rows"][0]["scores"]]
    heads = (
        *(score.words for score in scores),
        ranking["loss_name"],
        "on",
        "params",
        "GMACs",
        "ImageNet",
        "examples/s",
        "full run",
    )
    for head in heads:
        table.add_column(head, justify="right")
    table.add_column("licence")
    for row in ranking["rows"]:
        top = row["imagenet_top1"]
        table.add_row(
            str(row["rank"]),
            escape(row["name"]),
            *map(_scored, scores, row["scores"], [True] + [False] * len(scores)),
            f"{row['loss']:.3f}",
            f"{row['examples']:,}",
            f"{row['parameters'] / 1e6:.1f} M",
            f"{row['gmacs']:.2f}",
            f"{top:.1f}%" if top else "",
            f"{row['examples_per_second']:.0f}",
            _duration(row["run_seconds"]),
            escape(row["licence"]),
            style="bold" if row["name"] == ranking["chosen"] else None,
        )
    console.print(table)
    console.print(f"[bold]{escape(ranking['chosen'])}[/]: {escape(ranking['reason'])}", soft_wrap=True)
    for rule, name in ranking["opinions"].items():
        console.print(f"  {rule}: {escape(name)}", soft_wrap=True)
    for name, why in ranking["left_out"].items():
        console.print(f"  [dim]left out {escape(name)}: {escape(why)}[/]", soft_wrap=True)


def _scored(metric: Metric, score: dict[str, Any], whole: bool) -> str:
    """A score of a ranking, the `whole` one with its interval."""
    told = metric.shown(score["value"])
    low, high = score["low"], score["high"]
    return f"{told} [{', '.join(metric.ends(low, high))}]" if whole and low is not None else told


def comparison_table(comparison: dict[str, Any]) -> None:
    """Runs on the test set they share, as `Comparison.to_dict` gives them, on standard output."""
    console, table = _console(), Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("run", overflow="fold")
    table.add_column("backbone", overflow="fold")
    table.add_column("chosen")
    metrics = [Metric.shown_as(metric) for metric in comparison["metrics"]]
    for name in (*(metric.words for metric in metrics), "params", "time"):
        table.add_column(name, justify="right")
    for row in comparison["rows"]:
        table.add_row(
            escape(row["run"]),
            escape(row["backbone"]),
            row["chosen"],
            *(_estimate(metric, row["metrics"].get(metric.name)) for metric in metrics),
            f"{row['parameters'] / 1e6:.1f} M" if row["parameters"] else "",
            _duration(row["seconds"]) if row["seconds"] is not None else "",
            style="bold" if row["run"] == comparison["best"] else None,
        )
    console.print(table)
    for pair in comparison["pairs"]:
        console.print(escape(pair["in_words"]), soft_wrap=True)
    groups = f" in {comparison['groups']:,} groups, which are drawn whole" if comparison["groups"] else ""
    console.print(
        f"[dim]paired on {comparison['examples']:,} test examples{groups}; "
        "p adjusted by Holm over all pairs of runs[/]",
        soft_wrap=True,
    )
    console.print(comparison["caution"], soft_wrap=True)


def evaluation_table(evaluation: dict[str, Any]) -> None:
    """A model's scores, as `Evaluated.to_dict` gives them, on standard output."""
    console, task = _console(), task_of(evaluation["kind"], evaluation["classes"])
    console.print(f"[bold]{escape(evaluation['headline'])}[/]", soft_wrap=True)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("metric", "value [95 %]"):
        table.add_column(name)
    for name, estimate in evaluation["metrics"].items():
        metric = named(task.metrics, name)
        table.add_row(metric.words, _estimate(metric, estimate))
    console.print(table)
    for section in task.sections(evaluation["tables"]):
        if show := SECTIONS.get(type(section)):
            show(console, section)
    for text in evaluation["said"]:
        console.print(escape(text), soft_wrap=True)


def _per_class(console: Console, section: PerClass) -> None:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(section.noun, overflow="fold")
    for name in ("examples", "recall [95 %]", "precision [95 %]", "F1"):
        table.add_column(name, justify="right")
    for row in section.rows:
        shares = [
            {"value": row[name], **{end: row.get(f"{name}_{end}") for end in ("low", "high")}}
            for name in SHARES
        ]
        table.add_row(
            escape(row["class"]), f"{row['support']:,}", *(_estimate(SHARE, share) for share in shares)
        )
    console.print(table)


def _grid(console: Console, section: Grid) -> None:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=escape(section.title), title_justify="left")
    for place, head in enumerate(section.heads):
        table.add_column(escape(head), justify="right" if place else "left")
    for row in section.rows:
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)
    if section.note:
        console.print(f"[dim]{escape(section.note)}[/]", soft_wrap=True)


def _together(console: Console, section: Together) -> None:
    if len(section.classes) <= FEW_CLASSES:
        _grid(console, section.grid())


def _confusion(console: Console, section: Confusion) -> None:
    """Few classes as a table of counts, rows what they are; many as the pairs most often confused."""
    classes, counts = section.classes, section.counts
    if len(classes) <= FEW_CLASSES:
        title = "rows: what it is; columns: what the model said"
        table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
        table.add_column("")
        for name in classes:
            table.add_column(escape(name), justify="right", overflow="fold")
        for number, (name, row) in enumerate(zip(classes, counts, strict=True)):
            table.add_row(
                escape(name),
                *(f"[bold]{n}[/]" if k == number else str(n) if n else "·" for k, n in enumerate(row)),
            )
        console.print(table)
        return
    pairs = [
        (n, a, b)
        for a, row in zip(classes, counts, strict=True)
        for b, n in zip(classes, row, strict=True)
        if n and a != b
    ]
    most = sorted(pairs, key=lambda pair: -pair[0])[:PAIRS_NAMED]
    if most:
        said = "; ".join(f"{a} taken for {b} ({n})" for n, a, b in most)
        console.print(f"most often confused: {escape(said)}", soft_wrap=True)


# What is shown on a terminal; the others are for the page
SECTIONS: dict[type, Callable[[Console, Any], None]] = {
    PerClass: _per_class,
    Confusion: _confusion,
    Grid: _grid,
    Together: _together,
}


def runs_table(runs: list[dict[str, Any]]) -> None:
    """Runs with their headline, as `Listed.to_dict` gives them: a plain line each where standard output is
    no terminal.
    """
    console = Console(highlight=False)
    columns = ("path", "state", "date", "headline", "chosen", "backbone")
    if not console.is_terminal:
        for run in runs:
            print("  ".join(str(run[name]) for name in columns if run[name]))
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for run in runs:
        style = {"finished": None, "damaged": "red"}.get(run["state"], "dim")
        date = run["date"][:16].replace("T", " ")
        table.add_row(*(escape(date if name == "date" else run[name]) for name in columns), style=style)
    console.print(table)


def _console() -> Console:
    """Standard output; a file or a pipe has room for wide tables."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=220)


def _estimate(metric: Metric, estimate: dict[str, Any] | None) -> str:
    """`93.2% [90.1, 95.4]` of a share, `0.214 [0.180, 0.250]` of anything else; the interval only where
    there is one.
    """
    if not estimate or estimate["value"] is None:
        return ""
    value, low, high = (estimate[key] for key in ("value", "low", "high"))
    if low is None or low != low:  # NaN
        return metric.shown(value)
    ends = [f"{100 * end:.1f}" if metric.is_share else f"{end:.3f}" for end in (low, high)]
    return f"{metric.shown(value)} [{', '.join(ends)}]"


def _duration(seconds: float) -> str:
    """`45 s`, `12 min` or `3.2 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _short(count: int) -> str:
    """`3.4 M`, `44.6 k` or `850`."""
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.1f} k" if count >= 1e3 else str(count)


def strategies_table(explored: dict[str, Any]) -> None:
    """Print the strategies that were tried, the best first, and the advice."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    metric = Metric.shown_as(explored["metric"])
    for name in ("strategy", "epochs", "val loss", f"{metric.words} [95 %]", "trained", "seconds", "memory"):
        table.add_column(
            escape(name), justify="left" if name == "strategy" else "right", no_wrap=name != "strategy"
        )
    longest = {
        trial["strategy"]: trial for trial in sorted(explored["trials"], key=lambda trial: trial["epochs"])
    }
    for t in sorted(longest.values(), key=lambda trial: trial["loss"]):
        style = "bold" if t["strategy"] == explored["chosen"] else ""
        table.add_row(
            escape(t["strategy"]),
            f"{t['epochs']:.2g}",
            with_error(t["loss"], t["standard_error"]),
            f"{metric.shown(t['value'])} \\[{', '.join(metric.ends(t['low'], t['high']))}]"
            if metric.shown(t["value"])
            else "not defined",
            _short(t["trained"]),
            f"{t['seconds']:.0f}",
            f"{t['memory'] / 1e9:.1f} GB" if t["memory"] else "",
            style=style,
        )
    console = _console()
    console.print(table)
    console.print(
        f"\n[bold]{escape(explored['advice'][:1].upper() + explored['advice'][1:])}.[/]", soft_wrap=True
    )


def export_table(exported: dict[str, Any]) -> None:
    """What an export is and how it differs from its model, as `Exported.to_dict` gives it, on standard
    output.
    """
    console, proof = _console(), exported["proof"]
    if proof is None:
        console.print("Not compared with the model: no examples were at hand. Name some: --data FOLDER")
    else:
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        table.add_column(f"{proof['runner']} beside the model")
        for head in ("examples", "largest difference", "same answers"):
            table.add_column(head, justify="right")
        rows = {
            "the same prepared input": proof["same"],
            "from files on": proof["files"],
            "against the run's answers, of test": proof["stored"],
        }
        for name, one in rows.items():
            if one:
                table.add_row(name, f"{one['n']:,}", f"{one['largest']:.1e}", f"{one['agreement']:.2%}")
        console.print(table)
        console.print(
            f"{proof['n']:,} real examples ({proof['of']}). What is prepared in the export differs by "
            f"{proof['preparing']['mean']:.2g} on average, {proof['preparing']['largest']:.3g} at most.",
            soft_wrap=True,
        )
    if cost := exported["int8"]:
        speeds = ", ".join(f"{speed:.0f} in {name}" for name, speed in cost["speed"].items())
        console.print(
            f"int8: {cost['metric']} on {cost['n']:,} examples of val {cost['int8']:.4f}, in float32 "
            f"{cost['float32']:.4f}: {cost['difference']:+.4f} [{cost['low']:+.4f}, {cost['high']:+.4f}]; "
            f"examples a second: {speeds}",
            soft_wrap=True,
        )
    console.print(f"written   {escape(exported['path'])}", soft_wrap=True)

"""What the steps chose between: backbones, strategies, new layers, L2; and a drawing of the network as it
changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regraft.evaluation import Metric, with_error
from regraft.report import plots, words
from regraft.tasks import counted

# what tells apart the events of what a resumed run does again
_KEYS = {
    "epoch": ("strategy", "epoch"),
    "l2": ("l2", "class_weights"),
    "head": ("layers", "hidden", "dropout"),
    "form": ("size", "depth"),
}

Json = dict[str, Any]


def latest(events: list[Json]) -> list[Json]:
    """The events, of an epoch that a resumed run did again only the last one."""
    newest: dict[tuple[object, ...], Json] = {}
    for number, event in enumerate(events):
        kind = event.get("kind")
        keys = _KEYS.get(str(kind))
        newest[(kind, *(map(event.get, keys) if keys else (number,)))] = event
    return list(newest.values())


def network(run: Mapping[str, Any], settings: Mapping[str, Any], called: str = "class") -> Json | None:
    """The drawing of steps 1 to 4: stages by name, with the share of each that fine-tuning may move; None
    before step 2.
    """
    steps = run.get("steps") or {}
    base: Json = (steps.get("base") or {}).get("details") or {}
    names = [name for name in str(base.get("stages") or "").split(", ") if name]
    if not names:
        return None
    shares = ((steps.get("freeze") or {}).get("details") or {}).get("released_of_each_stage")
    shares = (
        [float(share) for share in shares]
        if isinstance(shares, list) and len(shares) == len(names)
        else [0.0] * len(names)
    )
    section, size = settings.get("head") or {}, (settings.get("base") or {}).get("size")
    width, classes = base.get("width"), len((run.get("data") or {}).get("classes") or [])
    kind = f"MLP of {section.get('hidden')}" if section.get("kind") == "mlp" else "linear"
    moving = [name for name, share in zip(names, shares, strict=True) if share]
    features = f"{words.count(width)} features" if width else "features"
    noun = words.noun(str((run.get("data") or {}).get("modality") or ""), 1)
    if not moving:
        freeze = f"All {len(names)} stages are frozen while the new layers are trained."
    elif len(moving) == len(names):
        least = min(shares)
        freeze = (
            "In colour what fine-tuning may move: "
            f"{'all' if least == 1 else f'{100 * least:.2g}% or more'} of every stage."
        )
    else:
        freeze = (
            f"In colour what fine-tuning may move: of {', '.join(moving)}. "
            f"The other {len(names) - len(moving)} stay frozen."
        )
    return {
        "input": f"{noun}, {size}" if isinstance(size, int) else noun,
        "stages": [
            {"name": name, "percent": round(100 * share, 1)}
            for name, share in zip(names, shares, strict=True)
        ],
        "features": features,
        "new": counted(called, classes) if classes else "new layers",
        "captions": {
            "obtain": f"The network as it comes: {len(names)} stages, then the outputs of what it was trained for.",
            "base": f"Its old outputs are gone: what is left turns each {noun} into {features}.",
            "freeze": freeze,
            "head": f"New layers ({kind}) lead from the {features} to {counted(called, classes)}.",
        },
    }


def ranking(ranked: Json) -> Json | None:
    """The comparison of backbones: one row a candidate, and what other rules would have taken."""
    if not ranked.get("rows"):
        return None
    if ranked.get("schema", 2) < 3:  # a row's loss was called log_loss whatever it was, and its name loss
        old = [{**row, "loss": row["log_loss"]} for row in ranked["rows"]]
        ranked = {**ranked, "rows": old, "loss_name": ranked["loss"]}
    rows = [
        {
            "name": str(row["name"]),
            "chosen": row["name"] == ranked.get("chosen"),
            "scores": [words.cell(Metric.shown_as(score), score) for score in row["scores"]],
            "others": [
                (f"{row['loss']:.3f}", row["loss"]),
                (f"{row['examples_per_second']:.0f}", row["examples_per_second"]),
                (words.duration(row["run_seconds"]), row["run_seconds"]),
                (f"{row['parameters'] / 1e6:.1f} M", row["parameters"]),
                (f"{row['gmacs']:.2f}", row["gmacs"]),
                (f"{row['imagenet_top1']:.1f}%", row["imagenet_top1"])
                if row.get("imagenet_top1")
                else ("–", ""),
                (words.count(row["examples"]), row["examples"]),
                (str(row["licence"]), str(row["licence"])),
            ],
        }
        for row in ranked["rows"]
    ]
    return {
        "rows": rows,
        "loss": str(ranked["loss_name"]),
        "heads": [score["title"] for score in ranked["rows"][0]["scores"]],
        "opinions": [(str(rule), str(name)) for rule, name in (ranked.get("opinions") or {}).items()],
        "left_out": [(str(name), str(why)) for name, why in (ranked.get("left_out") or {}).items()],
        "plot": plots.score_against_cost(ranked),
    }


def strategies(tried: Json, said: str, metric: Metric) -> Json | None:
    """The freezing strategies that were compared, each at the most epochs it was given, the best first.

    Their advice, unless step 6 has `said` it.
    """
    if not tried.get("trials"):
        return None
    chosen = str(tried.get("chosen") or "")
    longest = {t["strategy"]: t for t in sorted(tried["trials"], key=lambda trial: trial["epochs"])}
    rows = [
        {
            "name": name,
            "chosen": name == chosen,
            "epochs": f"{t['epochs']:.2g}",
            "loss": (with_error(t["loss"], t["standard_error"]), t["loss"]),
            "metric": words.cell(metric, {"value": t["value"], "low": t["low"], "high": t["high"]}),
            "trained": words.count(t["trained"]),
            "seconds": (words.duration(t["seconds"]), t["seconds"]) if t["seconds"] else ("–", ""),
            "memory": (words.memory(t["memory"]), t["memory"]) if t["memory"] else ("–", ""),
        }
        for name, t in sorted(longest.items(), key=lambda item: item[1]["loss"])
    ]
    told = str(tried.get("advice") or "")
    return {
        "rows": rows,
        "metric": metric.words,
        "advice": "" if told == said else words.sentence(told),
        "plot": plots.strategies(tried["trials"], chosen, metric) if _all_valued(tried["trials"]) else None,
    }


def _all_valued(trials: list[Json]) -> bool:
    """Whether val defines the metric, as it does not where no label is had by some and lacked by others."""
    return all(trial["value"] is not None for trial in trials)


def heads(events: list[Json]) -> list[Json]:
    """The new layers that were compared, in the order of their size; empty where there was no choice."""
    return [
        {
            "name": "linear"
            if event["layers"] == "linear"
            else f"MLP, {event['hidden']} wide, dropout {event['dropout']:g}",
            "parameters": words.count(event.get("parameters")),
            "loss": f"{float(event['loss']):.3f}",
            "difference": ""
            if event.get("chosen")
            else f"{event['difference']:+.3f} ± {event['difference_error']:.3f}",
            "chosen": bool(event.get("chosen")),
        }
        for event in events
        if event.get("kind") == "head"
    ]

"""The model card: a README.md with the metadata block model hubs read."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from regraft.data import several
from regraft.evaluation import SHARE, Metric, PairedDifference, in_words, named
from regraft.report import words
from regraft.report.view_scores import ERROR
from regraft.tasks import Grid, PerClass, Promises, Reliability, Task, Together, counted, task_of_run

_FEW_LABELS = 12  # that a table of those that go together can be read of
_LICENCES = (
    "apache-2.0",
    "mit",
    "bsd-3-clause",
    "bsd-2-clause",
    "cc-by-4.0",
    "cc-by-nc-4.0",
    "cc0-1.0",
    "openrail",
    "unknown",
)
# Of the Hugging Face hub, which knows none of numbers that are told of images, texts or sounds
_PIPELINES = ("image-classification", "text-classification", "audio-classification")
_SPLITS = {
    "test": "a held-out test set",
    "cv": "examples held out in turn (cross-validation)",
    "val": "the validation set (indicative: choices were made there)",
}

Json = Mapping[str, Any]


def model_card(run: Json, metrics: Json) -> str:
    """The card of a run from the contents of run.json and metrics.json; missing parts are left out."""
    split = next((name for name in _SPLITS if metrics.get(name)), None)
    modality = str((run.get("data") or {}).get("modality") or "image")
    task = task_of_run(run)
    parts = [
        f"---\n{_yaml(_metadata(task, run, metrics, split))}---\n",
        f"# {_text(run.get('name') or 'model')}\n",
        _opening(task, run, metrics, split, modality),
        _intended(task, modality),
        _data(task, run),
        _results(task, metrics, split) if split else "",
        _certainty(task, metrics, modality),
        *map(_grid, _grids(task, metrics)),
        _limits(task, run, metrics, split, modality),
        _backbone(run.get("provenance") or {}),
        _use(modality),
    ]
    return "\n".join(part for part in parts if part)


def _yaml(values: Json) -> str:
    """The values as YAML in their own order."""
    return str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def _metadata(task: Task, run: Json, metrics: Json, split: str | None) -> dict[str, Any]:
    provenance = run.get("provenance") or {}
    modality = str((run.get("data") or {}).get("modality") or "image")
    hub = f"{modality}-{task.hub}"
    licence = str(provenance.get("licence") or "unknown").lower()
    fields: dict[str, Any] = {"license": licence if licence in _LICENCES else "other"}
    if fields["license"] == "other":
        fields["license_name"] = licence
    if base := _hub_id(str(provenance.get("id") or "")):
        fields["base_model"] = base
    fields |= {
        "library_name": str(run.get("library") or "regraft"),
        **({"pipeline_tag": hub} if hub in _PIPELINES else {}),
        "tags": ["regraft", "transfer-learning", hub],
    }
    if split:
        measured = _measured(task, metrics[split])
        fields["metrics"] = list(dict.fromkeys(metric.hub or metric.name for metric, _ in measured))
        fields["model-index"] = [
            {"name": str(run.get("name") or "model"), "results": [_result(run, hub, split, measured)]}
        ]
    return fields


def _measured(task: Task, estimates: Json) -> list[tuple[Metric, words.Cell]]:
    """The metrics that have a value."""
    cells = [
        (metric, words.cell(words.unitless(metric), value if isinstance(value, Mapping) else None))
        for metric, value in ((named(task.metrics, name), value) for name, value in estimates.items())
    ]
    return [(metric, cell) for metric, cell in cells if cell]


def _result(run: Json, hub: str, split: str, measured: Sequence[tuple[Metric, words.Cell]]) -> dict[str, Any]:
    """One result as hubs read it. They have no field for an interval: it stands in the metric's name."""
    name = str(run.get("name") or "data")
    shown = [
        {
            "type": metric.hub or metric.name,
            "name": words.with_unit(metric) + _interval(cell),
            "value": cell.value,
        }
        for metric, cell in measured
    ]
    return {
        "task": {"type": hub},
        "dataset": {"name": name, "type": "custom", "split": split},
        "metrics": shown,
    }


def _interval(cell: words.Cell) -> str:
    return (
        f" (95% interval {cell.low_text} to {cell.high_text}, n = {cell.n})"
        if cell.low_text
        else f" (n = {cell.n})"
    )


def _opening(task: Task, run: Json, metrics: Json, split: str | None, modality: str) -> str:
    provenance, headline = run.get("provenance") or {}, task.headline
    lines = [
        f"{task.abilities(words.noun(modality, 2))[0]} A pre-trained backbone"
        f" ({_text(provenance.get('id') or 'unknown')}) with new layers, made with regraft."
    ]
    shown = words.cell(headline, metrics[split].get(headline.name)) if split else None
    if split and shown:
        lines.append(f"{headline.title} on {_SPLITS[split]}: **{shown.text}**{_interval(shown)}.")
    lines += [
        f"- {_text(words.sentence(in_words(PairedDifference.from_dict(item))))}"
        for item in metrics.get("versus") or []
    ]
    if run.get("chosen"):
        lines.append(
            f"\nKept: {_text(run['chosen'])}. "
            f"{_text(words.sentence(str(run.get('chosen_why') or '')))}".rstrip()
        )
    return "\n".join(lines) + "\n"


def _intended(task: Task, modality: str) -> str:
    things = words.noun(modality, 2)
    return f"## Intended use\n\nFor {things} like those it was trained on. {task.abilities(things)[1]}\n"


def _data(task: Task, run: Json) -> str:
    """Classes, sizes, and what the audit warns of."""
    data = run.get("data") or {}
    names = [_text(name) for name in data.get("classes") or []]
    sizes = ", ".join(f"{split} {words.count(n)}" for split, n in (data.get("counts") or {}).items() if n)
    more = f" and {len(names) - 50} more, in regraft.json" if len(names) > 50 else ""
    lines = [
        f"## Data\n\n{counted(task.noun, 2)[2:].capitalize()}: {', '.join(names[:50])}{more}.\n"
        if names
        else "## Data\n"
    ]
    if sizes:
        lines.append(f"Examples: {sizes}.\n")
    if aside := data.get("quarantined"):
        lines.append(f"Set aside as unreadable: {len(aside)}.\n")
    warnings = [item for item in data.get("findings") or [] if item.get("severity") != "info"]
    lines += [
        f"- {_text(str(item.get('kind')).replace('_', ' '))}: {_text(item.get('message'))}"
        for item in warnings
    ]
    return "\n".join(lines) + ("\n" if warnings else "")


def _results(task: Task, metrics: Json, split: str) -> str:
    models = {"this model": _measured(task, metrics[split])}
    models |= {
        str(name): _measured(task, values) for name, values in (metrics.get("baselines") or {}).items()
    }
    counts = sorted({cell.n for _, cell in models["this model"] if cell.n})
    on = f", n = {words.count(counts[-1])}" if counts else ""
    shown = {metric.name: metric for measured in models.values() for metric, _ in measured}
    lower = words.lower([metric for metric in task.metrics if metric.name in shown])
    said = f" {lower}: lower is better." if lower else ""
    lines = [
        f"## Results\n\nMeasured on {_SPLITS[split]}{on}; in brackets the 95% interval.{said}\n",
        f"| metric | {' | '.join(map(_text, models))} |",
        f"|---|{'---|' * len(models)}",
    ]
    cells = [{metric.name: cell for metric, cell in measured} for measured in models.values()]
    for name, metric in shown.items():
        lines.append(
            f"| {words.with_unit(metric)} | {' | '.join(_shown(column.get(name)) for column in cells)} |"
        )
    return "\n".join(lines) + "\n"


def _shown(cell: words.Cell | None) -> str:
    if cell is None:
        return ""
    return f"{cell.text} [{cell.low_text}, {cell.high_text}]" if cell.low_text else cell.text


def _certainty(task: Task, metrics: Json, modality: str) -> str:
    """The temperature and what it mends, and the thresholds with what they kept on test."""
    sections, lines = task.sections(metrics), []
    for calibration in (section.calibration for section in sections if isinstance(section, Reliability)):
        if not calibration.get("temperature"):
            continue
        line = (
            "- Probabilities are those of the logits divided by "
            f"{float(calibration['temperature']):.3f} (regraft.json)."
        )
        states = [
            words.cell(ERROR, {"value": (calibration.get(name) or {}).get("ece")})
            for name in ("before", "after")
        ]
        if states[0] and states[1]:
            line += f" That takes the calibration error from {states[0].text} to {states[1].text}."
        lines.append(line)
    for offer in (row for section in sections if isinstance(section, Promises) for row in section.rows):
        wanted, test = f"{100 * float(offer['wanted']):.0f}%", offer.get("test") or {}
        wanted += ", indicative" if offer.get("indicative") and offer.get("threshold") is not None else ""
        right, answered = (words.cell(SHARE, test.get(name)) for name in ("precision", "answered"))
        at = float(offer.get("threshold") or 0)
        said = f"Answering {f'only from {at:.3f} up' if at else 'always'} (for {wanted})"
        if offer.get("threshold") is None:
            lines.append(
                f"- No threshold promises {wanted}: {_text(offer.get('why') or 'too few examples')}."
            )
        elif right and answered:
            lines.append(
                f"- {said}: {right.text} right on test"
                f"{_interval(right)}, answering {answered.text} of the {words.noun(modality, 2)}."
            )
        else:
            answer = (
                "on test nothing was as sure" if test else f"not tested ({_text(offer.get('why') or '')})"
            )
            lines.append(f"- {said}: {answer}.")
    return "## How sure it is\n\n" + "\n".join(lines) + "\n" if lines else ""


def _grids(task: Task, metrics: Json) -> list[Grid]:
    """What a task has shown of its results that plain tables can say."""
    found = []
    for section in task.sections(metrics):
        if isinstance(section, Together) and len(section.classes) <= _FEW_LABELS:
            found.append(section.grid())
        elif isinstance(section, Grid):
            found.append(section)
    return found


def _grid(section: Grid) -> str:
    """A table that the task has shown of its results."""
    lines = [f"| {' | '.join(map(_text, row))} |" for row in (section.heads, *section.rows)]
    lines.insert(1, f"|{'---|' * len(section.heads)}")
    note = f"\n{_text(section.note)}\n" if section.note else ""
    return f"## {_text(section.title)}\n\n" + "\n".join(lines) + f"\n{note}"


def _limits(task: Task, run: Json, metrics: Json, split: str | None, modality: str) -> str:
    """What the numbers do not say."""
    noun = words.noun(modality, 2)
    lines = [
        f"Nothing is known about {noun} from elsewhere: other places, "
        "devices or times. Measure before relying on it there."
    ]
    if split == "cv":
        lines.append(
            "There is no test set: the numbers are those of models "
            "made like this one, each on examples new to it."
        )
    elif split != "test":
        sealed = ((run.get("data") or {}).get("counts") or {}).get("test")
        unread = ": there is one, and this model was not scored on it" if sealed else ""
        lines.append(f"There is no result on a test set{unread}.")
    lines += [
        f"Missing here: {_text(what)} ({_text(why)})." for what, why in (run.get("missing") or {}).items()
    ]
    headline = task.headline
    main = words.cell(headline, metrics[split].get(headline.name)) if split else None
    if main:
        rest = f"{words.count(main.n)} {words.noun(modality, main.n)}"
        lines.append(f"The numbers rest on {rest}; the intervals say how far that carries.")
    recalls = [
        (
            row,
            words.cell(
                SHARE,
                {
                    "value": row.get("recall"),
                    "low": row.get("recall_low"),
                    "high": row.get("recall_high"),
                    "n": row.get("support"),
                },
            ),
        )
        for section in task.sections(metrics)
        if isinstance(section, PerClass)
        for row in section.rows
    ]
    if known := [(row, cell) for row, cell in recalls if cell]:
        row, cell = min(known, key=lambda pair: pair[1].value)
        lines.append(
            f"Its weakest {task.noun} is {_text(row['class'])}: {cell.text} of them are found{_interval(cell)}."
        )
    if (groups := metrics.get("groups")) is not None:
        lines.append(f"The test examples come from {groups} groups; the intervals rest on those.")
    twins = metrics.get("test_without_near_duplicates") or {}
    if without := words.cell(headline, (twins.get("metrics") or {}).get(headline.name)):
        lines.append(
            f"{several(int(twins['left_out']), 'test example', 'has', 'have')} a near-duplicate in training; "
            f"without them {headline.words} is {without.text}{_interval(without)}."
        )
    if len(readings := run.get("readings") or []) > 1:
        lines.append(
            f"The test set was read {len(readings)} times; "
            "what was changed in between makes the numbers look better."
        )
    return "## Limits\n\n" + "".join(f"- {line}\n" for line in lines)


def _backbone(provenance: Json) -> str:
    names = ("id", "source", "licence", "pretrained_on", "sha256", "input_size")
    known = {key: provenance[key] for key in names if provenance.get(key)}
    if not known:
        return ""
    return "## Backbone\n\n" + "".join(
        f"- {key.replace('_', ' ')}: {_text(value)}\n" for key, value in known.items()
    )


def _use(modality: str) -> str:
    return (
        "## Use\n\n```python\nimport regraft\n\n"
        f'model = regraft.load("path/to/this/folder")\nmodel.predict(["{words.named(modality)}"])\n```\n'
    )


def _hub_id(reference: str) -> str:
    """`timm:resnet18.a1_in1k` is timm/resnet18.a1_in1k on the hub, a folder or an earlier run is nothing
    there (""); other schemes are only dropped.
    """
    scheme, _, name = reference.partition(":")
    if scheme in ("path", "run"):
        return ""
    return f"timm/{name}" if scheme == "timm" and "/" not in name else name or reference


def _text(value: Any) -> str:
    """Any value as one line of Markdown without markup of its own."""
    line = " ".join(str(value).split())
    return re.sub(r"([\\`*_|\[\]])", r"\\\1", html.escape(line, quote=False))

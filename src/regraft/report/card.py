"""The model card: a README.md with the metadata block model hubs read."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

import yaml

from regraft.evaluation import PairedDifference, in_words
from regraft.report import words

_TASKS = {"image": "image-classification", "text": "text-classification", "audio": "audio-classification"}
_LIBRARIES = {"image": "timm", "text": "transformers", "audio": "transformers"}
_LICENCES = ("apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc0-1.0", "openrail")
_SPLITS = {
    "test": "a held-out test set",
    "cv": "cross-validation",
    "val": "the validation set (indicative: choices were made there)",
}


_UNTESTED = {
    "cv": "each example was predicted by a model that had not seen it",
    "val": "none was set apart, so how good this model is on new data is not known",
    None: "nothing was evaluated",
}


def model_card(run: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """The card of a run from the contents of run.json and metrics.json; missing parts are left out."""
    data = run.get("data") or {}
    provenance = run.get("provenance") or {}
    split = next((name for name in _SPLITS if metrics.get(name)), None)
    name = _text(run.get("name") or "model")
    modality = str(data.get("modality") or "image")
    parts = [
        f"---\n{yaml.safe_dump(_metadata(run, metrics, split), sort_keys=False, allow_unicode=True)}---\n",
        f"# {name}\n",
        _opening(run, metrics, split, modality),
    ]
    if split:
        parts.append(_results(metrics, split))
    parts += [_classes(data), _backbone(provenance), _use(modality)]
    return "\n".join(part for part in parts if part)


def _metadata(run: Mapping[str, Any], metrics: Mapping[str, Any], split: str | None) -> dict[str, Any]:
    data, provenance = run.get("data") or {}, run.get("provenance") or {}
    modality = str(data.get("modality") or "image")
    task = _TASKS.get(modality, f"{modality}-classification")
    licence = str(provenance.get("licence") or "unknown").lower()
    fields: dict[str, Any] = {"license": licence if licence in _LICENCES else "other"}
    if fields["license"] == "other":
        fields["license_name"] = licence
    if provenance.get("id"):
        fields["base_model"] = _hub_id(str(provenance["id"]))
    fields |= {
        "library_name": _LIBRARIES.get(modality, "regraft"),
        "pipeline_tag": task,
        "tags": ["regraft", "transfer-learning", task],
    }
    if split:
        measured = {key: value for key, value in metrics[split].items() if words.cell(key, value)}
        fields["metrics"] = list(measured)
        fields["model-index"] = [
            {
                "name": str(run.get("name") or "model"),
                "results": [
                    {
                        "task": {"type": task},
                        "dataset": {"name": str(run.get("name") or "data"), "type": "custom", "split": split},
                        "metrics": [
                            {"type": key, "name": words.metric_name(key), "value": float(value["value"])}
                            for key, value in measured.items()
                        ],
                    }
                ],
            }
        ]
    return fields


def _opening(run: Mapping[str, Any], metrics: Mapping[str, Any], split: str | None, modality: str) -> str:
    data, provenance = run.get("data") or {}, run.get("provenance") or {}
    classes = data.get("classes") or []
    lines = [
        f"Sorts {words.noun(modality, 2)} into {len(classes)} classes. A pre-trained backbone"
        f" ({_text(provenance.get('id') or 'unknown')}) with new layers, made with regraft."
    ]
    shown = words.cell("accuracy", metrics[split].get("accuracy")) if split else None
    if split and shown:
        lines.append(
            f"Accuracy on {_SPLITS[split]}: **{shown.text}** (95% interval {shown.low_text} to {shown.high_text}, n = {shown.n})."
        )
    if split != "test":
        lines.append(f"There is no test set: {_UNTESTED[split]}.")
    lines += [f"- {_text(words.sentence(in_words(PairedDifference.from_dict(item))))}" for item in metrics.get("versus") or []]
    if run.get("chosen"):
        lines.append(f"\nKept: {_text(run['chosen'])}. {_text(run.get('chosen_why') or '')}".rstrip())
    return "\n".join(lines) + "\n"


def _results(metrics: Mapping[str, Any], split: str) -> str:
    lines = ["## Results\n", "| model | metric | value | 95% interval | n |", "|---|---|---|---|---|"]
    models = [("this model", metrics[split]), *(metrics.get("baselines") or {}).items()]
    for model, values in models:
        for metric, estimate in values.items():
            if shown := words.cell(metric, estimate if isinstance(estimate, Mapping) else None):
                span = f"{shown.low_text} to {shown.high_text}" if shown.low_text else ""
                lines.append(f"| {_text(model)} | {words.metric_name(metric)} | {shown.text} | {span} | {shown.n} |")
    return "\n".join(lines) + "\n"


def _classes(data: Mapping[str, Any]) -> str:
    names = [_text(name) for name in data.get("classes") or []]
    counts = data.get("counts") or {}
    sizes = ", ".join(f"{split} {words.count(n)}" for split, n in counts.items() if n)
    more = f" and {len(names) - 50} more, in regraft.json" if len(names) > 50 else ""
    return f"## Data\n\nClasses: {', '.join(names[:50])}{more}.\n" + (f"\nExamples: {sizes}.\n" if sizes else "")


def _backbone(provenance: Mapping[str, Any]) -> str:
    known = {key: provenance[key] for key in ("id", "source", "licence", "sha256", "input_size") if provenance.get(key)}
    if not known:
        return ""
    return "## Backbone\n\n" + "".join(f"- {key.replace('_', ' ')}: {_text(value)}\n" for key, value in known.items())


def _use(modality: str) -> str:
    item = {"image": '"photo.jpg"', "audio": '"sound.wav"'}.get(modality, '"some text"')
    return (
        "## Use\n\n```python\nimport regraft\n\n"
        f'model = regraft.load("path/to/this/folder")\nmodel.predict([{item}])\n```\n\n'
        "Predictions hold for data like the training data. For anything else, measure first.\n"
    )


def _hub_id(reference: str) -> str:
    """`timm:resnet18.a1_in1k` is timm/resnet18.a1_in1k on the hub; other schemes are only dropped."""
    scheme, _, name = reference.rpartition(":")
    return f"timm/{name}" if scheme == "timm" and "/" not in name else name


def _text(value: Any) -> str:
    """Any value as one line of Markdown without markup of its own."""
    line = " ".join(str(value).split())
    return re.sub(r"([\\`*_|\[\]])", r"\\\1", html.escape(line, quote=False))

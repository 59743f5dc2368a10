"""The examples that a report shows: gallery.json, from what a run predicted and what the audit found.

`picture` and `map` are data URIs, "" where there is nothing to show; what is no picture stands under `text`
or `sound`. Sources are relative to the data's root.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from regraft.artifacts import RunFolder, read_json, read_parquet, write_json
from regraft.data import Examples, several
from regraft.errors import ChangedError
from regraft.modalities import Modality, Unreadable, modality_of, names
from regraft.report import words
from regraft.tasks import Task, task_of, task_of_examples

if TYPE_CHECKING:
    import torch

    from regraft.model import Model

SHOWN = 24  # items of a gallery
# Cells of the confusion matrix with pictures, mistakes in each, right answers in each
CELLS, IN_CELL, RIGHT = (40, 8, 4)
BYTES = 3_600_000  # all pictures together, as they stand in the page; most runs need a third
# Maps of where the model looks, and what they may take; the first is made in any case
LOOKS, SECONDS = (6, 3.0)

Item = dict[str, Any]


@dataclass(frozen=True)
class Predicted:
    """One split's rows of predictions.parquet as arrays, all (N,), labels and answers as people read them;
    `probability` is that of the predicted class. Of a task whose answers are no single classes it is None, and
    `worth` says how good each answer is. `wrong` (N,) are the mistakes, and `named` the classes that label or
    answer name.
    """

    split: str
    sources: NDArray[Any]
    labels: NDArray[Any]
    answers: NDArray[Any]
    probability: NDArray[np.float64] | None
    wrong: NDArray[np.bool_]
    named: Sequence[tuple[str, ...]]
    worth: NDArray[np.float64] | None = None

    def items(self, rows: Iterable[int]) -> list[Item]:
        """These rows as items without pictures."""
        return [
            item(
                str(self.sources[i]),
                self.split,
                str(self.labels[i]),
                str(self.answers[i]),
                None if self.probability is None else float(self.probability[i]),
            )
            | {"wrong": bool(self.wrong[i]), "named": list(self.named[i])}
            for i in rows
        ]


def item(
    source: str, split: str, label: str, predicted: str = "", probability: float | None = None, note: str = ""
) -> Item:
    """One picture of a gallery, the picture itself still missing."""
    return {
        "source": source,
        "split": split,
        "label": label,
        "predicted": predicted,
        "probability": probability,
        "note": note,
        "picture": "",
        "map": "",
    }


def write_gallery(
    folder: Path,
    model: Model | None = None,
    device: torch.device | None = None,
    seconds: float = SECONDS,
    precision: str = "float32",
) -> Path:
    """Write `folder/gallery.json` from predictions.parquet, examples.parquet and audit.json; what is
    missing is left out.

    With `model`, maps of where it looks are added for its most confident mistakes, as many as `seconds`
    allow.
    """
    run = RunFolder(folder)
    examples = Examples.load(run.examples, task_of)
    task = task_of_examples(examples)
    predicted = read_predictions(run.predictions, task)
    findings = read_json(folder / "audit.json")["findings"] if (folder / "audit.json").is_file() else []
    classes = list(examples.task.classes)
    known = _known(run.examples, task, tested=predicted is not None and predicted.split == "test")
    galleries = [*_answers(predicted), *_found(findings, known, task)]
    tested = predicted is not None and predicted.split == "test" and predicted.probability is not None
    cells = _cells(predicted, classes) if predicted is not None and tested else {}
    if examples.modality in names():
        modality = modality_of(examples.modality)
        items = [*(i for g in galleries for i in g["items"]), *(i for c in cells.values() for i in c)]
        _show(items, examples, modality)
        if model is not None and predicted is not None and seconds > 0:
            galleries.insert(0, _looks(galleries[0]["items"], examples, model, device, seconds, precision))
    write_json(run.gallery, {"galleries": [g for g in galleries if g["items"]], "cells": cells})
    return run.gallery


def read_predictions(path: Path, task: Task) -> Predicted | None:
    """The test rows of predictions.parquet, or those of val where there is no test; None without either, and
    where answers are neither more nor less sure, nor more nor less wrong.
    """
    if not path.is_file():
        return None
    table = read_parquet(path)
    splits = np.array(table["split"].to_pylist())
    split = "test" if (splits == "test").any() else "val"
    rows = np.flatnonzero(splits == split)
    if not len(rows):
        return None
    named = [name for name in table.column_names if name.startswith("probability:")]
    sources, labels, answers = (
        np.array(table[n].to_pylist(), dtype=object)[rows] for n in ("source", "label", "predicted")
    )
    targets, said = task.encode(labels.tolist()), task.encode(answers.tolist())
    wrong = ~task.same(said, np.where(np.isfinite(targets), targets, said))  # what is not known is no mistake
    both = [
        tuple(dict.fromkeys((*task.named(a), *task.named(b)))) for a, b in zip(labels, answers, strict=True)
    ]
    if targets.ndim > 1:
        shown = np.vectorize(task.shown, otypes=[object])
        worth = task.worth(targets, said)
        return Predicted(split, sources, shown(labels), shown(answers), None, wrong, both, worth)
    if not named:  # a task whose answers are not more or less sure
        return None
    shares = np.stack([table[name].to_numpy() for name in named], axis=1)
    return Predicted(split, sources, labels, answers, shares[rows].max(axis=1), wrong, both)


def _answers(predicted: Predicted | None) -> list[dict[str, Any]]:
    """What the model got wrong with most confidence, and what it was least sure of."""
    if predicted is None:
        return []
    if predicted.probability is None or predicted.worth is not None:
        return _errors(predicted)
    order = np.argsort(-predicted.probability, kind="stable")
    mistakes = [i for i in order if predicted.wrong[i]]
    return [
        {
            "name": "mistakes",
            "title": "Most confident mistakes",
            "about": f"{len(mistakes):,} of {len(order):,} were mistakes; those it was surest of come first. "
            "Some may be wrong labels rather than wrong answers.",
            "items": predicted.items(mistakes[:SHOWN]),
        },
        {
            "name": "uncertain",
            "title": "Most uncertain",
            "about": "The smallest probability for the best answer, right or wrong.",
            "items": predicted.items(order[::-1][:SHOWN]),
        },
    ]


def _errors(predicted: Predicted) -> list[dict[str, Any]]:
    """The answers that are worth the least."""
    if predicted.worth is None:
        return []
    wrong = [i for i in np.argsort(predicted.worth, kind="stable") if predicted.wrong[i]]
    return [
        {
            "name": "mistakes",
            "title": "Largest errors",
            "about": "The worst come first. Some may be wrong in the data rather than in the answer.",
            "items": predicted.items(wrong[:SHOWN]),
        }
    ]


def _found(
    findings: Sequence[dict[str, Any]], known: dict[str, tuple[str, str, list[str]]], task: Task
) -> list[dict[str, Any]]:
    """The suspected labels and the near-duplicates that the audit found; of duplicates, two items are a
    pair.
    """
    nothing: tuple[str, str, list[str]] = ("", "", [])
    suspects = [
        item(source, *known.get(source, nothing)[:2], task.shown(str(label)))
        | {"named": [*known.get(source, nothing)[2], *task.named(str(label))]}
        for finding in findings
        for source, label in (finding.get("suggested") or {}).items()
    ]
    pairs = {
        (first, other): float(similarity)
        for finding in findings
        for first, other, similarity in finding.get("pairs") or []
    }
    twins = [
        item(source, *known.get(source, nothing)[:2], note=f"similarity {pairs[pair]:.3f}")
        | {"named": known.get(source, nothing)[2]}
        for pair in sorted(pairs, key=lambda pair: -pairs[pair])[: SHOWN // 2]
        for source in pair
    ]
    return [
        {
            "name": "labels",
            "title": f"Suspected {task.spoken.answer}s",
            "about": f"{len(suspects):,} that a head trained without them "
            "would answer otherwise. Look before changing any.",
            "items": suspects[:SHOWN],
        },
        {
            "name": "duplicates",
            "title": "Near-duplicates",
            "about": f"{several(len(pairs), 'pair')} of alike examples "
            "that are not the same file, the closest first.",
            "items": twins,
        },
    ]


def _cells(predicted: Predicted, classes: list[str]) -> dict[str, list[Item]]:
    """Examples of the fullest cells of the confusion matrix: surest mistakes, and on the diagonal the least
    sure answers.
    """
    place = {name: index for index, name in enumerate(classes)}
    rows: dict[tuple[int, int], list[int]] = {}
    sure = predicted.probability if predicted.probability is not None else np.zeros(0)
    for i in np.argsort(-sure, kind="stable"):
        rows.setdefault((place[predicted.labels[i]], place[predicted.answers[i]]), []).append(int(i))
    wrong = sorted((cell for cell in rows if cell[0] != cell[1]), key=lambda cell: (-len(rows[cell]), cell))
    cells = {f"{i},{j}": predicted.items(rows[i, j][:IN_CELL]) for i, j in wrong[:CELLS]}
    right = sorted(cell for cell in rows if cell[0] == cell[1])[: max(0, CELLS - len(cells))]
    return cells | {f"{i},{j}": predicted.items(rows[i, j][::-1][:RIGHT]) for i, j in right}


def _show(items: list[Item], examples: Examples, modality: Modality) -> None:
    """What is shown of each, in the order given, until that would make the page too large; each file is
    read once.
    """
    files = examples.files()
    sources = [source for source in dict.fromkeys(i["source"] for i in items) if source in files]
    views = modality.show([files[source] for source in sources], examples.facts())
    shown = dict(zip(sources, views, strict=True))
    left = BYTES
    for item in items:
        what = shown.get(item["source"])
        left -= len(what.content) + len(what.picture) if what else 0
        if what and left > 0:
            item["picture"] = what.picture
            item[what.kind] = what.content
        else:
            missing = (
                "left out, to keep the page small" if what else "the file changed, is gone or cannot be read"
            )
            item["note"] = f"{item['note']}; {missing}" if item["note"] else missing


def _looks(
    mistakes: list[Item],
    examples: Examples,
    model: Model,
    device: torch.device | None,
    seconds: float,
    precision: str,
) -> dict[str, Any]:
    """Maps by occlusion for the first few mistakes whose files can be read; none where the modality hides
    no places.
    """
    import torch

    from regraft.inference import Predictor

    began, place, files, items = time.monotonic(), device or torch.device("cpu"), examples.files(), []
    runs = model.predictor(place) if precision == "float32" else Predictor(model, place, f"torch-{precision}")
    for mistake in mistakes[:LOOKS]:
        start = time.monotonic()
        try:
            said = mistake["predicted"] if mistake["predicted"] in model.classes else None
            look = model.explain(files[mistake["source"]], said, runs)
            part = model.deciding(files[mistake["source"]], said)
        except (Unreadable, ChangedError, KeyError):
            continue
        if look is None:
            break
        of = "" if said else f"{look.label}: "
        note = f"{of}{look.probability:.0%} becomes {look.hidden:.0%} with its strongest place hidden"
        note += f"; {part} speaks most for it" if part else ""
        items.append({**mistake, "note": note, "picture": look.picture, "map": look.map})
        if time.monotonic() + (time.monotonic() - start) > began + seconds:
            break
    title, hidden = words.looked(model.modality)
    return {
        "name": "looks",
        "title": title,
        "items": items,
        "about": f"{hidden} "
        "Warm is what the answer rested on: hidden, it lowers the answer's odds most. "
        "That says what the answer needs, not why, nor what two places do together.",
    }


def _known(path: Path, task: Task, tested: bool) -> dict[str, tuple[str, str, list[str]]]:
    """Split, label and the classes it names of each source; labels of test stay unread until the run has been tested."""
    table = read_parquet(path, ["source", "split", "label"])
    rows = zip(*(table[name].to_pylist() for name in ("source", "split", "label")), strict=True)
    return {
        source: (split, task.shown(label), list(task.named(label)))
        if tested or split != "test"
        else (split, "", [])
        for source, split, label in rows
    }

"""The data for the page: how much there is, what was found in it, and the photographs of the galleries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from regraft.modalities import modality_of, names
from regraft.report import plots, words

LISTED = 200  # names a list shows before it refers to the file
FIRST = 12  # examples of a gallery that are open to view at once

Json = dict[str, Any]


def data(about: Json) -> Json:
    """Counts of examples by split and class."""
    counts: Json = about.get("counts") or {}
    by_class: Json = about.get("class_counts") or {}
    splits = [name for name in ("train", "val", "test") if counts.get(name) or name in by_class]
    classes = [str(name) for name in about.get("classes") or []]
    total = sum(int(counts.get(name) or 0) for name in splits)
    return {
        "source": str(about.get("given") or about.get("source") or ""),
        "classes": classes,
        "splits": splits,
        "by_class": [name for name in splits if name in by_class],
        "total": words.count(total),
        "noun": words.noun(str(about.get("modality") or ""), total),
        "counts": [words.count(counts.get(name) or 0) for name in splits],
        "rows": [
            {
                "name": name,
                "counts": [words.count((by_class[s] or {}).get(name, 0)) for s in splits if s in by_class],
            }
            for name in classes
        ],
    }


def measures(folder: Path, modality: str, size: Any) -> list[plots.Plot]:
    """How the examples of a run are spread in what is measured of their modality."""
    file = folder / "examples.parquet"
    if modality not in names() or not isinstance(size, int) or not file.is_file():
        return []
    with open(file, "rb") as handle:  # pyarrow takes no path that is not UTF-8
        facts = pq.read_table(handle)
    drawn = (
        plots.spread(one.title, one.unit, np.asarray(one.values(facts), float), one.seen(size))
        for one in modality_of(modality).measures
        if facts.num_rows
    )
    return [plot for plot in drawn if plot is not None]


def quarantined(items: list[Json]) -> list[Json]:
    """Files set aside, by the split they would have gone to."""
    groups: dict[str, list[Json]] = {}
    for item in items:
        groups.setdefault(str(item.get("split") or "no split"), []).append(item)
    return [
        {
            "split": words.SPLITS.get(split, split),
            "count": len(group),
            "files": [(str(item.get("source")), str(item.get("reason") or "")) for item in group[:LISTED]],
            "more": max(0, len(group) - LISTED),
        }
        for split, group in groups.items()
    ]


def finding(item: Json) -> Json:
    """One finding of the audit."""
    notes = item.get("notes") or {}
    examples = [(str(example), str(notes.get(example) or "")) for example in item.get("examples") or []]
    return {
        "kind": str(item.get("kind") or "").replace("_", " "),
        "severity": str(item.get("severity") or ""),
        "message": str(item.get("message") or ""),
        "examples": examples[:LISTED],
        "more": max(0, len(examples) - LISTED),
    }


def pictured(groups: Sequence[Json]) -> bool:
    """Whether any item of gallery.json is a picture by itself, and not that of a sound or a text."""
    items = (item for group in groups for item in group["items"])
    return any(item.get("picture") and not (item.get("sound") or item.get("text")) for item in items)


def galleries(groups: Sequence[Json], classes: list[str], given: str = "labelled") -> list[Json]:
    """The galleries of gallery.json; of near-duplicates each two make a pair. `given` stands before labels."""
    place = {name: index for index, name in enumerate(classes)}
    shown = []
    for gallery in groups:
        tiles = [
            tile(item, place, "looks like" if gallery.get("name") == "labels" else "said", given)
            for item in gallery["items"]
        ]
        shown.append(
            {
                "name": str(gallery["name"]),
                "title": str(gallery["title"]),
                "about": str(gallery["about"]),
                "tiles": tiles[:FIRST],
                "more": tiles[FIRST:],
                "pairs": [tiles[i : i + 2] for i in range(0, len(tiles) - 1, 2)]
                if gallery["name"] == "duplicates"
                else [],
            }
        )
    return shown


def cells(examples: Mapping[str, list[Json]], classes: list[str], counts: Any) -> list[Json]:
    """The examples behind the confusion matrix, the fullest cells of mistakes first."""
    place = {name: index for index, name in enumerate(classes)}
    shown = []
    for key, items in examples.items():
        i, j = (int(part) for part in key.split(","))
        if not counts or len(counts) != len(classes) or not items or max(i, j) >= len(classes):
            continue
        what = f"{classes[i]}, right" if i == j else f"{classes[i]} taken for {classes[j]}"
        count = int(counts[i][j])
        shown.append(
            {
                "id": f"cell-{i}-{j}",
                "what": what,
                "count": count,
                "shown": len(items),
                "tiles": [tile(item, place) for item in items],
            }
        )
    return shown


def tells_apart(shown: Sequence[Json]) -> bool:
    """Whether to choose a class hides some of the examples in these galleries."""
    named = {tile["classes"] for gallery in shown for tile in (*gallery["tiles"], *gallery["more"])}
    return len(named - {""}) > 1


def tile(item: Json, place: Mapping[str, int], verb: str = "said", given: str = "labelled") -> Json:
    """One example with what is said about it, and the sentence that stands for it."""
    label, predicted, source = (str(item.get(key) or "") for key in ("label", "predicted", "source"))
    probability = item.get("probability")
    sure = f"{100 * float(probability):.0f}%" if probability is not None else ""
    answer = f"{verb} {predicted} {sure}".strip() if predicted else ""
    named = dict.fromkeys(item.get("named") or (label, predicted))
    parts = [f"{given} {label}" if label else "", answer, str(item.get("note") or "")]
    return {
        "source": source,
        "file": source.replace("\\", "/").rpartition("/")[2],
        "label": label,
        "predicted": predicted,
        "verb": verb,
        "sure": sure,
        "given": given,
        "wrong": bool(predicted) and bool(item.get("wrong", predicted != label)),
        "split": str(item.get("split") or ""),
        "note": str(item.get("note") or ""),
        "picture": str(item.get("picture") or ""),
        "text": str(item.get("text") or ""),
        "sound": str(item.get("sound") or ""),
        "map": str(item.get("map") or ""),
        "alt": f"{source}: {', '.join(part for part in parts if part)}",
        "classes": " ".join(str(place[name]) for name in named if name in place),
    }


def provenance(about: Json) -> list[tuple[str, str]]:
    """Where the backbone comes from."""
    names = {
        "id": "backbone",
        "source": "from",
        "licence": "licence",
        "parameters": "parameters",
        "input_size": "input size",
        "pretrained_on": "trained before on",
        "sha256": "SHA-256 of the pre-trained weights",
    }
    return [
        (label, words.count(value) if key == "parameters" else words.plain(value))
        for key, label in names.items()
        if (value := about.get(key)) not in (None, "", [])
    ]

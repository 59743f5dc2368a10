"""Examples of shards: rows, as of a table whose columns are what the members with labels say."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from regraft.data.addresses import Place, below
from regraft.data.answers import Wanted
from regraft.data.kind import Kind
from regraft.data.readers import COLUMNS
from regraft.data.rows import Labels, Note, Quarantined, Row, plainly, split_of
from regraft.data.shards import NO_TAR, Index, Member, Sample, indexed, member_name, members
from regraft.data.tables import Told, rows_of
from regraft.data.turns import in_turn
from regraft.data.walker import some
from regraft.errors import DataError

READERS = 8  # shards that are indexed at once
LONGEST = 200  # characters of a text beside an item that may be its label
ADVICE = (
    "Wanted is the layout of WebDataset: members of one basename are one example, such as 0001.jpg and 0001.cls "
    "(the class), 0001.json (with a key `label`) or 0001.txt."
)


@dataclass
class Sharded:
    """What shards hold: rows, what their labels are, and what was set aside."""

    rows: list[Row] = field(default_factory=list)
    labels: Labels = "name"
    aside: list[Quarantined] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


def first_names(shards: Sequence[Place], most: int) -> list[PurePosixPath]:
    """The names of the first members of the first shard that has any."""
    for shard in shards:
        if names := [PurePosixPath(member.name) for member, _ in islice(members(str(shard)), most)]:
            return names
    return []


def split_in(shard: str) -> str | None:
    """The split that a shard's name, less its number, or its folder's certainly means."""
    place = PurePosixPath(shard)
    stem = place.stem.rstrip("0123456789").rstrip("-_.")
    return split_of(stem) or split_of(place.parent.name)


def read_shards(names: Sequence[str], root: Place, kind: Kind, wanted: Wanted) -> Sharded:
    """The examples in shards called by `names` at a root. Raises DataError for shards that cannot be opened,
    for examples without any label, and as `rows_of` does.
    """
    found, faults = Sharded(), []
    tables: dict[str | None, _Columns] = {}
    ignored: list[str] = []
    counts: Counter[str] = Counter()
    with ThreadPoolExecutor(max_workers=min(READERS, 2 * (os.cpu_count() or 1))) as pool:
        for name, index in zip(
            names, in_turn(pool, _tried, [below(str(root), name) for name in names], READERS), strict=True
        ):
            if isinstance(index, str):
                faults.append(f"{name}: {index}")
                continue
            split = split_in(name)
            if index.damage:
                broken = f"{name}#{index.cut[0]}" if index.cut else name
                found.aside.append(Quarantined(broken, split, index.damage))
            ignored += [f"{name}#{member}" for member in index.ignored]
            tables.setdefault(split, _Columns(kind, wanted)).add(name, index, counts)
    if faults:
        raise DataError(f"{len(faults)} of {len(names)} shards cannot be read:", faults[:20])
    _note(found.notes, kind, ignored, counts)
    for split, columns in tables.items():
        _taken(found, columns, split, root, wanted)
    return found


def _tried(shard: str) -> Index | str:
    try:
        index = indexed(shard)
        return index.damage if index.damage.startswith(NO_TAR) else index
    except OSError as error:
        return error.strerror or str(error)


def _note(notes: list[Note], kind: Kind, ignored: list[str], counts: Counter[str]) -> None:
    if ignored:
        text = f"{len(ignored):,} members of shards are links, or have names that lead out of the shard: they were "
        notes.append(Note("shard members", "warning", f"{text}not read ({some(ignored)})"))
    if counts["none"]:
        text = f"{counts['none']:,} examples of the shards hold no {kind.noun} and were passed over"
        notes.append(Note("shard members", "warning", text))
    if counts["several"]:
        text = f"{counts['several']:,} examples of the shards hold several {kind.noun}s: the first of each was taken"
        notes.append(Note("shard members", "info", text))


class _Columns:
    """Shards as columns of a table: the items' names, and what is told of each by key."""

    def __init__(self, kind: Kind, wanted: Wanted) -> None:
        self.kind, self.wanted = kind, wanted
        self.path: list[str] = []
        self.member: list[str] = []
        self.told: list[dict[str, Any]] = []

    def add(self, shard: str, index: Index, counts: Counter[str]) -> None:
        """The examples of one more shard."""
        for sample in index.samples.values():
            items = [member for member in sample.members if member.ending in self.kind.endings]
            if not items:
                counts["none"] += 1
                continue
            counts["several"] += len(items) > 1
            item = _plainest(items)
            self.path.append(member_name(shard, item))
            self.member.append(item.name)
            self.told.append(self._says(sample, item))

    def _says(self, sample: Sample, item: Member) -> dict[str, Any]:
        """The label and what else is known of an example: `.cls` before JSON before a text."""
        said = {ending: value for ending, value in sample.said.items() if ending not in self.kind.endings}
        values = said.get(".json")
        values = values if isinstance(values, dict) else {} if values is None else {"label": values}
        known = {}
        for key, value in values.items():
            plain = plainly(key)
            if key in self.wanted.columns or plain in ("split", "group", "weight"):
                known[key if key in self.wanted.columns else plain] = value
            elif plain in ("label", *COLUMNS["label"]) and not any(
                name in known for name in ("label", "labels", "target")
            ):
                known[plain if plain in ("labels", "target") else "label"] = value
        if said.get(".cls") is not None:
            known = {name: value for name, value in known.items() if name not in ("labels", "target")}
            known["label"] = said[".cls"]
        text = said.get(".txt")
        if not known and text and len(text) <= LONGEST and "\n" not in text:
            known["label"] = text
        return known

    def by_folder(self) -> bool:
        """Where nothing is told of any example, and all lie in folders, take these for the classes."""
        parts = [PurePosixPath(name).parts for name in self.member]
        while parts and all(len(one) > 2 for one in parts) and len({one[0] for one in parts}) == 1:
            parts = [one[1:] for one in parts]
        if any(self.told) or not all(len(one) > 1 for one in parts):
            return False
        self.told = [{"label": one[0]} for one in parts]
        return True

    def drop_untold(self) -> list[str]:
        """Leave out the examples of which nothing is told; gives their names."""
        untold = [path for path, one in zip(self.path, self.told, strict=True) if not one]
        if untold:
            self.path = [path for path, one in zip(self.path, self.told, strict=True) if one]
            self.told = [one for one in self.told if one]
        return untold

    def table(self) -> pa.Table:
        """The columns as a table."""
        names = list(dict.fromkeys(name for one in self.told for name in one))
        values = {name: _column([one.get(name) for one in self.told]) for name in names}
        return pa.table({"path": pa.array(self.path, pa.string()), **values})


def _plainest(items: list[Member]) -> Member:
    return next((one for one in items if one.name == one.example + PurePosixPath(one.name).suffix), items[0])


def _column(values: list[Any]) -> pa.Array:
    """Cells of one type, or else all as text."""
    try:
        return pa.array(values)
    except pa.ArrowException:
        texts = [one if one is None or isinstance(one, str) else json.dumps(one) for one in values]
        return pa.array(texts, pa.string())


def _taken(found: Sharded, columns: _Columns, split: str | None, root: Place, wanted: Wanted) -> None:
    """Make rows of the shards of one split. Examples of which nothing is told are set aside, where others are
    told of.
    """
    if columns.path and not any(columns.told):
        if columns.by_folder():
            found.notes.append(Note("layout", "info", "the folders in the shards were taken for the classes"))
        elif split not in ("val", "test"):
            raise DataError(
                f"the shards at {root} tell no labels, such as that of {columns.path[0]}.", [], ADVICE
            )
    elif not wanted.columns:
        for path in columns.drop_untold():
            found.aside.append(Quarantined(path, split, "nothing beside it in its shard tells its label"))
    told = Told(str(root), f"the shards of {split}" if split else "the shards", 1, True, str(root))
    rows, labels = rows_of(columns.table(), told, split, columns.kind, found.notes, wanted)
    found.rows += rows
    found.labels = max(found.labels, labels, key=("name", "number", "names").index)

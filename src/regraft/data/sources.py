"""Where examples come from: folders of class folders, or tables. Reads names and labels, opens no item."""

from __future__ import annotations

import difflib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path, PurePosixPath

from regraft.data.addresses import Place, entries_of, forget, is_address, place_of, real, within
from regraft.data.answers import USUAL, Wanted
from regraft.data.examples import Asked, Named
from regraft.data.kind import Kind
from regraft.data.layouts import Listing, are_classes, check_classes, check_splits, inside
from regraft.data.patterns import common_folder, common_name, places_in
from regraft.data.rows import Labels, Note, Quarantined, Row, alike, perhaps_split, shown, split_of
from regraft.data.sharded import first_names, read_shards, split_in
from regraft.data.shards import is_shard
from regraft.data.tables import is_table_name, named_kind, read_table, told_kind
from regraft.data.walker import Passed, ends_in, is_folder, is_hidden, own_output, some, walk
from regraft.errors import DataError

LOOKED_AT = 1_000  # files that are looked at to tell of which modality the data are
MIXED, LEFT_OVER = 0.1, 4  # share of the files, and files, up to which those of another kind are leftovers


@dataclass
class Source:
    """What a place holds: rows, the kind of item they name, what was passed over (`empty`: class folders
    without an item), what cannot be used of it (`aside`), and how it was read.

    `labels` says what the labels are. As long as nobody has decided which `task` they ask for, each is taken
    for the name of a class.
    """

    name: str
    root: Place
    rows: list[Row]
    kind: Kind
    task: Asked = field(default_factory=lambda: Named("single", ()))
    passed: Passed = field(default_factory=Passed)
    empty: list[str] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    aside: list[Quarantined] = field(default_factory=list)
    labels: Labels = "name"
    given: str = ""  # the place as it was named

    def __post_init__(self) -> None:
        self.passed.base, self.passed.noun = self.root, self.kind.noun


def read_source(data: str | Path, kinds: Sequence[Kind], wanted: Wanted = USUAL) -> Source:
    """Read any of the layouts of the README, as the one of these kinds that its files or columns are of
    (the first where that does not show); `wanted` says how the answers in tables are read. Raises DataError
    with every fault found.
    """
    path = place_of(data)
    try:
        if is_address(str(path)):
            forget(str(path))
        if several := places_in(str(data)):
            source = _read_several(several, kinds, wanted)
        elif not path.exists():
            raise DataError(f"{path} does not exist.", [], _near(path))
        else:
            path = path.resolve() if isinstance(path, Path) else path
            source = _read_file(path, kinds, wanted) if path.is_file() else _read_folder(path, kinds, wanted)
        if not source.rows:
            raise _nothing(source, path, kinds)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read.", [f"{error.filename or path}: {error.strerror or error}"]
        ) from None
    source.given = str(data) if several else str(path)
    classes = tuple(sorted({row.label for row in source.rows}))
    source.task = Named("single", classes)
    for names in alike(classes) if source.labels == "name" else ():
        text = (
            f"the classes {' and '.join(map(repr, names))} differ only in case, "
            "blanks or hyphens: are they one?"
        )
        source.notes.append(Note("class names alike", "warning", text))
    return source


def kind_of(folder: Place, kinds: Sequence[Kind]) -> Kind:
    """The kind that the tables of splits in a folder tell; else that most of the first files below it are
    of; where there are none, that of its first table; else the first of all.
    """
    if len(kinds) == 1:
        return kinds[0]
    tables = sorted(path for path in folder.iterdir() if is_table_name(path.name))
    told = (told_kind(table, kinds) for table in tables if split_of(table.stem))
    if (kind := next((kind for kind in told if kind is not None), None)) is not None:
        return kind
    every = frozenset().union(*(kind.endings for kind in kinds))
    paths = list(islice(walk(folder, every, Passed()), LOOKED_AT))
    counts = _counted(paths, kinds)
    _check_mixed(folder, kinds, counts)
    if not paths:
        return named_kind(tables[0], kinds) if tables else kinds[0]
    return kinds[counts.index(max(counts))]


def _counted(paths: Sequence[Place | PurePosixPath], kinds: Sequence[Kind]) -> list[int]:
    """How many items of each kind there are. What could stand in a table's cell, and is called as another
    item beside it (cat.txt beside cat.jpg), tells of that one and is no item.
    """
    of_kind = [[path for path in paths if ends_in(path.name, kind.endings)] for kind in kinds]
    plain = [one for one, kind in zip(of_kind, kinds, strict=True) if not kind.cells]
    beside = {path.with_suffix("") for some in plain for path in some}
    return [
        sum(not kind.cells or path.with_suffix("") not in beside for path in some)
        for some, kind in zip(of_kind, kinds, strict=True)
    ]


def _check_mixed(folder: Place, kinds: Sequence[Kind], counts: list[int]) -> None:
    """Raise DataError where items of several kinds lie below a folder, more than a few of each."""
    few = max(LEFT_OVER, MIXED * sum(counts))
    there = {kind.noun: count for kind, count in zip(kinds, counts, strict=True) if count > few}
    if len(there) > 1:
        said = " and ".join(f"{count:,} {noun}s" for noun, count in there.items())
        raise DataError(
            f"{folder} holds {said}: it is not certain which are the examples.",
            [],
            "Keep the files of one kind in the folder, or give a csv with the columns path and label.",
        )


def _near(path: Place) -> str:
    if not path.parent.is_dir():
        return f"{path.parent} does not exist either."
    near = difflib.get_close_matches(
        path.name, [item.name for item in path.parent.iterdir()], n=3, cutoff=0.5
    )
    return (
        f"Did you mean {', '.join(str(path.parent / name) for name in near)}?" if near else "Check the path."
    )


def _nothing(source: Source, path: Place, kinds: Sequence[Kind]) -> DataError:
    """The error for a place without examples: what is there instead. A folder shows no kind then, so all
    are named; a table has shown its own.
    """
    seen = ", ".join(sorted(shown(item.name) for item in path.iterdir())[:8]) if path.is_dir() else "no rows"
    passed = source.passed.in_words()
    unknown = [note.message for note in source.notes if note.kind == "nothing known"]
    if unknown:
        return DataError(
            f"nothing can be learnt from {path}.",
            unknown,
            "An example needs at least one cell, of the columns to be told, that is not empty.",
        )
    nouns = " or ".join(f"{kind.noun}s" for kind in (kinds if path.is_dir() else [source.kind]))
    return DataError(
        f"no {nouns} were found in {path}.",
        [f"it holds: {seen or 'nothing'}", *([f"passed over: {passed}"] if passed else [])],
        f"Wanted: a folder of {nouns} a class, "
        "or train/ and test/ of such folders, or a csv with `path` and `label`.",
    )


def _read_file(path: Place, kinds: Sequence[Kind], wanted: Wanted) -> Source:
    if is_shard(path.name):
        return _read_shards([path], path.stem, kinds, wanted)
    if not is_table_name(path.name):
        packed = path.suffix.lower() in (".zip", ".gz", ".tgz", ".7z", ".rar")
        advice = (
            "Unpack it, and give the folder (or the tar file in it)."
            if packed
            else "Give a folder of class folders, or a table."
        )
        raise DataError(f"{path} is a file, but no .csv, .parquet or .tar.", [], advice)
    source = Source(path.stem, path.parent, [], named_kind(path, kinds))
    source.rows, source.labels = read_table(path, None, source.kind, source.notes, wanted)
    return source


def _read_several(places: list[Place], kinds: Sequence[Kind], wanted: Wanted) -> Source:
    """Several shards, or several tables, as one source."""
    if all(is_shard(place.name) for place in places):
        return _read_shards(places, common_name(places), kinds, wanted)
    others = [str(place) for place in places if not is_table_name(place.name)]
    if others:
        raise DataError(
            f"{len(places):,} places are not one set of data: some are neither shards nor tables.",
            others[:10],
            "Name tar shards, or tables, or one folder.",
        )
    kind, root = named_kind(places[0], kinds), common_folder(places)
    source = Source(common_name(places), root, [], kind)
    for place in places:
        rows, labels = read_table(place, split_in(place.name), kind, source.notes, wanted)
        before = within(place.parent.resolve(), root)
        source.rows += (
            rows if before == "." else [replace(row, source=f"{before}/{row.source}") for row in rows]
        )
        source.labels = max(source.labels, labels, key=("name", "number", "names").index)
    return source


def _read_shards(shards: Sequence[Place], name: str, kinds: Sequence[Kind], wanted: Wanted) -> Source:
    """Tar shards as one source; of which kind they are shows by the first of their members."""
    root = common_folder(shards)
    names = first_names(shards, LOOKED_AT)
    counts = _counted(names, kinds)
    _check_mixed(root, kinds, counts)
    kind = kinds[counts.index(max(counts))]
    whole = [shard.resolve() for shard in shards]
    found = read_shards([within(shard, root) for shard in whole], root, kind, wanted)
    source = Source(name, root, found.rows, kind, notes=found.notes, aside=found.aside, labels=found.labels)
    if not found.rows and found.aside:
        raise DataError(
            f"nothing in {root} can be read:", [f"{q.source}: {q.reason}" for q in found.aside[:10]]
        )
    return source


def _read_folder(given: Place, kinds: Sequence[Kind], wanted: Wanted) -> Source:
    if (shards := _shards_in(given)) and not own_output(given):
        return _read_shards(shards, given.name or "data", kinds, wanted)
    kind = kind_of(given, kinds)
    if what := own_output(given):
        raise DataError(
            f"{given} is {what}, not data.",
            [],
            f"Give the folder of labelled {kind.noun}s, or a table of them.",
        )
    root, notes = inside(given, kind)
    top = Listing(root, kind)
    tables = {name: split for name in top.tables if (split := split_of(Path(name).stem))}
    source = Source(given.name or "data", root, [], kind, notes=notes)
    if tables:
        _read_tables(source, top, tables, wanted)
        return source
    if wanted.columns and not wanted.known:
        raise DataError(
            f"{root} is a folder of class folders, and has no columns.",
            [f"columns were named: {', '.join(wanted.columns)}"],
            "Give a table that has them, or a folder with train.csv.",
        )
    splits = {name: split for name in top.folders if (split := split_of(name))}
    if are_classes(top, splits):
        check_classes(top)
        _read_classes(source, root, None, top)
        return source
    check_splits(top, splits)
    for name, split in splits.items():
        _read_split(source, top, name, split)
    others = [name for name in top.folders if name not in splits]
    source.passed.stray += [shown(name) + "/" for name in others] + [shown(name) for name in top.files]
    return source


def _shards_in(folder: Place) -> list[Place]:
    """The tar files in a folder that holds nothing but these, or folders of splits that do; none where it
    holds anything else that could be examples.
    """
    there = [entry for entry in entries_of(folder) if not is_hidden(entry.name)]
    folders = [entry for entry in there if is_folder(entry)]
    found = [folder / entry.name for entry in there if is_shard(entry.name) and not is_folder(entry)]
    if found and not folders:
        return found if not any(is_table_name(entry.name) for entry in there) else []
    if found or not folders or not all(split_of(entry.name) for entry in folders):
        return []
    inner = [_shards_in(folder / entry.name) for entry in folders]
    return [shard for some in inner for shard in some] if all(inner) else []


def _read_tables(source: Source, top: Listing, tables: dict[str, str], wanted: Wanted) -> None:
    twice = [split for split, count in Counter(tables.values()).items() if count > 1]
    perhaps = [name for name in top.tables if perhaps_split(Path(name).stem)]
    faults = [f"more than one table for {' and '.join(twice)}"] if twice else []
    faults += ["no train.csv"] if "train" not in tables.values() else []
    faults += [f"{name} could be a split, and it is not certain which" for name in perhaps]
    if faults:
        advice = (
            "Leave train.csv and, where there are, val.csv and test.csv. "
            "Or give one table with a column split."
        )
        raise DataError(f"{source.root} holds {', '.join([*tables, *perhaps])}:", faults, advice)
    for name, split in tables.items():
        rows, labels = read_table(source.root / name, split, source.kind, source.notes, wanted)
        source.rows.extend(rows)
        source.labels = max(source.labels, labels, key=("name", "number", "names").index)
    if others := [name for name in top.tables if name not in tables]:
        source.notes.append(
            Note("layout", "info", f"tables that name no split were not read: {some(others)}")
        )


def _read_split(source: Source, top: Listing, name: str, split: str) -> None:
    inner = top.within(name)
    if len(inner.folders) == 1 and not inner.items and split_of(inner.folders[0]) == split:
        inner = inner.within(inner.folders[0])  # test/test/cat, as archives unpack
    if split != "train" and inner.items and not inner.folders:
        cut = "a test set is cut from the rest" if split == "test" else "val is cut from train"
        text = f"{shown(name)}/ holds {len(inner.items):,} {inner.kind.noun}s and no class folders: "
        text += f"they were passed over, and {cut}"
        source.notes.append(Note("unlabelled", "warning", text))
    _read_classes(source, inner.place, split, inner)


def _read_classes(source: Source, folder: Place, split: str | None, listing: Listing) -> None:
    passed = source.passed
    passed.stray += [passed.name(folder / name) for name in listing.files]
    passed.own += [passed.name(folder / name) for name in listing.own]
    for label in listing.folders:
        before = len(source.rows) + len(passed.links) + len(passed.own) + len(passed.unreadable)
        for file in walk(folder / label, source.kind.endings, passed, {real(source.root), real(folder)}):
            name = within(file, source.root)
            if shown(name) != name:  # examples.parquet could not hold it
                passed.stray.append(f"{shown(name)} (its name is not UTF-8)")
            else:
                source.rows.append(Row(name, unicodedata.normalize("NFC", label), split=split))
        if len(source.rows) + len(passed.links) + len(passed.own) + len(passed.unreadable) == before:
            source.empty.append(passed.name(folder / label))

"""Where examples come from: folders of class folders, or tables. Reads names and labels, opens no image."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from regraft.data.examples import Task
from regraft.errors import DataError

SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
TABLE_ENDINGS = (".csv", ".parquet")
IMAGE_ENDINGS = frozenset(
    f".{ending}"
    for ending in (
        "jpg",
        "jpeg",
        "jpe",
        "jfif",
        "png",
        "gif",
        "bmp",
        "dib",
        "tif",
        "tiff",
        "webp",
        "avif",
        "ppm",
        "pgm",
        "pbm",
        "pnm",
        "jp2",
        "tga",
        "ico",
        "apng",
    )
)
PATH_COLUMNS = ("path", "file", "filename", "image")


@dataclass(frozen=True)
class Row:
    """One example as the source names it. `source` is relative to the root, with forward slashes."""

    source: str
    label: str
    group: str | None = None
    weight: float | None = None
    split: str | None = None


@dataclass
class Source:
    """What was found: rows, the root they are relative to, the task, and what was passed over."""

    name: str
    root: Path
    rows: list[Row]
    task: Task
    stray: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)

    @property
    def given(self) -> set[str]:
        """The splits the source itself states."""
        return {row.split for row in self.rows if row.split is not None}


def read_source(data: str | Path) -> Source:
    """Read any of the layouts of the README. Raises DataError with every fault found."""
    path = Path(data).expanduser()
    if not path.exists():
        raise DataError(f"{path} does not exist.", [], _near(path))
    path = path.resolve()
    if path.is_file():
        if path.suffix.lower() not in TABLE_ENDINGS:
            raise DataError(f"{path} is a file, but no .csv or .parquet.", [], "Give a folder of class folders or a table.")
        source = Source(path.stem, path.parent, *_read_table(path, None))
    else:
        tables = {
            SPLIT_NAMES[item.stem.lower()]: item
            for item in sorted(path.iterdir())
            if item.is_file() and item.suffix.lower() in TABLE_ENDINGS and item.stem.lower() in SPLIT_NAMES
        }
        if tables:
            source = _read_tables(path, tables)
        else:
            source = _read_folder(path)
    if not source.rows:
        seen = ", ".join(sorted(item.name for item in path.iterdir())[:8]) if path.is_dir() else "no rows"
        raise DataError(
            f"no images were found in {path}.",
            [f"it holds: {seen or 'nothing'}"],
            "Wanted: one folder a class with images in it, or train/ and test/ of such folders, or a csv with `label`.",
        )
    source.task.require_supported()
    return source


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return f"{path.parent} does not exist either."
    near = difflib.get_close_matches(path.name, [item.name for item in path.parent.iterdir()], n=3, cutoff=0.5)
    return f"Did you mean {', '.join(str(path.parent / name) for name in near)}?" if near else "Check the path."


def _task(rows: list[Row]) -> Task:
    return Task("single", tuple(sorted({row.label for row in rows})))


def _read_folder(root: Path) -> Source:
    source = Source(root.name or "data", root, [], Task("single", ()))
    folders = [item for item in sorted(root.iterdir()) if item.is_dir() and not item.name.startswith(".")]
    splits = {item: SPLIT_NAMES[item.name.lower()] for item in folders if item.name.lower() in SPLIT_NAMES}
    if "train" in splits.values():
        for folder, split in splits.items():
            _read_classes(source, folder, split)
        for item in sorted(root.iterdir()):
            if item not in splits and not item.name.startswith("."):
                source.stray.append(item.name + ("/" if item.is_dir() else ""))
    else:
        _read_classes(source, root, None)
    source.task = _task(source.rows)
    return source


def _read_classes(source: Source, folder: Path, split: str | None) -> None:
    for item in sorted(folder.iterdir()):
        relative = item.relative_to(source.root).as_posix()
        if item.name.startswith("."):
            continue
        if not item.is_dir():
            source.stray.append(relative)
            continue
        before = len(source.rows)
        for file in _walk(item, source):
            name = file.relative_to(source.root).as_posix()
            if file.suffix.lower() in IMAGE_ENDINGS:
                source.rows.append(Row(name, item.name, split=split))
            else:
                source.stray.append(name)
        if len(source.rows) == before:
            source.empty.append(relative)


def _walk(folder: Path, source: Source) -> Iterator[Path]:
    """Files below a folder, links followed, each real folder entered once on the way down (links may form a loop)."""

    def descend(current: Path, above: frozenset[str]) -> Iterator[Path]:
        real = os.path.realpath(current)
        if real in above:
            source.loops.append(current.relative_to(source.root).as_posix())
            return
        try:
            items = sorted(current.iterdir())
        except OSError:
            source.stray.append(current.relative_to(source.root).as_posix() + "/ (cannot be listed)")
            return
        for item in items:
            if item.name.startswith("."):
                continue
            try:
                is_folder = item.is_dir()
            except OSError:
                is_folder = False
            if is_folder:
                yield from descend(item, above | {real})
            else:
                yield item

    yield from descend(folder, frozenset())


def _read_tables(root: Path, tables: dict[str, Path]) -> Source:
    if "train" not in tables:
        raise DataError(f"{root} holds {', '.join(t.name for t in tables.values())} but no train.csv.", [])
    rows: list[Row] = []
    task = Task("single", ())
    for split, table in tables.items():
        found, task = _read_table(table, split)
        rows.extend(found)
    return Source(root.name, root, rows, _task(rows) if task.kind == "single" else task)


def _read_table(path: Path, split: str | None) -> tuple[list[Row], Task]:
    try:
        table = pq.read_table(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a table.", [str(error).splitlines()[0]]) from None
    names = {name.strip().lower(): name for name in table.column_names}
    where = next((names[name] for name in PATH_COLUMNS if name in names), None)
    if "label" not in names or where is None:
        faults = []
        if "label" not in names:
            faults.append("no column `label`")
        if where is None:
            other = next((name for name in ("text", "audio") if name in names), None)
            faults.append(f"its examples are `{other}`; images are fitted so far" if other else "no column `path` or `file`")
        raise DataError(f"{path} has the columns {', '.join(table.column_names)}:", faults)
    columns: dict[str, list[Any]] = {
        key: table[names[key]].to_pylist() if key in names else [None] * table.num_rows
        for key in ("label", "group", "weight", "split")
    }
    return _rows(path, table[where].to_pylist(), columns, split)


def _read_csv(path: Path) -> pa.Table:
    with open(path, encoding="utf-8-sig", newline="") as handle:
        header = handle.readline()
    names = [name.strip().strip('"') for name in header.rstrip("\r\n").split(",")]
    kinds = {name: pa.string() for name in names}
    return pyarrow.csv.read_csv(
        path, convert_options=pyarrow.csv.ConvertOptions(column_types=kinds, strings_can_be_null=True, null_values=[""])
    )


def _rows(path: Path, files: list[Any], columns: dict[str, list[Any]], split: str | None) -> tuple[list[Row], Task]:
    root, rows, faults = path.parent, [], []
    if any(isinstance(label, (list, tuple)) for label in columns["label"]):
        return [], Task("multi", ())
    if any(isinstance(label, float) for label in columns["label"]):
        return [], Task("regression", ())
    for number, (file, label, group, weight, own) in enumerate(
        zip(files, columns["label"], columns["group"], columns["weight"], columns["split"], strict=True), start=2
    ):
        where = f"{path.name} row {number}"
        given = split if own in (None, "") else SPLIT_NAMES.get(str(own).strip().lower())
        if file in (None, ""):
            faults.append(f"{where}: no path")
        elif label in (None, ""):
            faults.append(f"{where}: no label for {file}")
        elif own not in (None, "") and given is None:
            faults.append(f"{where}: split {own!r} is none of train, val, test")
        elif (amount := _number(weight)) is None:
            faults.append(f"{where}: weight {weight!r} is no number from 0 up")
        else:
            relative = os.path.relpath(root / str(file), root).replace(os.sep, "/")
            name = None if group in (None, "") else str(group)
            rows.append(Row(relative, str(label), name, None if weight in (None, "") else amount, given))
    if faults:
        more = [f"and {len(faults) - 20} more"] if len(faults) > 20 else []
        raise DataError(f"{path} has faults:", [*faults[:20], *more])
    return rows, _task(rows)


def _number(weight: Any) -> float | None:
    if weight in (None, ""):
        return 1.0
    try:
        value = float(weight)
    except (TypeError, ValueError):
        return None
    return value if 0 <= value < float("inf") else None

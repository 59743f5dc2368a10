"""Where examples come from: folders of class folders, or tables. Reads names and labels, opens no image."""

from __future__ import annotations

import csv
import difflib
import os
import unicodedata
from collections import Counter
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
IMAGE_ENDINGS = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".avif",
    ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga", ".ico",
))  # fmt: skip
PATH_COLUMNS = ("path", "file", "filename", "image")


@dataclass(frozen=True)
class Row:
    """One example as the source names it.

    `source` is relative to the root with forward slashes, or the path as the table has it; `weight` counts it so often.
    """

    source: str
    label: str
    group: str | None = None
    weight: float | None = None
    split: str | None = None


@dataclass
class Source:
    """What a place holds: rows, and what was passed over (`links` lead to a folder already read)."""

    name: str
    root: Path
    rows: list[Row]
    task: Task = field(default_factory=lambda: Task("single", ()))
    stray: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)


def read_source(data: str | Path) -> Source:
    """Read any of the layouts of the README. Raises DataError with every fault found, UsageError for other tasks."""
    path = Path(data).expanduser()
    try:
        if not path.exists():
            raise DataError(f"{path} does not exist.", [], _near(path))
        path = path.resolve()
        source = _read_file(path) if path.is_file() else _read_folder(path)
        if not source.rows:
            seen = ", ".join(sorted(shown(item.name) for item in path.iterdir())[:8]) if path.is_dir() else "no rows"
            raise DataError(
                f"no images were found in {path}.",
                [f"it holds: {seen or 'nothing'}"],
                "Wanted: a folder of images a class, or train/ and test/ of such folders, or a csv with `label`.",
            )
    except OSError as error:
        raise DataError(f"{path} cannot be read.", [f"{error.filename or path}: {error.strerror or error}"]) from None
    source.task = Task("single", tuple(sorted({row.label for row in source.rows})))
    return source


def shown(name: str) -> str:
    """A file's name as text that can be written: bytes that are no UTF-8 as escapes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return f"{path.parent} does not exist either."
    near = difflib.get_close_matches(path.name, [item.name for item in path.parent.iterdir()], n=3, cutoff=0.5)
    return f"Did you mean {', '.join(str(path.parent / name) for name in near)}?" if near else "Check the path."


def _read_file(path: Path) -> Source:
    if path.suffix.lower() not in TABLE_ENDINGS:
        raise DataError(
            f"{path} is a file, but no .csv or .parquet.", [], "Give a folder of class folders, or a table."
        )
    return Source(path.stem, path.parent, _read_table(path, None))


def _read_folder(root: Path) -> Source:
    items = [item for item in sorted(root.iterdir()) if not item.name.startswith(".")]
    tables = {
        item: SPLIT_NAMES[item.stem.lower()]
        for item in items
        if item.suffix.lower() in TABLE_ENDINGS and item.stem.lower() in SPLIT_NAMES and item.is_file()
    }
    source = Source(root.name or "data", root, [])
    if tables:
        twice = [split for split, count in Counter(tables.values()).items() if count > 1]
        if twice or "train" not in tables.values():
            fault = f"more than one table for {' and '.join(twice)}" if twice else "no train.csv"
            raise DataError(f"{root} holds {', '.join(table.name for table in tables)}:", [fault])
        for table, split in tables.items():
            source.rows.extend(_read_table(table, split))
        return source
    folders = [item for item in items if item.is_dir()]
    splits = {item: SPLIT_NAMES[item.name.lower()] for item in folders if item.name.lower() in SPLIT_NAMES}
    if "train" in splits.values():
        for folder, split in splits.items():
            _read_classes(source, folder, split)
        source.stray.extend(shown(item.name) + "/" * item.is_dir() for item in items if item not in splits)
    elif splits and len(splits) == len(folders):
        raise DataError(f"{root} holds {', '.join(f'{folder.name}/' for folder in folders)}:", ["no train/"])
    else:
        _read_classes(source, root, None)
    return source


def _read_classes(source: Source, folder: Path, split: str | None) -> None:
    for item in sorted(folder.iterdir()):
        if item.name.startswith("."):
            continue
        relative = shown(item.relative_to(source.root).as_posix())
        if not item.is_dir():
            source.stray.append(relative)
            continue
        before = len(source.rows) + len(source.links)
        for file in _walk(item, source, {os.path.realpath(source.root), os.path.realpath(folder)}):
            name = file.relative_to(source.root).as_posix()
            if shown(name) != name:
                source.stray.append(f"{shown(name)} (its name is not UTF-8)")
            elif file.suffix.lower() in IMAGE_ENDINGS:
                source.rows.append(Row(name, unicodedata.normalize("NFC", item.name), split=split))
            else:
                source.stray.append(name)
        if len(source.rows) + len(source.links) == before:
            source.empty.append(relative)


def _walk(folder: Path, source: Source, seen: set[str]) -> Iterator[Path]:
    """Files below a folder, links followed, each real folder entered once (links may form a loop)."""
    real = os.path.realpath(folder)
    relative = shown(folder.relative_to(source.root).as_posix())
    if real in seen:
        source.links.append(relative)
        return
    seen.add(real)
    try:
        items = sorted(folder.iterdir())
    except OSError:
        source.stray.append(f"{relative}/ (cannot be listed)")
        return
    for item in items:
        if item.name.startswith("."):
            continue
        if item.is_dir():
            yield from _walk(item, source, seen)
        else:
            yield item


def _read_table(path: Path, split: str | None) -> list[Row]:
    """The rows of a table; `split` is theirs where the table does not say."""
    try:
        table = pq.read_table(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    except (pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table.", [str(error).splitlines()[0]]) from None
    names: dict[str, list[int]] = {}
    for number, name in enumerate(table.column_names):
        names.setdefault(name.strip().lower(), []).append(number)
    where = next((name for name in PATH_COLUMNS if name in names), None)
    faults = [] if "label" in names else ["no column `label`"]
    if where is None:
        other = next((name for name in ("text", "audio") if name in names), None)
        told = f"its examples are `{other}`; images are fitted so far" if other else "no column `path` or `file`"
        faults.append(told)
    wanted = [where or "path", "label", "group", "weight", "split"]
    faults += [f"{len(names[name])} columns `{name}`" for name in wanted if len(names.get(name, [])) > 1]
    if faults:
        raise DataError(f"{path} has the columns {', '.join(table.column_names)}:", faults)
    columns = [table.column(names[n][0]).to_pylist() if n in names else [None] * table.num_rows for n in wanted]
    if any(isinstance(label, (list, tuple)) for label in columns[1]):
        Task("multi", ()).require_supported()
    if any(isinstance(label, float) for label in columns[1]):
        Task("regression", ()).require_supported()
    rows: list[Row] = []
    for number, cells in enumerate(zip(*columns, strict=True), start=1 if path.suffix.lower() == ".parquet" else 2):
        try:
            rows.append(_row(split, *cells))
        except ValueError as error:
            faults.append(f"row {number}: {error}")
    if faults:
        more = [f"and {len(faults) - 20} more"] if len(faults) > 20 else []
        raise DataError(f"{path} has faults:", [*faults[:20], *more])
    return rows


def _read_csv(path: Path) -> pa.Table:
    """Every column as text: a class may be called 01 or NA. Commas, semicolons or tabs, by the header."""
    with open(path, encoding="utf-8-sig", newline="") as handle:
        header = handle.readline()
    delimiter = next((mark for mark in ",;\t" if mark in header), ",")
    names = next(csv.reader([header], delimiter=delimiter), [])
    return pyarrow.csv.read_csv(
        path,
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
        ),
    )


def _row(split: str | None, file: Any, label: Any, group: Any, weight: Any, own: Any) -> Row:
    """One line of a table. Raises ValueError."""
    if file in (None, ""):
        raise ValueError("no path")
    if not isinstance(file, str):
        raise ValueError(f"its path is no text but {type(file).__name__}")
    name = unicodedata.normalize("NFC", str(label).strip())
    if label is None or not name:
        raise ValueError(f"no label for {file}")
    if not isinstance(label, (str, int)):
        raise ValueError(f"its label is no name but {type(label).__name__}")
    if own not in (None, ""):
        split = SPLIT_NAMES.get(str(own).strip().lower())
        if split is None:
            raise ValueError(f"split {own!r} is none of train, val, test")
    amount = None if weight in (None, "") else _number(weight)
    return Row(file, name, None if group in (None, "") else str(group), amount, split)


def _number(weight: Any) -> float:
    try:
        value = float(weight)
    except (TypeError, ValueError):
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ValueError(f"weight {weight!r} is no number from 0 up")
    return value

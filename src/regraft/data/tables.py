"""Tables of examples: csv and parquet, their columns and their rows. Opens no item."""

from __future__ import annotations

import csv
import difflib
import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv

from regraft.data.addresses import Place, below, is_address
from regraft.data.answers import USUAL, Read, Wanted, all_numbers, of_column, of_columns
from regraft.data.cells import cell_name, first_row, is_content, read_cell
from regraft.data.kind import Kind
from regraft.data.readers import (
    COLUMNS,
    DOCUMENTED,
    HOLDING,
    LOOKED_AT,
    named_by,
    read_beginning,
    read_csv,
    read_parquet_table,
)
from regraft.data.rows import Labels, Note, Row, plainly, split_of
from regraft.data.walker import ends_in, some
from regraft.errors import DataError, Unreadable, UsageError

TABLE_ENDINGS = (".csv", ".tsv", ".parquet")
PERHAPS = {  # not certain enough to be taken, but worth asking about
    "path": ("id", "fileid", "uuid", "url", "name", "source"),
    "label": (
        "y",
        "species",
        "breed",
        "diagnosis",
        "type",
        "tag",
        "tags",
        "kind",
        "classid",
        "labelid",
        "categoryid",
        "truth",
    ),
}


def is_table_name(name: str) -> bool:
    """True for an ending that tables have."""
    return name.lower().endswith(TABLE_ENDINGS)


def named_kind(path: Place, kinds: Sequence[Kind]) -> Kind:
    """The kind of a table's items (`told_kind`); the first where that does not show."""
    return kinds[0] if len(kinds) == 1 else told_kind(path, kinds) or kinds[0]


def told_kind(path: Place, kinds: Sequence[Kind]) -> Kind | None:
    """The kind that a column of a table is named after, or else that of the files it names, or else that of
    its cells; None where that does not show.
    """
    try:
        table = read_beginning(path, kinds)
    except (pa.ArrowException, UnicodeDecodeError, csv.Error):
        return None  # reading it says what is wrong
    plain = [plainly(name) for name in table.column_names]
    named = [kind for kind in kinds if not {kind.name, *kind.columns}.isdisjoint(plain)]
    place = next((n for n, name in enumerate(plain) if name in ("path", *COLUMNS["path"])), None)
    if place is not None and is_content(table.schema.field(place).type):
        place = None
    names = [] if place is None else [str(cell) for cell in table.column(place)[:LOOKED_AT].to_pylist()]
    listed = [kind for kind in kinds if any(ends_in(name, kind.endings) for name in names)]
    # A remark beside a path is no item, and a text beside pictures is their caption
    held = [k for k in kinds if not set(k.cells[: None if place is None else 1]).isdisjoint(plain)]
    named = [kind for kind in named if kind not in held]
    bytes_of = next((n for n, name in enumerate(plain) if _may_hold(table, n, name)), None)
    if bytes_of is not None and not named and table.num_rows:
        return _readable_as(kinds, read_cell(str(path), table.column_names[bytes_of], 0)) or kinds[0]
    return next(iter((*named, *listed, *held)), None)


def _may_hold(table: pa.Table, number: int, plain: str) -> bool:
    """True for a column of the bytes of files that is called as the column of items may be."""
    return plain in ("path", *COLUMNS["path"], *HOLDING) and is_content(table.schema.field(number).type)


def _readable_as(kinds: Sequence[Kind], content: bytes) -> Kind | None:
    """The first kind that can make something of a file's content."""
    for kind in kinds:
        try:
            kind.inspect(content)
        except (Unreadable, UsageError):
            continue
        return kind
    return None


@dataclass(frozen=True)
class Told:
    """What a table is called: `place` in errors, `name` in notes; how many lines stand before its first row;
    whether its cells have types; and what its items are called where cells hold them.
    """

    place: str
    name: str
    first: int
    typed: bool
    root: str


def read_table(
    path: Place, split: str | None, kind: Kind, notes: list[Note], wanted: Wanted = USUAL
) -> tuple[list[Row], Labels]:
    """The rows of a table of items of a kind, and what its labels are; `split` is theirs where the table does
    not say, `wanted` says how answers are read. A table of val or test without labels has no rows, and a row
    of whose answers nothing is known is passed over.

    Raises DataError with every fault.
    """
    parquet = path.suffix.lower() == ".parquet"
    try:
        table = (
            read_parquet_table(path, kind)
            if parquet
            else read_csv(path, [*named_by([kind]), *map(plainly, wanted.columns)])
        )
    except (pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read as a table.", [str(error).splitlines()[0]], _encoding(error)
        ) from None
    told = Told(str(path), path.name, first_row(path.name), parquet, str(path.parent))
    return rows_of(table, told, split, kind, notes, wanted)


def rows_of(
    table: pa.Table, told: Told, split: str | None, kind: Kind, notes: list[Note], wanted: Wanted
) -> tuple[list[Row], Labels]:
    """The same of a table that has been read already."""
    numbers, answers, faults = _columns(table, kind, notes, told.name, wanted)
    if (
        split in ("val", "test")
        and "path" in numbers
        and "label" not in numbers
        and not answers
        and all(fault.startswith("no column") for fault in faults)
    ):
        missing = " or ".join(f"`{name}`" for name in wanted.columns or ["label"])
        notes.append(_unlabelled(told.name, f"has no column {missing}", table.num_rows, split))
        return [], "name"
    if faults:
        raise DataError(
            f"{told.place} has the columns {', '.join(table.column_names)}:",
            faults,
            _no_header(table.column_names, kind),
        )
    columns = {
        name: _cells(table.column(numbers[name])) if name in numbers else [None] * table.num_rows
        for name in COLUMNS
    }
    if _is_cell(table, numbers["path"], kind):
        name = table.column_names[numbers["path"]]
        columns["path"] = [cell_name(told.name, name, told.first + n) for n in range(table.num_rows)]
    read = _answered(table, columns["label"], numbers.get("label"), answers, wanted, told)
    notes += _read_as_names(table, columns["label"], numbers.get("label"), read, wanted, told)
    known = read.labels if answers else columns["label"]
    if split in ("val", "test") and table.num_rows and all(label in (None, "") for label in known):
        where = f"columns {', '.join(f'`{name}`' for name in answers)}" if answers else "column `label`"
        notes.append(_unlabelled(told.name, f"has no label in its {where}", table.num_rows, split))
        return [], "name"
    columns["label"] = read.labels
    rows, found = _rows(columns, split, told, read)
    faults += found
    if not faults and (passed := table.num_rows - len(rows)):
        text = f"{passed:,} rows of {told.name} were passed over: nothing is known of what is to be told"
        notes.append(Note("nothing known", "warning", text))
    if faults:
        more = [f"and {len(faults) - 20} more"] if len(faults) > 20 else []
        raise DataError(f"{told.place} has faults:", [*faults[:20], *more])
    return rows, read.are


def _answered(
    table: pa.Table, labels: list[Any], label: int | None, answers: dict[str, int], wanted: Wanted, told: Told
) -> Read:
    """What the column number `label`, whose cells are `labels`, or the columns named for the answers say."""
    if answers or label is None:
        return of_columns({name: _cells(table.column(n)) for name, n in answers.items()}, wanted)
    read = of_column(labels, table.column_names[label].strip(), wanted, told.place)
    return read or Read(*_names(labels, told.typed))


def _read_as_names(
    table: pa.Table, labels: list[Any], label: int | None, read: Read, wanted: Wanted, told: Told
) -> list[Note]:
    """A note where cells were read as names of classes that a person may mean otherwise."""
    if label is None or read.are != "name" or wanted.task != "auto":
        return []
    name = table.column_names[label].strip()
    if plainly(name) == "target" and all_numbers(labels):
        few = len({str(cell).strip() for cell in labels if cell is not None})
        text = (
            f"the {few} different whole numbers of `{name}` in {told.name} were taken as names of classes; "
            "where they are numbers to be told, say --task regression"
        )
        return [Note("columns", "info", text)]
    if plainly(name) == "labels":
        text = (
            f"each cell of `{name}` in {told.name} was taken as the name of one class; "
            "where it is one of several labels that an example may have, say --task multi"
        )
        return [Note("columns", "info", text)]
    return []


def _rows(
    columns: dict[str, list[Any]], split: str | None, told: Told, read: Read
) -> tuple[list[Row], list[str]]:
    """The rows, and what is wrong with them. Where an answer may be unknown, those of which nothing is known
    are passed over.
    """
    rows: list[Row] = []
    away = is_address(told.root)
    faults = [f"row {told.first + place}: {fault}" for place, fault in read.faults]
    for number, cells in enumerate(zip(*columns.values(), strict=True), start=told.first):
        if read.sparse and cells[1] is None:
            continue
        try:
            rows.append(_row(split, *cells))
            if away:
                below(told.root, rows[-1].source)
        except (ValueError, UsageError) as error:
            faults.append(f"row {number}: {error}")
    return rows, faults


def _columns(
    table: pa.Table, kind: Kind, notes: list[Note], file: str, asked: Wanted
) -> tuple[dict[str, int], dict[str, int], list[str]]:
    """{what a column is here: its number}, {a column that was named for the answers: its number}, and what is
    missing or not certain.
    """
    plain = [plainly(name) for name in table.column_names]
    columns: dict[str, int] = {}
    answers, faults = _answers(table.column_names, asked)
    named = _names_of(kind)
    if answers or faults:
        named = {name: others for name, others in named.items() if name != "label"}
    for wanted, others in named.items():
        numbers = [n for n, name in enumerate(plain) if name == wanted] or [
            n for n, name in enumerate(plain) if name in others
        ]
        if wanted == "path" and (holding := _holding(table, plain, kind)):
            numbers = holding
        elif wanted == "path":
            numbers = [plain.index(name) for name in kind.cells if name in plain][:1] or numbers
        if wanted == "split" and not any(name == wanted for name in plain):
            numbers = [n for n in numbers if _tells_splits(table.column(n))]
        if len(numbers) > 1:
            same = {plain[n] for n in numbers}
            names = " and ".join(f"`{table.column_names[n].strip()}`" for n in numbers)
            faults.append(
                f"{len(numbers)} columns `{wanted}`"
                if same == {wanted}
                else f"{names} could each be the column `{wanted}`: leave one, or call it `{wanted}`"
            )
        elif numbers:
            columns[wanted] = numbers[0]
    if "label" in named and "label" not in columns and not any("`label`" in fault for fault in faults):
        faults.append("no column `label`" + _perhaps("label", table.column_names, kind))
    if "path" not in columns and not any("`path`" in fault for fault in faults):
        other = next((name for name in ("text", "audio") if name in plain), None)
        told = (
            f"its examples are `{other}`; {kind.noun}s are fitted so far"
            if other
            else "no column `path` or `file`"
        )
        faults.append(told + ("" if other else _perhaps("path", table.column_names, kind)))
    if not faults:
        _tell_columns(table.column_names, {**columns, **answers}, kind, notes, file)
    return columns, answers, faults


def _answers(names: list[str], asked: Wanted) -> tuple[dict[str, int], list[str]]:
    """{column that was named for the answers: its number}, and those that are missing. Of a model that is
    there already, whose columns are only looked for, none where a column of labels is.
    """
    place = {name.strip(): n for n, name in reversed(list(enumerate(names)))}
    found = {name: place[name] for name in asked.columns if name in place}
    missing = [name for name in asked.columns if name not in place]
    plain = {plainly(name) for name in names}
    if asked.known and (missing or not plain.isdisjoint(("label", *COLUMNS["label"]))):
        return {}, []
    faults = []
    for name in missing:
        near = difflib.get_close_matches(name, place, n=1)
        faults.append(f"no column `{name}`" + (f"; did you mean `{near[0]}`?" if near else ""))
    return found, faults


def _tell_columns(
    names: list[str], columns: dict[str, int], kind: Kind, notes: list[Note], file: str
) -> None:
    """Note what was taken by another name than that in the documentation, and what was not used."""
    taken = {wanted: names[n].strip() for wanted, n in columns.items()}
    renamed = [
        f"`{name}` as {wanted}"
        for wanted, name in taken.items()
        if plainly(name) not in (*DOCUMENTED, kind.name, *kind.cells[:1]) and wanted != name
    ]
    unused = [
        f"`{name.strip()}`" for n, name in enumerate(names) if n not in columns.values() and name.strip()
    ]
    said = [f"took {', '.join(renamed)}"] if renamed else []
    said += [f"did not use {some(unused, 8)}"] if unused else []
    if said:
        notes.append(Note("columns", "info", f"of the columns of {file}, regraft {' and '.join(said)}"))


def _perhaps(wanted: str, names: list[str], kind: Kind) -> str:
    """; did you mean ...? where a column could be the one that is missing."""
    known = {plainly(name): name.strip() for name in names}
    perhaps = PERHAPS[wanted] + (tuple(f"{name}id" for name in kind.columns) if wanted == "path" else ())
    near = [name for plain, name in known.items() if plain in perhaps]
    near = near or [known[plain] for plain in difflib.get_close_matches(wanted, known, n=2, cutoff=0.7)]
    return (
        f" (did you mean {' or '.join(f'`{name}`' for name in near[:3])}? Then call it `{wanted}`)"
        if near
        else ""
    )


def _names_of(kind: Kind) -> dict[str, tuple[str, ...]]:
    """COLUMNS with the names by which a kind calls its items."""
    return {**COLUMNS, "path": (*COLUMNS["path"], *kind.columns)}


def _is_cell(table: pa.Table, number: int, kind: Kind) -> bool:
    """True for a column whose cells are the items themselves."""
    return plainly(table.column_names[number]) in kind.cells or is_content(table.schema.field(number).type)


def _holding(table: pa.Table, plain: list[str], kind: Kind) -> list[int]:
    """The columns of the bytes of files that could be the items: one called as the kind before all others."""
    held = [n for n, field in enumerate(table.schema) if is_content(field.type)]
    for names in ((kind.name,), (*kind.columns, *kind.cells), ("path", *COLUMNS["path"], *HOLDING)):
        if numbers := [n for n in held if plain[n] in names]:
            return numbers
    return []


def item_column(table: pa.Schema, kind: Kind) -> str | None:
    """The column of a parquet table that holds items in its cells, by its name; None where none does."""
    empty = table.empty_table()
    plain = [plainly(name) for name in table.names]
    numbers = _holding(empty, plain, kind) or [plain.index(name) for name in kind.cells if name in plain]
    return table.names[numbers[0]] if numbers else None


def _cells(column: pa.ChunkedArray) -> list[Any]:
    """The cells of a column, those that are not a number (pandas' empty cells) as None."""
    values: list[Any] = column.to_pylist()
    return (
        [None if value != value else value for value in values]
        if pa.types.is_floating(column.type)
        else values
    )


def _tells_splits(column: pa.ChunkedArray) -> bool:
    """True for a column of nothing but the words for splits, and empty cells."""
    values = [value for value in column.unique().to_pylist() if value not in (None, "")]
    return bool(values) and all(isinstance(value, str) and split_of(value) for value in values)


def _unlabelled(name: str, what: str, rows: int, split: str) -> Note:
    cut = "the test set is cut from the rest" if split == "test" else "val is cut from train"
    return Note("unlabelled", "warning", f"{name} {what}: its {rows:,} rows were passed over, and {cut}")


def _no_header(names: list[str], kind: Kind) -> str:
    if any(ends_in(name.strip(), kind.endings) for name in names):
        return "Its first line looks like an example. Put a header before it: path,label"
    return ""


def _encoding(error: Exception) -> str:
    return "Save it as UTF-8." if isinstance(error, UnicodeDecodeError) or "UTF8" in str(error) else ""


def _names(labels: list[Any], parquet: bool) -> tuple[list[Any], Labels]:
    """Labels as they are, and what they are; but whole numbers without their decimals (0.0 and 1.0 are the
    classes 0 and 1), and lists as texts.
    """
    if any(isinstance(label, (list, tuple)) for label in labels):
        return [json.dumps(label) if isinstance(label, (list, tuple)) else label for label in labels], "names"
    known = [label for label in labels if label not in (None, "")]
    if not parquet:
        texts = {label.strip() for label in known}
        if not texts or not all(
            re.fullmatch(r"[+-]?\d+\.\d+(e[+-]?\d+)?", text, re.IGNORECASE) for text in texts
        ):
            return labels, "name"
        if not all(float(text).is_integer() for text in texts):  # few may be names, such as versions
            return labels, "number" if len(texts) > max(20, len(known) / 2) else "name"
        return [str(int(float(label))) if label not in (None, "") else label for label in labels], "name"
    if any(isinstance(label, float) and not label.is_integer() for label in known):
        return [repr(label) if isinstance(label, float) else label for label in labels], "number"
    return [_whole(label) for label in labels], "name"


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _row(split: str | None, file: Any, label: Any, own: Any, group: Any, weight: Any) -> Row:
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
        split = split_of(str(own))
        if split is None:
            raise ValueError(f"split {own!r} is none of train, val, test")
    amount = None if weight in (None, "") else _number(weight)
    return Row(file, name, None if group in (None, "") else str(_whole(group)), amount, split)


def _number(weight: Any) -> float:
    try:
        value = float(weight)
    except (TypeError, ValueError):
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ValueError(f"weight {weight!r} is no number from 0 up")
    return value

"""Predictions written down as they come: csv, JSON lines or parquet; and taken up where a kill cut them off.

A file of lines grows line by line. A parquet file cannot, so its rows are kept in parts beside it, each
whole or not there, which become the one file at the end.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from regraft.artifacts import utf8, write_parquet
from regraft.errors import UsageError
from regraft.prediction import Prediction
from regraft.tasks import Task

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = ("table", "csv", "jsonl", "parquet")
PROBABILITY = "probability"
NUMBERS = (PROBABILITY, "value:", "low:", "high:")  # how the names of columns of numbers begin
PART = 2_000  # rows of a part
SIDE = 24  # characters a label takes in a table
LONGEST = 200  # characters of a source that it shows


class Sheet(Protocol):
    """What predictions are written to."""

    def written(self) -> Iterator[str]:
        """The sources of what is there already, in order. Asked before anything is added."""

    def add(self, rows: Sequence[Prediction]) -> None:
        """Write some more."""

    def close(self) -> None:
        """All are written."""


def columns(task: Task, top: int | None) -> list[str]:
    """The columns of csv and parquet: those of every prediction, then what the task tells of each class, such as
    its probability, or the `top` most probable ones; then notes, where the task has any.
    """
    if top is None or PROBABILITY not in task.spread:
        shares = [f"{what}:{name}" for name in task.classes for what in task.spread]
    else:
        count = min(top, len(task.classes))
        shares = [f"{what}_{number}" for number in range(1, count + 1) for what in ("label", "probability")]
    notes = ["note"] if task.spoken.notes else []
    return ["source", "label", "probability", "sure", "familiarity", "unfamiliar", *shares, *notes, "error"]


def cells(row: Prediction, names: Sequence[str]) -> dict[str, Any]:
    """A prediction by these columns; None where it says nothing."""
    found: dict[str, Any] = dict.fromkeys(names)
    found |= {name: value for name, value in row.to_dict().items() if name in found}
    for number, (label, share) in enumerate(row.probabilities.items(), start=1):
        if f"probability:{label}" in found:
            found[f"probability:{label}"] = share
        elif f"label_{number}" in found:
            found[f"label_{number}"], found[f"probability_{number}"] = label, share
    for name, value in (row.values or {}).items():
        found[f"value:{name}"] = value
    for name, (low, high) in (row.intervals or {}).items():
        found[f"low:{name}"], found[f"high:{name}"] = low, high
    if row.error is not None:
        found["error"], found["unfamiliar"] = " ".join(row.error.split()), None
    return found


class Target:
    """A stream, or a file that grows at its end: what was added is the system's, whatever becomes of this
    process.
    """

    def __init__(self, stream: TextIO | Path) -> None:
        self.stream = stream
        self.file: io.FileIO | None = None

    def add(self, text: str) -> None:
        """Write some more."""
        if not isinstance(self.stream, Path):
            self.stream.write(text)
            return
        if self.file is None:
            self.file = io.FileIO(self.stream, "ab")
        left = utf8(text)
        while left:
            left = left[self.file.write(left) or 0 :]

    def close(self) -> None:
        """Nothing more is added."""
        if self.file is not None:
            self.file.close()


class Table:
    """Lines for a person, on a stream; with `top` the names that come next."""

    def __init__(self, stream: TextIO, top: int | None) -> None:
        self.stream, self.top = stream, top

    def written(self) -> Iterator[str]:
        """Nothing: a table is read, and not taken up."""
        return iter(())

    def add(self, rows: Sequence[Prediction]) -> None:
        """Write some more."""
        for row in rows:
            print(_line(row, self.top), file=self.stream)

    def close(self) -> None:
        """All are written."""


def _on_a_line(source: str) -> str:
    """A source as a table shows it: a text may be long, have several lines, and steer a terminal."""
    seen = (
        letter.isprintable() or "\ud800" <= letter <= "\udfff" for letter in source
    )  # streams write these
    plain = "".join(
        letter if good else " " for letter, good in zip(source[: LONGEST + 1], seen, strict=False)
    )
    return plain if len(plain) <= LONGEST else f"{plain[: LONGEST - 1]}…"


def _line(row: Prediction, top: int | None) -> str:
    source = _on_a_line(row.source)
    if row.label is None:
        return f"{source}  cannot be read: {row.error}"
    said = [f"{source}  {_label(row):{SIDE}}"]
    said[0] += "" if row.probability is None else f" {row.probability:.3f}"
    if top is not None and top > 1:
        said.append(", ".join(f"{n} {p:.3f}" for n, p in row.probabilities.items() if n != row.label))
    if row.intervals:
        said += [f"{name} {low:.4g} to {high:.4g}" for name, (low, high) in row.intervals.items()]
    if row.sure is False:
        said.append("not sure")
    if row.note:
        said.append(row.note)
    if row.unfamiliar:
        said.append("unlike anything it was trained on")
    return "  ".join(said)


def _label(row: Prediction) -> str:
    """What a table says of an item: several labels each with its probability."""
    each = [f"{name} {row.probabilities[name]:.3f}" for name in row.labels or () if name in row.probabilities]
    return "; ".join(each) if row.labels and len(each) == len(row.labels) else row.label or "none"


class Lines:
    """JSON lines on a stream, or in a file."""

    def __init__(self, stream: TextIO | Path) -> None:
        self.stream, self.target = stream, Target(stream)

    def written(self) -> Iterator[str]:
        """The sources of whole lines; a line that was torn is cut off. Raises UsageError for a file of
        another kind.
        """
        if not isinstance(self.stream, Path) or not self.stream.exists():
            return
        end = 0
        with open(self.stream, "rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    source = json.loads(line)["source"] if line.endswith(b"\n") else None
                except (ValueError, KeyError, TypeError):
                    raise _other(self.stream, f"line {number} is no prediction in JSON") from None
                if source is None:
                    break
                yield source
                end += len(line)
        os.truncate(self.stream, end)

    def add(self, rows: Sequence[Prediction]) -> None:
        """Write some more, whole lines at once."""
        self.target.add("".join(json.dumps(row.to_dict(), ensure_ascii=False) + "\n" for row in rows))

    def close(self) -> None:
        """All are written."""
        self.target.close()


class Rows:
    """csv on a stream, or in a file."""

    def __init__(self, stream: TextIO | Path, names: list[str]) -> None:
        self.stream, self.target = stream, Target(stream)
        self.names, self.begun = names, False

    def written(self) -> Iterator[str]:
        """The sources of whole records; one that was torn is cut off. Raises UsageError for a file with
        other columns.
        """
        if not isinstance(self.stream, Path) or not self.stream.exists():
            return
        end, read = 0, 0
        with open(self.stream, "rb") as file:

            def lines() -> Iterator[str]:
                nonlocal read
                for line in file:
                    read += len(line)
                    if line.endswith(b"\n"):
                        yield line.decode("utf-8", "surrogateescape")

            for number, record in enumerate(csv.reader(lines())):
                if number == 0 and record != self.names:
                    raise _other(self.stream, f"its columns are {', '.join(record)[:200]}")
                if len(record) != len(self.names):
                    break
                end, self.begun = read, True
                if number:
                    yield record[0]
        os.truncate(self.stream, end)

    def add(self, rows: Sequence[Prediction]) -> None:
        """Write some more, whole records at once."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not self.begun:
            writer.writerow(self.names)
            self.begun = True
        for row in rows:
            writer.writerow([_cell(value) for value in cells(row, self.names).values()])
        self.target.add(text.getvalue())

    def close(self) -> None:
        """All are written."""
        self.target.close()


class Parts:
    """A parquet file, its rows in parts beside it until all are there."""

    rows = PART  # of a part

    def __init__(self, place: Path, names: list[str]) -> None:
        self.place, self.names = place, names
        self.folder = place.with_name(f"{place.name}.parts")
        self.waiting: list[Prediction] = []
        self.next: int | None = None  # the number of the next part

    def written(self) -> Iterator[str]:
        """The sources in the parts, or in the file of an earlier call that ended. Raises UsageError for a
        file with other columns.
        """
        from regraft.artifacts import read_parquet

        if self.place.exists() and not self.folder.is_dir():
            self.folder.mkdir()
            os.replace(self.place, self.folder / "000000.parquet")
        for part in self._parts():
            table = read_parquet(part)
            if table.column_names != self.names:
                raise _other(self.place, f"its columns are {', '.join(table.column_names)[:200]}")
            yield from table["source"].to_pylist()

    def add(self, rows: Sequence[Prediction]) -> None:
        """Write some more, a part at a time."""
        self.waiting.extend(rows)
        while len(self.waiting) >= self.rows:
            self._write(self.waiting[: self.rows])
            self.waiting = self.waiting[self.rows :]

    def close(self) -> None:
        """Make one file of the parts."""
        from regraft.artifacts import read_parquet

        if self.waiting or not self._parts():
            self._write(self.waiting)
        write_parquet(self.place, (read_parquet(part) for part in self._parts()))
        shutil.rmtree(self.folder)

    def _parts(self) -> list[Path]:
        """The parts there are, in order."""
        return sorted(self.folder.glob("[0-9]*.parquet")) if self.folder.is_dir() else []

    def _write(self, rows: Sequence[Prediction]) -> None:
        import pyarrow as pa

        if self.next is None:
            last = self._parts()[-1:]
            self.next = int(last[0].stem) + 1 if last else 0
        values = [cells(row, self.names) for row in rows]
        for value in values:
            value["source"] = utf8(value["source"]).decode()
        table = pa.Table.from_pylist(values, schema=self._schema())
        write_parquet(self.folder / f"{self.next:06d}.parquet", table)
        self.next += 1

    def _schema(self) -> pa.Schema:
        import pyarrow as pa

        types = {"sure": pa.bool_(), "unfamiliar": pa.bool_(), "familiarity": pa.float64()}

        def type_of(name: str) -> pa.DataType:
            usual = pa.float64() if name.startswith(NUMBERS) else pa.string()
            return types.get(name, usual)

        return pa.schema([(name, type_of(name)) for name in self.names])


class Folder(Parts):
    """A folder of parquet files: the parts stay as they are, for lists too long for one file."""

    rows = 50_000  # of a part: some megabytes

    def __init__(self, place: Path, names: list[str]) -> None:
        super().__init__(place, names)
        self.folder = place

    def close(self) -> None:
        """Write what is left."""
        if self.waiting or not self._parts():
            self._write(self.waiting)


def sheet(form: str, place: Path | None, stream: TextIO, task: Task, top: int | None) -> Sheet:
    """What to write to: a file, or a stream. Raises UsageError for parquet without a file."""
    names, target = columns(task, top), place or stream
    if form == "parquet":
        if place is None:
            raise UsageError("parquet is no text: name a file with --out FILE.")
        return Parts(place, names) if place.suffix else Folder(place, names)
    if form == "table":
        if place is not None:
            raise UsageError("a table is for reading: --out takes csv, jsonl or parquet (--format).")
        return Table(stream, top)
    return Lines(target) if form == "jsonl" else Rows(target, names)


def remaining(given: Iterable[Any], written: Iterator[str], place: Path) -> Iterator[Any]:
    """What of the given items, each called as its str says, is still to be answered. Raises UsageError where what was written is
    not how the list begins.
    """
    stream = iter(given)
    for number, source in enumerate(written, start=1):
        ours = next(stream, None)
        name = None if ours is None else utf8(str(ours)).decode()
        if name != utf8(source).decode():
            was = "the list ends there" if name is None else f"the list has {name}"
            raise UsageError(
                f"{place} was made of another list: its line {number} is {source}, and {was}. "
                "Give the same inputs in the same order, or another --out."
            )
    yield from stream


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def _other(place: Path, why: str) -> UsageError:
    return UsageError(f"{place} cannot be gone on with: {why}. Name another --out, or leave --resume out.")

"""What the cells of a table say that are no name of a class: several names, columns of 0 and 1, numbers.

A label is kept as one text. Several names are a list in JSON; where some of them are not known, an object that
says true, false or null of each; a number is its digits, several are an object by name.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from regraft.data.rows import Labels, plainly
from regraft.errors import DataError
from regraft.recipe.sections import DataRecipe

TRUE, FALSE = frozenset({"1", "true", "yes", "1.0"}), frozenset({"0", "false", "no", "0.0"})
SEPARATORS = ";|"
FEW_NUMBERS = 20  # different numbers up to which a column of them may as well be names of classes
LARGEST = 1e100  # a number whose square is still one
NUMBER = "target"  # what a target is called whose column has no name of its own


@dataclass(frozen=True)
class Wanted:
    """How the answers of a table are to be read: the kind of task, "auto" where the table tells it; columns of
    0 and 1 that are `labels`; columns of numbers that are `targets`. A `known` model's columns are looked for
    only where the table has no column of labels.
    """

    task: str = "auto"
    labels: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    known: bool = False

    @classmethod
    def of(cls, recipe: DataRecipe) -> Wanted:
        """As a recipe asks for it."""
        return cls(recipe.task, tuple(recipe.labels), tuple(recipe.targets))

    @classmethod
    def by(cls, kind: str, names: Sequence[str]) -> Wanted:
        """As a model of that kind of task was fitted, which tells what is called so."""
        several, amounts = (tuple(names) if kind == one else () for one in ("multi", "regression"))
        return cls(kind, several, amounts, known=True)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that hold the answers, where they were named."""
        return self.labels or self.targets


USUAL = Wanted()


@lru_cache(maxsize=1 << 16)
def told(label: str) -> tuple[tuple[str, Any], ...]:
    """What a label says: (name, True, False, None or a number), in the order of the names.

    A text that is no JSON is names between `;` or `|`, none where it is empty.
    """
    if label[:1] in "[{":
        try:
            read = json.loads(label)
        except ValueError:
            read = None
        if isinstance(read, list):
            return tuple((str(name), True) for name in sorted(set(map(str, read))))
        if isinstance(read, dict):
            return tuple(sorted((str(name), value) for name, value in read.items()))
    names = {part.strip() for part in re.split(f"[{SEPARATORS}]", label)} - {""}
    return tuple((name, True) for name in sorted(names))


def names_told(labels: Iterable[str]) -> tuple[str, ...]:
    """The sorted names of all that labels tell of, whether an example has it or not."""
    return tuple(sorted({name for label in set(labels) for name, _ in told(label)}))


def numbers_told(labels: Iterable[str]) -> tuple[str, ...]:
    """The sorted names of the numbers that labels give; `NUMBER` for numbers without a name."""
    return tuple(
        sorted(
            {
                name
                for label in set(labels)
                for name, _ in (told(label) if label[:1] == "{" else ((NUMBER, 0),))
            }
        )
    )


@dataclass(frozen=True)
class Read:
    """A label for each row; what the labels are; and faults by row, counted from 0. In a `sparse` one a label
    may be None: nothing of it is known.
    """

    labels: list[Any]
    are: Labels
    faults: Sequence[tuple[int, str]] = ()
    sparse: bool = False


def several(cells: Sequence[Any]) -> Read:
    """Cells that hold several names each: lists, lists in JSON, or names between `;` or `|`; none where a cell
    is empty.
    """
    labels: list[Any] = []
    faults = []
    for place, cell in enumerate(cells):
        text = "" if cell is None else str(cell).strip()
        names = list(cell) if isinstance(cell, (list, tuple)) else [name for name, _ in told(text)]
        if text[:1] in ("[", "{") and not _is_list(cell, text):
            faults.append((place, f"found {text[:40]!r}, which is no list of names in JSON"))
        elif any(name is None or not str(name).strip() for name in names):
            faults.append((place, "a name in its list is empty"))
        labels.append(json.dumps(sorted({str(name).strip() for name in names}), ensure_ascii=False))
    return Read(labels, "names", faults)


def _is_list(cell: Any, text: str) -> bool:
    """Whether a cell that begins as a list or an object in JSON is a list; a name may begin with a brace."""
    if isinstance(cell, (list, tuple)):
        return True
    try:
        return isinstance(json.loads(text), list)
    except ValueError:
        return text[0] == "{"


def looks_several(cells: Sequence[Any]) -> bool:
    """Whether cells of a column called `labels` hold several names each: one of them has a list, or a mark
    between names.
    """
    return any(
        isinstance(cell, (list, tuple))
        or (isinstance(cell, str) and (cell.lstrip()[:1] == "[" or any(mark in cell for mark in SEPARATORS)))
        for cell in cells
    )


def flags(columns: Mapping[str, Sequence[Any]]) -> Read:
    """Columns of 0 and 1, of which an empty cell says that it is not known."""
    labels: list[Any] = []
    faults: list[tuple[int, str]] = []
    for place, cells in enumerate(zip(*columns.values(), strict=True)):
        said: dict[str, bool | None] = {}
        for name, cell in zip(columns, cells, strict=True):
            text = "" if cell is None else str(cell).strip().casefold()
            if text and text not in TRUE | FALSE:
                faults.append((place, f"{name!r} is 0 or 1, or empty where it is not known; found {cell!r}"))
            said[name] = None if not text else text in TRUE
        labels.append(None if all(value is None for value in said.values()) else _dumped(said))
    return Read(labels, "names", faults, sparse=True)


def numbers(columns: Mapping[str, Sequence[Any]], alone: bool) -> Read:
    """Columns of numbers, of which an empty cell says that it is not known. With `alone` there is one column,
    and its label is the number without a name.
    """
    labels: list[Any] = []
    faults: list[tuple[int, str]] = []
    for place, cells in enumerate(zip(*columns.values(), strict=True)):
        said: dict[str, float | None] = {}
        for name, cell in zip(columns, cells, strict=True):
            try:
                said[name] = number(cell)
            except ValueError as error:
                faults.append((place, f"{name!r} is a number, or empty where it is not known; {error}"))
                said[name] = None
        known = [value for value in said.values() if value is not None]
        labels.append(None if not known else repr(known[0]) if alone else _dumped(said))
    return Read(labels, "number", faults, sparse=True)


def number(cell: Any) -> float | None:
    """The number in a cell, None where it is empty. Raises ValueError for what is none, or is not finite."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    try:
        value = float(cell)
    except (TypeError, ValueError):
        comma = (
            isinstance(cell, str) and cell.count(",") == 1 and cell.replace(",", "").strip("+- ").isdigit()
        )
        raise ValueError(f"found {cell!r}{'; a point stands before decimals' * comma}") from None
    if not math.isfinite(value):
        raise ValueError(f"found {cell!r}, which is not finite")
    if abs(value) > LARGEST:
        raise ValueError(f"found {cell!r}; {LARGEST:g} is the most")
    return value


def all_numbers(cells: Sequence[Any]) -> bool:
    """Whether every cell that is not empty holds a number, and some do."""
    known = [cell for cell in cells if cell is not None and str(cell).strip()]
    if not known or any(isinstance(cell, (bool, list, tuple)) for cell in known):
        return False
    try:
        return all(number(cell) is not None for cell in known)
    except ValueError:
        return False


def of_column(cells: Sequence[Any], column: str, wanted: Wanted, place: str) -> Read | None:
    """What one column of labels says where its cells are no names of classes; None where they are.

    Raises DataError where they may be both.
    """
    plain = plainly(column)
    if any(isinstance(cell, (list, tuple)) for cell in cells) or wanted.task == "multi":
        return several(cells)
    if wanted.task == "auto" and plain == "labels" and looks_several(cells):
        return several(cells)
    if wanted.task == "regression" or (wanted.task == "auto" and plain == "target" and _many_numbers(cells)):
        return numbers({column: cells}, alone=True)
    if wanted.task == "auto":
        _check_open(cells, place, column)
    return None


def of_columns(columns: Mapping[str, Sequence[Any]], wanted: Wanted) -> Read:
    """What the columns that were named for it say."""
    return flags(columns) if wanted.labels else numbers(columns, alone=False)


def _many_numbers(cells: Sequence[Any]) -> bool:
    """Whether a column `target` holds numbers to be told: more different ones than FEW_NUMBERS, or some that
    are not whole.
    """
    if not all_numbers(cells):
        return False
    values = {number(cell) for cell in cells} - {None}
    return len(values) > FEW_NUMBERS or any(not float(value or 0).is_integer() for value in values)


def _check_open(cells: Sequence[Any], place: str, column: str) -> None:
    """Raise DataError where a column of labels holds so many different numbers that they may be classes as
    well as numbers to tell.
    """
    if not all_numbers(cells):
        return
    different = len({str(cell) for cell in cells if cell is not None and str(cell).strip()})
    if different > FEW_NUMBERS:
        raise DataError(
            f"{place} can be read in two ways:",
            [f"its column `{column}` holds {different:,} different numbers"],
            "Where they name classes, say --task single (data.task). Where they are numbers to be told, say "
            "--task regression, or call the column `target`.",
        )


def _dumped(said: Mapping[str, Any]) -> str:
    return json.dumps(dict(sorted(said.items())), ensure_ascii=False)

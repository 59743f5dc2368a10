"""One example as a source names it, what is to be told of a source, and the words that people use for
splits.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

WORDS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "validate", "dev", "devel", "development"),
    "test": ("test", "testing", "tst", "holdout", "heldout"),
}
# What stands before or behind these words and does not change them: train_set, img_test, train_labels
AROUND = (
    "dataset",
    "set",
    "data",
    "images",
    "image",
    "imgs",
    "img",
    "pictures",
    "photos",
    "samples",
    "examples",
    "split",
    "folder",
    "dir",
    "labels",
    "metadata",
    "annotations",
    "list",
    "files",
    "table",
    "csv",
    "df",
)
CERTAIN = {word: split for split, words in WORDS.items() for word in words}
UNCERTAIN = ("eval", "evaluation", "evaluate", "trainval", "traintest")
# Could also be languages: only where all names are of this kind
SHORT = frozenset(("tr", "te", "ts", "va", "vl"))
PARTS = SHORT | {*CERTAIN, *UNCERTAIN}

# What the cells of a table's label column are: a name each, several names each, or a number that is no name
Labels = Literal["name", "names", "number"]


def counted(noun: str, count: int) -> str:
    """ "1 class", "3 classes", "2 numbers"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}{'es' if noun.endswith('s') else 's'}"


@dataclass(frozen=True, slots=True)
class Row:
    """One example as the source names it.

    `source` is relative to the root with forward slashes, or the path as the table has it; `weight` counts
    it so often. `label` is its text; of several names it is a list in JSON.
    """

    source: str
    label: str
    group: str | None = None
    weight: float | None = None
    split: str | None = None


@dataclass(frozen=True)
class Quarantined:
    """An item that was set aside, where it would have gone (None: it had not been split yet), and why."""

    source: str
    split: str | None
    reason: str


@dataclass(frozen=True)
class Note:
    """How a source was read where that is worth knowing; the audit lists it among its findings."""

    kind: str
    severity: Literal["info", "warning"]
    message: str


def plainly(name: str) -> str:
    """A name without case, blanks, hyphens, underscores and dots: `File_Name` is the same as `file name`."""
    return re.sub(r"[\s\-_.]+", "", unicodedata.normalize("NFKC", name)).casefold()


def split_of(name: str) -> str | None:
    """The split that a name certainly means ("train" for `Training Set`, "test" for `img_test`), or None."""
    plain = plainly(name)
    for _ in range(2):
        if plain in CERTAIN:
            return CERTAIN[plain]
        cut = next((plain.removesuffix(word) for word in AROUND if plain.endswith(word)), plain)
        if cut == plain:
            cut = next((plain.removeprefix(word) for word in AROUND if plain.startswith(word)), plain)
        plain = cut
    return CERTAIN.get(plain)


def perhaps_split(name: str) -> bool:
    """True for what could be a split, but of which it is not certain which one: `eval`, `test2`,
    `train2017`, `trainval`.
    """
    if split_of(name):
        return False
    plain = re.sub(r"^\d+|\d+$", "", plainly(name))
    return plain in UNCERTAIN or split_of(plain) is not None


def all_perhaps_splits(names: Iterable[str]) -> bool:
    """True for two names or more that all have the word of a split in them: `my train` and `new-test`, `tr`
    and `te`.
    """
    parts = [set(re.split(r"[\s\-_.\d]+", unicodedata.normalize("NFKC", name).casefold())) for name in names]
    return all(folders & PARTS for folders in parts) and len(set().union(*parts) & PARTS) > 1


def shown(name: str) -> str:
    """A file's name as text that can be written: bytes that are no UTF-8 as escapes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def alike(names: Iterable[str]) -> list[list[str]]:
    """Names that differ only in case, blanks, hyphens or underscores, together; the sorted groups of two
    and more.
    """
    groups: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        groups.setdefault(
            re.sub(r"[\s\-_]+", " ", unicodedata.normalize("NFKC", name)).strip().casefold(), []
        ).append(name)
    return [group for group in groups.values() if len(group) > 1]

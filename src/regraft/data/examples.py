"""Examples: one Arrow table of what is learnt from, with the test part under seal."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from regraft.artifacts import fingerprint, read_parquet, write_parquet
from regraft.data.addresses import Place, as_place, below, is_address, place_of
from regraft.data.blocks import blocks_of
from regraft.data.known import KnownFile
from regraft.data.part import Part
from regraft.data.places import stat_of
from regraft.data.splits import val_apart
from regraft.errors import ChangedError, SealedError, UsageError

SPLITS = ("train", "val", "test")
SEALED = -1  # stands for the strata of test, which are not known
SCHEMA = pa.schema(  # the columns that all modalities share; behind them come those of the facts
    [
        ("id", pa.string()),  # SHA-256 of the content, 32 hex digits
        ("source", pa.string()),  # path relative to the root, as the user knows it
        ("label", pa.string()),  # class by name
        ("group", pa.string()),
        ("weight", pa.float64()),
        ("split", pa.string()),
        ("bytes", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("identity", pa.string()),  # the id, or a hash of what is shown where other bytes may show the same
        (
            "block",
            pa.int64(),
        ),  # examples that belong together, test included: a group, the same identity, near-duplicates
        ("flags", pa.list_(pa.string())),
        (
            "dropped",
            pa.list_(pa.string()),
        ),  # of test: the labels of what was dropped from train or val as identical to it
    ]
)


class Asked(Protocol):
    """What is asked of the model, as far as data have to know it: the part of `regraft.tasks.Task` that
    they use.
    """

    @property
    def kind(self) -> str:
        """The kind of task, by name."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The sorted names of what is told apart."""

    @property
    def noun(self) -> str:
        """What one of these is called: "class", "label", "number"."""

    def encode(self, labels: Sequence[str]) -> np.ndarray:
        """(N, ...) targets of N labels."""

    def strata(self, targets: np.ndarray) -> np.ndarray:
        """(N,) int64: what should be as frequent in every split."""

    def stratum(self, number: int) -> str:
        """What an error calls one of the strata, such as "class 'cat'"."""

    def named(self, label: str) -> tuple[str, ...]:
        """The classes that a label names: one, several or, where answers are no names, none."""

    def lacking(self, labels: Sequence[str]) -> str:
        """Why nothing could be learnt from training examples with these labels; "" where it can."""


@dataclass(frozen=True)
class Named:
    """A plain description of what is asked, where no task is at hand: a label is one of the classes."""

    kind: str
    classes: tuple[str, ...]
    noun: str = "class"

    def encode(self, labels: Sequence[str]) -> np.ndarray:
        """(N,) int64 positions."""
        index = {label: position for position, label in enumerate(self.classes)}
        return np.array([index[label] for label in labels], dtype=np.int64)

    def strata(self, targets: np.ndarray) -> np.ndarray:
        """The classes themselves."""
        return targets

    def stratum(self, number: int) -> str:
        """The class by name."""
        return f"class {self.classes[number]!r}"

    def named(self, label: str) -> tuple[str, ...]:
        """The label itself."""
        return (label,)

    def lacking(self, labels: Sequence[str]) -> str:
        """Two classes are the least that can be told apart."""
        return one_class(self.classes)


def one_class(classes: Sequence[str]) -> str:
    """Why fewer than two classes cannot be told apart; "" for more."""
    return (
        "" if len(classes) > 1 else f"all examples are of one class ({', '.join(classes)}); two are the least"
    )


def clusters(groups: Sequence[str | None]) -> np.ndarray | None:
    """(N,) numbers of the groups named, an example without one in a group of its own; None where there are
    no groups.
    """
    if not any(group is not None for group in groups):
        return None
    keys = [("", str(i)) if group is None else ("group", group) for i, group in enumerate(groups)]
    number = {key: n for n, key in enumerate(dict.fromkeys(keys))}
    return np.array([number[key] for key in keys], dtype=np.int64)


def facts_in(table: pa.Table) -> pa.Table:
    """The columns of a table that are not common to all modalities."""
    return table.select([name for name in table.column_names if name not in SCHEMA.names])


class Examples:
    """The table of one run. `part` reads train and val; test only `unseal`, its inputs `audit_view`: both
    are logged.
    """

    def __init__(self, table: pa.Table, task: Asked, root: Place, modality: str) -> None:
        self.task, self.root, self.modality = task, root, modality
        sealed = pc.equal(table["split"], "test") if table.num_rows else pa.array([], pa.bool_())
        self.table = table.filter(pc.invert(sealed))
        self.__sealed = table.filter(sealed)
        both = pa.concat_tables([self.table, self.__sealed])  # the order of examples.parquet
        columns = [*(both[name].to_pylist() for name in ("id", "source")), self._open_labels()]
        # Train or val: no matter
        self.fingerprint = fingerprint(task.kind, list(task.classes), *columns, self.__sealed.num_rows)

    def counts(self) -> dict[str, int]:
        """How many examples each split has."""
        counts = {name: self.table["split"].to_pylist().count(name) for name in ("train", "val")}
        return {**counts, "test": self.__sealed.num_rows}

    def class_counts(self) -> dict[str, dict[str, int]]:
        """How many examples a class has in train and val; of test nothing is told."""
        labels, splits = self.table["label"].to_pylist(), self.table["split"].to_pylist()
        counts = {split: dict.fromkeys(self.task.classes, 0) for split in ("train", "val")}
        for label, split in zip(labels, splits, strict=True):
            for name in self.task.named(label):
                counts[split][name] += 1
        return counts

    def ids(self) -> frozenset[str]:
        """The content ids of all splits: of test they tell what it holds, not what it is called."""
        return frozenset(self.table["id"].to_pylist() + self.__sealed["id"].to_pylist())

    def part(self, split: str) -> Part:
        """The examples of train or val. Raises SealedError for test, UsageError for anything else."""
        if split == "test":
            raise SealedError("the test set is sealed until everything is decided; step 7 opens it once")
        if split not in SPLITS:
            raise UsageError(f"there is no split {split!r}; these are {', '.join(SPLITS)}.")
        return self._take(self.table.filter(pc.equal(self.table["split"], split)), split)

    def unseal(self, reason: str, log: Callable[..., None]) -> Part:
        """The test examples. `log` is told that, and why, they were read."""
        log("unseal", reason=reason, examples=self.__sealed.num_rows)
        return self._take(self.__sealed, "test")

    def audit_view(self, reason: str, log: Callable[..., None]) -> Part:
        """The inputs of test, for the audit: no labels. `log` is told that, and why, they were looked at."""
        log("audit_view", reason=reason, examples=self.__sealed.num_rows)
        return self._inputs(self.__sealed, "test")

    def twins_of_test(self) -> tuple[list[str], list[list[str]]]:
        """The identity of each test example, and the labels of what was dropped as identical to it."""
        return self.__sealed["identity"].to_pylist(), self.__sealed["dropped"].to_pylist()

    def _open_labels(self) -> list[str]:
        """The labels in the order of examples.parquet, "" for those of test."""
        return [*self.table["label"].to_pylist(), *[""] * self.__sealed.num_rows]

    def inputs(self) -> Part:
        """The inputs of train and then of val."""
        parts = [self.table.filter(pc.equal(self.table["split"], split)) for split in ("train", "val")]
        return self._inputs(pa.concat_tables(parts), "train and val")

    def joined(self, pairs: Sequence[tuple[int, int]]) -> Examples:
        """The same examples with the blocks of each of `pairs` made one.

        The pairs are positions in what `inputs` gives, followed by what `audit_view` gives.
        """
        order = self.order()
        both = pa.concat_tables([self.table, self.__sealed])
        linked = [(int(order[i]), int(order[j])) for i, j in pairs]
        blocks = blocks_of([str(block) for block in both["block"].to_pylist()], pairs=linked)
        return self._with("block", pa.array(blocks, pa.int64()))

    def val_apart(self, seed: int) -> Examples:
        """The same examples, cut so that no block lies in train and in val (`splits.val_apart`); test stays
        as it is.
        """
        both = pa.concat_tables([self.table, self.__sealed])
        ids, splits, blocks = (both[name].to_pylist() for name in ("id", "split", "block"))
        own = self.task.strata(self.task.encode(self.table["label"].to_pylist()))
        strata = np.concatenate([own, np.full(self.__sealed.num_rows, SEALED)])
        return self._with("split", pa.array(val_apart(ids, strata, splits, blocks, seed), pa.string()))

    def order(self) -> np.ndarray:
        """(N,) positions in examples.parquet of train, of val and of test, one after the other."""
        splits = np.array(self.table["split"].to_pylist(), dtype=object)
        sealed = self.table.num_rows + np.arange(self.__sealed.num_rows)
        return np.concatenate([np.flatnonzero(splits == "train"), np.flatnonzero(splits == "val"), sealed])

    def splits(self) -> np.ndarray:
        """(N,) the split of each row of examples.parquet."""
        return np.array(self.table["split"].to_pylist() + ["test"] * self.__sealed.num_rows, dtype=object)

    def _with(self, column: str, values: pa.Array) -> Examples:
        both = pa.concat_tables([self.table, self.__sealed])
        return Examples(
            both.set_column(both.schema.get_field_index(column), column, values),
            self.task,
            self.root,
            self.modality,
        )

    def facts(self) -> pa.Table:
        """The modality's own columns of train and val, in the order of examples.parquet."""
        return facts_in(self.table)

    def _inputs(self, table: pa.Table, name: str) -> Part:
        ids, sources, identities = (tuple(table[c].to_pylist()) for c in ("id", "source", "identity"))
        return Part(
            name, ids, sources, self._files(sources, ids), identities=identities, facts=facts_in(table)
        )

    def _take(self, table: pa.Table, name: str) -> Part:
        ids, sources = (tuple(table[column].to_pylist()) for column in ("id", "source"))
        weights = [1.0 if weight is None else weight for weight in table["weight"].to_pylist()]
        return Part(
            name=name,
            ids=ids,
            sources=sources,
            items=self._files(sources, ids),
            labels=self.task.encode(table["label"].to_pylist()),
            weights=np.array(weights, dtype=np.float64),
            groups=tuple(table["group"].to_pylist()),
            blocks=table["block"].to_numpy().astype(np.int64),
        )

    def _files(self, sources: Iterable[str], ids: Iterable[str]) -> tuple[KnownFile, ...]:
        root = str(self.root)
        return tuple(
            KnownFile(below(root, source), known) for source, known in zip(sources, ids, strict=True)
        )

    def files(self) -> dict[str, KnownFile]:
        """The files of all splits by their sources; nothing tells which are in test."""
        both = pa.concat_tables([self.table, self.__sealed])
        sources = both["source"].to_pylist()
        return dict(zip(sources, self._files(sources, both["id"].to_pylist()), strict=True))

    def save(self, path: Path) -> None:
        """Write examples.parquet: every split, the root and the task in the table's metadata."""
        import json

        table = pa.concat_tables([self.table, self.__sealed])
        about: dict[str, Any] = {
            "root": str(self.root),
            "modality": self.modality,
            "kind": self.task.kind,
            "classes": list(self.task.classes),
        }
        write_parquet(path, table.replace_schema_metadata({"regraft": json.dumps(about)}))

    @classmethod
    def load(cls, path: Path, asked: Callable[[str, tuple[str, ...]], Asked] = Named) -> Examples:
        """Read examples.parquet back; `asked` makes the task of its kind and classes, by which labels are
        encoded.

        Raises UsageError for a table that an earlier regraft wrote.
        """
        import json

        table = read_parquet(path)
        if missing := [name for name in SCHEMA.names if name not in table.column_names]:
            raise UsageError(
                f"{path} was written by an earlier regraft (no column {missing[0]!r}): "
                "read it with that one, or fit anew."
            )
        about = json.loads((table.schema.metadata or {})[b"regraft"])
        task = asked(about["kind"], tuple(about["classes"]))
        return cls(table.replace_schema_metadata(None), task, as_place(about["root"]), about["modality"])

    def changed(
        self, splits: Sequence[str] = SPLITS, tick: Callable[..., None] = lambda **_: None
    ) -> list[str]:
        """Sources of these splits that are gone or have another content than when the run began.

        A file of the size and the time of change that it had counts as unchanged; of any other the content
        is hashed.
        """
        table = pa.concat_tables([self.table, self.__sealed])
        columns = (table[name].to_pylist() for name in ("source", "id", "split", "bytes", "mtime_ns"))
        rows = [row for row in zip(*columns, strict=True) if row[2] in splits]
        files = self._files((row[0] for row in rows), (row[1] for row in rows))

        def changed(number: int) -> bool:
            _, _, _, size, mtime = rows[number]
            try:
                about = stat_of(files[number])
                if (about.size, about.mtime_ns) != (size, mtime):
                    files[number].read()
            except (OSError, ChangedError):
                return True
            return False

        sources = []
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            for number, wrong in enumerate(pool.map(changed, range(len(rows)))):
                if wrong:
                    sources.append(rows[number][0])
                tick(label="looking whether files changed", done=number + 1, total=len(rows))
        return sources

    def moved_to(self, data: str | Path) -> Examples:
        """The same examples below another folder or address (or that of another table), where their files are
        now.

        Sources that a table gave as absolute paths below the old root become relative to the new one.
        Raises UsageError where there is no such place.
        """
        place = place_of(data)
        if not place.exists():
            raise UsageError(
                f"{place} does not exist. Name the folder, or the table, that the data are in now."
            )
        place = place.resolve() if isinstance(place, Path) else place
        root = place if place.is_dir() else place.parent
        if root == self.root:
            return self
        table = pa.concat_tables([self.table, self.__sealed])
        old = str(self.root) + ("/" if is_address(str(self.root)) else os.sep)
        sources = [
            source.removeprefix(old).replace(os.sep, "/") if source.startswith(old) else source
            for source in table["source"].to_pylist()
        ]
        table = table.set_column(
            table.schema.get_field_index("source"), "source", pa.array(sources, pa.string())
        )
        return Examples(table, self.task, root, self.modality)

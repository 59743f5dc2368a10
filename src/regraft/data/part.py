"""Some examples in a fixed order: the one container of rows, from the table of a run to the features of a
network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa

from regraft.evaluation import all_alone


def _none() -> np.ndarray:
    return np.zeros(0)


@dataclass(frozen=True)
class Part:
    """N examples, column by column. A column that is not known has no rows, or is None.

    `ids` are hashes of the content, `items` what the preprocessing reads (files that raise ChangedError
    where they are not what they were), `labels` (N,) int64 positions in the task's classes and `weights`
    (N,) how much each counts. Rows of one number in `blocks` (N,) are no independent evidence of each
    other: a group's, copies, near-duplicates; None says that each row is alone. `identities` tell what
    shows the same, `facts` are the modality's own columns, `values` (N, D) float32 the frozen features. Of
    sealed examples labels, weights, groups and blocks are not known.
    """

    name: str = ""
    ids: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    items: tuple[Any, ...] = ()
    labels: np.ndarray = field(default_factory=_none)
    weights: np.ndarray = field(default_factory=_none)
    groups: tuple[str | None, ...] = ()
    blocks: np.ndarray | None = None
    identities: tuple[str, ...] = ()
    facts: pa.Table = field(default_factory=lambda: pa.table({}))
    values: np.ndarray = field(default_factory=_none)

    def __len__(self) -> int:
        return max(len(self.ids), len(self.labels), len(self.values))

    def then(self, other: Part) -> Part:
        """These, followed by the others; of columns that both know."""
        if not len(other) or not len(self):
            return self if len(self) else other
        known = {name: _joined(mine, getattr(other, name)) for name, mine in self._columns().items()}
        return Part(name=f"{self.name} and {other.name}", **known)

    def some(self, rows: Sequence[int] | np.ndarray) -> Part:
        """The examples at some positions, copied."""
        at = np.asarray(rows, dtype=np.int64)
        return replace(self, **{name: _taken(column, at) for name, column in self._columns().items()})

    def cut(self, start: int, end: int | None = None) -> Part:
        """The examples from one position up to another, arrays as views."""
        columns = {}
        for name, column in self._columns().items():
            table = isinstance(column, pa.Table)
            columns[name] = (
                column.slice(start, None if end is None else end - start) if table else column[start:end]
            )
        return replace(self, **columns)

    def every(self, step: int) -> Part:
        """Every `step`-th example, the first included."""
        return self.some(range(0, len(self), step))

    def blocks_at(self, rows: np.ndarray) -> np.ndarray | None:
        """The numbers of the blocks of some rows; None where each is alone."""
        return None if self.blocks is None else self.blocks[rows]

    def clusters(self) -> np.ndarray | None:
        """(N,) numbers of the blocks; None where the user named no groups and every example is alone in its
        block.
        """
        named = any(group is not None for group in self.groups)
        return self.blocks if named or not all_alone(self.blocks) else None

    def _columns(self) -> dict[str, Any]:
        """The columns that are known, by name."""
        columns = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "name"}
        return {name: column for name, column in columns.items() if column is not None and len(column)}


def _taken(column: Any, rows: np.ndarray) -> Any:
    if isinstance(column, tuple):
        return tuple(column[row] for row in rows)
    return column.take(pa.array(rows)) if isinstance(column, pa.Table) else column[rows]


def _joined(mine: Any, others: Any) -> Any:
    """Both columns in one; without rows where the others' is not known."""
    if others is None or not len(others):
        return mine.slice(0, 0) if isinstance(mine, pa.Table) else mine[:0]
    if isinstance(mine, tuple):
        return mine + others
    return pa.concat_tables([mine, others]) if isinstance(mine, pa.Table) else np.concatenate([mine, others])

"""What `data` asks of a modality: how items are named, what is known of one, and when two show the same."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from regraft.data.audit.contents import Files
    from regraft.data.audit.findings import Finding


class Facts(Protocol):
    """What inspecting one item tells.

    `identity` is a hash of what the item shows, whatever bytes it is stored in; "" where it is only told by
    `Kind.digest`, because it costs more than the inspection.
    """

    @property
    def identity(self) -> str: ...


@dataclass(frozen=True)
class Likeness:
    """How near-duplicates of one modality are found: candidates by vectors of the facts, confirmed on the
    items.

    `vectors(facts)` gives (N, V, D) float32 of length 1, or of zeros where nothing is known: each item as
    it is, and in the other V - 1 guises in which it may come back (an image mirrored). `tellable(facts)`
    gives (N,) truths, False for items so small that being alike proves nothing. `keys(facts)` gives N
    values that are equal where two items show exactly the same (sizes, lengths). `read(item)` gives an
    array of one shape for all items, None where the item cannot be read any more; `confirm(first, second)`
    gives the (P,) similarity of (P, ...) pairs of these, 0 where they do not show the same.

    The rest are least cosines of vectors: for a candidate where no features are known (`alone`) or besides
    features (`beside`), for items that may show exactly the same (`same`), and for items that surely do
    where the items themselves cannot be compared (`surely`).
    """

    vectors: Callable[[pa.Table], np.ndarray]
    tellable: Callable[[pa.Table], np.ndarray]
    keys: Callable[[pa.Table], Sequence[Hashable]]
    read: Callable[[Any], np.ndarray | None]
    confirm: Callable[[np.ndarray, np.ndarray], np.ndarray]
    alone: float
    beside: float
    same: float
    surely: float


class Kind(Protocol):
    """The part of a modality that `data` uses; `regraft.modalities.Modality` is the whole.

    `noun` is what one item is called ("image"); `endings` are those of its files, in lower case with the
    dot; `columns` are names of table columns that name an item, in lower case without blanks and
    underscores, `cells` those of columns whose cells are the items themselves; `facts` are its own columns
    of examples.parquet; `checks` are run on the files once they are split.
    """

    name: str
    noun: str
    endings: frozenset[str]
    columns: tuple[str, ...]
    cells: tuple[str, ...]
    facts: pa.Schema
    checks: tuple[Callable[[Files], Iterator[Finding]], ...]

    def inspect(self, item: Any) -> Any:
        """The Facts of one item, read wholly. Raises Unreadable."""

    def digest(self, item: Any) -> str:
        """The identity of one item, 32 hexadecimal digits. Raises Unreadable."""

    def together(self, ids: Sequence[str], facts: Sequence[Any]) -> tuple[list[Any], list[int]]:
        """The facts of N items once all of a source are known (on one scale, say), and the positions of
        those whose identity has to be told by `digest`, because another item of other content may show the
        same.
        """

    def table(self, facts: Sequence[Any]) -> pa.Table:
        """N facts as N rows of the schema `facts`."""

    def likeness(self, facts: pa.Table) -> Likeness | None:
        """How near-duplicates are found in a set whose train and val have these facts; None: they are not."""

"""Which examples belong together, so that no split and no fold may part them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import scipy


def blocks_of(*keys: Sequence[Hashable], pairs: Iterable[tuple[int, int]] = ()) -> np.ndarray:
    """(N,) int64 numbers of the blocks of N examples, numbered from 0 in the order in which blocks first
    occur.

    Two examples are in one block where a column of `keys` gives both the same value (None is no value),
    where one of the `pairs` of positions names them, or where others link them.
    """
    count = len(keys[0])
    rows, nodes, made = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)], count
    for column in keys:
        known = np.array([row for row, value in enumerate(column) if value is not None], dtype=np.int64)
        number: dict[Hashable, int] = {}
        own = [number.setdefault(value, len(number)) for value in column if value is not None]
        rows.append(known)
        nodes.append(np.array(own, dtype=np.int64) + made)
        made += len(number)
    linked = np.array(list(pairs), dtype=np.int64).reshape(-1, 2)
    first, second = np.concatenate([*rows, linked[:, 0]]), np.concatenate([*nodes, linked[:, 1]])
    graph = scipy.sparse.coo_matrix((np.ones(len(first), dtype=np.int8), (first, second)), shape=(made, made))
    return renumbered(scipy.sparse.csgraph.connected_components(graph, directed=False)[1][:count])


def renumbered(blocks: np.ndarray) -> np.ndarray:
    """(N,) the same blocks, numbered from 0 in the order in which they first occur."""
    _, first, inverse = np.unique(blocks, return_index=True, return_inverse=True)
    place = np.empty(len(first), dtype=np.int64)
    place[np.argsort(first)] = np.arange(len(first))
    return np.asarray(place[inverse.reshape(-1)], dtype=np.int64)

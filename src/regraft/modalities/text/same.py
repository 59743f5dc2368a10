"""Which texts are nearly the same: candidates by hashes of all their pieces, confirmed by shared pieces."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from regraft.data.kind import Likeness
from regraft.errors import ChangedError, Unreadable
from regraft.modalities.text.reading import plain, read_text

PIECE = 5  # bytes of a piece
LONGEST = 20_000  # bytes of a text that are compared
BITS = 64  # of a SimHash (Charikar 2002)
DRAWS = 256  # of a MinHash (Broder 1997): its standard error is 0.025 at a similarity of 0.8
ALIKE = 0.8  # share of all their pieces that two near-duplicates have in common
AT_ONCE = 64  # pieces that are drawn of at once: what fits a cache
SHORT = 24  # characters below which being alike proves nothing
ALONE, BESIDE = 14, 12  # bits that may differ between near-duplicates: without features, or beside features
DRAW = np.random.default_rng(20).integers(1, 2**63, (2, DRAWS), dtype=np.uint64) | np.uint64(1)
MIX = np.uint64(0x9E3779B97F4A7C15)


def pieces(text: str) -> np.ndarray:
    """(M,) uint64 hashes of the overlapping pieces of a normalised text, one at least."""
    content = np.frombuffer(text.encode("utf-8", "replace")[:LONGEST], dtype=np.uint8)
    if len(content) < PIECE:
        content = np.pad(content, (0, PIECE - len(content)))
    content = content.astype(np.uint64)
    values = np.zeros(len(content) - PIECE + 1, dtype=np.uint64)
    for place in range(PIECE):
        values = (values << np.uint64(8)) | content[place : place + len(values)]
    values *= MIX
    values ^= values >> np.uint64(29)
    return values * MIX


def simhash(text: str) -> str:
    """16 hexadecimal digits: of each bit whether most pieces of a normalised text have it."""
    found = np.unique(pieces(text))
    bits = np.unpackbits(found.view(np.uint8).reshape(-1, 8), axis=1)
    return np.packbits(2 * bits.sum(axis=0, dtype=np.int64) > len(found)).tobytes().hex()


def likeness(facts: pa.Table) -> Likeness:
    """How near-duplicates are found among texts with these facts."""
    alone, beside = (1 - 2 * count / BITS for count in (ALONE, BESIDE))
    return Likeness(vectors, tellable, hashes, minhash, similarity, alone, beside, 0.99, 0.99)


def vectors(facts: pa.Table) -> np.ndarray:
    """(N, 1, 64) SimHashes of length 1."""
    content = bytes.fromhex("".join(facts["simhash"].to_pylist()))
    bits = np.unpackbits(np.frombuffer(content, dtype=np.uint8).reshape(-1, 8), axis=1)
    return (2 * bits.astype(np.float32) - 1)[:, None] / np.float32(np.sqrt(BITS))


def tellable(facts: pa.Table) -> np.ndarray:
    """(N,) whether a text is long enough for its pieces to tell anything."""
    return np.asarray(facts["characters"].to_numpy() >= SHORT)


def hashes(facts: pa.Table) -> Sequence[Hashable]:
    """The SimHashes: equal where two texts are the same once they are normalised."""
    return list(facts["simhash"].to_pylist())


def minhash(item: Any) -> np.ndarray | None:
    """(DRAWS + 1,) uint64: the least of all pieces by each draw, and the length; None for one that cannot be
    read.
    """
    try:
        text = plain(read_text(item).text)
    except (Unreadable, ChangedError):
        return None
    found, least = np.unique(pieces(text)), np.full(DRAWS, np.iinfo(np.uint64).max)
    for start in range(0, len(found), AT_ONCE):
        drawn = found[start : start + AT_ONCE, None] * DRAW[0] + DRAW[1]
        np.minimum(least, drawn.min(axis=0), out=least)
    return np.append(least, np.uint64(len(text)))


def similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(P,) shares of the pieces of (P, DRAWS + 1) pairs that both have; 0 below ALIKE, or for short ones."""
    shared = (first[:, :-1] == second[:, :-1]).mean(axis=1)
    long = np.minimum(first[:, -1], second[:, -1]) >= SHORT
    return np.where((shared >= ALIKE) & long, shared, 0.0)

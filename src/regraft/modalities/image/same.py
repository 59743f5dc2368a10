"""Which images may show the same pixels, or nearly the same: by size, small pictures and difference hashes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from regraft.data.kind import Likeness
from regraft.modalities.image.align import similarity
from regraft.modalities.image.inspect import small_image_or_none
from regraft.modalities.image.levels import levels_in, levels_of
from regraft.modalities.image.looks import Look, bits, colours

CLOSE = 2.0  # grey levels that the mean of the same pixels may differ by, decoded small or whole
ROUGHER = 4.0  # times more for their spread
SHARP = 16  # pixels of the shorter side below which pictures are too coarse to be called near-duplicates
BITS = 64  # of a difference hash
ALONE, BESIDE = 14, 10  # of them may differ between near-duplicates: without features, or beside features
# And between the same pixels, decoded small from one format or another; and in one format
SAME, SURELY = (6, 1)


def likeness(facts: pa.Table) -> Likeness:
    """How near-duplicates are found among images whose train and val have these facts."""
    alone, beside, same, surely = (1 - 2 * count / BITS for count in (ALONE, BESIDE, SAME, SURELY))
    read = partial(small_image_or_none, levels=levels_in(facts))
    return Likeness(vectors, tellable, sizes, read, similarity, alone, beside, same, surely)


def vectors(facts: pa.Table) -> np.ndarray:
    """(N, 2, 64) difference hashes of the images and of their mirror images, of length 1; zeros without
    one.
    """
    hashes = facts["dhash"].to_pylist()
    if all(hashes):
        return np.asarray(bits(hashes) / 8)
    found = np.zeros((len(hashes), 2, BITS), dtype=np.float32)
    known = [row for row, text in enumerate(hashes) if text]
    found[known] = bits(hashes[row] for row in known) / 8
    return found


def tellable(facts: pa.Table) -> np.ndarray:
    """(N,) whether looks tell anything: not below SHARP pixels, nor without a hash."""
    width, height = (np.array([value or 0 for value in facts[n].to_pylist()]) for n in ("width", "height"))
    known = np.array([bool(text) for text in facts["dhash"].to_pylist()], dtype=bool)
    return np.asarray((np.minimum(width, height) >= SHARP) & known)


def sizes(facts: pa.Table) -> Sequence[Hashable]:
    """(width, height) of each image."""
    return list(zip(facts["width"].to_pylist(), facts["height"].to_pylist(), strict=True))


def levelled(looks: Sequence[Look]) -> list[Look]:
    """The looks with those of deep pictures on one scale: that of all of them, since no model sees these."""
    levels = levels_of(look.deep for look in looks if look.deep is not None)
    return [look.levelled(levels) for look in looks]


def perhaps_same(ids: Sequence[str], looks: Sequence[Look]) -> list[int]:
    """Positions of files that may show the same pixels as one of other bytes.

    Whole pictures are hashed for these only: decoding a large photograph small takes a fraction of the
    time. Within a format the same pixels look exactly alike; between formats, nearly so, as one may be
    decoded small and the other not.
    """
    by_size: dict[tuple[int, int], dict[str, Look]] = defaultdict(dict)
    for identity, look in zip(ids, looks, strict=True):
        by_size[look.width, look.height][identity] = look
    found: set[str] = set()
    for some in by_size.values():
        if len(some) < 2:
            continue
        same = Counter(look.small for look in some.values())
        found |= {name for name, look in some.items() if same[look.small] > 1}
        formats = np.array([look.format for look in some.values()])
        if len(set(formats)) > 1:
            mean, spread, _ = colours(some.values())
            found |= set(np.array(list(some))[like_another(formats, np.hstack([mean, spread / ROUGHER]))])
    return [i for i, identity in enumerate(ids) if identity in found]


def like_another(formats: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """(N,) truths: whether no column of (N, D) numbers differs by more than CLOSE from some row of another
    format.

    Each asks for the nearest row only, so the cost does not grow with the number of pairs, which in a
    uniform set is quadratic.
    """
    from scipy.spatial import cKDTree

    found = np.zeros(len(seen), dtype=bool)
    for one in np.unique(formats):
        own = formats == one
        # Equal rows would lie in one leaf, which is looked through whole
        others = cKDTree(np.unique(seen[~own], axis=0))
        far, _ = others.query(seen[own], p=np.inf, distance_upper_bound=np.nextafter(CLOSE, np.inf))
        found[own] = far <= CLOSE
    return found

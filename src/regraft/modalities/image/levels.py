"""Which values of pictures with more than 8 bits become black and white: one rule for a whole set, kept
with the model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Kind = Literal["whole", "real"]
USUAL = 0.99  # quantile of the pictures' own maxima: a stray bright pixel in one of a hundred does not darken the others
OVER = 1.1  # times a full scale that resampling overshoots it
SCALES = (1.0, 255.0, 1023.0, 4095.0, 16383.0, 65535.0)  # full scales of floats


@dataclass(frozen=True)
class Levels:
    """(black, white) of pictures of `whole` numbers beyond 8 bits, and of `real` ones (floats); what lies
    outside is cut off.
    """

    whole: tuple[float, float] = (0.0, 65535.0)
    real: tuple[float, float] = (0.0, 1.0)

    def scaled(self, values: np.ndarray, kind: Kind) -> np.ndarray:
        """uint8 of the same shape: from black at 0 to white at 255. What is no number is black."""
        black, white = self.whole if kind == "whole" else self.real
        shares = (np.asarray(values, dtype=np.float64) - black) * (255.0 / (white - black))
        return np.clip(np.rint(np.nan_to_num(shares, nan=0.0, posinf=255.0, neginf=0.0)), 0, 255).astype(
            np.uint8
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Levels:
        """The reverse of dataclasses.asdict, after JSON."""
        return cls(tuple(values["whole"]), tuple(values["real"]))


@dataclass(frozen=True)
class Deep:
    """What is known of a picture with more than 8 bits: its kind and its smallest and largest finite value."""

    kind: Kind
    low: float
    top: float
    small: bytes = b""  # (SIDE, SIDE) float32: means of the values


def levels_of(pictures: Iterable[Deep]) -> Levels:
    """The levels of a set: full scales of whole bits, or what the set itself reaches.

    Whole numbers: white is the smallest 2^b - 1, from 8 bits up, that no more than one picture in a hundred
    exceeds. Floats: a usual full scale (1, 255, ...) where the set fills more than half of it, else the
    set's own maximum. Black is 0, or the set's own minimum where that is negative. A kind that the set does
    not have keeps its default.
    """
    found: dict[str, list[Deep]] = {"whole": [], "real": []}
    for picture in pictures:
        found[picture.kind].append(picture)
    chosen: dict[str, tuple[float, float]] = {}
    for kind, some in found.items():
        if not some:
            continue
        top = float(np.quantile([picture.top for picture in some], USUAL, method="higher"))
        low = float(np.quantile([picture.low for picture in some], 1 - USUAL, method="lower"))
        white = _bits(top) if kind == "whole" else _scale(top)
        black = low if low < 0 else 0.0
        if white > black:
            chosen[kind] = (black, white)
    return Levels(**chosen)


def levels_in(facts: pa.Table) -> Levels:
    """The levels of a set with these facts, those of train and val."""
    deep = facts.filter(pc.is_valid(facts["deep"]))
    columns = (deep[name].to_pylist() for name in ("deep", "low", "top"))
    return levels_of(Deep(kind, low, top) for kind, low, top in zip(*columns, strict=True))


def _bits(top: float) -> float:
    return float(2 ** max(8, int(np.ceil(np.log2(max(top, 1.0) + 1)))) - 1)


def _scale(top: float) -> float:
    return next((scale for scale in SCALES if scale / 2 < top <= OVER * scale), top if top > 0 else 1.0)

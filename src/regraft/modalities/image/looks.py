"""A small picture of each file, from its one decoding: colours and a difference hash."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from regraft.modalities.image.levels import Deep, Levels

SIDE = 16  # pixels of the small picture
CHUNK = 4_096  # pictures looked at at once
PLAIN = 4  # grey levels between the darkest and the brightest pixel of a picture that shows nothing
CLEARLY = 0.5  # grey levels: in a plain area neither side is the brighter one, nor in its mirror image
GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True)
class Look:
    """What one decoding tells of a file.

    Width and height are those of the upright image, `format` and `mode` as stored; `plain`: it is of one
    colour; `small`: the bytes of (SIDE, SIDE, 3) RGB pixels of the whole. `deep` is known of pictures with
    more than 8 bits only.
    """

    width: int
    height: int
    format: str
    mode: str
    plain: bool
    small: bytes
    deep: Deep | None = None
    identity: str = ""  # told by `pixel_digest` only: a photograph decoded whole takes many times longer

    def levelled(self, levels: Levels) -> Look:
        """The same with deep values scaled by levels of the whole set."""
        if self.deep is None:
            return self
        grey = levels.scaled(np.frombuffer(self.deep.small, dtype=np.float32), self.deep.kind)
        low, top = levels.scaled(np.array([self.deep.low, self.deep.top]), self.deep.kind).astype(int)
        return replace(self, plain=bool(top - low <= PLAIN), small=grey.repeat(3).tobytes())


def pictures(looks: Iterable[Look]) -> np.ndarray:
    """(N, SIDE, SIDE, 3) uint8."""
    return np.frombuffer(b"".join(look.small for look in looks), dtype=np.uint8).reshape(-1, SIDE, SIDE, 3)


def colours(looks: Iterable[Look]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, 3) each: mean, standard deviation, and mean of the outermost ring; red, green, blue from 0 to
    255.
    """
    edge = np.ones((SIDE, SIDE), dtype=bool)
    edge[1:-1, 1:-1] = False
    found = [
        (small.mean(axis=(1, 2)), small.std(axis=(1, 2)), small[:, edge].mean(axis=1))
        for small in map(pictures, _several(looks))
    ]
    mean, spread, ring = (
        (np.concatenate(part) for part in zip(*found, strict=True)) if found else (np.zeros((0, 3)),) * 3
    )
    return mean, spread, ring


def dhashes(looks: Iterable[Look]) -> list[str]:
    """32 hex digits each: the difference hash of the image and that of its mirror image.

    A hash has a bit for each of 8 x 8 places, set where it is clearly brighter to the right.
    """
    found = []
    for some in _several(looks):
        # (n, 8, 9)
        grid = np.einsum("ij,njk,lk->nil", _averages(8), pictures(some) @ GREY, _averages(9), optimize=True)
        bits = np.concatenate(
            [one[:, :, 1:] > one[:, :, :-1] + CLEARLY for one in (grid, grid[:, :, ::-1])], axis=1
        )
        found += [row.tobytes().hex() for row in np.packbits(bits.reshape(len(bits), -1), axis=1)]
    return found


def _several(looks: Iterable[Look]) -> Iterator[list[Look]]:
    """The looks, a bounded number at a time."""
    stream = iter(looks)
    while some := list(islice(stream, CHUNK)):
        yield some


def bits(hashes: Iterable[str]) -> np.ndarray:
    """(N, 2, 64) float32 of -1 and 1: of the images and of their mirror images."""
    raw = np.array([list(bytes.fromhex(text)) for text in hashes], dtype=np.uint8).reshape(-1, 16)
    return np.unpackbits(raw, axis=1).reshape(-1, 2, 64).astype(np.float32) * 2 - 1


def _averages(count: int) -> np.ndarray:
    """(count, SIDE): each row averages its share of a line of SIDE pixels."""
    edges, start = np.linspace(0, SIDE, count + 1), np.arange(SIDE)
    share = np.clip(np.minimum(start + 1, edges[1:, None]) - np.maximum(start, edges[:-1, None]), 0, None)
    return np.asarray(share / share.sum(axis=1, keepdims=True), dtype=np.float32)

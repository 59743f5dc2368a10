"""Places of a text, hidden one after another: what shows which words an answer rests on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from regraft.modalities.text.preprocess import PADDING

PLACES = 48  # hidden one after another, at most: of a longer text each is several tokens


def hide(raw: NDArray[np.int32]) -> NDArray[np.int32] | None:
    """(P, L): copies of the tokens of a text, each with another place hidden from the network; None for a
    text with one place only. The tokens at both ends, which stand for no word, stay.
    """
    edges = places(len(raw) - 1)
    if len(edges) < 3:
        return None
    copies = np.tile(raw, (len(edges) - 1, 1))
    for copy, start, end in zip(copies, edges[:-1], edges[1:], strict=True):
        copy[start:end] = PADDING
    return copies


def places(tokens: int) -> NDArray[np.int64]:
    """(P + 1,) edges of the places among so many tokens."""
    inner = max(0, tokens - 2)
    return 1 + np.round(np.linspace(0, inner, min(PLACES, inner) + 1)).astype(np.int64)

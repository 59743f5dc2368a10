"""Texts in a report: cut, without what a page cannot show; and drawings of the words that mattered."""

from __future__ import annotations

import base64
import html
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from regraft.errors import ChangedError, Unreadable
from regraft.modalities import Shown
from regraft.modalities.text.hide import places
from regraft.modalities.text.preprocess import TextPreprocess
from regraft.modalities.text.reading import read_text

SHOWN = 280  # characters of a text in a gallery
DRAWN = 300  # and in a drawing
LINE = 28  # characters of a line of it
ACROSS, DOWN, SIDE = 7.25, 20, 8  # pixels of a character, of a line, and of the margin
WARM = "232,89,12"  # what a word that counts is tinted with
RIGHT_TO_LEFT = frozenset(("R", "AL"))


def show(items: Sequence[Any], facts: pa.Table) -> list[Shown | None]:
    """The beginning of each text; None for one that cannot be read or is another one by now."""

    def beginning(item: Any) -> Shown | None:
        try:
            return Shown("text", shortened(read_text(item).text, SHOWN))
        except (Unreadable, ChangedError):
            return None

    return [beginning(item) for item in items]


def shortened(text: str, most: int) -> str:
    """The first characters of a text on one line, without those that steer a page or the direction of
    writing; with dots where there is more.
    """
    some = " ".join(text[: 4 * most].split())
    some = "".join(letter for letter in some if unicodedata.category(letter)[0] != "C")
    return some[: most - 1].rstrip() + "…" if len(some) > most or len(text) > 4 * most else some


def overlay(preprocess: TextPreprocess, item: Any, heat: NDArray[np.float64]) -> tuple[str, str]:
    """A text, and the same with (P,) heat on its words: drawings as data URIs. Raises Unreadable."""
    text = preprocess.prefix + read_text(item).text
    ids, offsets = preprocess.laid(text[len(preprocess.prefix) :])
    edges, warmth = places(len(ids)), np.zeros(len(text))
    for value, start, end in zip(heat, edges[:-1], edges[1:], strict=True):
        for first, last in offsets[start:end]:
            warmth[first:last] = np.maximum(warmth[first:last], value)
    words = _words(text[len(preprocess.prefix) :], warmth[len(preprocess.prefix) :])
    return _drawn([(word, 0.0) for word, _ in words]), _drawn(words)


def sheet(batch: dict[str, np.ndarray]) -> bytes:
    """No picture: a batch of tokens is numbers."""
    return b""


def _words(text: str, warmth: NDArray[np.float64]) -> list[tuple[str, float]]:
    """Each word of the beginning of a text with its greatest heat."""
    words: list[tuple[str, float]] = []
    place = used = 0
    for word in text.split():
        place = text.index(word, place)
        shown = shortened(word, LINE)
        if shown:
            words.append((shown, float(warmth[place : place + len(word)].max())))
        place, used = place + len(word), used + len(shown) + 1
        if used > DRAWN:
            return [*words, ("…", 0.0)]
    return words


def _drawn(words: Sequence[tuple[str, float]]) -> str:
    """An SVG with the words in lines of equal letters, tinted by their heat."""
    leftwards = sum(unicodedata.bidirectional(word[0]) in RIGHT_TO_LEFT for word, _ in words) * 2 > len(words)
    width, parts, column, line = SIDE * 2 + LINE * ACROSS, [], 0, 0
    for word, value in words:
        wide = sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in word)
        if column and column + wide > LINE:
            column, line = 0, line + 1
        left = SIDE + column * ACROSS
        if leftwards:
            left = width - left - wide * ACROSS
        top = SIDE + line * DOWN
        if value > 0:
            tint = f"rgba({WARM},{0.75 * min(1.0, value):.2f})"
            box = f'x="{left - 2:.1f}" y="{top}" width="{wide * ACROSS + 4:.1f}" height="{DOWN - 2}"'
            parts.append(f'<rect {box} rx="3" fill="{tint}"/>')
        place = f'x="{left:.1f}" y="{top + 13}" textLength="{wide * ACROSS:.1f}"'
        parts.append(f'<text {place} lengthAdjust="spacingAndGlyphs">{html.escape(word)}</text>')
        column += wide + 1
    high = 2 * SIDE + (line + 1) * DOWN
    size = f'width="{width:.0f}" height="{high}" viewBox="0 0 {width:.0f} {high}"'
    letters = 'font-family="ui-monospace,monospace" font-size="12" fill="#1b1b1b"'
    drawing = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}><rect width="100%" height="100%" fill="#fff"/>'
        f"<g {letters}>{''.join(parts)}</g></svg>"
    )
    return "data:image/svg+xml;base64," + base64.b64encode(drawing.encode()).decode()

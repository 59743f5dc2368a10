"""Texts as they come: a str, a file, bytes; decoded, and as they are compared."""

from __future__ import annotations

import codecs
import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from regraft.data.addresses import is_address
from regraft.data.known import content
from regraft.errors import Unreadable

ENDINGS = frozenset({".txt"})
LARGEST = 64 << 20  # bytes of a file that is taken for one text
NULS = 0.01  # share of NUL characters above which a file is no text
A_WORD, A_CHARACTER = 1.35, 0.25  # tokens that a word, or a character, makes in the usual vocabularies
MARKS = (  # the longer ones first: UTF-32's begins as UTF-16's does
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
class Read:
    """A text, and the encoding that it was stored in."""

    text: str
    encoding: str


def read_text(item: Any) -> Read:
    """The text of a str, which is the text itself unless it is the name of a .txt file; of a path; or of
    bytes. Surrogates without a partner become question marks, and NULs blanks. Raises Unreadable, for an
    empty one too.
    """
    if isinstance(item, str) and not _is_file(item):
        read = Read(item, "utf-8")
    else:
        read = _decoded(_content(item))
    text = read.text.encode("utf-8", "replace").decode("utf-8").replace("\0", " ")
    if not text.strip():
        raise Unreadable("it is empty")
    return Read(text, read.encoding)


def characters_of(content: bytes) -> int:
    """How long the text of a file with this content is. Raises Unreadable."""
    return len(read_text(content).text)


def plain(text: str) -> str:
    """A text as it is compared with others: one Unicode form (NFKC), no case, one blank between words."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def text_of_name(name: str) -> bytes:
    """The name of a class as a text: a blank for whatever stands between its words."""
    return (re.sub(r"[\W_]+", " ", name).strip() or name).encode("utf-8", "replace")


def words_of(text: str) -> list[str]:
    """The words of a text, numbers among them."""
    return re.findall(r"\w+", text)


def estimated(words: Sequence[int], characters: Sequence[int]) -> np.ndarray:
    """(N,) about how many tokens texts of so many words and characters have, those at both ends included."""
    most = np.maximum(A_WORD * np.asarray(words, float), A_CHARACTER * np.asarray(characters, float))
    return np.asarray(np.ceil(most) + 2)


def _is_file(text: str) -> bool:
    """True for the name of a .txt file that is there, and for one word that can only be such a name. An address
    in a text is part of it: what strangers wrote is never fetched.
    """
    if is_address(text):
        return False
    if len(text) > 4_096 or os.path.splitext(text)[1].lower() not in ENDINGS or not text.isprintable():
        return False
    return " " not in text or os.path.isfile(text)


def _content(item: Any) -> bytes:
    if not isinstance(item, (str, os.PathLike, bytes, bytearray, memoryview)):
        raise Unreadable(f"it is no text but {type(item).__name__}")
    try:
        return content(item, LARGEST)
    except Unreadable as error:
        said = str(error)
    if said.startswith("empty"):
        return b""
    raise Unreadable(f"{said}: cut it into several texts" if "too large" in said else said)


def _decoded(content: bytes) -> Read:
    """By a byte order mark, as UTF-8, or else as what Windows writes in the West."""
    for mark, encoding in MARKS:
        if content.startswith(mark):
            try:
                return Read(content.decode("utf-8-sig" if encoding == "utf-8" else encoding), encoding)
            except UnicodeDecodeError:
                break
    if content.count(0) > NULS * len(content):
        raise Unreadable("it is no text: it holds NUL bytes")
    try:
        return Read(content.decode("utf-8"), "utf-8")
    except UnicodeDecodeError:
        return Read(content.decode("cp1252", "replace"), "cp1252")

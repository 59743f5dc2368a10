"""What is known of a text: its identity, its length, its language, and what looks wrong in it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from regraft.modalities.text.language import language_of
from regraft.modalities.text.reading import plain, read_text, words_of
from regraft.modalities.text.same import simhash

OPENING = 300  # characters of a text that checks look at words in
SEARCHED = 100_000  # characters that are searched for what looks wrong

# What UTF-8 becomes that was read as a Western code page, and what could not be read at all
GARBLED = re.compile("Ã[\u0080-\u00bf‚ƒ„…†‡ˆ‰Š‹Œ]|â€|Â[\u00a0-\u00bf]|ï»¿|\ufffd")
TAGS = "a|b|br|div|em|font|h[1-6]|i|img|li|p|span|strong|td|tr|ul"
MARKUP = re.compile(
    rf"</?(?:{TAGS})\b[^<>]{{0,200}}>|&(?:amp|lt|gt|quot|nbsp|#\d{{2,5}});|#\d{{2,4}};", re.IGNORECASE
)
MAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{2,63})+")
CARD = re.compile(r"(?<![\d.-])\d(?:[ -]?\d){12,18}(?![\d.-])")

SCHEMA = pa.schema(
    [
        ("characters", pa.int32()),
        ("words", pa.int32()),
        ("language", pa.string()),  # a guess; "" where the words do not tell
        ("encoding", pa.string()),
        ("simhash", pa.string()),  # 16 hexadecimal digits
    ]
)


@dataclass(frozen=True, slots=True)
class TextFacts:
    """What the audit knows of one text. `opening` is its beginning, normalised; `signs` name what looks wrong
    or is personal: "garbled", "markup", "e-mail address", "card number".
    """

    identity: str
    characters: int
    words: int
    language: str
    encoding: str
    simhash: str
    opening: str
    signs: tuple[str, ...]


def inspect_text(item: Any) -> TextFacts:
    """Read a text wholly and tell what the audit asks of it. Raises Unreadable."""
    read = read_text(item)
    text = plain(read.text)
    words = words_of(text)
    return TextFacts(
        identity=_digest(text),
        characters=len(text),
        words=len(words),
        language=language_of(words[:OPENING]),
        encoding=read.encoding,
        simhash=simhash(text),
        opening=text[:OPENING],
        signs=_signs(read.text[:SEARCHED]),
    )


def text_digest(item: Any) -> str:
    """32 hexadecimal digits of a text in one Unicode form, without case and with single blanks. Raises
    Unreadable.
    """
    return _digest(plain(read_text(item).text))


def table(facts: Sequence[TextFacts]) -> pa.Table:
    """Lengths, languages, encodings and SimHashes."""
    columns = {name: [getattr(fact, name) for fact in facts] for name in SCHEMA.names}
    return pa.table(columns, schema=SCHEMA)


def is_card(digits: str) -> bool:
    """True for digits whose check digit is right, as those of cards are (Luhn)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0 and len(set(digits)) > 1


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]


def _signs(text: str) -> tuple[str, ...]:
    cards = (re.sub(r"\D", "", match.group()) for match in CARD.finditer(text))
    signs = {
        "garbled": GARBLED.search(text),
        "markup": MARKUP.search(text),
        "e-mail address": MAIL.search(text) if "@" in text else None,
        "card number": any(map(is_card, cards)),
    }
    return tuple(name for name, there in signs.items() if there)

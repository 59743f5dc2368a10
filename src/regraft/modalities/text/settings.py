"""Texts' settings by rule from the data: how long they may be, and what suits fine-tuning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from regraft.errors import UsageError
from regraft.modalities import BY_USER, Suited
from regraft.modalities.buckets import bucket_of
from regraft.modalities.text.preprocess import TextPreprocess
from regraft.modalities.text.reading import estimated

NAMED = range(8, 4_097)  # tokens that a user may name
SPARE = 1.5  # times the longest estimate: a vocabulary may cut words finer
SHORTER = 128  # tokens below which no CPU asks for less
MOST_WINDOWS = 8  # of a text longer than the network takes
REFIT = 10_000  # texts of train and val up to which fine-tuning learns once more from both
PASS = 2_500_000  # tokens of a set that a CPU is asked for in one pass


def preprocess(
    config: dict[str, Any], native: int, facts: pa.Table | None, size: int | None, cpu: bool
) -> tuple[TextPreprocess, str]:
    """The tokenizer of the weights, with a length that suits a set, and why it has that length. Raises
    UsageError for one that the network does not take.
    """
    why, typical = BY_USER if size else "it is the weights' own", 32
    if size is not None and not NAMED[0] <= size <= native:
        raise UsageError(
            f"base.size is {size}: these weights take {NAMED[0]} to {native:,} tokens of a text."
        )
    if facts is not None and facts.num_rows:
        tokens = tokens_in(facts)
        typical = bucket_of(int(np.median(tokens)) + 1)
        if size is None:
            size, why = longest(native, tokens, cpu)
        why += _lost(tokens, size)
    size = size or native
    made = TextPreprocess(
        size=size,
        tokenizer=str(config["tokenizer"]),
        padding=int(config.get("padding") or 0),
        prefix=str(config.get("prefix") or ""),
        typical=min(size, typical),
    )
    return made, why


def tokens_in(facts: pa.Table) -> np.ndarray:
    """(N,) about how many tokens texts have, those at both ends included."""
    return estimated(facts["words"].to_numpy(), facts["characters"].to_numpy())


def longest(native: int, tokens: np.ndarray, cpu: bool) -> tuple[int, str]:
    """How many places a text may have, and why: what the longest needs, up to what the network takes; less
    where a CPU would take too long.
    """
    wanted = min(native, bucket_of(int(SPARE * tokens.max()) + 1))
    why = f"texts have about {np.median(tokens):.0f} tokens, the longest {tokens.max():,.0f}"
    if cpu and np.minimum(tokens, wanted).sum() > PASS:
        while wanted > SHORTER and np.minimum(tokens, wanted).sum() > PASS:
            wanted = max(SHORTER, wanted * 3 // 4)
        why += "; more would take a CPU too long"
    return wanted, why


def longer(preprocess: TextPreprocess, facts: pa.Table, cpu: bool) -> tuple[TextPreprocess, str] | None:
    """The same preprocessing with windows, as many as the longest text needs and a CPU has the time for, and
    why; None where no text is longer than it takes, or a CPU has not the time for two.
    """
    tokens, size = tokens_in(facts), preprocess.size
    if not (tokens > size - 1).any():
        return None
    most = min(MOST_WINDOWS, int(np.ceil(SPARE * tokens.max() / (size - 2))))
    while cpu and most > 1 and np.minimum(tokens, most * size).sum() > PASS:
        most -= 1
    if most < 2:
        return None
    why = f"texts longer than {size - 1} tokens are seen in up to {most} windows, which are averaged"
    return replace(preprocess, windows=most), why + _lost(tokens, most * (size - 2), "longer than that")


def _lost(tokens: np.ndarray, size: int, said: str = "") -> str:
    """How many texts are cut, and how much of all is lost."""
    over = tokens > size - 1
    if not over.any():
        return ""
    lost = (tokens[over] - size + 1).sum() / tokens.sum()
    cut = f"{int(over.sum()):,} of {len(tokens):,} texts are {said or f'cut to {size - 1} tokens'}"
    return f"; {cut}, {lost:.1%} of all is not seen"


def settings(facts: pa.Table, size: int) -> Suited:
    """What suits fine-tuning on texts."""
    return Suited(lr=1e-4, layer_decay=0.9, epochs=epochs(facts.num_rows), refit=REFIT)


def epochs(examples: int) -> int:
    """How often all texts are learnt from: more often where there are few."""
    return next((count for most, count in ((500, 15), (2_000, 8), (10_000, 5)) if examples <= most), 3)

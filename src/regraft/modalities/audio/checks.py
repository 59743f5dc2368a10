"""What the audit checks of sounds: silent, clipped and toneless ones, sampling rates, recordings that file names
tell, and labels that files or loudness tell.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

import numpy as np

from regraft.data.audit.contents import Files
from regraft.data.audit.files import Fact
from regraft.data.audit.findings import Finding, Severity, several
from regraft.data.audit.leaks import Told, told
from regraft.modalities.audio.inspect import Sound
from regraft.modalities.audio.preprocess import FRAMES, RATE, WINDOW
from regraft.modalities.audio.settings import input_size

SILENT = 1e-3  # of full scale, 60 decibels below it: a peak below it is silence
CLIPPED = 0.001  # share of samples in rows at full scale from which on it is heard
PURE, STEADY = 0.95, 1.0  # a tone: its share of the power, and decibels by which its loudness varies
SHORT, LONG = 0.1, 10.0  # times the usual length: what is odd for its set
FEWEST_MEMBERS, LARGEST = 2, 0.5  # examples of a name's part that make it a recording's; share that is none's


def odd_sounds(files: Files) -> Iterator[Finding]:
    """Silent, clipped, a constant tone, or of another length than the rest."""
    sounds: list[Sound] = [fact.about for fact in files.facts]
    length, peak, clipped, pure, lasting = (
        np.array([getattr(sound, name) for sound in sounds])
        for name in ("seconds", "peak", "clipped", "pure", "lasting")
    )
    silent, usual = peak < SILENT, float(np.median(length))
    kinds: tuple[tuple[str, np.ndarray, str, Severity], ...] = (
        ("silence", silent, "silent: nowhere louder than a thousandth of full scale", "warning"),
        ("clipping", clipped > CLIPPED, "clipped: rows of samples lie at full scale", "warning"),
        (
            "constant tone",
            (pure > PURE) & (lasting < STEADY) & ~silent,
            "a constant tone and nothing else",
            "warning",
        ),
        (
            "short sounds",
            length < SHORT * usual,
            f"far shorter than the others, which usually have {usual:.2g} s",
            "info",
        ),
        (
            "long sounds",
            length > LONG * usual,
            f"far longer than the others, which usually have {usual:.2g} s",
            "info",
        ),
    )
    for kind, which, text, severity in kinds:
        if sources := files.sources(kind, which):
            yield Finding(kind, severity, f"{several(len(sources), 'sound', 'is', 'are')} {text}", sources)


def hidden(files: Files) -> Iterator[Finding]:
    """How much of recordings that are longer than what is heard of them is not heard. The length of the input
    is that of step 2's rule, by train and val.
    """
    lengths = np.array([fact.about.seconds for fact in files.facts])
    known = np.array([split != "test" for split in files.splits])
    heard = input_size(lengths[known])[0] / FRAMES
    if (longer := lengths > heard).any():
        windows = round(heard * FRAMES / WINDOW)
        which = f"{windows} evenly spaced windows of 10 s" if windows > 1 else f"the middle {heard:.3g} s"
        share = 1 - heard * longer.sum() / lengths[longer].sum()
        text = f"{several(int(longer.sum()), 'sound', 'is', 'are')} longer than {heard:.3g} s, of which "
        text += f"{which} are heard each, so {share:.0%} of them is not. Cut them where that matters"
        yield Finding("not heard whole", "info", text, files.sources("not heard whole", longer))


def rates(files: Files) -> Iterator[Finding]:
    """Which sounds are resampled, and what is not in those of a low rate; and mixed down channels."""
    counts = Counter(fact.about.rate for fact in files.facts)
    for rate, count in sorted(counts.items()):
        if rate != RATE:
            text = (
                f"{several(count, 'sound', 'is', 'are')} sampled at {rate:,} Hz and resampled to {RATE:,} Hz, "
                "or to the rate of a network that takes another"
            )
            if rate < RATE:
                text += f": nothing above {rate // 2:,} Hz is in them"
            yield Finding("resampling", "info", text)
    if len(counts) > 1 and min(counts) < RATE:
        text = f"sampling rates differ: {', '.join(f'{rate:,} Hz ({n:,})' for rate, n in sorted(counts.items()))}"
        yield Finding(
            "sampling rates",
            "warning",
            f"{text}. Those of low rates lack high tones, which a model may learn",
        )
    if mixed := sum(fact.about.channels > 1 for fact in files.facts):
        text = f"{several(mixed, 'sound', 'has', 'have')} several channels, of which the mean is taken"
        yield Finding("channels", "info", text)


def leaks(files: Files) -> Iterator[Finding]:
    """Labels of train and val that something beside the sound tells."""
    facts, labels, blocks = files.labelled()
    kinds: tuple[tuple[str, Severity, Told | None, str], ...] = (
        (
            "files tell the label",
            "warning",
            told_by_files(facts, labels, blocks),
            "the file alone, not heard,",
        ),
        ("loudness tells the label", "info", told_by_loudness(facts, labels, blocks), "loudness alone"),
        ("length tells the label", "info", told_by_length(facts, labels, blocks), "the length alone"),
        ("room tells the label", "info", told_by_room(facts, labels, blocks), "the quietest moment alone"),
    )
    for kind, severity, known, text in kinds:
        if known is not None:
            yield Finding(kind, severity, f"{text} {known.in_words()}")


def told_by_files(facts: list[Fact], labels: np.ndarray, blocks: np.ndarray | None = None) -> Told | None:
    """By rate, channels and codec."""
    sounds: list[Sound] = [fact.about for fact in facts]
    codecs = sorted({sound.codec for sound in sounds})
    columns = {
        "sampling rate": np.array([sound.rate for sound in sounds], dtype=float),
        "channels": np.array([sound.channels for sound in sounds], dtype=float),
        **{
            f"codec {name}": np.array([sound.codec == name for sound in sounds], dtype=float)
            for name in codecs[1:]
        },
    }
    return told(columns, labels, blocks)


def told_by_loudness(facts: list[Fact], labels: np.ndarray, blocks: np.ndarray | None = None) -> Told | None:
    """By peak and mean power, which may well belong to what is heard."""
    values = {name: np.array([getattr(fact.about, name) for fact in facts]) for name in ("peak", "loudness")}
    return told({name: np.log10(some + 1e-6) for name, some in values.items()}, labels, blocks)


def told_by_length(facts: list[Fact], labels: np.ndarray, blocks: np.ndarray | None = None) -> Told | None:
    """By the length, which may well belong to what is heard."""
    return told({"length": np.array([fact.about.seconds for fact in facts])}, labels, blocks)


def told_by_room(facts: list[Fact], labels: np.ndarray, blocks: np.ndarray | None = None) -> Told | None:
    """By the quietest moment: the tone of a room or the noise of a device, which may belong to what is
    heard where that never pauses.
    """
    rooms = np.array([fact.about.room for fact in facts])
    names = ("low tones", "lower middle tones", "upper middle tones", "high tones")
    return told(dict(zip(names, rooms.T, strict=True)), labels, blocks)


def names_across(files: Files) -> Iterator[Finding]:
    """Parts of file names that look like a speaker's or a recording's, whose examples lie in several splits.

    Where examples have groups already, nothing is told.
    """
    if any(row.group is not None for row in files.rows):
        return
    parts = [name_parts(row.source) for row in files.rows]
    for place in sorted({key for some in parts for key in some}):
        values = [some.get(place, "") for some in parts]
        if (named := _as_groups(values, files)) is None:
            continue
        astride = np.array([value in named for value in values])
        some = ", ".join(sorted(named)[:6]) + (" ..." if len(named) > 6 else "")
        sources = files.sources("names across splits", astride)
        if sources:
            have = "1 of them has" if len(named) == 1 else f"{len(named):,} of them have"
            text = (
                f"{place} of the file names may be a speaker or a recording ({some}), and {have} examples in "
            )
            text += "more than one split. If so, scores flatter: give a csv with it as the column group"
            yield Finding("names across splits", "warning", text, sources)


def name_parts(source: str) -> dict[str, str]:
    """The parts of a file name between hyphens, underscores and blanks, by their place; those that are
    plainly numbers of a take (the last one, of digits) are left out.
    """
    words = re.split(r"[-_ .]+", PurePosixPath(source).stem)
    if len(words) > 1 and words[-1].isdigit():
        words = words[:-1]
    ordinals = ("first", "second", "third", "fourth", "fifth", "sixth")
    return {f"the {ordinals[n]} part": word.casefold() for n, word in enumerate(words[:6]) if word}


def _as_groups(values: list[str], files: Files) -> set[str] | None:
    """The values that lie in several splits, where a part of the names looks like that of a group: it has
    several values, most of several examples, none of most of them, and it is not the label.
    """
    counts = Counter(value for value in values if value)
    if len(counts) < 2 or max(counts.values()) > LARGEST * len(values) or sum(counts.values()) < len(values):
        return None
    if 2 * sum(count for count in counts.values() if count >= FEWEST_MEMBERS) < len(values):
        return None
    labels: dict[str, set[str]] = defaultdict(set)
    homes: dict[str, set[str]] = defaultdict(set)
    for value, row, split in zip(values, files.rows, files.splits, strict=True):
        homes[value].add(split)
        if split != "test":
            labels[value].add(row.label)
    known = zip(values, files.rows, files.splits, strict=True)
    pairs = Counter((value, row.label) for value, row, split in known if split != "test")
    if all(value.isdigit() for value in counts) and max(pairs.values()) == 1:
        return None  # numbers that count the examples of each class
    classes = {next(iter(some)) for some in labels.values() if len(some) == 1}
    if (
        len(counts) <= len(files.classes)
        and all(len(some) <= 1 for some in labels.values())
        and len(classes) > 1
    ):
        return None  # it is the label again
    return {value for value, splits in homes.items() if len(splits) > 1} or None


CHECKS: tuple[Callable[[Files], Iterator[Finding]], ...] = (odd_sounds, hidden, rates, leaks, names_across)

"""What the audit checks of images: odd and deep ones, and labels that files, borders or colours tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from regraft.data.audit.contents import Files
from regraft.data.audit.files import Fact
from regraft.data.audit.findings import Finding, Severity, several
from regraft.data.audit.leaks import Told, told
from regraft.modalities.image.levels import levels_of
from regraft.modalities.image.looks import colours

SMALL = 0.25  # of the usual short side: what is below is tiny for its set
LONG = 3.0  # times longer, or shorter, for its height than is usual
DARK = 64  # of 255: 16-bit colours of which no place is brighter use a quarter of their range
RARE = 0.05  # share up to which grey pictures among coloured ones are odd


def odd_pictures(files: Files) -> Iterator[Finding]:
    """Tiny for their set, of odd shape, of one plain colour, or grey among coloured ones."""
    looks = [fact.about for fact in files.facts]
    width, height = (
        np.array([getattr(look, name) for look in looks], dtype=float) for name in ("width", "height")
    )
    short, shape = np.minimum(width, height), np.log(width / height)
    grey = np.array([look.mode in ("1", "L", "LA") or look.deep is not None for look in looks])
    usual = float(np.median(short))
    for kind, which, text in (
        ("tiny pictures", short < SMALL * usual, f"tiny beside the others, whose short side is {usual:.0f}"),
        (
            "odd shapes",
            np.abs(shape - np.median(shape)) > np.log(LONG),
            "far longer or higher than the others",
        ),
        ("plain pictures", np.array([look.plain for look in looks]), "of one plain colour"),
        ("grey pictures", grey & (grey.mean() <= RARE), "grey where nearly all are coloured"),
    ):
        if sources := files.sources(kind, which):
            severity: Severity = "warning" if kind == "plain pictures" else "info"
            yield Finding(kind, severity, f"{several(len(sources), 'picture', 'is', 'are')} {text}", sources)


def deep_pictures(files: Files) -> Iterator[Finding]:
    """How pictures with more than 8 bits are scaled, by train and val; and colours of which only 8 bits can
    be read.
    """
    known = [fact.about for fact, split in zip(files.facts, files.splits, strict=True) if split != "test"]
    levels = levels_of(look.deep for look in known if look.deep is not None)
    kinds = ("whole", levels.whole, "more than 8 bits"), ("real", levels.real, "floating point values")
    for kind, (black, white), noun in kinds:
        some = [look.deep for look in known if look.deep is not None and look.deep.kind == kind]
        if some:
            cut = sum(deep.top > white or deep.low < black for deep in some)
            beyond = f"; {cut:,} of them go beyond and are cut off there" if cut else ""
            text = f"{several(len(some), 'picture', 'has', 'have')} {noun}: from {black:g} to {white:g} is from black to white"
            yield Finding("deep pictures", "info", f"{text}, for all of them and at prediction{beyond}")
    halved = [look for look in known if look.mode.endswith(";16")]
    if halved:
        dark = max(max(look.small) for look in halved) < DARK
        text = f"of {several(len(halved), 'colour picture')} with 16 bits a channel the upper 8 are read"
        text += ", and these are nearly black: stretch them to the full 16 bits" if dark else ""
        yield Finding("16-bit colours", "warning" if dark else "info", text)


def leaks(files: Files) -> Iterator[Finding]:
    """Labels of train and val that something beside the subject tells."""
    facts, labels, blocks = files.labelled()
    kinds: tuple[tuple[str, Severity, Told | None, str], ...] = (
        (
            "files tell the label",
            "warning",
            told_by_files(facts, labels, blocks),
            "the file alone, not opened,",
        ),
        (
            "borders tell the label",
            "warning",
            told_by_borders(facts, labels, blocks),
            "the colour of the border alone",
        ),
        (
            "colours tell the label",
            "info",
            told_by_colours(facts, labels, blocks),
            "mean colour and contrast alone",
        ),
    )
    for kind, severity, known, text in kinds:
        if known is not None:
            yield Finding(kind, severity, f"{text} {known.in_words()}")


def told_by_files(facts: list[Fact], labels: np.ndarray, blocks: np.ndarray | None = None) -> Told | None:
    """By what is known without looking at a picture."""
    looks = [fact.about for fact in facts]
    formats, modes = sorted({look.format for look in looks}), sorted({look.mode for look in looks})
    width, height = (
        np.array([getattr(look, name) for look in looks], dtype=float) for name in ("width", "height")
    )
    columns = {
        "width": width,
        "height": height,
        "shape": width / height,
        "bytes a pixel": np.array([fact.bytes for fact in facts]) / (width * height),
        **{
            f"format {name}": np.array([look.format == name for look in looks], dtype=float)
            for name in formats[1:]
        },
        **{
            f"mode {name}": np.array([look.mode == name for look in looks], dtype=float) for name in modes[1:]
        },
    }
    return told(columns, labels, blocks)


def told_by_borders(facts: list[Fact], labels: np.ndarray, blocks: np.ndarray | None = None) -> Told | None:
    """By the mean colour of the outermost ring."""
    return told(_shades("border", colours(fact.about for fact in facts)[2]), labels, blocks)


def told_by_colours(facts: list[Fact], labels: np.ndarray, blocks: np.ndarray | None = None) -> Told | None:
    """By the mean colour and the contrast of the whole, which may well belong to the subject."""
    mean, spread, _ = colours(fact.about for fact in facts)
    return told({**_shades("the picture", mean), "contrast": spread.mean(axis=1)}, labels, blocks)


def _shades(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """Brightness, and how far red and blue are from it."""
    grey = values.mean(axis=1)
    return {
        f"brightness of {name}": grey,
        f"redness of {name}": values[:, 0] - grey,
        f"blueness of {name}": values[:, 2] - grey,
    }


CHECKS: tuple[Callable[[Files], Iterator[Finding]], ...] = (odd_pictures, deep_pictures, leaks)

"""What the audit checks of texts: what looks wrong or is personal, other languages, and labels that lengths
or words tell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

from regraft.data.audit.contents import Files
from regraft.data.audit.findings import Finding, Severity, several
from regraft.data.audit.leaks import Told, told
from regraft.modalities.text.inspect import TextFacts
from regraft.modalities.text.reading import estimated, words_of

SIGNS: tuple[tuple[str, str, Severity, str], ...] = (
    (
        "garbled",
        "garbled texts",
        "warning",
        "letters that were read in a wrong encoding (such as Ã©), or lost",
    ),
    ("markup", "markup", "info", "remains of HTML (such as <br> or &amp;)"),
    (
        "e-mail address",
        "e-mail addresses",
        "warning",
        "what looks like an e-mail address: personal, nothing was changed",
    ),
    (
        "card number",
        "card numbers",
        "warning",
        "what looks like the number of a card: personal, nothing was changed",
    ),
)
MAIN = 0.8  # share of the texts of a known language from which on the others are odd
LONG = 20.0  # times the usual length
USUAL = 256  # tokens that the packaged encoder, and many others, take
WORDS = 200  # commonest words by which a label may be told
SAMPLE = 5_000  # texts that are looked at for it
FEWEST = 5  # texts that a word must be in


def signs(files: Files) -> Iterator[Finding]:
    """Texts that look wrong, and those that hold what is personal."""
    for sign, kind, severity, text in SIGNS:
        if sources := files.sources(kind, np.array([sign in fact.about.signs for fact in files.facts])):
            yield Finding(kind, severity, f"{several(len(sources), 'text', 'has', 'have')} {text}", sources)


def languages(files: Files) -> Iterator[Finding]:
    """Texts in another language than nearly all others."""
    known = np.array([fact.about.language for fact in files.facts], dtype=object)
    counts = Counter(language for language in known if language)
    if not counts:
        return
    main, most = counts.most_common(1)[0]
    if most < MAIN * sum(counts.values()):
        return
    others = (known != main) & (known != "")
    if sources := files.sources("other language", others):
        named = ", ".join(f"{name} {count:,}" for name, count in counts.most_common(6) if name != main)
        text = f"{several(len(sources), 'text', 'is', 'are')} in another language than {main}"
        yield Finding("other language", "info", f"{text} by a rough guess: {named}", sources)


def lengths(files: Files) -> Iterator[Finding]:
    """Texts without a word, and those many times as long as is usual."""
    about = [fact.about for fact in files.facts]
    words = np.array([look.words for look in about])
    usual = float(np.median(words))
    for kind, which, text in (
        ("texts without words", words == 0, "without a word in it"),
        (
            "long texts",
            words > LONG * max(usual, 10.0),
            f"far longer than the others, of which most have {usual:.0f} words",
        ),
    ):
        if sources := files.sources(kind, which):
            yield Finding(kind, "info", f"{several(len(sources), 'text', 'is', 'are')} {text}", sources)


def cut(files: Files) -> Iterator[Finding]:
    """Texts whose end a network that takes as many tokens as most do is not shown, and how much that is."""
    tokens = estimated(
        [fact.about.words for fact in files.facts], [fact.about.characters for fact in files.facts]
    )
    over = tokens > USUAL
    if sources := files.sources("cut texts", over):
        lost = float((tokens[over] - USUAL).sum() / tokens.sum())
        text = (
            f"{several(len(sources), 'text', 'is', 'are')} longer than the {USUAL} tokens most networks see"
        )
        yield Finding(
            "cut texts", "info", f"{text}: {lost:.1%} of all words lie behind them, by an estimate", sources
        )


def leaks(files: Files) -> Iterator[Finding]:
    """Labels of train and val that something beside the meaning tells."""
    facts, labels, blocks = files.labelled()
    about = [fact.about for fact in facts]
    if len(about) > SAMPLE:
        some = np.sort(np.random.default_rng(0).permutation(len(about))[:SAMPLE])
        about, labels = [about[i] for i in some], labels[some]
        blocks = blocks[some]
    kinds: tuple[tuple[str, Severity, Told | None, str], ...] = (
        (
            "files tell the label",
            "warning",
            told_by_files(about, labels, blocks),
            "the encoding or the language alone",
        ),
        ("lengths tell the label", "info", told_by_lengths(about, labels, blocks), "the length alone"),
        ("words tell the label", "info", told_by_words(about, labels, blocks), "a word or two alone"),
    )
    for kind, severity, known, text in kinds:
        if known is not None:
            yield Finding(kind, severity, f"{text} {known.in_words()}")


def told_by_files(
    about: list[TextFacts], labels: np.ndarray, blocks: np.ndarray | None = None
) -> Told | None:
    """By the encoding, the language and signs of another source."""
    columns: dict[str, np.ndarray] = {}
    for name, of in (("encoding", "encoding"), ("language", "language")):
        values = np.array([getattr(look, of) for look in about], dtype=object)
        columns |= {f"{name} {value or 'unknown'}": (values == value).astype(float) for value in set(values)}
    for sign, *_ in SIGNS[:2]:
        columns[sign] = np.array([sign in look.signs for look in about], dtype=float)
    return told(dict(sorted(columns.items())), labels, blocks)


def told_by_lengths(
    about: list[TextFacts], labels: np.ndarray, blocks: np.ndarray | None = None
) -> Told | None:
    """By the numbers of characters and words."""
    characters, words = (
        np.array([getattr(look, name) for look in about], dtype=float) for name in ("characters", "words")
    )
    columns = {
        "characters": characters,
        "words": words,
        "characters a word": characters / np.maximum(words, 1),
    }
    return told(columns, labels, blocks)


def told_by_words(
    about: list[TextFacts], labels: np.ndarray, blocks: np.ndarray | None = None
) -> Told | None:
    """By whether a text has some word at its beginning; three words at most."""
    openings = [set(words_of(look.opening)) for look in about]
    counts = Counter(word for words in openings for word in words)
    common = [word for word, count in counts.most_common(WORDS) if FEWEST <= count < len(about)]
    columns = {
        f"the word {word!r}": np.array([word in words for words in openings], dtype=np.float32)
        for word in common
    }
    return told(columns, labels, blocks)


CHECKS: tuple[Callable[[Files], Iterator[Finding]], ...] = (signs, languages, lengths, cut, leaks)

"""A cheap guess at the language of a text: by its script, and of Latin letters by the commonest words."""

from __future__ import annotations

from collections import Counter

SCRIPTS = (  # first and last character, and what it is called
    (0x0370, 0x03FF, "Greek"),
    (0x0400, 0x052F, "Cyrillic"),
    (0x0590, 0x05FF, "Hebrew"),
    (0x0600, 0x06FF, "Arabic"),
    (0x0900, 0x097F, "Devanagari"),
    (0x0E00, 0x0E7F, "Thai"),
    (0x3040, 0x30FF, "Japanese"),
    (0x4E00, 0x9FFF, "Chinese"),
    (0xAC00, 0xD7AF, "Korean"),
)
COMMON = {
    "English": "the of and to in is that it for was on are with as his they at be this have from or had "
    "by but not what all were we when your can said there use an each which she do how their "
    "if will i you my me",
    "German": "der die und das ist nicht ich sie es mit ein eine auf für den dem des zu von im auch wie "
    "war wird sind oder aber nach bei hat werden wir noch über einen einer",
    "French": "le la les et des est une pour que qui dans pas sur avec ce il au plus par je vous nous "
    "sont cette mais ont du elle été comme",
    "Spanish": "el los las y que en es por con para una del se no lo como más pero sus le ya este porque "
    "esta entre cuando muy sin sobre también",
    "Italian": "il di che è la per un non sono con una del da si alla le come più della anche ma nel gli "
    "ha questo",
    "Portuguese": "o que não uma os com para em do da é se por mais as dos como mas ao ele das seu sua ou "
    "quando muito você",
    "Dutch": "de het een en van is dat niet op te zijn met voor er maar om aan ook als dan hij was bij "
    "nog wat heeft",
}
OF_WORD: dict[str, tuple[str, ...]] = {
    word: tuple(language for language, words in COMMON.items() if word in words.split())
    for words in COMMON.values()
    for word in words.split()
}
FEWEST = 2.0  # common words that must speak for a language
AHEAD = 1.5  # times the next language
LETTERS = 60  # words, and letters of a word, that are looked at
UNKNOWN = ""


def language_of(words: list[str]) -> str:
    """The language, or the script, of (lower-case) words; "" where they do not tell."""
    letters = Counter(
        _script(letter) for word in words[:LETTERS] for letter in word[:LETTERS] if letter.isalpha()
    )
    script, count = letters.most_common(1)[0] if letters else (UNKNOWN, 0)
    if letters["Japanese"] and script in ("Japanese", "Chinese"):
        return "Japanese"  # which is written with both
    if 2 * count < sum(letters.values()) or script != "Latin":
        return script if 2 * count >= sum(letters.values()) else UNKNOWN
    votes: Counter[str] = Counter()
    for word in words:
        for language in OF_WORD.get(word, ()):
            votes[language] += 1 / len(OF_WORD[word])  # type: ignore[assignment]
    (first, most), (_, next_) = (*votes.most_common(2), ("", 0), ("", 0))[:2]
    return first if most >= FEWEST and most >= AHEAD * next_ else UNKNOWN


def _script(letter: str) -> str:
    code = ord(letter)
    if code < SCRIPTS[0][0]:
        return "Latin"
    return next((name for first, last, name in SCRIPTS if first <= code <= last), "Latin")

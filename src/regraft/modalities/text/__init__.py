"""Texts: reading, tokens, and what an audit and a report know of them."""

from __future__ import annotations

from collections.abc import Sequence

from regraft.modalities import Extent, Measure, Probe
from regraft.modalities.text.checks import CHECKS
from regraft.modalities.text.hide import hide
from regraft.modalities.text.inspect import SCHEMA, TextFacts, inspect_text, table, text_digest
from regraft.modalities.text.lexical import Beside, Words
from regraft.modalities.text.preprocess import TextPreprocess
from regraft.modalities.text.reading import ENDINGS, characters_of, read_text, text_of_name
from regraft.modalities.text.same import likeness
from regraft.modalities.text.settings import NAMED, longer, preprocess, settings, tokens_in
from regraft.modalities.text.show import overlay, sheet, show
from regraft.recipe import Section

__all__ = ["MODALITY", "TextPreprocess", "inspect_text", "read_text"]


class Texts:
    """The modality of texts: see `regraft.modalities.Modality`."""

    name, noun, endings, checks, facts = "text", "text", ENDINGS, CHECKS, SCHEMA
    columns = ("textpath", "textfile", "textfilename")
    cells = (
        "text",
        "texts",
        "sentence",
        "document",
        "review",
        "comment",
        "message",
        "utterance",
        "query",
        "question",
    )
    probes: tuple[Probe, ...] = ()
    takes: tuple[str, ...] = ()
    joins, joined_up_to, resizes = (True, False), 20, False  # docs/decisions.md
    foresight = None
    sizes, augmentation = NAMED, Section
    extent = Extent("characters", 100_000, characters_of)
    evidence, beside = (Words(),), Beside()
    measures = (Measure("Lengths of the texts", "tokens (estimated)", tokens_in, lambda size: size - 1),)
    item_of_name = staticmethod(text_of_name)
    inspect = staticmethod(inspect_text)
    digest = staticmethod(text_digest)
    likeness = staticmethod(likeness)
    table = staticmethod(table)
    preprocess = staticmethod(preprocess)
    preprocess_from = staticmethod(TextPreprocess.from_dict)
    settings = staticmethod(settings)
    longer = staticmethod(longer)
    show = staticmethod(show)
    hide = staticmethod(hide)
    overlay = staticmethod(overlay)
    sheet = staticmethod(sheet)

    def together(self, ids: Sequence[str], facts: Sequence[TextFacts]) -> tuple[list[TextFacts], list[int]]:
        """Each has its identity already."""
        return list(facts), []

    def views(self, augment: Section) -> None:
        """No augmentation."""
        return


MODALITY = Texts()

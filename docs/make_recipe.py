"""Writes docs/recipe.md from the table of settings in regraft.recipe.

    python docs/make_recipe.py

tests/docs/test_docs.py fails when the page and the settings no longer agree.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from regraft.modalities import modality_of, names
from regraft.recipe import Recipe, Section

PAGE = Path(__file__).with_name("recipe.md")
OPENING = """\
# The recipe: every setting

This page is made from `src/regraft/recipe/sections.py` and the modalities by `docs/make_recipe.py`: settings are changed there, not
here.

A setting is given as `--set finetune.epochs=3`, in a file for `--config` with the sections below as its top level, or
in Python as `regraft.fit(DATA, recipe={"finetune": {"epochs": 3}})`. Of several, the last of this order wins: the file,
the named options such as `--freeze`, then `--set`. What is not given keeps its default. Wrong names and wrong values
are reported all at once, with close matches.

`auto` is a choice the run makes from the data. It writes the choice into the run's own `recipe.yaml`, so the recipe of
a finished run holds no `auto`.
"""
AUGMENT = """\
## augment

How examples are varied in training when the released layers are fine-tuned. Each modality has settings of its own, and
those of another modality are refused.
"""
KINDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}
BOUNDS = (
    ("minimum", "at least"), ("exclusiveMinimum", "above"), ("maximum", "at most"), ("exclusiveMaximum", "below"),
)  # fmt: skip
WRAP = textwrap.TextWrapper(120, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def in_words(schema: dict[str, Any]) -> str:
    """A JSON schema of one setting as words: `whole number, at least 32, or auto`."""
    if "anyOf" in schema:
        return ", or ".join(in_words(choice) for choice in schema["anyOf"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema["type"]
    if kind == "array":
        return f"list of {in_words(schema['items'])}"
    bounds = (f"{word} {schema[key]:,.10g}" for key, word in BOUNDS if key in schema)
    return ", ".join([KINDS[kind], *bounds])


def default(value: Any) -> str:
    """A default as YAML writes it."""
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def page() -> str:
    """The text of docs/recipe.md."""
    parts = [OPENING]
    for section, field in Recipe.model_fields.items():
        if section == "augment":
            parts.append(AUGMENT)
            made = [modality_of(name).augmentation for name in names()]
        else:
            made = [field.annotation]  # type: ignore[list-item]
            parts.append(f"## {section}\n")
        parts += [part for one in made for part in described(section, one)]
    return "\n".join(parts)


def described(section: str, made: type[Section]) -> list[str]:
    """What a section is about, and its settings."""
    schema, lines = made.model_json_schema(), []
    for name, setting in schema.get("properties", {}).items():
        reason = setting["description"]
        text = f"- `{section}.{name}` ({in_words(setting)}; default `{default(setting['default'])}`): {reason}."
        lines.append(WRAP.fill(text))
    return [f"{schema['description']}\n", "\n".join(lines) + "\n"] if lines else []


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8", newline="\n")

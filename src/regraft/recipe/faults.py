"""What is wrong with settings, in words, with close matches of what is no setting."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from regraft.errors import RecipeError
from regraft.recipe.sections import Section


def faulty(faults: Iterable[str]) -> RecipeError:
    """The error that lists faults of a recipe."""
    return RecipeError("the recipe has faults:", faults, "All settings: docs/recipe.md")


def faults_of(section: type[Section], name: str, whose: str, values: Mapping[str, Any]) -> list[str]:
    """What is wrong with the values of a section of this name, in words; `whose` settings they are ("of the
    modality image").
    """
    known = [f"{name}.{field}" for field in section.model_fields]
    wrong = [one for one in values if one not in section.model_fields]
    faults = []
    for one in wrong:
        near = difflib.get_close_matches(one, section.model_fields, n=2, cutoff=0.5)
        hint = f"did you mean {', '.join(f'{name}.{like}' for like in near)}?" if near else ""
        hint = hint or (f"there are {', '.join(known)}" if known else "there is none")
        faults.append(f"{name}.{one}: is not a setting {whose}; {hint}")
    try:
        section.model_validate({one: value for one, value in values.items() if one not in wrong})
    except ValidationError as error:
        faults += told(error, known, name)
    return faults


def told(error: ValidationError, known: list[str], section: str = "") -> list[str]:
    """The faults in words; `known` are the dotted names of settings, of which those like a wrong one are
    suggested.
    """
    faults: dict[str, list[str]] = {}
    for item in error.errors():
        where = [*filter(None, [section]), *(str(part) for part in item["loc"])][:2]
        name = ".".join(where) or "settings that do not go together"
        if item["type"] == "extra_forbidden":
            near = [one for one in known if one.rpartition(".")[2] == where[-1]]
            near = near or difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            text = "is not a setting" + (f"; did you mean {', '.join(near)}?" if near else "")
            faults.setdefault(name, []).append(text)
        else:
            message = item["msg"].removeprefix("Value error, ")
            # Else the message names them
            given = "" if isinstance(item["input"], dict) else f" (found {item['input']!r})"
            faults.setdefault(name, []).append(message[0].lower() + message[1:] + given)
    return [f"{name}: {'; or '.join(dict.fromkeys(texts))}" for name, texts in faults.items()]

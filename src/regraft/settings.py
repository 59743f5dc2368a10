"""The user's settings file: what holds for every call on this machine unless the call says otherwise.

Of two values the later one counts: the default, this file, a recipe.yaml (`--config`), an option with a name,
`--set`. The file is `config.yaml` in the user's configuration folder (`~/.config/regraft` on Linux), or the one
that REGRAFT_CONFIG names; REGRAFT_CONFIG empty is no file.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from regraft.errors import RecipeError


class Settings(BaseModel):
    """Everything the file may hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbones: Literal["at hand", "network"] = Field(
        "at hand",
        description="network: an automatic choice of the backbone also fetches and compares stronger models (obtain.network)",
    )
    accept_licences: list[str] = Field(
        [],
        description="licences, not free for every use, under which models are taken (obtain.accept_licences)",
    )

    def layer(self) -> dict[str, Any]:
        """The same as settings of a recipe; only what the file holds."""
        asked: dict[str, Any] = {}
        if "backbones" in self.model_fields_set:
            asked["network"] = self.backbones == "network"
        if "accept_licences" in self.model_fields_set:
            asked["accept_licences"] = list(self.accept_licences)
        return {"obtain": asked} if asked else {}


def settings_file() -> Path | None:
    """Where the user's settings are looked for; None where there is no place for them. The file need not be
    there unless REGRAFT_CONFIG names it.
    """
    named = os.environ.get("REGRAFT_CONFIG")
    if named is not None:
        return Path(named) if named else None
    import platformdirs

    try:
        folder = Path(platformdirs.user_config_dir("regraft", appauthor=False))
    except (RuntimeError, KeyError):  # there is no home folder
        return None
    return folder / "config.yaml" if folder.is_absolute() else None


def user_settings() -> Settings:
    """What the user's file says; the defaults where there is none. Raises RecipeError that names the file and
    all its faults.
    """
    place = settings_file()
    if place is None or (not place.exists() and not os.environ.get("REGRAFT_CONFIG")):
        return Settings()  # type: ignore[call-arg]
    try:
        content = yaml.safe_load(place.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise RecipeError(f"the settings file {place} cannot be read:", [first]) from None
    if content is None:
        return Settings()  # type: ignore[call-arg]
    if not isinstance(content, dict):
        fault = f"found {type(content).__name__}, wanted lines such as `backbones: network`"
        raise RecipeError(f"the settings file {place} is none:", [fault])
    try:
        return Settings.model_validate({str(name): value for name, value in content.items()})
    except ValidationError as error:
        raise RecipeError(
            f"the settings file {place} has faults:", _faults(error), "What it may hold: docs/settings.md"
        ) from None


def _faults(error: ValidationError) -> list[str]:
    faults = []
    for item in error.errors():
        name = ".".join(map(str, item["loc"]))
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(name, Settings.model_fields, n=1, cutoff=0.4)
            faults.append(f"{name}: is not a setting" + (f"; did you mean {near[0]}?" if near else ""))
        else:
            message = str(item["msg"])
            faults.append(f"{name}: {message[0].lower()}{message[1:]} (found {item['input']!r})")
    return faults

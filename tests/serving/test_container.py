"""The Dockerfile, which no test builds: what it promises stands in it, and its command is one there is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import typer

from regraft.cli import app

ROOT = Path(__file__).resolve().parents[2]


def instructions() -> list[tuple[str, str]]:
    """Each instruction of the Dockerfile with what it is given."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [(line.split()[0], " ".join(line.split()[1:])) for line in lines if line.strip()]


def test_the_container_runs_without_rights_and_tells_of_its_health() -> None:
    given = dict(instructions())
    assert given["USER"] == "10001:10001"
    assert re.search(r"readyz.*timeout", given["HEALTHCHECK"])
    assert "REGRAFT_CACHE=/tmp/" in given["ENV"]
    users = [n for n, (name, _) in enumerate(instructions()) if name == "USER"]
    assert all(name != "RUN" for name, _ in instructions()[users[-1] :])
    assert not any("TOKEN" in text for name, text in instructions() if name in ("ENV", "ARG"))


def test_its_command_is_one_that_there_is() -> None:
    words = json.loads(dict(instructions())["ENTRYPOINT"])
    assert words[:2] == ["regraft", "serve"]
    serve = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    options = {text for parameter in serve.params for text in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options


def test_only_what_the_image_is_made_of_is_sent_to_the_builder() -> None:
    sent = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] not in "#*"
    ]
    copied = {
        word
        for name, text in instructions()
        if name == "COPY" and "--from" not in text
        for word in text.split()[:-1]
    }
    assert {line[1:] for line in sent} == copied
    assert all((ROOT / name).exists() for name in copied)

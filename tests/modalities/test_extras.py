"""What reads texts or sounds is not installed: every verb that needs it names the extra, and none gives a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import regraft
import sounds
from conftest import Fitted
from regraft.cli import app
from regraft.errors import RegraftError
from regraft.modalities.text.preprocess import tokenizer_of

HIDDEN = [
    ("texts", "tokenizers", "text"),
    ("texts", "transformers", "text"),
    ("sounds", "soundfile", "audio"),
    ("sounds", "soxr", "audio"),
]


def verbs(run: Path, data: Path, item: str, place: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Each verb by name."""

    def by_command(*words: object) -> Callable[[], Any]:
        return lambda: app([str(word) for word in words], standalone_mode=False)

    yield "predict", by_command("predict", run, item, "--quiet")
    yield "serve", by_command("serve", run, "--port", "0")
    yield "evaluate", by_command("evaluate", run, data)
    yield "export", by_command("export", run, "--out", place / "export")
    yield "fit", by_command("fit", data, "--backbone", f"run:{run}", "--out", place / "fit", "--quiet")
    yield "rank", by_command("rank", data)
    yield "audit", by_command("audit", data)
    yield "in Python", lambda: regraft.load(run).predict([item])


@pytest.mark.parametrize(("kind", "hidden", "extra"), HIDDEN)
def test_every_verb_names_the_extra(
    kind: str,
    hidden: str,
    extra: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fitted: Fitted = request.getfixturevalue(f"fitted_{kind}")
    clip = str(sounds.write(tmp_path / "a.wav", sounds.tone(300, 0.3, 8_000), 8_000))
    item = "rain and snow" if kind == "texts" else clip
    tokenizer_of.cache_clear()
    monkeypatch.setitem(sys.modules, hidden, None)
    for name, verb in verbs(fitted.run, fitted.data, item, tmp_path):
        with pytest.raises(RegraftError) as caught:
            verb()
        assert f"regraft[{extra}]" in str(caught.value), (name, str(caught.value))

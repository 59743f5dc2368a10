"""What every verb of the Python interface begins with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from regraft.errors import RecipeError
from regraft.run import session as sessions
from regraft.run.session import Session
from regraft.runtime import NO_HOME


def test_the_cache_is_a_folder_the_usual_one_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "cache_folder", lambda: tmp_path / "usual")
    assert Session.open(cache=str(tmp_path / "own")).cache == tmp_path / "own"
    assert Session.open(cache="auto").cache == tmp_path / "usual"
    assert Session.open().cache is None


def test_where_there_is_no_usual_cache_the_user_hears_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "cache_folder", lambda: None)
    heard: list[dict[str, Any]] = []
    assert Session.open(cache="auto", listeners=[heard.append]).cache is None
    assert [(event["kind"], event["text"]) for event in heard] == [("note", NO_HOME)]
    heard.clear()
    Session.open(listeners=[heard.append])
    assert not heard, "nobody asked for a cache"


def test_all_faults_of_the_settings_are_told_before_anything_else() -> None:
    with pytest.raises(RecipeError) as caught:
        Session.open({"base": {"size": -1}, "run": {"seeds": 1}})
    assert "base.size" in str(caught.value)
    assert "run.seeds" in str(caught.value)

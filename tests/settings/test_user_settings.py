"""The user's settings file: where it is, what it may hold, and what counts more."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest

from regraft.cli import values
from regraft.errors import RecipeError
from regraft.run.session import Session
from regraft.settings import Settings, settings_file, user_settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings file of this test, with the network allowed."""
    place = tmp_path / "own.yaml"
    place.write_text("backbones: network\naccept_licences: [CC-BY-NC-4.0]\n", encoding="utf-8")
    monkeypatch.setenv("REGRAFT_CONFIG", str(place))
    return place


def test_it_holds_where_the_call_says_nothing(file: Path) -> None:
    obtain = Session.open().recipe.obtain
    assert (obtain.network, obtain.accept_licences) == (True, ["CC-BY-NC-4.0"])
    file.write_text("", encoding="utf-8")
    assert Session.open().recipe.obtain.network is False


def test_a_recipe_counts_more_and_an_option_more_than_that(file: Path, tmp_path: Path) -> None:
    config = tmp_path / "recipe.yaml"
    config.write_text("obtain: {network: false}\n", encoding="utf-8")

    def network(
        *, config: Path | None = None, option: bool | None = None, sets: list[str] | None = None
    ) -> bool:
        given = values.settings(config, sets, {"obtain": {"network": option}})
        return Session.open(given).recipe.obtain.network

    assert network() is True
    assert network(config=config) is False
    assert network(config=config, option=True) is True
    assert network(option=False) is False
    assert network(option=False, sets=["obtain.network=true"]) is True


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("backbone: network", "backbone: is not a setting; did you mean backbones"),
        ("backbones: sometimes", "backbones: input should be 'at hand' or 'network' .found 'sometimes'"),
        ("accept_licences: CC-BY-NC-4.0", "accept_licences: input should be a valid list"),
        ("[backbones]", "found list"),
        ("backbones: {", "cannot be read"),
        ("1: 2", "1: is not a setting"),
    ],
)
def test_a_fault_names_the_file(file: Path, content: str, said: str) -> None:
    file.write_text(content, encoding="utf-8")
    with pytest.raises(RecipeError, match=said) as caught:
        Session.open()
    assert str(file) in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_file_that_was_named_must_be_there(file: Path) -> None:
    file.unlink()
    with pytest.raises(RecipeError, match="cannot be read"):
        user_settings()


def test_where_it_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_file() is None  # REGRAFT_CONFIG is empty here
    monkeypatch.delenv("REGRAFT_CONFIG")
    monkeypatch.setattr(platformdirs, "user_config_dir", lambda *_, **__: str(tmp_path / "regraft"))
    assert settings_file() == tmp_path / "regraft" / "config.yaml"
    assert user_settings() == Settings()
    (tmp_path / "regraft").mkdir()
    (tmp_path / "regraft" / "config.yaml").write_text("backbones: at hand\n", encoding="utf-8")
    assert user_settings().layer() == {"obtain": {"network": False}}


def test_every_setting_is_in_the_docs() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in page for name in Settings.model_fields)

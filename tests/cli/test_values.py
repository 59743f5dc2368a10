"""What is typed on the command line, as numbers and settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from regraft.cli.values import in_bytes, parameters, seconds, settings
from regraft.errors import RecipeError, UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), (" 1h1m1s ", 3661), ("1.5h", 5400), ("0", 0)],
)
def test_a_time_in_seconds(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("5M", 5_000_000), ("400k", 400_000), ("1.5 G", 1.5e9), ("7", 7)]
)
def test_a_number_of_parameters(text: str, expected: int) -> None:
    assert parameters(text) == expected


@pytest.mark.parametrize(("text", "expected"), [("500MB", 5e8), ("2GB", 2e9), ("1.5 GB", 1.5e9), ("12", 12)])
def test_a_size_in_bytes(text: str, expected: int) -> None:
    assert in_bytes(text) == expected


def test_an_option_that_was_not_given() -> None:
    assert seconds(None) is None
    assert parameters(None) is None


@pytest.mark.parametrize("read", [seconds, parameters, in_bytes])
@pytest.mark.parametrize("text", ["", " ", "soon", "-5", "5x", "1m2h", "9" * 400])
def test_what_is_none_of_these_is_told(read: Callable[[str], float | None], text: str) -> None:
    with pytest.raises(UsageError, match=r"^--(budget|max-params|limit)"):
        read(text)


def test_what_is_named_wins_over_the_file_and_set_over_both(tmp_path: Path) -> None:
    config = tmp_path / "recipe.yaml"
    config.write_text("base:\n  size: 64\nrun:\n  seed: 1\nhead:\n  kind: mlp\n", encoding="utf-8")
    named = {"base": {"size": 96}, "run": {"seed": 2, "device": None}, "obtain": {"backbone": None}}
    assert settings(config, ["run.seed=3"], named) == {
        "base": {"size": 96},
        "run": {"seed": 3},
        "head": {"kind": "mlp"},
    }


def test_faults_of_file_options_and_set_are_told_together(tmp_path: Path) -> None:
    config = tmp_path / "recipe.yaml"
    config.write_text("head:\n  kind: cubic\n", encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        settings(config, ["run.sed=3"], {"base": {"size": -1}})
    for name in ("head.kind", "run.sed", "base.size"):
        assert name in str(caught.value)

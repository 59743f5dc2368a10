"""The device that was named is the one that is worked on, and it is written down as it was named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import regraft
from conftest import Fitted
from regraft import api
from regraft.errors import UsageError
from regraft.recipe import read_recipe
from regraft.runtime import pick_device
from regraft.steps.context import Context
from regraft.steps.finetune import work as finetune

NUMBERED = "cpu:0"  # the one device with a number that there is everywhere


def test_a_device_keeps_its_number(
    fitted: Fitted, tmp_path: Path, quick: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[tuple[str, ...]] = []
    recall = finetune.recall
    monkeypatch.setattr(finetune, "recall", lambda memory, *key: keys.append(key) or recall(memory, *key))
    recipe = {
        **quick,
        "run": {**quick["run"], "device": NUMBERED},
        "finetune": {"epochs": 1, "folds": 0, "refit": False},
    }
    run = regraft.fit(fitted.data, tmp_path / "run", recipe=recipe)
    assert run.state["device"] == NUMBERED
    # A resumed run takes it from there
    assert read_recipe(run.path / "recipe.yaml")["run"]["device"] == NUMBERED
    assert keys
    assert all(NUMBERED in key for key in keys)


def test_so_do_the_other_verbs(fitted: Fitted, head_only: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    class Enough(Exception):
        pass

    usual = Context.begin

    def begin(*given: Any, **named: Any) -> None:
        context = usual(*given, **named)
        settled = context.decisions.merged(context.recipe).run.device
        assert (settled, str(context.device)) == (NUMBERED, NUMBERED)
        raise Enough

    monkeypatch.setattr(Context, "begin", begin)
    recipe = {**head_only, "run": {**head_only["run"], "device": NUMBERED}}
    for verb in (api.plan, api.audit, api.rank):
        with pytest.raises(Enough):
            verb(fitted.data, recipe=recipe)


@pytest.mark.parametrize("name", ["meta", "hpu", "xla", "fpga", "", "gpu", "cuda:99", "cpu:-1"])
def test_a_device_that_does_not_compute_here_is_named(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be used here"):
        pick_device(name)


def test_devices_that_do() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in ("cpu", "cuda", "mps")

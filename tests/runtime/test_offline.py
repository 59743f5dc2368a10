"""`run.offline` closes the hub for the run, not for the process that it is a part of."""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants as hub

import regraft
from conftest import Fitted
from regraft.backbones import obtain_weights
from regraft.errors import BackboneError

FROM_AN_ADDRESS = "gcvit_base.in1k"  # which timm has no repository of on the hub


@pytest.fixture(autouse=True)
def open_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


def test_the_hub_is_closed_while_a_run_goes_on_and_open_afterwards(
    fitted: Fitted, tmp_path: Path, head_only: dict[str, Any]
) -> None:
    seen: list[bool] = []
    recipe = {**head_only, "run": {**head_only["run"], "offline": True}}
    regraft.fit(
        fitted.data,
        tmp_path / "run",
        recipe=recipe,
        listeners=[lambda event: seen.append(hub.HF_HUB_OFFLINE)],
    )
    assert any(seen)
    assert (hub.HF_HUB_OFFLINE, os.environ.get("HF_HUB_OFFLINE")) == (False, None)
    regraft.audit(fitted.data, recipe=recipe, features=False)
    with pytest.raises(BackboneError, match="offline"):
        regraft.backbone("timm:resnet18.a1_in1k", offline=True)
    assert (hub.HF_HUB_OFFLINE, os.environ.get("HF_HUB_OFFLINE")) == (False, None)


def test_a_resumed_run_stays_offline(fitted: Fitted, tmp_path: Path, head_only: dict[str, Any]) -> None:
    def stop(event: dict[str, Any]) -> None:
        if event["kind"] == "decided" and event["step"] == "base":
            raise KeyboardInterrupt

    recipe = {**head_only, "run": {**head_only["run"], "offline": True}}
    with pytest.raises(KeyboardInterrupt):
        regraft.fit(fitted.data, tmp_path / "run", recipe=recipe, listeners=[stop])
    assert hub.HF_HUB_OFFLINE is False
    seen: list[bool] = []
    regraft.fit(out=tmp_path / "run", resume=True, listeners=[lambda event: seen.append(hub.HF_HUB_OFFLINE)])
    assert any(seen)


def test_offline_holds_for_weights_that_are_not_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def closed(request: Any, *_: Any, **__: Any) -> None:
        asked.append(request)
        raise OSError("the network is closed in this test")

    monkeypatch.setattr(urllib.request, "urlopen", closed)
    monkeypatch.setattr("torch.hub.urlopen", closed)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(BackboneError, match="not in the local cache and --offline"):
        obtain_weights(f"timm:{FROM_AN_ADDRESS}", offline=True)
    assert not asked

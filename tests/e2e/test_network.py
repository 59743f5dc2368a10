"""A first run with a network: stronger models are fetched from a stand-in hub and compared; whatever goes
wrong there, the run ends with what is at hand.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save

import regraft
import texts
from regraft.api import plan
from regraft.artifacts import read_events, read_json
from regraft.backbones import Entry, candidates, catalogue, obtain_weights
from regraft.errors import UsageError
from standin import Repository, StandIn

LITE = "packaged:efficientnet_lite0"
STRONG, HUGE, CLOSED, OWN = (
    f"timm:{name}.r160_in1k" for name in ("test_convnext", "test_vit", "test_efficientnet", "test_resnet")
)
QUICK: dict[str, Any] = {
    "base": {"size": 32},
    "freeze": {"strategy": "head"},
    "run": {"engine": "torch-float32"},
}


def entry(reference: str, licence: str = "Apache-2.0", **more: Any) -> Entry:
    """What a catalogue says of a tiny model."""
    name = reference.partition(":")[2]
    found = Entry(
        reference, "image", name.split(".")[0], 300_000, 0.01, 160, "ImageNet-1k", None, licence, "convnet"
    )
    return replace(
        found, download=1_200_000, source=f"https://huggingface.co/timm/{name}", stronger=True, **more
    )


@pytest.fixture
def tiny_catalogue(monkeypatch: pytest.MonkeyPatch) -> tuple[Entry, ...]:
    """A catalogue of the shipped model, and four on the hub: one to be taken, one too large, one that forbids
    commercial use and one under terms of its publisher's own.
    """
    some = (
        next(item for item in catalogue.entries() if item.reference == LITE),
        entry(STRONG),
        entry(HUGE, gmacs=1e6),
        entry(CLOSED, "CC-BY-NC-4.0"),
        entry(OWN, "DINOv3 License"),
    )
    for place in ("catalogue", "sources.listing"):
        monkeypatch.setattr(f"regraft.backbones.{place}.entries", lambda: some)
    monkeypatch.setattr("regraft.steps.rank.network.entries", lambda: some)
    return some


@pytest.fixture
def served(hub: StandIn, tiny_catalogue: tuple[Entry, ...]) -> StandIn:
    """The hub, which has all of them."""
    for item in tiny_catalogue[1:]:
        torch.manual_seed(0)
        network = timm.create_model(item.architecture, num_classes=1000)
        hub.repositories[f"timm/{item.name}"] = Repository({"model.safetensors": save(network.state_dict())})
    return hub


def asked(hub: StandIn) -> set[str]:
    """The repositories that the hub was asked for."""
    return {f"timm:{line.split('/')[2]}" for line in hub.asked if "/timm/" in line}


def notes(run: regraft.Run) -> str:
    return "\n".join(
        event["text"] for event in read_events(run.path / "events.jsonl") if event["kind"] == "note"
    )


def test_stronger_models_are_fetched_and_compared(served: StandIn, colours: Path, tmp_path: Path) -> None:
    recipe = {**QUICK, "obtain": {"network": True}}
    run = regraft.fit(colours, tmp_path / "run", recipe=recipe)
    ranking = read_json(run.path / "ranking.json")
    assert {row["reference"] for row in ranking["rows"]} == {LITE, STRONG}
    assert asked(served) == {STRONG}
    said = notes(run)
    before, _, after = said.partition("passed over")
    assert f"fetching from the hub: {STRONG[5:]} (1 MB, Apache-2.0)" in before
    assert "--accept-licence 'CC-BY-NC-4.0' takes it" in after
    assert "it forbids commercial use" in ranking["left_out"][CLOSED]
    assert "Meta's own" in ranking["left_out"][OWN]
    assert "a run with it takes about" in ranking["left_out"][HUGE]
    assert run.state["state"] == "finished"
    assert candidates() == [LITE, STRONG]  # what was fetched is at hand from now on


def test_encoders_of_texts_are_fetched_and_compared(
    hub: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers", reason="needs the library: pip install 'regraft[text]'")
    names = ("some/bert", "some/larger", "some/closed")
    for layers, name in enumerate(names, start=1):
        folder = texts.tiny_encoder(tmp_path / name, layers)
        hub.repositories[name] = Repository({path.name: path.read_bytes() for path in folder.iterdir()})
    some = tuple(
        Entry(
            f"transformers:{name}",
            "text",
            "encoder:BertModel",
            10_000,
            1e-4,
            64,
            "noise",
            None,
            licence,
            "transformer",
        )
        for name, licence in zip(names, ("MIT", "MIT", "CC-BY-NC-4.0"), strict=True)
    )
    some = tuple(replace(item, stronger=True, gmacs_at=32) for item in some)
    for place in ("catalogue", "sources.listing"):
        monkeypatch.setattr(f"regraft.backbones.{place}.entries", lambda: some)
    monkeypatch.setattr("regraft.steps.rank.network.entries", lambda: some)
    obtain_weights(some[0].reference)
    assert candidates("text") == [some[0].reference]
    table = texts.write_table(tmp_path / "all.csv", texts.labelled(12))
    found = regraft.rank(
        table, recipe={"obtain": {"network": True}, "run": {"engine": "torch-float32"}, "base": {"size": 32}}
    )
    assert {row.reference for row in found.rows} == {item.reference for item in some[:2]}
    assert "it forbids commercial use" in found.left_out[some[2].reference]
    assert candidates("text") == [item.reference for item in some[:2]]


def test_licences_are_taken_when_that_is_said(served: StandIn, colours: Path) -> None:
    taken = ["cc-by-nc-4.0", "DINOv3 License"]
    found = regraft.rank(colours, recipe={**QUICK, "obtain": {"network": True, "accept_licences": taken}})
    assert {row.reference for row in found.rows} == {LITE, STRONG, CLOSED, OWN}
    assert {row.licence for row in found.rows} == {"Apache-2.0", "CC-BY-NC-4.0", "DINOv3 License"}
    # At hand they are from now on, and for an automatic choice the licence counts still
    assert set(candidates()) == {LITE, STRONG, CLOSED, OWN}
    said: list[str] = []
    again = regraft.rank(colours, recipe=QUICK, listeners=[lambda event: said.append(str(event.get("text")))])
    assert {row.reference for row in again.rows} == {LITE, STRONG}
    assert any("passed over, though it is at hand" in text and "CC-BY-NC-4.0" in text for text in said)
    with pytest.raises(UsageError, match=r"Did you mean 'CC-BY-NC-4\.0'"):
        regraft.rank(colours, recipe={**QUICK, "obtain": {"network": True, "accept_licences": ["cc-by-nc"]}})


def test_what_was_not_tried_is_one_line_and_nothing_is_asked(
    served: StandIn, colours: Path, tmp_path: Path
) -> None:
    run = regraft.fit(colours, tmp_path / "run", recipe=QUICK)
    (line,) = [line for line in notes(run).splitlines() if line.startswith("not tried")]
    assert f"{STRONG[5:]} (1 MB)" in line
    assert "--network" in line
    assert run.state["provenance"]["id"] == LITE
    said: list[str] = []
    offline = {**QUICK, "obtain": {"network": True}, "run": {"engine": "torch-float32", "offline": True}}
    closed = regraft.rank(
        colours, recipe=offline, listeners=[lambda event: said.append(str(event.get("text")))]
    )
    assert "nothing is fetched: the run is offline" in said
    assert {row.reference for row in closed.rows} == {LITE}
    assert (
        "dry-run fetches nothing"
        in plan(colours, recipe={"obtain": {"network": True}, **QUICK})["steps"]["obtain"]["why"]
    )
    assert not served.asked


def test_a_hub_that_fails_ends_in_a_word_and_the_shipped_model(
    served: StandIn, colours: Path, tmp_path: Path
) -> None:
    served.repositories[f"timm/{STRONG[5:]}"].fault = "wrong"
    run = regraft.fit(colours, tmp_path / "run", recipe={**QUICK, "obtain": {"network": True}})
    assert run.state["provenance"]["id"] == LITE
    assert "has not the hash that the hub stated" in notes(run)
    assert "nothing was fetched" in run.state["steps"]["obtain"]["why"]
    assert not (run.path / "ranking.json").exists()


def test_a_licence_is_named_before_a_model_of_the_users_own_choice_is_fetched(
    served: StandIn, colours: Path
) -> None:
    heard: list[bool] = []

    def hear(event: dict[str, Any]) -> None:
        if event["kind"] == "note" and "CC-BY-NC-4.0" in event["text"]:
            heard.append(bool(served.asked))

    found = regraft.rank(colours, [CLOSED], recipe=QUICK, listeners=[hear])
    assert heard == [False]
    assert found.chosen.licence == "CC-BY-NC-4.0"


def test_the_budget_decides_what_is_fetched(served: StandIn, colours: Path) -> None:
    recipe = {**QUICK, "obtain": {"network": True, "max_parameters": 200_000}}
    said: list[str] = []
    regraft.rank(colours, recipe=recipe, listeners=[lambda event: said.append(str(event.get("text")))])
    assert any("it has 0.3 M parameters, more than the 0.2 M allowed" in text for text in said)
    assert not served.asked


def test_downloads_take_a_share_of_the_budget_only(
    served: StandIn, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.repositories[f"timm/{STRONG[5:]}"].fault = "slow"
    monkeypatch.setattr("regraft.steps.rank.network.FETCHING", 0.005)
    monkeypatch.setattr("regraft.backbones.sources.fetch.PIECE", 1)
    recipe = {**QUICK, "obtain": {"network": True}, "run": {"engine": "torch-float32", "budget_seconds": 120}}
    found = regraft.rank(colours, recipe=recipe)
    assert {row.reference for row in found.rows} == {LITE}
    assert "the share of the budget for fetching" in found.left_out[STRONG]

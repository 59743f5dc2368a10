"""A model sent to a hub by the real client, to a stand-in on loopback: what arrives, and what does not."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

import regraft
from conftest import Fitted
from regraft import publish
from regraft.artifacts import read_json, write_json
from regraft.cli import app
from regraft.errors import RegraftError, UsageError
from standin import Repository, StandIn

SENT = {"README.md", "config.json", "regraft.json", "model.safetensors"}


@pytest.fixture
def run(fitted: Fitted, tmp_path: Path) -> Path:
    """A finished run that the test may change, whose backbone came from a folder of this machine."""
    return Path(shutil.copytree(fitted.run, tmp_path / "run"))


def verb(*words: object) -> None:
    app([str(word) for word in words], standalone_mode=False)


def test_what_arrives_is_the_model_and_no_more(
    run: Path, fitted: Fitted, hub: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verb("push", run, "me/colours", "--yes")
    said = capsys.readouterr()
    assert said.out.strip() == f"{hub.address}/me/colours"
    there = hub.repositories["me/colours"]
    assert there.private
    assert set(there.files) == SENT
    for name, content in there.files.items():
        assert f"{name:24} {len(content):>13,} bytes" in said.err
    assert "stays here: familiarity.safetensors, seen.parquet" in said.err
    assert "Bearer a-token-of-nobody" in hub.tokens
    place = tmp_path / "fetched"
    place.mkdir()
    for name, content in there.files.items():
        (place / name).write_bytes(content)
    files = sorted(map(str, fitted.data.glob("*/*.png")))[::9]
    ours, theirs = regraft.load(run).predict(files), regraft.load(place).predict(files)
    assert [one.probabilities for one in ours] == [one.probabilities for one in theirs]
    assert len(ours) == 10


def test_nothing_that_is_sent_names_an_example_or_a_place_of_this_machine(
    run: Path, fitted: Fitted, hub: StandIn, tmp_path: Path
) -> None:
    state = read_json(run / "run.json")
    source = pq.read_table(run / "examples.parquet").column("source")[0].as_py()
    state["data"]["findings"][0]["message"] = (
        f"{source} is like {fitted.data}/{source}, as in /srv/private/list.txt"
    )
    state["missing"] = {"report": f"No space left on device: {run}/report.html"}
    write_json(run / "run.json", state)
    origin = state["provenance"]
    assert origin["source"].startswith("/")
    regraft.push(run, "me/colours")
    everything = b"".join(hub.received).decode("latin-1")
    sent = [content.decode("latin-1") for content in hub.repositories["me/colours"].files.values()]
    for place in (
        str(fitted.data),
        str(run),
        str(tmp_path),
        origin["source"],
        str(Path.home()),
        "/srv/private",
    ):
        assert place not in everything
        assert all(place not in text for text in sent)
    assert all(source not in text for text in sent)
    about = json.loads(hub.repositories["me/colours"].files["regraft.json"])
    assert about["provenance"]["id"] == f"path:{Path(origin['source']).name}@test_efficientnet"
    assert about["provenance"]["sha256"] == origin["sha256"]


def test_the_card_tells_the_licence_of_the_backbone(run: Path, hub: StandIn) -> None:
    state = read_json(run / "run.json")
    for licence, told in (
        ("CC-BY-NC-4.0", "cc-by-nc-4.0"),
        ("DINOv3 License", "other"),
        ("unknown", "unknown"),
    ):
        state["provenance"]["licence"] = licence
        write_json(run / "run.json", state)
        card = publish.pack(run).contents["README.md"]
        assert isinstance(card, bytes)
        fields = yaml.safe_load(card.decode().split("---\n")[1])
        assert fields["license"] == told
        assert "base_model" not in fields  # a file of this machine is none that anybody else has
        assert f"licence: {licence}" in card.decode()
    assert not hub.asked


def test_it_is_public_only_where_that_was_said(run: Path, hub: StandIn) -> None:
    regraft.push(run, "me/open", public=True)
    assert not hub.repositories["me/open"].private
    before = dict(hub.repositories["me/open"].files)
    with pytest.raises(UsageError, match=r"is public\. Add --public"):
        regraft.push(run, "me/open")
    hub.repositories["me/closed"] = Repository({"notes.txt": b"mine"}, private=True)
    with pytest.raises(UsageError, match=r"is private\. Leave out --public"):
        regraft.push(run, "me/closed", public=True)
    assert hub.repositories["me/open"].files == before
    regraft.push(run, "closed")  # without an owner it is one of the user's own
    assert set(hub.repositories["me/closed"].files) == {*SENT, "notes.txt"}


class Terminal(io.StringIO):
    """Standard input that is a terminal, where somebody has typed."""

    def isatty(self) -> bool:
        return True


def test_it_asks_and_sends_nothing_without_a_yes(
    run: Path, hub: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="--yes"):
        verb("push", run, "me/colours")
    monkeypatch.setattr(sys, "stdin", Terminal("\n"))
    assert app(["push", str(run), "me/colours"], standalone_mode=False) == 1
    assert "nothing was sent" in capsys.readouterr().err
    assert not hub.repositories
    assert not hub.received
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    verb("push", run, "me/colours", "--json")
    assert json.loads(capsys.readouterr().out)["address"].endswith("/me/colours")
    assert set(hub.repositories["me/colours"].files) == SENT


def test_what_cannot_be_sent_is_said_in_words(
    run: Path, hub: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RegraftError, match="does not let this token do that"):
        regraft.push(run, "others/colours")
    with pytest.raises(UsageError, match="no name of a repository"):
        regraft.push(run, "me/colours/extra")
    with pytest.raises(UsageError, match="no run"):
        regraft.push(tmp_path, "me/colours")
    monkeypatch.setattr(publish, "_told", lambda provenance: dict(provenance))
    with pytest.raises(RegraftError, match=r"a place of this machine, so nothing was sent"):
        publish.pack(run)
    monkeypatch.undo()
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(UsageError, match="no token"):
        regraft.push(run, "me/colours")
    assert not hub.repositories


def test_the_command_itself_without_a_terminal(run: Path, hub: StandIn, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
    }

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "regraft", "push", str(run), "me/colours", *words],
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
        )

    asked = call()
    assert (asked.returncode, asked.stdout) == (2, "")
    assert "--yes" in asked.stderr
    done = call("--yes")
    assert (done.returncode, done.stdout) == (0, f"{hub.address}/me/colours\n"), done.stderr
    assert set(hub.repositories["me/colours"].files) == SENT
    hub.close()
    gone = call("--yes")
    assert gone.returncode == 1
    assert "could not be talked to" in gone.stderr
    assert "Traceback" not in gone.stderr

"""Files of a run: whole or not at all, whoever writes them, wherever they lie, however full the disk."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

import regraft
from commands import start
from conftest import Fitted
from regraft.artifacts import (
    Events,
    atomic,
    fingerprint,
    order_metadata,
    read_events,
    read_json,
    read_parquet,
    write_json,
    write_parquet,
    write_text,
)
from regraft.recipe import Recipe, read_recipe
from regraft.training import Checkpoint
from room import little_room

BYTES = os.fsdecode(b"caf\xe9")  # a name that is not UTF-8
needs_bytes = pytest.mark.skipif(os.name != "posix", reason="names are text here")


NOISE = np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)
WRITERS: dict[str, Callable[[Path], None]] = {
    "text": lambda path: write_text(path, "x" * 100_000),
    "json": lambda path: write_json(path, list(range(30_000))),
    "parquet": lambda path: write_parquet(path, pa.table({"noise": NOISE.ravel()})),
    "safetensors": lambda path: _through(path, lambda place: save_file({"noise": NOISE}, str(place))),
    "picture": lambda path: _through(path, lambda place: Image.fromarray(NOISE).save(place, format="PNG")),
}


def _through(path: Path, write: Callable[[Path], None]) -> None:
    with atomic(path) as temporary:
        write(temporary)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_an_oserror_that_names_the_file_and_leaves_what_was_there(
    kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with little_room(50_000), pytest.raises(OSError, match="file") as caught:
        WRITERS[kind](path)
    assert caught.value.filename == str(path)
    assert [item.name for item in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"before"


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(KeyError), atomic(tmp_path / "file"):
        raise KeyError("mine")
    with pytest.raises(FileNotFoundError) as caught, atomic(tmp_path / "file"):
        Path("/no/such/place").read_bytes()
    assert caught.value.filename == "/no/such/place"


def test_an_event_is_whole_or_not_there_at_all(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    events = Events(log)
    events.emit("first")
    with little_room(log.stat().st_size + 20), pytest.raises(OSError, match=r"events\.jsonl"):
        events.emit("second")
    events.emit("third")
    with open(log, "a") as handle:
        handle.write('{"kind": "tor')  # by a kill
    events.emit("unseal")
    assert [event["kind"] for event in read_events(log)] == ["first", "third", "unseal"]


@needs_bytes
def test_names_that_are_not_utf_8_come_back_from_every_kind_of_file(tmp_path: Path) -> None:
    place = tmp_path / BYTES
    write_json(place / "a.json", {BYTES: [BYTES, "é\N{GREEN APPLE}"]})
    assert read_json(place / "a.json") == {BYTES: [BYTES, "é\N{GREEN APPLE}"]}
    write_text(place / "recipe.yaml", Recipe.build({"obtain": {"backbone": f"run:{BYTES}"}}).to_yaml())
    assert read_recipe(place / "recipe.yaml")["obtain"]["backbone"] == f"run:{BYTES}"
    Events(place / "events.jsonl").emit("begin", out=BYTES)
    assert read_events(place / "events.jsonl")[0]["out"] == BYTES
    write_parquet(place / "a.parquet", pa.table({"a": [1, 2]}))
    assert read_parquet(place / "a.parquet", ["a"]).num_rows == 2
    assert len({fingerprint(BYTES), fingerprint("caf\\udce9"), fingerprint("café")}) == 3
    checkpoint = Checkpoint(place / "checkpoint.safetensors")
    checkpoint.save({"weight": torch.ones(2), "epoch": 1})
    found = checkpoint.load()
    assert found is not None
    assert found["epoch"] == 1


def test_the_same_weights_are_the_same_bits(tmp_path: Path) -> None:
    tensors = {"é": np.ones(3, np.float32), "a": np.zeros((2, 2))}
    files = [tmp_path / f"{number}.safetensors" for number in range(12)]
    for file in files:
        save_file(tensors, str(file), metadata={"format": "pt", "regraft": "é"})
        order_metadata(file)
    assert len({file.read_bytes() for file in files}) == 1
    with safe_open(files[0], framework="numpy") as handle:
        assert handle.metadata() == {"format": "pt", "regraft": "é"}
        assert {name: handle.get_tensor(name).tolist() for name in tensors} == {
            k: v.tolist() for k, v in tensors.items()
        }


def test_the_folders_of_a_path_are_no_columns(tmp_path: Path) -> None:
    write_parquet(tmp_path / "seed=3" / "a.parquet", pa.table({"a": [1], "b": [2]}))
    assert read_parquet(tmp_path / "seed=3" / "a.parquet").column_names == ["a", "b"]
    assert read_parquet(tmp_path / "seed=3" / "a.parquet", ["b", "a"]).column_names == ["b", "a"]


@needs_bytes
def test_data_and_runs_in_folders_that_are_not_utf_8(fitted: Fitted, tmp_path: Path, head_only: dict) -> None:
    data, out = tmp_path / BYTES, tmp_path / f"run {BYTES}"
    shutil.copytree(fitted.data, data)
    run = regraft.fit(data, out, recipe=head_only, cache=tmp_path / f"cache {BYTES}")
    assert run.state["data"]["source"] == str(data)
    assert (out / "report.html").is_file()
    picture = data / "red" / "0.png"
    assert regraft.load(out).predict(picture)[0].source == str(picture)
    assert regraft.compare(out, fitted.run).to_dict()["examples"] == run.metrics["test"]["accuracy"].n
    assert regraft.evaluate(out).to_dict()["metrics"]["accuracy"] == run.metrics["test"]["accuracy"].to_dict()


def test_a_run_on_a_full_disk_ends_in_one_line_and_goes_on_when_there_is_room(
    fitted: Fitted, tmp_path: Path, head_only: dict
) -> None:
    pytest.importorskip("resource", reason="the system has no limit on the size of files")
    out, recipe = tmp_path / "my run", tmp_path / "recipe.yaml"
    recipe.write_text(Recipe.build(head_only).to_yaml())
    first = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))"
    process = start("fit", fitted.data, "--out", out, "--config", recipe, "--quiet", first=first)
    _, err = process.communicate()
    assert process.wait() == 1, err
    assert re.fullmatch(
        rf"regraft: File too large: {out}/model/\S+\. Go on with: regraft fit --resume --out '{out}'\n", err
    )
    assert not list(out.rglob("*.tmp"))
    assert json.loads((out / "run.json").read_text())["state"] == "failed"
    run = regraft.fit(out=out, resume=True)
    assert run.state["state"] == "finished"
    assert run.metrics["test"]["accuracy"].value == regraft.Run(fitted.run).metrics["test"]["accuracy"].value

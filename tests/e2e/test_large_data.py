"""Whole runs on data at addresses, in tables with the bytes and in shards: the answers of a folder, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest

import laid
import regraft
from commands import call
from regraft.artifacts import read_json


@pytest.fixture
def memory() -> Iterator[str]:
    """An address in memory, empty."""
    yield "memory://bucket"
    fsspec.filesystem("memory").store.clear()


def predictions(run: Path) -> list[dict[str, Any]]:
    """What a run predicts, but for what its sources are called."""
    return pq.read_table(run / "predictions.parquet").drop_columns(["source"]).to_pylist()


def test_runs_on_addresses_tables_and_shards_end_with_the_bits_of_a_folder(
    tmp_path: Path, memory: str, head_only: dict[str, Any]
) -> None:
    some = sorted(laid.items("image", tmp_path, each=12), key=lambda item: item.label)
    folder = laid.as_folder(str(tmp_path / "folder"), some, ".png")
    first = regraft.fit(folder, tmp_path / "run", recipe=head_only)
    for number, place in enumerate(
        (
            laid.as_folder(f"{memory}/photos", some, ".png"),
            laid.as_parquet(f"{memory}/photos.parquet", some, "image", struct=True, named=True),
            laid.as_shards(str(tmp_path / "shards"), some, ".png", shards=1),
        )
    ):
        out = tmp_path / f"run{number}"
        run = regraft.fit(place, out, recipe={**head_only, "run": {**head_only["run"], "offline": True}})
        assert predictions(run.path) == predictions(first.path), place
        assert read_json(out / "metrics.json")["test"] == read_json(tmp_path / "run" / "metrics.json")["test"]
        found = regraft.evaluate(run.path, folder).to_dict()
        assert found["left_out"]  # what it was made with is known wherever it lies
    again = regraft.fit(out=tmp_path / "run2", resume=True)
    assert again.state["state"] == "finished"
    assert (
        regraft.audit(folder, recipe=head_only, features=False).counts
        == regraft.audit(place, recipe=head_only, features=False).counts
    )
    assert regraft.rank(place, [head_only["obtain"]["backbone"]], recipe=head_only).to_dict()["rows"]


def test_commands_take_shards_as_a_shell_writes_them_out(tmp_path: Path, fitted: Any) -> None:
    some = laid.items("image", tmp_path, each=2)
    laid.as_shards(str(tmp_path / "shards"), some, ".png")
    shards = sorted((tmp_path / "shards").glob("*.tar"))
    audited = call("audit", *shards, "--no-features", "--json")
    assert audited.returncode == 0, audited.stderr
    assert "6" in audited.stdout
    pattern = tmp_path / "shards" / "shards-{000..002}.tar"
    answered = call("predict", fitted.run, pattern, "--format", "csv")
    assert answered.returncode == 0, answered.stderr
    assert answered.stdout.count("shards-00") == len(some)
    judged = call("evaluate", fitted.run, *shards, "--json")
    assert judged.returncode == 0, judged.stderr
    refused = call("fit", "s3://bucket/photos", "--offline")
    assert refused.returncode == 2
    assert "--offline: s3://bucket/photos is reached by a network" in refused.stderr


def test_python_predicts_items_by_their_addresses(memory: str, fitted: Any, tmp_path: Path) -> None:
    item = laid.items("image", tmp_path, each=1)[0]
    model = regraft.load(fitted.run)
    content = item.content
    laid.put(f"{memory}/a.png", content)
    member = laid.as_shards(memory, [item], ".png", shards=1).replace("{000..000}", "000")
    with fsspec.open(member) as handle:
        offset = handle.read().index(content)
    names = [f"{memory}/a.png", f"{member}#000.png:{offset}:{len(content)}", content]
    by_address, by_member, by_bytes = model.predict(names)
    assert by_address.probabilities == by_member.probabilities == by_bytes.probabilities


@pytest.mark.parametrize("modality", ["text", "audio"])
def test_texts_and_sounds_in_stores_are_those_of_their_files(
    modality: str, tmp_path: Path, memory: str, fitted_texts: Any, fitted_sounds: Any
) -> None:
    fitted, each = (fitted_texts, 20) if modality == "text" else (fitted_sounds, 12)
    place, some = fitted.run.parent, laid.items(modality, tmp_path, each)
    recipe = {
        "obtain": {"backbone": f"path:{place / ('bert' if modality == 'text' else 'encoder')}"},
        "base": {"join": False},
        "freeze": {"strategy": "head"},
        "run": {"engine": "torch-float32", "offline": True},
    }
    table = laid.as_parquet(f"{memory}/all.parquet", some, modality, struct=True)
    run = regraft.fit(table, tmp_path / "run", recipe=recipe, cache=place / "cache")
    assert run.state["data"]["modality"] == modality
    assert predictions(run.path) == predictions(fitted.run)
    shards = laid.as_shards(str(tmp_path / "shards"), some, laid.ENDINGS[modality])
    answers = [answer.label for answer in run.model.predict([item.content for item in some])]
    told = call("predict", run.path, shards, "--format", "csv")
    assert told.returncode == 0, told.stderr
    assert sum(told.stdout.count(f",{label}") for label in set(answers)) >= len(some)
    left = regraft.evaluate(fitted.run, shards.replace("{000..002}", "*"), "other files").to_dict()
    assert left["left_out"]

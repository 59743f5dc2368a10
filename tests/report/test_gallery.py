"""The photographs of the report: which ones, within what bounds, and what is said where there is none."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from made_run import HOSTILE, full_run, predictions, rendered
from PIL import Image

from regraft import backbone
from regraft.artifacts import write_parquet
from regraft.modalities import modality_of
from regraft.model import Model
from regraft.report import write_gallery
from regraft.report.gallery import BYTES, read_predictions
from regraft.report.view_data import tile
from regraft.tasks import Multi
from regraft.tasks.single import Single
from regraft.training import make_head

CLASSES = ("daisy", "rose", HOSTILE, "tulip")


def made(tmp_path: Path, **how: Any) -> tuple[Path, Path, dict[str, Any]]:
    """A run's folder, its photographs' root and its gallery."""
    folder = tmp_path / "run"
    folder.mkdir()
    root = predictions(full_run(folder, CLASSES), CLASSES, **how)
    assert write_gallery(folder) == folder / "gallery.json"
    return folder, root, json.loads((folder / "gallery.json").read_text())


def opened(address: str) -> Image.Image:
    """The picture behind a data URI."""
    kind, _, content = address.partition(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_the_galleries_hold_what_their_names_say(tmp_path: Path) -> None:
    folder, _, gallery = made(tmp_path)
    by_name = {g["name"]: g for g in gallery["galleries"]}
    assert list(by_name) == ["mistakes", "uncertain", "labels", "duplicates"]
    predicted = read_predictions(folder / "predictions.parquet", Single(CLASSES))
    assert predicted is not None
    mistakes = by_name["mistakes"]["items"]
    assert all(item["label"] != item["predicted"] for item in mistakes)
    surest = np.sort(predicted.probability[predicted.wrong])[::-1][: len(mistakes)]
    assert [item["probability"] for item in mistakes] == surest.tolist()
    assert [item["probability"] for item in by_name["uncertain"]["items"]] == np.sort(predicted.probability)[
        :24
    ].tolist()
    assert [(item["source"], item["predicted"]) for item in by_name["labels"]["items"]] == [
        ("2.png", "daisy"),
        ("3.png", "rose"),
    ]
    assert [item["source"] for item in by_name["duplicates"]["items"]] == [
        "1.png",
        "1/photo 1.png",
        "0.png",
        "0/photo 0.png",
    ]
    assert {item["split"] for item in by_name["duplicates"]["items"]} == {"train", "test"}
    assert opened(mistakes[0]["picture"]).size == (64, 64)


def test_each_cell_holds_its_own_and_no_more_than_it_counts(tmp_path: Path) -> None:
    folder, _, gallery = made(tmp_path)
    counts = json.loads((folder / "metrics.json").read_text())["confusion"]
    filled = {f"{i},{j}" for i in range(4) for j in range(4) if counts[i][j]}
    assert set(gallery["cells"]) == filled
    for key, items in gallery["cells"].items():
        i, j = map(int, key.split(","))
        assert {(item["label"], item["predicted"]) for item in items} == {(CLASSES[i], CLASSES[j])}
        assert len(items) == min(counts[i][j], 4 if i == j else 8)


def test_a_file_that_went_is_said_to_be_gone(tmp_path: Path) -> None:
    folder, root, gallery = made(tmp_path)
    gone, broken = (item["source"] for item in gallery["galleries"][0]["items"][:2])
    (root / gone).unlink()
    (root / broken).unlink()
    (root / broken).write_bytes(b"no picture any more")
    write_gallery(folder)
    items = json.loads((folder / "gallery.json").read_text())["galleries"][0]["items"]
    for item in items[:2]:
        assert not item["picture"]
        assert "gone or cannot be read" in item["note"]
    assert all(item["picture"] for item in items[2:] if item["source"] not in (gone, broken))
    assert "gone or cannot be read" in rendered(folder)[1].text


def test_a_run_that_was_stopped_early_has_what_the_audit_found(tmp_path: Path) -> None:
    folder, _, _ = made(tmp_path)
    (folder / "predictions.parquet").unlink()
    write_gallery(folder)
    gallery = json.loads((folder / "gallery.json").read_text())
    assert [g["name"] for g in gallery["galleries"]] == ["labels", "duplicates"]
    twins = gallery["galleries"][1]["items"]
    assert {item["split"] for item in twins if not item["label"]} == {"test"}  # sealed until step 7
    assert all(item["label"] for item in twins if item["split"] == "train")
    assert gallery["cells"] == {}
    (folder / "audit.json").unlink()
    write_gallery(folder)
    assert json.loads((folder / "gallery.json").read_text()) == {"galleries": [], "cells": {}}


def test_every_picture_of_the_page_has_words_and_hostile_names_stay_text(tmp_path: Path) -> None:
    folder, _, _ = made(tmp_path)
    text, page = rendered(folder)
    assert len(page.alternatives) > 60
    assert all(page.alternatives)
    assert any(HOSTILE in str(words) for words in page.alternatives)
    assert text.count("<script") == 1
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert all(link.startswith(("data:image/", "#")) for link in page.links)


def test_ten_thousand_test_examples_make_a_page_below_six_megabytes(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    classes = tuple(f"class {number}" for number in range(12))
    # Noise: no thumbnail is larger
    predictions(full_run(folder, classes, n=10_000), classes, n=10_000, pixels=300)
    write_gallery(folder)
    gallery = json.loads((folder / "gallery.json").read_text())
    items = [item for g in gallery["galleries"] for item in g["items"]] + [
        item for c in gallery["cells"].values() for item in c
    ]
    assert 3_000_000 < sum(len(item["picture"]) for item in items) <= BYTES
    assert any("left out, to keep the page small" in item["note"] for item in items)
    assert all(item["picture"] for g in gallery["galleries"] for item in g["items"])  # cells give way first
    text, _ = rendered(folder)
    assert 3_000_000 < len(text.encode()) < 6_000_000


def test_maps_are_of_mistakes_and_show_both_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _, _ = made(tmp_path)
    base = backbone(size=64)
    model = Model(base, make_head("linear", base.width, 4), "linear", Single(CLASSES))
    write_gallery(folder, model, seconds=0.0)
    assert json.loads((folder / "gallery.json").read_text())["galleries"][0]["name"] == "mistakes"
    write_gallery(folder, model, seconds=60.0)
    looks, mistakes = json.loads((folder / "gallery.json").read_text())["galleries"][:2]
    assert looks["name"] == "looks"
    assert [item["source"] for item in looks["items"]] == [item["source"] for item in mistakes["items"][:6]]
    for item in looks["items"]:
        assert opened(item["picture"]).size == opened(item["map"]).size == (240, 240)
    assert "Where it looked" in rendered(folder)[1].text
    monkeypatch.setattr(
        modality_of("image"), "hide", lambda raw: None
    )  # as of a modality that hides no places
    write_gallery(folder, model, seconds=60.0)
    names = [gallery["name"] for gallery in json.loads((folder / "gallery.json").read_text())["galleries"]]
    assert names[0] == "mistakes"
    assert "looks" not in names


def test_pictures_of_several_labels_are_found_by_each_and_what_is_not_known_is_no_mistake(
    tmp_path: Path,
) -> None:
    labels = ['{"a": true, "b": null}', '["a", "b"]', '["b"]']
    columns = {"split": ["test"] * 3, "source": ["1", "2", "3"], "label": labels, "predicted": ['["a"]'] * 3}
    write_parquet(tmp_path / "predictions.parquet", pa.table(columns))
    predicted = read_predictions(tmp_path / "predictions.parquet", Multi(("a", "b")))
    assert predicted is not None
    assert predicted.wrong.tolist() == [False, True, True]
    tiles = [tile(item, {"a": 0, "b": 1}) for item in predicted.items(range(3))]
    assert [one["classes"] for one in tiles] == ["0", "0 1", "1 0"]
    assert [one["wrong"] for one in tiles] == [False, True, True]

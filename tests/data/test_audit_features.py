"""The second phase: labels, outliers and classes, on features and predictions whose faults are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bases import IMAGES, facts_of
from regraft.data.audit import Finding, Near, Seen, audit_features, find_near, near_duplicates
from regraft.data.kind import Likeness
from regraft.data.part import Part
from regraft.tasks import task_of

CLASSES = ("ant", "bee", "cat")


def seen(
    labels: np.ndarray, features: np.ndarray | None, probabilities: np.ndarray | None, **more: object
) -> Seen:
    names = tuple(f"{k}.png" for k in range(len(labels)))
    inputs = Part(
        name="train and val",
        ids=names,
        sources=names,
        items=names,
        identities=names,
        facts=facts_of([(64, 64)] * len(labels)),
    )
    rows = np.arange(len(labels) if probabilities is not None else 0)
    task = task_of("single", CLASSES)
    suspects = (
        [] if probabilities is None else task.suspects(labels, np.log(np.maximum(probabilities, 1e-12)))
    )
    nothing = {"test": None, "near": Near(), "said": task.said, "suspects": suspects}
    return Seen(
        CLASSES,
        inputs,
        ("train",) * len(labels),
        labels,
        features,
        rows,
        probabilities,
        **{**nothing, **more},
    )  # type: ignore[arg-type]


def reading(read: Callable[[Any], np.ndarray | None]) -> Likeness:
    """How near-duplicates of images are found, but that `read` makes the pictures."""
    return replace(IMAGES.likeness(IMAGES.facts.empty_table()), read=read)


def nowhere(**_: object) -> None:
    """Progress that nobody hears."""


def of(kind: str, findings: list[Finding]) -> Finding | None:
    return next((finding for finding in findings if finding.kind == kind), None)


def predictions(labels: np.ndarray, sure: float, seed: int = 0) -> np.ndarray:
    """(N, 3) probabilities of a model that is about `sure` of the true class."""
    noise = np.random.default_rng(seed).uniform(0, 0.1, (len(labels), 3))
    found = np.eye(3)[labels] * sure + (1 - sure) / 3 + noise
    return found / found.sum(axis=1, keepdims=True)


def test_planted_wrong_labels_are_found_with_the_right_one_suggested() -> None:
    truth = np.arange(150) % 3
    labels = truth.copy()
    wrong = [7, 40, 77, 120]
    labels[wrong] = (truth[wrong] + 1) % 3
    found = of("likely wrong labels", audit_features(seen(labels, None, predictions(truth, 0.8))))
    assert found is not None
    assert found.severity == "warning"
    right = {f"{k}.png": CLASSES[truth[k]] for k in wrong}
    assert len(found.examples) >= 3
    assert set(found.examples) <= set(right)
    assert dict(found.suggested) == {name: right[name] for name in found.examples}
    kept = frozenset({(found.examples[0], "likely wrong labels")})
    again = of("likely wrong labels", audit_features(seen(labels, None, predictions(truth, 0.8), kept=kept)))
    assert again is not None
    assert again.examples == found.examples[1:]
    assert again.message.startswith(f"{len(again.examples)} labels")


def test_right_labels_and_classes_well_told_apart_are_not_found_fault_with() -> None:
    labels = np.arange(150) % 3
    assert audit_features(seen(labels, None, predictions(labels, 0.8))) == []


def test_classes_that_are_guessed_are_named() -> None:
    labels = np.arange(300) % 3
    shares = predictions(labels, 0.8)
    guess = np.random.default_rng(0).uniform(0.3, 0.6, 300)
    for row, label in enumerate(labels):
        if label < 2:
            shares[row] = [guess[row], 0.9 - guess[row], 0.1]
    found = of("classes that hardly differ", audit_features(seen(labels, None, shares)))
    assert found is not None
    assert "ant and bee" in found.message
    assert "cat" not in found.message
    few = labels[:15], shares[:15]  # ten examples prove nothing
    assert of("classes that hardly differ", audit_features(seen(few[0], None, few[1]))) is None


def test_what_lies_far_out_is_found() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(210) % 3
    features = rng.normal(size=(210, 32)) + 6 * np.eye(3, 32)[labels] + 4
    features[100] = -features[0]
    found = of("outliers", audit_features(seen(labels, features.astype(np.float32), None)))
    assert found is not None
    assert found.examples[0] == "100.png"
    assert len(found.examples) <= 3
    assert found.severity == "info"


def picture(seed: int) -> np.ndarray:
    from PIL import Image

    rng = np.random.default_rng(seed)
    layers = [
        Image.fromarray(rng.integers(0, 256, (k, k, 3), dtype=np.uint8)).resize(
            (64, 64), Image.Resampling.BICUBIC
        )
        for k in (3, 7, 15)
    ]
    return np.mean([np.asarray(layer, dtype=float) for layer in layers], axis=0).astype(np.uint8)


@pytest.mark.parametrize("readable", [True, False])
def test_near_duplicates_are_sorted_by_where_they_lie(readable: bool) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    features = rng.normal(size=(30, 16)).astype(np.float32)
    same = {3: 0, 4: 1, 20: 2}  # 3 is like 0, of one label; 4 is like 1; 20 in val is like 2
    for copy, original in same.items():
        features[copy] = features[original] + 0.05
    labels[4] = (labels[1] + 1) % 3
    ahead = rng.normal(size=(6, 16)).astype(np.float32)
    ahead[5] = features[9]
    names = tuple(f"t{k}.png" for k in range(6))
    test = Part(
        name="test", ids=names, sources=names, items=names, identities=names, facts=facts_of([(64, 64)] * 6)
    )
    alike = {f"{copy}.png": original for copy, original in same.items()} | {"t5.png": 9}

    def read(path: str) -> np.ndarray | None:
        number = alike.get(path, int(path.strip("t.png")) + 1000 * path.startswith("t"))
        return picture(number) if readable else None

    inputs = seen(labels, features, None).inputs
    about = seen(
        labels,
        features,
        None,
        test=test,
        near=find_near(inputs, test, (features, ahead), reading(read), nowhere),
    )
    splits = ("train",) * 20 + ("val",) * 10
    findings = audit_features(Seen(**{**vars(about), "splits": splits}))
    if not readable:
        assert not [f for f in findings if f.pairs]
        return
    across = of("near-duplicates across splits", findings)
    within = of("near-duplicates", findings)
    differ = of("near-duplicates with different labels", findings)
    assert across is not None
    assert within is not None
    assert differ is not None
    assert {frozenset(pair[:2]) for pair in across.pairs} == {
        frozenset({"2.png", "20.png"}),
        frozenset({"9.png", "t5.png"}),
    }
    assert {frozenset(pair[:2]) for pair in within.pairs} == {
        frozenset({"0.png", "3.png"}),
        frozenset({"1.png", "4.png"}),
    }
    assert {name for pair in differ.pairs for name in pair[:2]} >= {"1.png", "4.png"}
    assert "1 test example has one" in across.message
    assert (across.severity, within.severity, differ.severity) == ("warning", "info", "warning")


def test_pictures_of_a_few_pixels_are_no_near_duplicates() -> None:
    labels, features = np.arange(30) % 3, np.random.default_rng(0).normal(size=(30, 16)).astype(np.float32)
    features[20] = features[2] + 0.05
    inputs = seen(labels, features, None).inputs

    def read(path: str) -> np.ndarray:
        return picture(0 if path in ("2.png", "20.png") else int(path.strip(".png")))

    for side, found in ((64, True), (8, False)):
        sized = replace(inputs, facts=facts_of([(side, side)] * 30))
        assert bool(find_near(sized, None, (features, None), reading(read), nowhere).pairs) == found


def test_each_likely_near_duplicate_is_read_once_whatever_pairs_it_is_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("regraft.data.audit.duplicates.CHUNK", 4)
    features = 1 + 0.01 * np.random.default_rng(0).normal(size=(12, 16)).astype(np.float32)
    features[6:] *= -1  # two clusters, each example of which is like all others of its own
    inputs, reads = seen(np.arange(12) % 3, features, None).inputs, list[str]()

    def read(path: str) -> np.ndarray:
        reads.append(path)
        return picture(int(path.strip(".png")) // 6)

    near = find_near(inputs, None, (features, None), reading(read), nowhere)
    assert len(near.pairs) > 12
    assert sorted(reads) == sorted(inputs.items)
    monkeypatch.setattr("regraft.data.audit.duplicates.HELD", 0)
    assert find_near(inputs, None, (features, None), reading(read), nowhere) == near


@pytest.mark.parametrize("by_features", [True, False])
def test_near_duplicates_of_many_pictures_are_those_that_comparing_all_with_all_finds(
    monkeypatch: pytest.MonkeyPatch, by_features: bool
) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 16)).astype(np.float32)
    features[200:260] = features[:60] + 0.1 * rng.normal(size=(60, 16))
    raw = rng.integers(0, 256, size=(300, 16), dtype=np.uint8)
    raw[200:260, :8] = raw[:60, :8]
    raw[200:260, 0] ^= 1
    names = tuple(f"{k}.png" for k in range(300))
    hashes = [row.tobytes().hex() for row in raw]
    every = Part(
        name="train and val",
        ids=names,
        sources=names,
        items=names,
        identities=names,
        facts=facts_of([(64, 64)] * 300, hashes),
    )

    def read(path: str) -> np.ndarray:
        number = int(path.removesuffix(".png"))
        return picture(number - 200 if 200 <= number < 260 else number)

    def pairs() -> list[tuple[int, int]]:
        found, left = near_duplicates(
            every, features if by_features else None, reading(read), lambda **_: None
        )
        assert left == 0
        return [pair[:2] for pair in found]

    exact = pairs()
    assert set(exact) >= {(k, 200 + k) for k in range(60)}
    monkeypatch.setattr("regraft.data.audit.duplicates.EXACT", 100)
    monkeypatch.setattr("regraft.evaluation.neighbours.LIST", 25)
    assert pairs() == exact


def test_an_audit_that_runs_out_of_time_says_what_was_not_looked_for() -> None:
    rng = np.random.default_rng(0)
    labels, features = np.arange(90) % 3, rng.normal(size=(90, 16)).astype(np.float32)
    features[50] = features[2]
    inputs = seen(labels, features, None).inputs
    found = find_near(inputs, None, (features, None), reading(lambda path: picture(0)), nowhere, lambda: True)
    about = seen(labels, features, None, near=found)
    asked = 0

    def soon() -> bool:
        nonlocal asked
        asked += 1
        return asked > 1

    cut = [
        finding for finding in audit_features(replace(about, stop=soon)) if finding.kind == "audit cut short"
    ]
    assert "there may be more" in cut[0].message
    assert "likely wrong labels, outliers, classes that hardly differ" in cut[1].message
    said: list[str] = []
    pairs, left = near_duplicates(
        inputs, features, reading(picture), lambda **_: None, lambda: True, said.append
    )
    assert (pairs, left, len(said)) == ([], 0, 1)

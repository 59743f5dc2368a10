"""The tasks of several labels and of numbers: labels as texts, losses and slopes, calibration, strata, words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.data import Row
from regraft.data.answers import Wanted, all_numbers, flags, numbers, of_column, several
from regraft.data.audit.files import Fact
from regraft.data.audit.identical import drop_copies
from regraft.errors import DataError, UsageError
from regraft.evaluation import estimates
from regraft.modalities import read_source
from regraft.prediction import Reading
from regraft.recipe import Recipe
from regraft.tasks import Held, Multi, Numbers, task_of
from regraft.tasks.cutoffs import Cutoff, Cutoffs
from regraft.tasks.shares import fewest, strata_of_labels, strata_of_numbers
from regraft.training import fit_linear

MULTI = Multi(("cat", "dog", "eel"))
NUMBERS = Numbers(("height", "width")).fitted(np.array([[1.0, 100], [3, 300], [5, np.nan]]))


def test_labels_are_read_in_every_form_and_said_in_one() -> None:
    texts = ["cat;dog", '["dog", "cat"]', "dog | cat", '{"cat": true, "dog": true, "eel": false}']
    np.testing.assert_array_equal(MULTI.encode(texts), [[1, 1, 0]] * 4)
    np.testing.assert_array_equal(MULTI.encode(["", "[]", '{"eel": null}'])[:2], np.zeros((2, 3)))
    assert np.isnan(MULTI.encode(['{"eel": null}'])).all()
    with pytest.raises(UsageError, match="no labels of this task: cow"):
        MULTI.encode(["cat;cow"])
    targets = np.array([[1, 0, 1], [0, 0, 0], [1, np.nan, 0]], dtype=np.float32)
    np.testing.assert_array_equal(MULTI.encode(MULTI.said(targets)), targets)
    assert [MULTI.shown(label) for label in MULTI.said(targets)] == [
        "cat; eel",
        "none",
        "cat (dog not known)",
    ]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.sampled_from(MULTI.classes), unique=True), min_size=1))
def test_what_a_column_of_labels_says_is_what_was_meant(rows: list[list[str]]) -> None:
    for form in (rows, [json.dumps(row) for row in rows], [";".join(row) for row in rows]):
        read = several(form)
        wanted = [[float(name in row) for name in MULTI.classes] for row in rows]
        np.testing.assert_array_equal(MULTI.encode(read.labels), wanted)


def test_columns_tell_what_is_known() -> None:
    read = flags({"cat": ["1", "0", "", None], "dog": ["true", "No", "0", ""]})
    assert read.labels[3] is None
    np.testing.assert_array_equal(
        Multi(("cat", "dog")).encode(read.labels[:3]), [[1, 1], [0, 0], [np.nan, 0]]
    )
    assert flags({"cat": ["2"]}).faults[0][0] == 0
    told = numbers({"b": ["1.5", ""], "a": [2, None]}, alone=False)
    assert (told.labels[1], json.loads(told.labels[0])) == (None, {"a": 2.0, "b": 1.5})
    for wrong in ("many", "nan", "inf", "1,5", "1e300"):
        assert numbers({"a": [wrong]}, alone=True).faults
    assert "a point stands before decimals" in numbers({"a": ["-1,5"]}, alone=True).faults[0][1]
    assert [place for place, _ in several(['["a"', '{"a": true}', "{a", '["b"]']).faults] == [0, 1]
    assert all_numbers(["1", "2.5", None])
    assert not all_numbers(["1", "a"])


def test_a_column_is_taken_as_the_task_or_the_cells_say() -> None:
    many = [str(n) for n in range(30)]
    with pytest.raises(DataError, match="30 different numbers"):
        of_column(many, "label", Wanted(), "t.csv")
    assert of_column(many, "label", Wanted("single"), "t.csv") is None
    for wanted, column in ((Wanted("regression"), "label"), (Wanted(), "target")):
        read = of_column(many, column, wanted, "t.csv")
        assert read is not None
        assert read.are == "number"
    assert of_column(["0", "1"], "target", Wanted(), "t.csv") is None, "few whole numbers are classes"
    assert of_column(["a;b", "c"], "label", Wanted(), "t.csv") is None
    read = of_column(["a;b", "c", None], "labels", Wanted(), "t.csv")
    assert read is not None
    assert read.labels == ['["a", "b"]', '["c"]', "[]"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"task": "regression", "labels": ["a"]}, "labels are columns of 0 and 1"),
        ({"task": "multi", "targets": ["a"]}, "targets are columns of numbers"),
    ],
)
def test_columns_of_another_task_than_is_asked_for_are_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        Recipe.build({"data": asked})
    assert said in str(caught.value)


def test_what_a_column_may_mean_beside_names_of_classes_is_told(tmp_path: Path) -> None:
    for column, said in (("target", "say --task regression"), ("labels", "say --task multi")):
        place = tmp_path / f"{column}.csv"
        place.write_text(f"path,{column}\n" + "".join(f"{n}.png,{n % 3}\n" for n in range(9)))
        assert any(said in note.message for note in read_source(place).notes), column
        assert not any(said in note.message for note in read_source(place, Wanted("single")).notes)
    (tmp_path / "empty.csv").write_text("path,a,b\n1.png,,\n2.png,,\n")
    with pytest.raises(DataError, match=r"2 rows of empty\.csv were passed over: nothing is known"):
        read_source(tmp_path / "empty.csv", Wanted(labels=("a", "b")))


@pytest.mark.parametrize(
    ("labels", "wrong"),
    [
        (['{"cat": true, "dog": null, "eel": false}', '{"cat": true, "dog": false, "eel": false}'], False),
        (['{"cat": true, "dog": null, "eel": false}', '{"cat": true, "dog": null, "eel": true}'], True),
        (['["cat", "dog"]', "dog;cat"], False),
    ],
)
def test_twins_of_which_other_things_are_known_contradict_nothing(labels: list[str], wrong: bool) -> None:
    rows = [Row(f"{n}.png", label) for n, label in enumerate(labels)]
    facts = [Fact(str(n), "same", None, 0, 0) for n in range(len(labels))]
    found, _ = drop_copies(rows, facts, ["train"] * len(rows), [[] for _ in rows], frozenset(), MULTI.encode)
    assert [finding.kind for finding in found] == ["copies", "contradicting labels"][: 1 + wrong]


@pytest.mark.parametrize("task", [MULTI, Numbers(("a", "b", "c")), NUMBERS, NUMBERS.ways()["Huber's loss"]])
def test_a_link_has_the_slope_of_its_loss_and_passes_over_what_is_not_known(task: Multi | Numbers) -> None:
    rng, k = np.random.default_rng(0), task.outputs
    targets = (
        rng.integers(0, 2, (6, k)).astype(np.float64) if isinstance(task, Multi) else rng.normal(3, 1, (6, k))
    )
    targets[1, 0], targets[2] = np.nan, np.nan
    outputs = torch.randn(6, 2, k, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    shares = torch.rand(6, 2, generator=torch.Generator().manual_seed(1))
    value, slope = task.link.slope(outputs.detach().clone(), task.link.tensor(targets), shares)
    each = [task.link.losses(targets, outputs[:, f].detach().double().numpy()) for f in range(2)]
    assert value == pytest.approx(float((np.stack(each, axis=1) * shares.numpy()).sum()), rel=1e-5)
    assert (slope[2] == 0).all()
    assert (slope[1, :, 0] == 0).all()
    step = 1e-3
    for place in ((0, 0, 0), (4, 1, k - 1)):
        ends = []
        for sign in (-1, 1):
            moved = outputs.detach().clone()
            moved[place] += sign * step
            ends.append(task.link.slope(moved, task.link.tensor(targets), shares)[0])
        assert (ends[1] - ends[0]) / (2 * step) == pytest.approx(float(slope[place]), abs=2e-3)
    loss = task.loss(outputs[:, 0], torch.from_numpy(targets))
    np.testing.assert_allclose(loss.detach().numpy(), each[0], rtol=1e-4, atol=1e-5)
    assert loss[2] == 0
    loss.sum().backward()
    assert torch.isfinite(outputs.grad).all()  # type: ignore[arg-type]


def test_a_label_is_said_from_its_threshold_on_and_saved_with_it() -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((400, 3)) < (0.05, 0.3, 0.6)).astype(np.float32)
    outputs = 3 * (2 * targets - 1 + rng.normal(0, 1.2, targets.shape))
    calibration = MULTI.calibrate(Held("out-of-fold", targets, outputs))
    assert all(temperature > 1 for temperature in calibration.temperatures), "they were too sure"
    again = MULTI.calibration(json.loads(json.dumps(calibration.saved())))
    assert again.thresholds == calibration.thresholds
    decided = MULTI.decided(again)
    scaled = again.applied(outputs)
    shares = 1 / (1 + np.exp(-scaled))
    np.testing.assert_array_equal(decided.answers(scaled), shares >= np.array(again.thresholds))
    answer = decided.predict(scaled[:1])[0]
    assert answer.labels == tuple(np.array(MULTI.classes)[decided.answers(scaled)[0] > 0])
    with pytest.raises(UsageError, match="cannot promise that 99%"):
        Reading.of(MULTI, calibration, None, 0.99)
    nothing = MULTI.calibrate(Held("val", targets[:0], outputs[:0]))
    assert nothing.thresholds == (0.5, 0.5, 0.5)
    assert calibration.promising_nothing("seen").saved()["labels"]["eel"]["promised"] == {}
    module = decided.in_graph(again).module
    np.testing.assert_allclose(module(torch.from_numpy(outputs)).numpy(), shares, atol=1e-6)


def test_with_a_precision_labels_are_said_from_what_promises_it_and_others_never() -> None:
    sure = Cutoffs(
        "out-of-fold", {"cat": Cutoff(promised={0.9: 0.6, 0.95: 0.8}), "dog": Cutoff(), "eel": Cutoff(2)}
    )
    reading = Reading.of(MULTI, MULTI.calibration(json.loads(json.dumps(sure.saved()))), None, 0.92)
    outputs = np.array([[2.0, 9.0, 9.0], [0.5, 9.0, 9.0]])
    first, second = reading(["a", "b"], outputs, [None, None])
    assert (first.labels, second.labels) == (("cat",), ()), "from 0.8 on, which promises 0.95"
    assert first.note == "not promised, so never said: dog, eel"
    assert first.sure is None
    assert Reading.of(MULTI, sure)(["a"], outputs[:1], [None])[0].note == ""
    with pytest.raises(UsageError, match="numbers have intervals"):
        Reading.of(NUMBERS, NUMBERS.calibrate(Held("val", np.zeros((0, 2)), np.zeros((0, 2)))), None, 0.9)


def test_rare_labels_may_weigh_more_in_training_and_outputs_stay_log_odds() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (4_000, 3)).astype(np.float32)
    targets = (rng.random((4_000, 1)) < 1 / (1 + np.exp(3.5 - 1.5 * x[:, :1]))).astype(np.float32)
    task = Multi(("rare",)).fitted(targets)
    assert list(Multi(("often",)).fitted(1 - targets).ways()) == ["log loss"]
    ways = task.ways()
    assert [len(way.positive) for way in ways.values()] == [0, 1, 1]
    found = {}
    for name, way in ways.items():
        weight, bias = fit_linear(x, targets, np.ones(4_000), way, 1e-6)
        found[name] = x @ weight.T + bias
        assert abs((1 / (1 + np.exp(-found[name]))).mean() - targets.mean()) < 0.01, "as probable as it is"
        outputs = torch.from_numpy(found[name][:, None, :].copy())
        total, _ = way.link.slope(outputs, way.link.tensor(targets), torch.ones(4_000, 1))
        each = way.loss(torch.from_numpy(found[name]), torch.from_numpy(targets)).numpy()
        assert total == pytest.approx(float(each.sum()), rel=1e-4)
        np.testing.assert_allclose(way.link.losses(targets, found[name]), each, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(way.losses(targets, found[name]), task.losses(targets, found[name]))
        assert task_of("multi", way.classes, way.settings()).positive == pytest.approx(way.positive)
    plain, heavy = task.losses(targets, found["log loss"]), task.losses(targets, found["rare labels weighed"])
    assert plain.mean() < heavy.mean(), "what is judged is the plain loss"


def test_suspected_labels_are_those_that_were_turned() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random((300, 3)) < 0.4).astype(np.float32)
    outputs = 4 * (2 * truth - 1) + rng.normal(0, 0.5, truth.shape)
    targets = truth.copy()
    turned = list(range(0, 300, 20))
    targets[turned, 1] = 1 - targets[turned, 1]
    found = MULTI.suspects(targets, outputs)
    assert {one.row for one in found} <= set(turned)
    assert len(found) > 10
    np.testing.assert_array_equal(
        MULTI.encode([one.suggested for one in found]), truth[[one.row for one in found]]
    )
    values = rng.normal(10, 1, (300, 1))
    wrong = values.copy()
    wrong[7] = 90
    task = Numbers(("target",))
    (suspect,) = task.suspects(wrong, values + rng.normal(0, 0.2, values.shape))
    assert (suspect.row, "target is given as 90" in suspect.note) == (7, True)


def test_intervals_that_are_wider_where_numbers_are_large_are_saved_told_and_exported() -> None:
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(300, 1))
    targets = 10 + 2 * outputs + rng.normal(size=(300, 1)) * (0.1 + np.exp(outputs))
    task = Numbers(("size",)).fitted(targets)
    told = (outputs * 2 + 10 - np.mean(targets)) / np.std(targets)
    calibration = task.calibrate(Held("out-of-fold", targets, told))
    assert calibration.sizes[0] is not None
    again = task.calibration(json.loads(json.dumps(calibration.saved())))
    decided = task.decided(again)
    small, large = (
        one.intervals["size"][1] - one.intervals["size"][0]  # type: ignore[index]
        for one in decided.predict(np.array([[-1.5], [1.5]]))
    )
    assert large > 2 * small
    columns = decided.columns(np.array([[1.5]]), again)
    assert columns["high:size"][0] - columns["low:size"][0] == pytest.approx(large)
    graph = decided.in_graph(again)
    assert graph.sizes == calibration.sizes
    apart = (
        graph.alike * graph.scale
    )  # as far as an export may be off: what a reader takes for the same number
    assert decided.same(np.array([[7.0]]), 7 + 0.99 * apart).all()
    assert not decided.same(np.array([[7.0]]), 7 + 1.01 * apart).any()
    other = task.calibration({"intervals": {"share": 0.9, "widths": [1.0]}})
    ends = (
        task.decided_each([again, other], np.array([1, 0])).facts(targets[:2], np.array([[1.5], [1.5]])).ends
    )
    assert (ends[1] - ends[0])[:, 0] == pytest.approx([2.0, large])  # type: ignore[index]


def test_numbers_are_told_in_their_units_with_what_is_promised() -> None:
    assert (NUMBERS.scale is not None, NUMBERS.encode(['{"height": 2, "width": null}'])[0, 0]) == (True, 2)
    outputs = np.array([[0.0, 0.0], [9.0, 0.0]])
    held = Held("out-of-fold", np.array([[3.0, 200.0]] * 40), np.zeros((40, 2)) + np.arange(40)[:, None] / 40)
    calibration = NUMBERS.calibrate(held)
    task = NUMBERS.decided(NUMBERS.calibration(json.loads(json.dumps(calibration.saved()))))
    first, second = task.predict(outputs)
    assert first.values == pytest.approx({"height": 3.0, "width": 200.0})
    assert (first.note, "height lies outside of the training targets, 1 to 5" in second.note) == ("", True)
    low, high = (first.intervals or {})["width"]
    assert high - 200 == pytest.approx(200 - low) == pytest.approx(36 / 40 * 100)
    again = task_of("regression", task.classes, json.loads(json.dumps(task.settings())))
    np.testing.assert_array_equal(again.answers(outputs), task.answers(outputs))
    np.testing.assert_allclose(task.encode(task.said(task.answers(outputs))), task.answers(outputs))
    few = np.where(
        np.arange(40)[:, None] < (40, 5), held.targets, np.nan
    )  # five are too few to promise anything
    half = NUMBERS.decided(NUMBERS.calibrate(replace(held, targets=few)))
    assert [bool(row["held"]) for row in half.tables(held.targets, held.outputs)["numbers"]] == [True, False]
    graph = task.in_graph(calibration)
    np.testing.assert_allclose(
        graph.module(torch.from_numpy(outputs)).numpy(), task.answers(outputs), rtol=1e-6
    )
    np.testing.assert_allclose(graph.outputs(graph.numbers(outputs)), outputs, atol=1e-12)
    assert "'width' is always 7" in task.lacking(['{"height": 1, "width": 7}', '{"height": 2, "width": 7}'])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 400), k=st.integers(1, 8))
def test_strata_are_numbered_without_gaps_and_none_is_small(seed: int, count: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    labels = (rng.random((count, k)) < rng.random(k)).astype(np.float32)
    values = np.round(rng.exponential(3, (count, k)))
    values[rng.random(values.shape) < 0.2] = np.nan
    parts = strata_of_numbers(np.arange(count)[:, None] * 1.0)
    for strata in (strata_of_labels(labels), strata_of_numbers(values), parts):
        counts = np.bincount(strata)
        assert len(strata) == count
        assert counts.min() >= min(fewest(count), count)
        assert count >= 50 or len(counts) * 10 > count or strata is not parts


def test_several_numbers_are_told_in_their_own_units_first() -> None:
    task = Numbers(("height", "width"))
    rows = [{"name": "height", "mae": 3.14159}, {"name": "width", "mae": 12_345.6}]
    before, after = task.result({"numbers": rows})
    assert (before, after) == (
        "the model is off by 3.14 (height), 12,346 (width) on average, which is",
        "of the targets",
    )
    assert task.headline.shown(0.7) == "0.700 standard deviations"
    assert Numbers(("height",)).result({"numbers": rows[:1]}) == ("the model is off by", "on average")


def test_strata_keep_rare_labels_apart_and_numbers_in_order() -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros((1_000, 3), dtype=np.float32)
    labels[:, 0] = rng.random(1_000) < 0.5
    labels[:30, 2] = 1
    strata = strata_of_labels(labels)
    assert not set(strata[:30]) & set(strata[30:])
    few = np.array([[n & 1, n >> 1 & 1, n >> 2 & 1] for n in [5, 5, 6, 0, 0, 5, 6, 1, 1, 0, 2, 1, 0, 4, 2]])
    assert np.bincount(strata_of_labels(few)).tolist() == [6, 9], "too many for a test set to be cut"
    values = rng.exponential(3, (500, 1))
    parts = strata_of_numbers(values)
    assert np.bincount(parts).tolist() == [50] * 10
    assert all(values[parts == p].max() <= values[parts == p + 1].min() for p in range(9))


def test_a_few_outliers_are_learnt_by_huber_s_loss_and_the_settings_keep_it() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (400, 6)).astype(np.float32)
    clean = x[:, :1] * 3 + rng.normal(0, 0.3, (400, 1))
    wild = clean + 60 * (rng.random((400, 1)) < 0.05) * rng.choice([-1, 1], (400, 1))
    task = Numbers(("target",)).fitted(wild)
    errors = {}
    for name, way in task.ways().items():
        weight, bias = fit_linear(x, wild, np.ones(400), way, 1e-3)
        errors[name] = np.abs(way.answers(x @ weight.T + bias) - clean).mean()
    assert errors["Huber's loss"] < 0.8 * errors["squared error"]
    robust = task.ways()["Huber's loss"]
    assert task_of("regression", robust.classes, robust.settings()) == robust


def test_tables_of_splits_with_columns_of_answers_keep_their_splits(tmp_path: Path) -> None:
    for name, count in (("train", 6), ("test", 4)):
        lines = ["path,cat,dog", *(f"{name}{n}.png,{n % 2},{'' if n == 0 else 1}" for n in range(count))]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
    for wanted in (Wanted(labels=("cat", "dog")), Wanted(targets=("cat", "dog"))):
        source = read_source(tmp_path, wanted)
        splits = {row.source: row.split for row in source.rows}
        assert list(splits.values()).count("test") == 4
        assert splits["test0.png"] == "test"
        assert json.loads(source.rows[0].label)["dog"] is None
    (tmp_path / "test.csv").write_text("path,cat,dog\na.png,,\n")
    source = read_source(tmp_path, Wanted(labels=("cat", "dog")))
    assert len(source.rows) == 6
    assert any("has no label in its columns `cat`, `dog`" in note.message for note in source.notes)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_a_test_set_of_few_examples_is_judged_without_a_word_from_numpy(count: int, grouped: bool) -> None:
    rng, groups = np.random.default_rng(0), np.arange(count) // 2 if grouped else None
    targets = rng.normal(size=(count, 2))
    exact, unknown = targets.astype(np.float32).astype(np.float64), targets.copy()
    unknown[:, 0] = np.nan
    numbers = Numbers(("a", "b"))
    for truth, outputs in ((targets, targets + 0.1), (targets, exact), (unknown, targets + 0.1)):
        known = numbers.fitted(truth)
        told = known.decided(known.calibrate(Held("val", truth, outputs)))
        estimates(known.metrics, told.facts(truth, outputs), groups, resamples=50)
        assert len(told.tables(truth, outputs, groups)["numbers"]) == 2
        known.suspects(truth, outputs)
        known.versus(truth, outputs, outputs + 0.1, "another", groups)
    held, logits = np.zeros((count, 2)), rng.normal(size=(count, 2)).astype(np.float32) - 9
    flags = Multi(("a", "b")).fitted(held)
    found = estimates(flags.metrics, flags.facts(held, logits), groups, resamples=50)
    assert found["hamming_loss"].value == 0
    assert "map" not in found
    nothing = np.full((count, 2), np.nan)
    assert "calibration" in flags.calibrate(Held("val", held, logits)).tested(nothing, logits)
    flags.versus(held, logits, logits + 1, "another", groups)

"""Runs compared: the numbers of the pairs, the refusals, the page."""

from __future__ import annotations

import html
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from regraft.errors import UsageError
from regraft.evaluation import holm, paired_accuracy
from regraft.experiments.compare import compare, optimism
from regraft.report import write_comparison
from runs_by_hand import answers_to, labels_of, write_run

LABELS = labels_of(240)
HOSTILE = "<script>alert(1)</script> & $x$"


def several(folder: Path, accuracies: Sequence[float]) -> tuple[list[Path], list[list[str]]]:
    """Runs of so many accuracies on the same test set, and their predictions."""
    answers = [answers_to(LABELS, accuracy, seed) for seed, accuracy in enumerate(accuracies)]
    return [write_run(folder / f"run{k}", LABELS, said) for k, said in enumerate(answers)], answers


def test_examples_are_paired_by_content_and_classes_by_name(tmp_path: Path) -> None:
    first, second = answers_to(LABELS, 0.7, 1), answers_to(LABELS, 0.9, 2)
    order = np.random.default_rng(3).permutation(len(LABELS))
    a = write_run(tmp_path / "a", LABELS, first)
    b = write_run(
        tmp_path / "b",
        [LABELS[i] for i in order],
        [second[i] for i in order],
        ids=[f"e{i}" for i in order],
        classes=("cat", "ant", "bee"),
    )
    found = compare([a, b])
    direct = paired_accuracy(LABELS, second, first, "a")
    assert [(pair.run, pair.difference.against) for pair in found.pairs] == [("b", "a")]
    assert found.pairs[0].difference.difference == pytest.approx(direct.difference)
    assert found.pairs[0].difference.p_value == pytest.approx(direct.p_value)
    assert found.best == "b"
    assert found.rows[1].metrics["accuracy"].value == pytest.approx(
        np.mean(np.array(second) == np.array(LABELS))
    )
    assert found.pairs[0].in_words().startswith("b: better than a: +")


def test_p_values_are_adjusted_over_all_pairs_and_the_best_is_set_beside_each(tmp_path: Path) -> None:
    runs, answers = several(tmp_path, (0.8, 0.75, 0.86, 0.82))
    found = compare(runs)
    assert found.best == "run2"
    pairs = [(pair.run, pair.difference.against) for pair in found.pairs]
    assert pairs == [("run1", "run0"), ("run2", "run0"), ("run3", "run0"), ("run2", "run1"), ("run2", "run3")]
    every = {
        frozenset((a, b)): paired_accuracy(LABELS, answers[a], answers[b], "").p_value
        for a, b in combinations(range(4), 2)
    }
    adjusted = dict(zip(every, holm(list(every.values())), strict=True))
    for pair in found.pairs:
        numbers = frozenset(int(name[3:]) for name in (pair.run, pair.difference.against))
        assert pair.difference.p_adjusted == pytest.approx(adjusted[numbers])
    assert "4 runs are compared" in found.caution()


def test_copies_within_a_test_set_are_each_paired(tmp_path: Path) -> None:
    labels, ids = ["ant", "ant", "bee", "cat", "bee"], ["x", "x", "y", "z", "z"]  # z carries two labels
    a = write_run(tmp_path / "a", labels, ["ant", "ant", "ant", "cat", "cat"], ids=ids)
    b = write_run(tmp_path / "b", labels[::-1], ["bee", "bee", "bee", "ant", "ant"], ids=ids[::-1])
    found = compare([a, b])
    assert found.examples == 5
    assert found.pairs[0].difference.difference == pytest.approx(4 / 5 - 3 / 5)


def test_groups_of_the_test_set_are_told(tmp_path: Path) -> None:
    groups = [f"patient {number // 4}" for number in range(len(LABELS))]
    groups[0] = None  # type: ignore[call-overload]
    runs = [
        write_run(tmp_path / name, LABELS, answers_to(LABELS, 0.8, seed), groups=groups)
        for seed, name in enumerate("ab")
    ]
    assert compare(runs).groups == 61
    plain, _ = several(tmp_path / "plain", (0.8, 0.8))
    assert compare(plain).groups is None


def refusal(*runs: Path) -> str:
    with pytest.raises(UsageError) as error:
        compare(runs)
    return str(error.value)


def test_test_sets_that_differ_are_refused_with_what_differs(tmp_path: Path) -> None:
    said = answers_to(LABELS, 0.8, 0)
    a = write_run(tmp_path / "a", LABELS, said)
    fewer = write_run(tmp_path / "fewer", LABELS[:200], said[:200])
    labelled = write_run(
        tmp_path / "labelled", ["bee", *LABELS[1:]] if LABELS[0] != "bee" else ["ant", *LABELS[1:]], said
    )
    named = write_run(tmp_path / "named", LABELS, said, classes=("ant", "bee", "cat", "dog"))
    text = refusal(a, fewer, labelled, named)
    assert "fewer has 200 test examples, 200 of them in common with 240" in text
    assert "labelled labels 1 of the 240 test examples otherwise" in text
    assert "named has besides dog: other classes" in text
    assert "--splits" in text


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    said = answers_to(LABELS, 0.8, 0)
    a = write_run(tmp_path / "a", LABELS, said)
    assert "two runs" in refusal(a)
    assert "named twice" in refusal(a, tmp_path / "a" / ".." / "a")
    assert "is no run" in refusal(a, tmp_path / "none")
    assert "is interrupted" in refusal(a, write_run(tmp_path / "stopped", LABELS, said, state="interrupted"))
    assert "has no test set" in refusal(a, write_run(tmp_path / "val", LABELS, said, split="val"))
    (tmp_path / "a" / "predictions.parquet").write_bytes(b"torn")
    assert "cannot be read" in refusal(a, write_run(tmp_path / "b", LABELS, said))


def test_optimism_of_the_best_of_many_equal_models_and_of_one_that_is_far_better() -> None:
    rng = np.random.default_rng(0)
    equal = rng.random((300, 12)) < 0.7
    assert 0.005 < optimism(equal) < 0.05
    assert optimism(np.repeat(equal[:, :1], 3, axis=1)) < 0.002  # the same model thrice: nothing to pick from
    clear = np.stack([rng.random(300) < 0.95, rng.random(300) < 0.5], axis=1)
    assert optimism(clear) < 0.002
    assert optimism(np.repeat(equal, 3, axis=0), np.repeat(np.arange(300), 3)) == pytest.approx(
        optimism(equal), rel=0.2
    )


def test_names_that_are_alike_become_paths(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / parent / "run", LABELS, answers_to(LABELS, 0.8, k))
        for k, parent in enumerate("ab")
    ]
    assert [row.run for row in compare(runs).rows] == [str(run) for run in runs]


def test_the_page_is_complete_in_itself_and_names_are_text(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / HOSTILE.replace("/", "|"), LABELS, answers_to(LABELS, 0.7, 0)),
        write_run(tmp_path / "b", LABELS, answers_to(LABELS, 0.9, 1)),
    ]
    found = compare(runs).to_dict()
    page = write_comparison(found, tmp_path / "out" / "page.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    bare = page.replace("http://www.w3.org/2000/svg", "")  # a name, not an address
    assert not [
        word for word in ("http://", "https://", "url(", "@import", " src=", " href=") if word in bare
    ]
    for row in found["rows"]:
        assert f"{100 * row['metrics']['accuracy']['value']:.1f}%" in page
    assert html.escape(found["caution"], quote=False).replace("'", "&#39;") in page
    picture = ElementTree.parse(write_comparison(found, tmp_path / "picture.svg")).getroot()
    assert len(picture.findall("{http://www.w3.org/2000/svg}circle")) == len(found["rows"]) + len(
        found["pairs"]
    )
    with pytest.raises(UsageError, match=r"neither \.html nor \.svg"):
        write_comparison(found, tmp_path / "picture.png")


def test_equal_runs_can_be_drawn(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, LABELS, LABELS) for name in "ab"]
    found = compare(runs).to_dict()
    assert "no clear difference" in found["pairs"][0]["in_words"]
    ElementTree.parse(write_comparison(found, tmp_path / "picture.svg"))

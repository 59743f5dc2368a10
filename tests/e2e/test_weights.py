"""A table with weights of 0, huge and tiny ones, without val: the run ends with numbers, in files and in
words.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import regraft
from regraft.errors import UsageError


def test_weights_of_any_size_make_a_run_that_says_numbers(
    quick: dict[str, Any], colours: Path, tmp_path: Path
) -> None:
    weights = ["0", "1", "1e-300", "1e300", "1", "0", "1", "1"]
    lines = [
        f"{name}/{k}.png,{name},train,{weights[k]}" for name in ("red", "green", "blue") for k in range(8)
    ]
    lines += [f"{name}/{k}.png,{name},test," for name in ("red", "green", "blue") for k in range(8, 18)]
    (colours / "list.csv").write_text("path,label,split,weight\n" + "\n".join(lines) + "\n")
    recipe = {**quick, "finetune": {"epochs": 1, "batch_size": 1, "folds": 2, "interpolation": 0.75}}
    run = regraft.fit(colours / "list.csv", tmp_path / "run", recipe=recipe)
    assert run.state["state"] == "finished"
    assert run.state["data"]["counts"]["train"] == 18
    assert any(finding["kind"] == "weight 0" for finding in run.state["data"]["findings"])
    assert "diverged" not in json.dumps(run.state)
    for name in ("run.json", "metrics.json", "events.jsonl", "report.html", "model/README.md"):
        text = (run.path / name).read_text(encoding="utf-8")
        words = re.sub(r"<(script|style|svg)\b.*?</\1>", "", text, flags=re.DOTALL)
        words = re.sub(r"\"data:[^\"]*", "", words)
        assert not re.search(r"\b(nan|NaN|inf|Infinity)\b", words), name
    assert 0 <= run.metrics["test"]["log_loss"].value < 10


def test_seeds_of_repeats_that_run_out_are_refused_before_the_first(colours: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="seed"):
        regraft.repeat(colours, tmp_path / "runs", 3, recipe={"run": {"seed": 2**32 - 2}})
    assert not (tmp_path / "runs").exists()

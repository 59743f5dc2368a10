"""A whole run with one worker: the bits of a run without."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

import regraft
from regraft.crew import Crew

pytestmark = pytest.mark.ray


def test_one_worker_gives_the_bits_of_a_local_run(
    crew: Crew, quick: dict[str, Any], colours: Path, tmp_path: Path
) -> None:
    crew.rest()  # type: ignore[attr-defined]  # the run begins a worker of its own
    recipe = {**quick, "finetune": {"epochs": 2, "folds": 0, "precision": "float32"}}
    before = torch.get_num_threads()
    torch.set_num_threads(min(8, int(ray.cluster_resources()["CPU"])))  # as many as the worker has
    try:
        home = regraft.fit(colours, tmp_path / "home", recipe=recipe, cache=None)
        told: list[str] = []
        away = regraft.fit(
            colours,
            tmp_path / "away",
            recipe=recipe,
            cache=None,
            cluster=regraft.Cluster(1),
            listeners=[lambda event: told.append(str(event.get("text", "")))],
        )
    finally:
        torch.set_num_threads(before)
    assert any("1 worker of" in line for line in told)
    mine, theirs = ((run.path / "model" / "model.safetensors").read_bytes() for run in (home, away))
    assert mine == theirs
    assert home.metrics["test"] == away.metrics["test"]
    assert sorted(os.listdir(home.path)) == sorted(os.listdir(away.path))

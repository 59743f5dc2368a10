"""The benchmark of GPUs runs on any machine, small, so that it is whole on the day it meets a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"


def test_it_measures_every_row_without_a_gpu(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 255, (180, 200, 3), dtype=np.uint8)).save(tmp_path / f"{number}.jpg")
    page = tmp_path / "page.md"
    page.write_text("<!-- gpu: begin -->\n<!-- gpu: end -->\n")
    words = [sys.executable, str(SCRIPT), str(tmp_path), "--small", "--write", str(page)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    head, _, *rows = (line for line in page.read_text().splitlines() if line.startswith("|"))
    assert "no GPU" in head
    assert [row.split("|")[1].strip() for row in rows] == ["test_efficientnet", "test_resnet", "test_vit"]
    for row in rows:
        cells = [float(cell) for cell in row.split("|")[2:-1]]
        assert len(cells) == head.count("|") - 2
        assert min(cells) > 0

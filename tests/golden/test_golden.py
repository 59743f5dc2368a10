"""Three fixed runs decide and reach what values.json holds: a change of the code that is not meant to
change results does not change them.

Float results differ between processors. With the vector units switched off one by one (AVX-512, AVX2) these
runs differ by 2e-6 in their estimates and by 3e-4 in logits of up to 29, and decide the same; the
tolerances are some ten times that. Without AVX2 the logits differ by 0.08: such a processor fails here.
`runs.py --hashes` compares two commits bit for bit on one machine.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from golden.runs import RUNS, reached, run

VALUES = json.loads((Path(__file__).parent / "values.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", RUNS)
def test_a_fixed_run_decides_and_reaches_the_same(name: str, tmp_path: Path) -> None:
    found, held = reached(run(name, tmp_path)), VALUES[name]
    assert found["decisions"] == held["decisions"]
    assert found["predicted"] == held["predicted"]
    for part in ("estimates", "versus"):
        assert found[part].keys() == held[part].keys()
        for what, values in held[part].items():
            assert found[part][what] == pytest.approx(values, abs=1e-4), what
    logits, expected = ([part["logits"][label] for label in held["logits"]] for part in (found, held))
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())

"""Three fixed runs decide and reach what values.json holds: a change of the code that is not meant to
change results does not change them.

Float results differ between processors, and training carries a last bit far. With the vector units of one
processor switched off one by one (AVX-512, AVX2) these runs differ by 2e-6 in their estimates and by 3e-4
in logits of up to 29; a processor of another maker, with other matrix kernels, differs by 1.2e-3 in
estimates and by 0.27 in logits, and decides and predicts the same. The tolerances are about twice that.
Without AVX2 the logits differ by 0.08.
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
            assert found[part][what] == pytest.approx(values, abs=3e-3), what
    logits, expected = ([part["logits"][label] for label in held["logits"]] for part in (found, held))
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-2 * np.abs(expected).max())

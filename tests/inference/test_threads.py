"""One model asked from several threads at once answers each as if it were alone."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import regraft
from conftest import Fitted


def test_threads_that_share_a_model_get_the_answers_of_one(fitted: Fitted) -> None:
    files = sorted(fitted.data.rglob("*.png"))
    model = regraft.load(fitted.run, device="cpu")
    calls = [files[start : start + count] for start, count in ((0, 1), (3, 7), (10, 40), (50, 2)) * 4]
    expected = [regraft.load(fitted.run, device="cpu").predict(some) for some in calls]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(model.predict, calls)) == expected


def test_prepared_items_are_answered_from_several_threads(fitted: Fitted) -> None:
    model = regraft.load(fitted.run, device="cpu")
    raws = [model.backbone.preprocess.host(file) for file in sorted(fitted.data.rglob("*.png"))[:24]]
    groups = [raws[start : start + 8] for start in (0, 8, 16)] * 5
    expected = [[answer.probabilities for answer in model.answers(some)] for some in groups]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(model.answers, groups))
    assert [[answer.probabilities for answer in some] for some in found] == expected
    assert model.answers([]) == []
    assert np.isclose(sum(found[0][0].probabilities.values()), 1.0)


FIRST_USE = """
import numpy as np
import pytest
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from regraft.inference.graphs import openvino

library = openvino()
takes = library.opset13.parameter([1, 4], np.float32)
compiled = library.Core().compile_model(library.Model([library.opset13.relu(takes)], [takes]), "CPU")
requests, together = [compiled.create_infer_request() for _ in range(8)], Barrier(8)

def first(request):
    together.wait()
    request.infer([np.ones((1, 4), np.float32)], share_inputs=True)
    return float(request.get_output_tensor(0).data.sum())

with ThreadPoolExecutor(8) as pool:
    print(list(pool.map(first, requests)))
"""


def test_the_first_arrays_that_openvino_is_given_may_come_from_several_threads() -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install openvino")
    found = subprocess.run(
        [sys.executable, "-c", FIRST_USE], capture_output=True, text=True, timeout=300, check=False
    )
    assert found.stdout.strip() == str([4.0] * 8), found.stderr

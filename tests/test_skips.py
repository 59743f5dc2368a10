"""Skips are told with what they need, and are failures where all has to be tested; with and without
pytest's workers.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOME = """
import pytest
@pytest.fixture(scope="session")
def data(): pytest.skip("the data are not here; set DATA")
def test_one(data): pass
def test_two(data): pass
@pytest.mark.skipif(True, reason="needs a GPU")
def test_three(): pass
@pytest.mark.xfail
def test_four(): assert False
def test_five(): pass
"""
FILE = (
    "import pytest; pytest.importorskip('no_such_module', "
    "reason='install no_such_module')\ndef test_six(): pass"
)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_what_was_skipped_is_told_and_may_be_a_failure(workers: str, tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(SOME)
    (tmp_path / "test_file.py").write_text(FILE)
    words = [sys.executable, "-m", "pytest", "-q", "-p", "skips", "-p", "xdist", "-n", workers, str(tmp_path)]
    usual = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    usual.pop("REGRAFT_REQUIRE_DATA", None)
    free = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=usual)
    assert free.returncode == 0, free.stdout + free.stderr
    for line in ("2 x the data are not here; set DATA", "1 x needs a GPU", "1 x install no_such_module"):
        assert line in free.stdout.splitlines(), free.stdout
    strict = subprocess.run(
        words, capture_output=True, text=True, cwd=tmp_path, env={**usual, "REGRAFT_REQUIRE_DATA": "1"}
    )
    assert strict.returncode != 0
    assert "skipped: install no_such_module" in strict.stdout
    (tmp_path / "test_file.py").unlink()  # a file that cannot be collected keeps the others from being run
    strict = subprocess.run(
        words, capture_output=True, text=True, cwd=tmp_path, env={**usual, "REGRAFT_REQUIRE_DATA": "1"}
    )
    assert strict.returncode == 1
    assert "skipped: the data are not here; set DATA" in strict.stdout
    assert "1 passed, 1 skipped, 1 xfailed, 2 errors" in strict.stdout, strict.stdout
    assert "1 x needs a GPU" in strict.stdout.splitlines()

"""What TAB offers: verbs, options, runs, backbones, settings; by `python -m regraft` as well, and without torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from regraft.cli import completion


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two runs below `runs/`, one elsewhere, and folders that are none."""
    for name in ("runs/photos", "runs/photos-2", "other/run"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "run.json").write_text("{}")
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_runs(here: Path) -> None:
    assert completion.run_names("") == ["runs/photos", "runs/photos-2"]
    assert "runs/photos-2" in completion.run_names("ru")
    assert completion.run_names("runs/photos-") == ["runs/photos-2"]
    assert completion.run_names("other/") == ["other/run"]
    assert completion.run_names("ph") == ["photos/"]
    assert completion.run_names("nowhere/") == []
    assert completion.run_names(f"{here}/runs/photos-") == [f"{here}/runs/photos-2"]


def test_backbones_and_licences(here: Path) -> None:
    assert "packaged:efficientnet_lite0" in completion.backbones("pack")
    assert all("dinov2" in name for name in completion.backbones("timm:vit_small_patch14_dinov2"))
    assert completion.backbones("run:runs/photos-") == ["run:runs/photos-2"]
    assert "transformers:" in completion.backbones("transf")
    assert all(name.startswith("transformers:") for name in completion.backbones("transf"))
    assert "CC-BY-NC-4.0" in completion.licences("cc")
    assert "MIT" not in completion.licences("")


def test_settings_and_their_values() -> None:
    assert "finetune.epochs=" in completion.settings("finetune.")
    assert completion.settings("freeze.norm_statistics=") == [
        "freeze.norm_statistics=frozen",
        "freeze.norm_statistics=moving",
    ]
    assert completion.settings("obtain.network=t") == ["obtain.network=true"]
    assert "data.task=single" in completion.settings("data.task=")
    assert completion.settings("nothing.here=") == []
    assert completion.words("cpu", "cuda")("cu") == ["cuda"]


def offered(typed: str, cwd: Path) -> list[str]:
    """What bash offers for the last word of a command line."""
    environment = {
        **os.environ,
        "_REGRAFT_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split(" ")) - 1),
    }
    watched = (
        "import runpy, sys; sys.argv = ['regraft']\n"
        "try: runpy.run_module('regraft', run_name='__main__')\n"
        "finally: print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", watched], env=environment, cwd=cwd, capture_output=True, text=True, timeout=60
    )
    assert done.stderr.splitlines()[-1] == "False", done.stderr
    return done.stdout.split()


def test_the_shell_is_answered_without_torch(here: Path) -> None:
    assert {"fit", "push", "predict"} <= set(offered("regraft ", here))
    assert offered("regraft report runs/photos-", here) == ["runs/photos-2"]


def test_the_command_by_its_module_has_the_same_name_and_can_install_completion(here: Path) -> None:
    def call(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "HOME": str(here), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
        return subprocess.run(
            [sys.executable, "-m", "regraft", *words],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    shown = call("--show-completion", "bash")
    assert shown.returncode == 0, shown.stderr
    assert "_REGRAFT_COMPLETE=complete_bash" in shown.stdout
    assert "complete -o default -F _regraft_completion regraft" in shown.stdout
    installed = call("--install-completion", "bash")
    assert installed.returncode == 0, installed.stderr
    assert "regraft" in (here / ".bashrc").read_text()
    wrong = call("fitt")
    assert (wrong.returncode, "Usage: regraft" in wrong.stderr) == (2, True)

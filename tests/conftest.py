"""Shared: where the real data are, and a cache of each test's own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import regraft
import sounds
import texts
from crews import crew, joined, told
from regraft.runtime import ready_torchvision
from skips import pytest_make_collect_report, pytest_runtest_makereport, pytest_terminal_summary
from standin import StandIn

__all__ = [
    "crew",
    "joined",
    "pytest_make_collect_report",
    "pytest_runtest_makereport",
    "pytest_terminal_summary",
    "told",
]

# Before `elsewhere`, as it may be relative
DATA = Path(
    os.environ.get("REGRAFT_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
).absolute()

# A shell has what it runs in the background ignore Ctrl-C, and so all that the tests begin
signal.signal(signal.SIGINT, signal.default_int_handler)

ready_torchvision()  # the tests' own timm must be importable beside a CPU torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole runs first: files are shared out among the workers in this order, and the longest must not
    begin last.
    """
    items.sort(key=lambda item: "e2e" not in item.path.parts)


@pytest.fixture(scope="session", autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty working folder. In that of the checkout `make demo` leaves a run, which a ranking takes for a
    candidate.
    """
    folder, before = tmp_path_factory.mktemp("elsewhere"), Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where tests leave converted models and the outcome of trials for those after them, which take long to
    make.
    """
    return tmp_path_factory.mktemp("warm")


@pytest.fixture(autouse=True)
def own_cache(
    tmp_path_factory: pytest.TempPathFactory, warm: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A cache of the test's own: no features in it, but what does not depend on data.

    Its files are links to those of `warm`, as copies of them would be a hundred gigabytes over all tests. The
    product replaces its files whole; a test that damages one deletes it before.
    """
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("REGRAFT_CACHE", str(folder))
    monkeypatch.setenv("REGRAFT_CONFIG", "")  # the settings of whoever runs the tests are not theirs
    given = _link_all(warm, folder)
    yield folder
    monkeypatch.undo()  # a test may have forbidden what linking takes
    _link_all(folder, warm, given)
    shutil.rmtree(folder, ignore_errors=True)


def _link_all(there: Path, here: Path, known: Collection[str] = ()) -> set[str]:
    """Converted models and the outcome of trials of one cache, in another that may have some of them, as those
    `known`; gives what there was. It is done twice a test, with hundreds of files.
    """
    names: set[str] = set()
    for kind in ("openvino", "trials"):
        (here / kind).mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            names.update(f"{kind}/{name}" for name in os.listdir(there / kind) if not name.startswith("."))
    for name in names.difference(known):
        with contextlib.suppress(FileExistsError):
            os.link(f"{there}/{name}", f"{here}/{name}")
    return names


@pytest.fixture(scope="session")
def real_data() -> Path:
    if not DATA.is_dir():
        pytest.skip(
            f"the real data sets are not in {DATA}: "
            "set REGRAFT_DATA to the folder that has them (CONTRIBUTING.md)"
        )
    return DATA


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A reference to an untrained network of 100,000 parameters, for tests of what does not depend on the
    weights.
    """
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(1)
    file = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    save_file(timm.create_model("test_efficientnet", num_classes=10).state_dict(), str(file))
    return f"path:{file}@test_efficientnet"


@pytest.fixture(scope="session")
def quick(tiny: str) -> dict[str, Any]:
    """A recipe for runs that take moments."""
    return {"obtain": {"backbone": tiny}, "base": {"size": 32}, "run": {"engine": "torch-float32"}}


@pytest.fixture(scope="session")
def head_only(quick: dict[str, Any]) -> dict[str, Any]:
    """The same without fine-tuning."""
    return {**quick, "freeze": {"strategy": "head"}}


@dataclass(frozen=True)
class Fitted:
    """A run, and the folder of its data."""

    run: Path
    data: Path


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory, head_only: dict[str, Any]) -> Fitted:
    """A finished run of the head alone on the pictures of `colours`. A test that writes to one of them
    copies it before.
    """
    place = tmp_path_factory.mktemp("fitted")
    run = regraft.fit(paint(place / "colours"), place / "run", recipe=head_only, cache=place / "cache")
    return Fitted(run.path, place / "colours")


@pytest.fixture(scope="session")
def fitted_texts(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """A finished run of the head alone, on texts and a tiny encoder."""
    place = tmp_path_factory.mktemp("fitted-texts")
    encoder = texts.tiny_encoder(place / "bert")
    data = texts.write_table(place / "texts.csv", texts.labelled(20))
    return _head_alone(f"path:{encoder}", data, place)


@pytest.fixture(scope="session")
def fitted_sounds(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """A finished run of the head alone, on sounds and a tiny encoder."""
    place = tmp_path_factory.mktemp("fitted-sounds")
    encoder = sounds.tiny_encoder(place / "encoder")
    return _head_alone(f"path:{encoder}", sounds.draw(place / "sounds"), place)


def _head_alone(backbone: str, data: Path, place: Path) -> Fitted:
    recipe = {
        "obtain": {"backbone": backbone},
        "base": {"join": False},
        "freeze": {"strategy": "head"},
        "run": {"engine": "torch-float32"},
    }
    return Fitted(regraft.fit(data, place / "run", recipe=recipe, cache=place / "cache").path, data)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A stand-in for the hub on loopback, empty, and a local cache of the hub of the test's own. The client
    does not wait between its attempts.
    """
    from types import SimpleNamespace

    import huggingface_hub.constants
    import huggingface_hub.file_download

    server = StandIn()
    known = huggingface_hub.constants
    monkeypatch.setattr(known, "ENDPOINT", server.address)
    template = f"{server.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(known, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(known, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(known, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(known, "HF_HUB_DISABLE_XET", True)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    clock = SimpleNamespace(sleep=lambda _: None, time=time.time, monotonic=time.monotonic)
    monkeypatch.setattr(huggingface_hub.file_download, "time", clock)
    monkeypatch.setenv("HF_TOKEN", "a-token-of-nobody")
    yield server
    server.close()


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """30 noisy 48x48 PNGs of each of three colours: red, green and blue."""
    return paint(tmp_path / "colours")


def paint(root: Path) -> Path:
    """The pictures of `colours`."""
    rng = np.random.default_rng(0)
    for channel, name in enumerate(("red", "green", "blue")):
        (root / name).mkdir(parents=True)
        for number in range(30):
            picture = rng.integers(0, 100, (48, 48, 3))
            picture[:, :, channel] += 120
            Image.fromarray(picture.astype(np.uint8)).save(root / name / f"{number}.png")
    return root

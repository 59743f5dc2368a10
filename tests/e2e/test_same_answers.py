"""One model, asked about the same 200 photographs in every way there is: the answers are the same."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import regraft
from commands import call, start
from regraft.artifacts import read_json
from regraft.exporting import examples, onnx

pytestmark = pytest.mark.data
pytest.importorskip("onnxruntime", reason="pip install 'regraft[export]'")

LEARNT_FROM, ASKED = 20, 40  # photographs a class
SIZE = 64  # pixels a side: what counts is that the answers agree, not that they are right
# By way: the largest difference of a probability that is allowed, and the least agreement
EXACT, FILES, THEIRS = (1e-4, 1.0), (0.1, 0.995), (0.7, 0.9)


@dataclass(frozen=True)
class Asked:
    """A run, and photographs that it has not learnt from."""

    run: Path
    names: list[str]


@pytest.fixture(scope="module")
def asked(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """EfficientNet-Lite0 with a linear head, on a few flowers of each kind."""
    place = tmp_path_factory.mktemp("flowers")
    for split, source, count in (("train", "train", LEARNT_FROM), ("test", "test", ASKED)):
        for kind in sorted((real_data / "flowers5" / source).iterdir()):
            (place / "data" / split / kind.name).mkdir(parents=True)
            for file in sorted(kind.iterdir())[:count]:
                os.symlink(file, place / "data" / split / kind.name / file.name)
    recipe = {
        "obtain": {"backbone": "packaged:efficientnet_lite0"},
        "base": {"size": SIZE},
        "freeze": {"strategy": "head"},
        "run": {"engine": "torch-float32"},
    }
    run = regraft.fit(place / "data", place / "run", recipe=recipe, cache=None)
    names = [str(path) for path in sorted((place / "data" / "test").glob("*/*"))]
    return Asked(run.path, names)


def in_rows(lines: list[dict[str, object]], names: tuple[str, ...]) -> np.ndarray:
    """(N, K) probabilities of what was said, in the order of the classes."""
    return np.array([[line["probabilities"][name] for name in names] for line in lines])  # type: ignore[index]


def by_program(folder: Path, files: list[str]) -> list[dict[str, object]]:
    """What the program beside an export says."""
    words = [sys.executable, str(folder / "predict.py"), *files]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def by_server(run: Path, files: list[str], cwd: Path) -> list[dict[str, object]]:
    """What `regraft serve` says, asked about a few files at a time."""
    server = start("serve", f"model={run}", "--port", "0", cwd=cwd)
    try:
        while "http://" not in (said := Path(server.files[1].name).read_text()) or not said.endswith("\n"):
            assert server.poll() is None, server.communicate()
            time.sleep(0.05)
        address = "http://" + said.partition("http://")[2].split()[0].rstrip("/") + "/predict"
        lines: list[dict[str, object]] = []
        for begin in range(0, len(files), 5):
            items = [
                {"data": base64.b64encode(Path(file).read_bytes()).decode(), "name": file}
                for file in files[begin : begin + 5]
            ]
            body = json.dumps({"items": items}).encode()
            request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request) as answer:
                lines += json.loads(answer.read())["predictions"]
        return lines
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate()


def in_timm(folder: Path, files: list[str]) -> np.ndarray:
    """(N, K) probabilities as the README beside the folder says: nothing of regraft's own."""
    import timm
    import torch
    from PIL import Image

    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    settings = timm.data.resolve_model_data_config(network)
    transform = timm.data.create_transform(**settings, is_training=False)
    temperature = read_json(folder / "export.json")["calibration"]["temperature"]
    images = torch.stack([transform(Image.open(file).convert("RGB")) for file in files])
    with torch.inference_mode():
        return np.asarray((network(images) / temperature).softmax(dim=1).numpy())


def every_way(
    asked: Asked, cwd: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, np.ndarray, tuple[float, float]]]:
    """Each way by name, its probabilities, and what is allowed of it."""
    classes = regraft.load(asked.run).classes
    words = ("predict", asked.run, *asked.names, "--format", "jsonl", "--engine", "torch-float32")
    done = call(*words, cwd=cwd)
    assert done.returncode == 0, done.stderr
    yield "command line", in_rows([json.loads(line) for line in done.stdout.splitlines()], classes), EXACT
    yield "server", in_rows(by_server(asked.run, asked.names, cwd), classes), EXACT
    graphs: list[Path] = []

    def traced(_: object, about: object, folder: Path) -> Path:
        """OpenVINO's graph is made of the same one, which takes seconds to trace."""
        return Path(shutil.copy(graphs[0], folder))

    for to in ("onnx", "openvino", "torch"):
        made = regraft.export(asked.run, to, cwd / to)
        yield f"{to}, predict.py", in_rows(by_program(made.path, asked.names), classes), FILES
        graphs.append(made.path / onnx.FILE)
        monkeypatch.setattr(onnx, "write", traced)
    made = regraft.export(asked.run, "timm", cwd / "timm")
    yield "plain timm", in_timm(made.path, asked.names), THEIRS


def test_every_way_gives_the_same_answers(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(examples, "MOST", 10)  # each export is held against all of them below
    model = regraft.load(asked.run, engine="torch-float32")
    ours = np.array([list(one.probabilities.values()) for one in model.predict(asked.names)])
    assert len(ours) == 5 * ASKED
    rows, wrong = [], []
    for way, theirs, (largest, least) in every_way(asked, tmp_path, monkeypatch):
        apart = float(np.abs(ours - theirs).max())
        agree = float((ours.argmax(axis=1) == theirs.argmax(axis=1)).mean())
        rows.append(f"{way:22} {apart:10.1e} {agree:9.1%}")
        if apart > largest or agree < least:
            wrong.append(rows[-1])
    with capsys.disabled():
        print(f"\n{'beside Python':22} {'largest':>10} {'the same':>9}", *rows, sep="\n")
    assert len(rows) == 6
    assert not wrong, wrong

"""One model of pictures, of texts and of sounds, each asked about the same files in every way there is: the
answers are the same.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import regraft
import sounds
import texts
from commands import call
from regraft.artifacts import read_json
from regraft.exporting import examples, onnx
from ways import by_program, by_server

pytest.importorskip("onnxruntime", reason="pip install 'regraft[export]'")

LEARNT_FROM, ASKED = 10, 20  # photographs a class
SIZE = 64  # pixels a side: what counts is that the answers agree, not that they are right
# By way: the largest difference of a probability that is allowed, and the least agreement
EXACT, FILES, THEIRS = (1e-4, 1.0), (0.1, 0.995), (0.7, 0.9)
# Texts are cut into the same tokens everywhere; sounds are resampled by the same library
SAME: dict[str, tuple[float, float]] = {"texts": (1e-4, 1.0), "sounds": (1e-3, 1.0)}


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
        "base": {"size": SIZE, "join": False},  # joined depths are no network of timm's
        "freeze": {"strategy": "head"},
        "run": {"engine": "torch-float32"},
    }
    run = regraft.fit(place / "data", place / "run", recipe=recipe, cache=None)
    names = [str(path) for path in sorted((place / "data" / "test").glob("*/*"))]
    return Asked(run.path, names)


def in_rows(lines: list[dict[str, object]], names: tuple[str, ...]) -> np.ndarray:
    """(N, K) probabilities of what was said, in the order of the classes."""
    return np.array([[line["probabilities"][name] for name in names] for line in lines])  # type: ignore[index]


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
    asked: Asked, cwd: Path, monkeypatch: pytest.MonkeyPatch, from_files: tuple[float, float]
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
        yield f"{to}, predict.py", in_rows(by_program(made.path, asked.names), classes), from_files
        graphs.append(made.path / onnx.FILE)
        monkeypatch.setattr(onnx, "write", traced)


def compared(
    ours: np.ndarray, ways: Iterator[tuple[str, np.ndarray, tuple[float, float]]]
) -> tuple[list[str], list[str]]:
    """A line for each way, and those of ways that differ by more than is allowed."""
    rows, wrong = [], []
    for way, theirs, (largest, least) in ways:
        apart = float(np.abs(ours - theirs).max())
        agree = float((ours.argmax(axis=1) == theirs.argmax(axis=1)).mean())
        rows.append(f"{way:22} {apart:10.1e} {agree:9.1%}")
        if apart > largest or agree < least:
            wrong.append(rows[-1])
    return rows, wrong


def in_python(run: Path, names: list[str]) -> np.ndarray:
    """(N, K) probabilities of float32 PyTorch."""
    model = regraft.load(run, engine="torch-float32")
    return np.array([list(one.probabilities.values()) for one in model.predict(names)])


@pytest.mark.data
def test_every_way_gives_the_same_answers(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ways() -> Iterator[tuple[str, np.ndarray, tuple[float, float]]]:
        yield from every_way(asked, tmp_path, monkeypatch, FILES)
        made = regraft.export(asked.run, "timm", tmp_path / "timm")
        yield "plain timm", in_timm(made.path, asked.names), THEIRS

    monkeypatch.setattr(examples, "MOST", 10)  # each export is held against all of them below
    ours = in_python(asked.run, asked.names)
    assert len(ours) == 5 * ASKED
    rows, wrong = compared(ours, ways())
    with capsys.disabled():
        print(f"\n{'beside Python':22} {'largest':>10} {'the same':>9}", *rows, sep="\n")
    assert len(rows) == 6
    assert not wrong, wrong


def files_of_texts(place: Path) -> list[str]:
    """Texts in files of every encoding, short, long, and odd."""
    names = []
    for number, (text, _) in enumerate(texts.labelled(4, seed=8)):
        encoding = ("utf-8", "utf-8-sig", "utf-16", "cp1252")[number % 4]
        names.append(place / f"{number}.txt")
        names[-1].write_bytes(f"{text} café".encode(encoding))
    for name, text in (("long", "rain and snow " * 4_000), ("word", "x" * 100_000), ("right", "مرحبا rain")):
        names.append(place / f"{name}.txt")
        names[-1].write_text(text, encoding="utf-8")
    return [str(name) for name in names]


def files_of_sounds(place: Path) -> list[str]:
    """Sounds of every format and of several rates, short, long, and of two channels."""
    names = []
    for number, ending in enumerate(("wav", "flac", "ogg", "mp3") * 2):
        rate = (8_000, 16_000, 44_100)[number % 3]
        pitched = sounds.tone(200 * (1 + number), 0.2 + 0.05 * number, rate, number)
        names.append(sounds.write(place / f"{number}.{ending}", pitched, rate))
    names.append(sounds.write(place / "long.flac", sounds.hiss(30.0)))
    both = np.stack([sounds.tone(300), sounds.hiss()], axis=1)
    names.append(sounds.write(place / "both.wav", both))
    return [str(name) for name in names]


@pytest.mark.parametrize("kind", ["texts", "sounds"])
def test_texts_and_sounds_get_the_same_answers_in_every_way(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The programs beside exports import no torch, but that of torch.export."""
    monkeypatch.setattr(examples, "MOST", 10)
    run = request.getfixturevalue(f"fitted_{kind}").run
    (tmp_path / "asked").mkdir()
    names = {"texts": files_of_texts, "sounds": files_of_sounds}[kind](tmp_path / "asked")
    ours = in_python(run, names)
    rows, wrong = compared(ours, every_way(Asked(run, names), tmp_path, monkeypatch, SAME[kind]))
    assert len(rows) == 5
    assert not wrong, wrong
    for to in ("onnx", "openvino"):
        program = (tmp_path / to / "predict.py").read_text()
        assert "torch" not in program
        assert "import regraft" not in program

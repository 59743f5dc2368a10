"""Long recordings: the windows that are heard, which of them decided, and what is not heard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import regraft
from regraft.backbones import Provenance, make_base, whisper
from regraft.backbones.sources import Obtained
from regraft.modalities.audio import AudioPreprocess
from regraft.model import Model
from regraft.tasks import task_of
from regraft.training import make_head
from sounds import draw, hiss, tone, write

SIZES = {"width": 32, "mels": 80, "layers": 1, "heads": 2, "inner": 64, "positions": 1_500}


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """45 s of noise with a tone from 36 s on."""
    sound = np.concatenate([hiss(36.0), tone(400, 9.0)])
    return write(tmp_path_factory.mktemp("long") / "a.wav", sound)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (1_000, []),
        (2_000, ["window 0-10 s", "window 35-45 s"]),
        (5_000, ["window 0-10 s", "window 10-20 s", "window 20-30 s", "window 30-40 s", "window 40-45 s"]),
    ],
)
def test_windows_are_named_and_are_what_is_heard(recording: Path, size: int, expected: list[str]) -> None:
    preprocess = AudioPreprocess(size, 80)
    parts = preprocess.parts(recording)
    assert [name for name, _ in parts] == expected
    if parts:
        whole = np.concatenate([samples for _, samples in parts])
        np.testing.assert_array_equal(whole, preprocess.host(recording))


def test_moments_far_into_a_recording_are_told_by_the_clock(tmp_path: Path) -> None:
    place = write(tmp_path / "hour.flac", np.zeros(1_000 * 3_700, np.float32), 1_000)
    assert [name for name, _ in AudioPreprocess(2_000, 80).parts(place)][1] == "window 1:01:30-1:01:40"


def test_a_prediction_tells_the_window_that_speaks_most_for_it(recording: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = {
        "whisper": SIZES,
        "mels": 80,
        "input_size": [80, 3_000],
        "classifier": None,
        "modality": "audio",
    }
    module = whisper.build(config)
    torch.nn.init.normal_(module.stem.positions, std=0.1)
    origin = Provenance("made", "drawn at random", "0" * 64, "CC0-1.0", 1, input_size=3_000)
    base = make_base(
        Obtained(module.eval(), "whisper:encoder", config, origin, modality="audio"),
        AudioPreprocess(2_000, 80),
    )
    model = Model(base, make_head("linear", base.width, 2), "linear", task_of("single", ("a", "b")))
    (found, short) = model.predict([recording, tone(400, 2.0)])
    seen = []
    module.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    several = model.predict([recording] * 16)
    assert max(seen) <= 16, "the memory is that of a batch of 32 windows"
    assert several[0].probabilities == pytest.approx(found.probabilities, abs=1e-5)
    parts = base.preprocess.parts(recording)
    alone = [one.probabilities[found.label] for one in model.predict([samples for _, samples in parts])]
    assert abs(alone[0] - alone[1]) > 1e-3
    assert found.part == parts[int(np.argmax(alone))][0]
    assert found.to_dict()["part"] == found.part
    assert short.part is None
    assert "part" not in short.to_dict()


def test_what_is_not_heard_of_long_recordings_is_a_finding(tmp_path: Path) -> None:
    root = draw(tmp_path, 10)
    write(root / "low" / "long.wav", tone(200, 60.0))
    told = {finding.kind: finding for finding in regraft.audit(root, features=False).findings}
    assert told["not heard whole"].examples == ("low/long.wav",)
    assert "83% of them is not" in told["not heard whole"].message

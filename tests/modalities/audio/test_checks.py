"""Planted faults are told: silence, clipping, tones, rates, leaks, copies, and names that part recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import regraft
from regraft.modalities.audio.checks import name_parts
from sounds import draw, hiss, tone, write


def kinds(audit: object) -> dict[str, tuple[str, ...]]:
    return {finding.kind: finding.examples for finding in audit.findings}  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = draw(tmp_path_factory.mktemp("planted"), 24)
    time = np.arange(8_000) / 16_000
    write(root / "low" / "silent.wav", np.zeros(8_000, np.float32))
    write(root / "low" / "beep.wav", 0.5 * np.sin(2 * np.pi * 440 * time))
    write(root / "low" / "clipped.wav", np.clip(5 * tone(200), -1, 1))
    write(root / "high" / "long.wav", tone(1_000, 9.0))
    write(root / "high" / "stereo.flac", np.stack([hiss(), hiss(seed=1)], axis=1), 8_000)
    (root / "noise" / "broken.mp3").write_bytes(b"ID3 and no more")
    copy = write(root / "noise" / "copy.flac", hiss(0.4, seed=77), subtype="PCM_16")
    import soundfile

    write(root / "noise" / "copied.wav", soundfile.read(copy)[0], subtype="PCM_16")
    write(root / "noise" / "louder.wav", 0.3 * hiss(0.4, seed=77), subtype="PCM_16")
    return root


def test_planted_faults_are_told(planted: Path) -> None:
    told = kinds(regraft.audit(planted, features=False))
    assert told["silence"] == ("low/silent.wav",)
    assert "low/beep.wav" in told["constant tone"]
    assert told["clipping"] == ("low/clipped.wav",)
    assert told["long sounds"] == ("high/long.wav",)
    assert told["quarantined"] == ("noise/broken.mp3",)
    assert {"resampling", "channels", "sampling rates"} <= told.keys()
    assert {"noise/copied.wav", "noise/copy.flac"} <= {name for some in told.values() for name in some}
    near = {name for kind, some in told.items() if kind.startswith("near-duplicates") for name in some}
    assert "noise/louder.wav" in near


def test_a_rate_that_tells_the_class_is_a_leak(tmp_path: Path) -> None:
    for number in range(30):
        write(tmp_path / "a" / f"{number}.wav", hiss(0.2, 8_000, seed=number), 8_000)
        write(tmp_path / "b" / f"{number}.wav", hiss(0.2, seed=100 + number))
    assert "files tell the label" in kinds(regraft.audit(tmp_path, features=False))


def test_codec_length_loudness_and_room_that_tell_the_class_are_leaks(tmp_path: Path) -> None:
    def told(name: str, sounds: list[tuple[str, np.ndarray]]) -> set[str]:
        for number, (ending, samples) in enumerate(sounds):
            write(tmp_path / name / "ab"[number % 2] / f"{number}.{ending}", samples)
        found = kinds(regraft.audit(tmp_path / name, features=False))
        return {kind for kind in found if kind.endswith("the label")}

    noises = [hiss(0.2 + 0.001 * number, seed=number) for number in range(60)]
    assert told("plain", [("wav", one) for one in noises]) == set()
    assert "files tell the label" in told(
        "codec", [(("wav", "flac")[n % 2], s) for n, s in enumerate(noises)]
    )
    longer = [np.tile(one, 1 + number % 2) for number, one in enumerate(noises)]
    assert told("length", [("wav", one) for one in longer]) == {"length tells the label"}
    louder = [one * (1 + number % 2) for number, one in enumerate(noises)]
    assert "loudness tells the label" in told("loudness", [("wav", one) for one in louder])
    pause, hum = np.arange(2_400), 0.004 * np.sin(2 * np.pi * 100 / 16_000 * np.arange(2_400))
    quiet = [0.001 * np.random.default_rng(n).normal(size=len(pause)) for n in range(60)]
    rooms = [np.concatenate([one, quiet[n] + (hum if n % 2 else 0)]) for n, one in enumerate(noises)]
    assert told("room", [("wav", one.astype(np.float32)) for one in rooms]) == {"room tells the label"}


def test_speakers_in_names_are_offered_as_groups_and_numbers_are_not(tmp_path: Path) -> None:
    for number in range(12):
        for speaker in ("ann", "bob", "cid", "dee"):
            for digit in ("zero", "one"):
                samples = hiss(0.2, seed=hash((speaker, digit, number)) % 10_000)
                write(tmp_path / digit / f"{digit}_{speaker}_{number}.wav", samples)
    audit = regraft.audit(tmp_path, features=False)
    (finding,) = (one for one in audit.findings if one.kind == "names across splits")
    assert "the second part" in finding.message
    assert "ann, bob, cid, dee" in finding.message
    assert len(finding.examples) == 96
    plain = draw(tmp_path / "plain", 12)
    assert "names across splits" not in kinds(regraft.audit(plain, features=False))
    assert name_parts("a/7_jackson_32.wav") == {"the first part": "7", "the second part": "jackson"}

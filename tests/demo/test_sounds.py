"""The demo of sounds: eight kinds, each clip readable, none alike, the same each time."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from regraft.demo import DEMOS, demo_data, demo_of
from regraft.demo import sounds as made
from regraft.errors import UsageError
from regraft.modalities.audio.inspect import inspect_sound


def test_each_kind_is_drawn_and_no_two_clips_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(made, "EACH", 2)
    root = demo_data(tmp_path / "sounds", "audio")
    files = sorted(root.glob("*/*.wav"))
    assert {file.parent.name for file in files} == set(made.KINDS)
    known = [inspect_sound(file) for file in files]
    assert len({sound.identity for sound in known}) == len(files) == 2 * len(made.KINDS)
    assert all(0.25 < sound.peak < 0.95 and sound.seconds == 1 for sound in known)
    assert demo_data(tmp_path / "sounds", "audio") == root  # as it is
    made.write_sounds(tmp_path / "again")
    with (
        wave.open(str(files[0])) as one,
        wave.open(str(tmp_path / "again" / files[0].relative_to(root))) as two,
    ):
        assert np.array_equal(*(np.frombuffer(file.readframes(16_000), np.int16) for file in (one, two)))


def test_what_there_is_no_demo_of_is_told() -> None:
    assert demo_of("image").name == "digits"
    with pytest.raises(UsageError, match=f"there are {', '.join(DEMOS)}"):
        demo_of("smell")

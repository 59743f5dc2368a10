"""Which ways of augmentation are used: those whose views stay nearest to their own sound."""

from __future__ import annotations

import numpy as np

from regraft.modalities import modality_of
from regraft.modalities.audio.preprocess import AudioPreprocess
from regraft.modalities.audio.settings import harmless
from sounds import hiss

SOUNDS = modality_of("audio")


def test_views_near_their_own_sound_are_harmless_and_others_are_not() -> None:
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(50, 8)).astype(np.float32)
    allowed, why = harmless(plain, plain + 0.05 * rng.normal(size=plain.shape).astype(np.float32))
    assert allowed
    assert "used in training: 100%" in why
    refused, why = harmless(plain, rng.normal(size=plain.shape).astype(np.float32))
    assert not refused
    assert "not used" in why
    assert harmless(plain[:1], plain[1:2])[0]


def test_each_setting_has_a_probe_and_is_passed_on() -> None:
    names = {probe.setting for probe in SOUNDS.probes}
    assert names == set(SOUNDS.augmentation().model_dump()) == {"shift", "gain", "masks", "noise"}
    pre, samples = AudioPreprocess(104, 80), hiss(0.5)
    for probe in SOUNDS.probes:
        view = probe.view(pre)
        assert not np.array_equal(view.host(samples), samples)
        assert np.array_equal(view.host(samples), view.host(samples))
        settled = SOUNDS.augmentation(**{name: name == probe.setting for name in names})
        assert getattr(SOUNDS.views(settled), probe.setting)
        assert sum(vars(SOUNDS.views(settled)).values()) == 1

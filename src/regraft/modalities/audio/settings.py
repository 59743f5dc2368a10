"""Sounds' settings by rule from the data: the length of the input, and what suits fine-tuning."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from regraft.modalities import BY_USER, Probe, Suited
from regraft.modalities.audio.augment import Augment
from regraft.modalities.audio.preprocess import FRAMES, RATE, WINDOW, AudioPreprocess, Viewed
from regraft.recipe import Auto, Section

NAMED = range(16, 4 * WINDOW + 1)  # frames that a user may name
STEP = 8  # frames: lengths are multiples of it, which networks with strides divide without a rest
MOST_WINDOWS = 4
USUAL = 0.95  # quantile of the lengths: what a few recordings are longer is no reason to hear more of all
MELS = 128  # tones of a picture for networks of images
LEAST = 0.8  # share of views that a probe must find nearest to their own sound
WAYS = {"shift": "a shift in time", "gain": "a gain", "masks": "masking", "noise": "mild noise"}


def preprocess(
    config: dict[str, Any], native: int, facts: pa.Table | None, size: int | None, cpu: bool
) -> tuple[AudioPreprocess, str]:
    """The preprocessing for weights with this `config`, long enough for a set, and why."""
    why = BY_USER
    if size is None:
        size, why = (native, "it is the weights' own") if facts is None else input_size(seconds(facts))
    size = whole(size)
    if (front := config.get("front")) is not None:
        return _own(front, size, why)
    if config.get("mels"):
        return AudioPreprocess(size, int(config["mels"])), why
    mean, std = (tuple(float(value) for value in config[name]) for name in ("mean", "std"))
    return AudioPreprocess(size, MELS, mean, std), why


def _own(front: dict[str, Any], size: int, why: str) -> tuple[AudioPreprocess, str]:
    """What suits a network that takes sounds in a way of its own, which is what `front` says of it."""
    most = int(front.get("frames") or 0)
    if 0 < most < WINDOW and size > (kept := most // STEP * STEP):
        size, why = kept, f"{why}; the weights take {kept / FRAMES:.3g} s, of longer ones the middle is heard"
    rate = int(front["rate"])
    if rate != RATE:
        why += f"; at {rate:,} Hz, which these weights were trained with"
    made = AudioPreprocess(
        size,
        int(front.get("mels") or 0),
        tuple(front.get("mean") or ()),
        tuple(front.get("std") or ()),
        str(front["name"]),
        rate,
        most,
        tuple(front.get("tones") or ()),
    )
    return made, why


def seconds(facts: pa.Table) -> np.ndarray:
    """(N,) seconds of the recordings."""
    return np.asarray(facts["seconds"].to_numpy())


def whole(frames: int) -> int:
    """So many frames or a few more: a multiple of STEP, and of WINDOW where there are several."""
    step = STEP if frames <= WINDOW else WINDOW
    return min(NAMED[-1], step * math.ceil(frames / step))


def input_size(lengths: np.ndarray) -> tuple[int, str]:
    """The frames of the input for recordings of (N,) seconds, and why: as long as the longest up to ten
    seconds, else windows of ten seconds by the usual length.
    """
    longest, usual = float(lengths.max()), float(np.quantile(lengths, USUAL, method="higher"))
    if longest * FRAMES <= WINDOW:
        return whole(math.ceil(longest * FRAMES - 1e-6)), f"the longest recording has {longest:.3g} s"
    windows = min(MOST_WINDOWS, math.ceil(usual * FRAMES / WINDOW))
    heard = windows * WINDOW / FRAMES
    why = f"{USUAL:.0%} of the recordings have {usual:.3g} s or less"
    if cut := int((lengths > heard).sum()):
        several = "is" if cut == 1 else "are"
        why += f"; of {cut:,} that {several} longer than {heard:.0f} s, "
        why += f"{windows} windows of 10 s are heard" if windows > 1 else "the middle 10 s are heard"
    return windows * WINDOW, why


class AudioAugment(Section):
    """How sounds are varied in training; auto: unless a probe shows that it makes them others."""

    shift: bool | Auto = Field("auto", description="up to a tenth of the clip earlier or later")
    gain: bool | Auto = Field("auto", description="up to 6 decibels louder or softer")
    masks: bool | Auto = Field(
        "auto", description="without a part of the time and a band of tones (SpecAugment)"
    )
    noise: bool | Auto = Field("auto", description="with white noise, 20 to 40 decibels below the clip")


def settings(facts: pa.Table, size: int) -> Suited:
    """What suits fine-tuning on sounds: half the rate of pictures, which harmed less where it harmed
    (docs/decisions.md).
    """
    return Suited(lr=1e-4, layer_decay=0.8)


def views(augment: AudioAugment) -> Augment:
    """The augmentation by its settled settings."""
    return Augment(*(getattr(augment, name) is True for name in WAYS))


def harmless(plain: np.ndarray, seen: np.ndarray, way: str = "they") -> tuple[bool, str]:
    """Whether augmented views stay what they were, and that in words, by (N, D) features of items and of their
    views: a view must lie nearer to its own item than to any other in LEAST of the cases.

    What a way of augmentation changes may be what tells the classes: then views come to lie among others.
    """
    centre = plain.mean(axis=0, dtype=np.float64)
    one, other = (values.astype(np.float64) - centre for values in (plain, seen))
    one /= np.linalg.norm(one, axis=1, keepdims=True) + 1e-12
    other /= np.linalg.norm(other, axis=1, keepdims=True) + 1e-12
    close = other @ one.T
    own = np.diag(close).copy()
    np.fill_diagonal(close, -np.inf)
    kept = float((own >= close.max(axis=1)).mean()) if len(plain) > 1 else 1.0
    used = "used" if kept >= LEAST else "not used"
    return (
        kept >= LEAST,
        f"{way} is {used} in training: {kept:.0%} of such views stay nearest to their own sound",
    )


def _probe(way: str) -> Probe:
    return Probe(way, partial(Viewed, augment=Augment(**{way: True})), partial(harmless, way=WAYS[way]))


PROBES = tuple(map(_probe, WAYS))

"""The engine that is fastest on this machine for this network, found by a short trial and checked against
float32.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regraft.artifacts import fingerprint, read_json, write_json
from regraft.backbones import Backbone, Batch, padded, split
from regraft.errors import UsageError
from regraft.inference.engines import Engine, OpenVinoEngine, TorchEngine
from regraft.inference.feed import Feed, lanes_for

REFERENCE = "torch-float32"
ENGINES = (REFERENCE, "torch-bfloat16", "openvino-float32", "openvino-bfloat16")
SHORT = 64  # positions of an item, of which eight fill no matrix
LONG = 2_048  # numbers of an item: texts have fewer tokens, and the shortest of sounds has more samples
FEW = 8  # examples a batch that fill a CPU's units, unless they are short
FEWEST_ITEMS = 64  # examples for which no trial pays
# Least mean cosine between an engine's and float32's features, both less float32's mean feature
MEAN_COSINE = 0.99
WORST_COSINE = 0.95  # the same for the worst example of the sample
FAST_ENOUGH = 2.0  # times float32's speed: an engine that agrees and is so fast ends the trial, each of which costs up to 3 s
PATIENCE = 0.15  # seconds of repeated batches an engine is timed for


@dataclass(frozen=True)
class Trial:
    """One engine: examples/s, and its agreement with float32 (None: it did not run; `why` says so)."""

    engine: str
    speed: float | None
    cosine: float | None
    least: float | None
    why: str = ""

    @property
    def fits(self) -> bool:
        """True if it ran and agreed."""
        return self.cosine is not None and self.least is not None and _enough(self.cosine, self.least)

    def in_words(self) -> str:
        """For the run's record."""
        if self.speed is None:
            return f"{self.engine}: {self.why}"
        agreed = (
            ""
            if self.engine == REFERENCE
            else f", cosine to float32 {self.cosine:.4f}, at least {self.least:.4f}"
        )
        return f"{self.engine}: {self.speed:.0f} examples/s{agreed}{'' if self.fits else ', refused'}"


Maker = Callable[[], Engine]


@dataclass(frozen=True)
class Making:
    """All that an engine was made of: what makes the same one in another process."""

    name: str
    backbone: Backbone
    device: torch.device
    batch: int
    depths: tuple[int, ...]
    cut: int | None

    def engine(self, cache: Path | None = None) -> Engine:
        """The engine, on the threads that this process has."""
        return makers(self.backbone, self.device, self.batch, self.depths, self.cut, cache)[self.name]()


def makers(
    backbone: Backbone,
    device: torch.device,
    batch: int,
    depths: tuple[int, ...] = (),
    cut: int | None = None,
    cache: Path | None = None,
    lanes: int | None = None,
) -> dict[str, Maker]:
    """The engines there are for a device, by name, the reference first, then the most promising.

    `lanes` is how many batches those run at once that can; None stands for what is fastest for many.
    """
    lanes = lanes or lanes_for(torch.get_num_threads())
    if device.type == "cpu" and long(backbone):
        batch = min(batch, FEW)
    made: dict[str, Maker] = {REFERENCE: lambda: TorchEngine(backbone, device, batch, "float32", depths, cut)}
    if device.type == "cpu":
        few = batch if _short(backbone) else min(batch, FEW)  # as fast as more, and less is padded
        for p in ("bfloat16", "float32"):
            made[f"openvino-{p}"] = lambda p=p: OpenVinoEngine(backbone, few, p, depths, cut, cache, lanes)  # type: ignore[misc]
    if device.type != "mps":  # its autocast knows float16 only
        made["torch-bfloat16"] = lambda: TorchEngine(backbone, device, batch, "bfloat16", depths, cut)

    def remembered(name: str) -> Engine:
        engine = made[name]()
        engine.making = Making(name, backbone, device, batch, depths, cut)
        return engine

    return {name: functools.partial(remembered, name) for name in made}


def _short(backbone: Backbone) -> bool:
    """Whether items are so short that a few of them fill no matrix, such as sentences of twenty tokens."""
    return 0 < _most(backbone) <= SHORT


def long(backbone: Backbone) -> bool:
    """Whether items have lengths of their own of which FEW fill a matrix even where they are short beside the
    others, such as sounds: in batches of more, those of a rare length cost a CPU more in padding than a full
    batch saves.
    """
    return _most(backbone) >= LONG


def _most(backbone: Backbone) -> int:
    """How long the longest input is where items have lengths of their own, else 0."""
    preprocess = backbone.preprocess
    return int(preprocess.blank(1)[preprocess.varying[0]].shape[1]) if preprocess.varying else 0


def trial_key(
    backbone: Backbone, device: torch.device, batch: int, depths: tuple[int, ...] = ()
) -> tuple[str, ...]:
    """What the outcome of a trial of `makers` depends on beside the machine: the weights as they are, the
    input, the shape.
    """
    return backbone.fingerprint(), backbone.preprocess.fingerprint, str(device), str(batch), str(depths)


def pick_engine(
    made: dict[str, Maker], sample: Callable[[], Batch], count: int, key: tuple[str, ...], memory: Path | None
) -> tuple[str, list[Trial]]:
    """The name of the fastest engine that agrees with float32 on `sample` (a batch of any size),
    and the trials.

    With fewer than FEWEST_ITEMS examples to run (`count`) it is the reference. What was found is remembered
    below `memory` for this machine, the libraries and `key` (`trial_key`).
    """
    if count < FEWEST_ITEMS:
        return REFERENCE, []
    try:
        known = [Trial(**item) for item in (recall(memory, *key) or {}).get("trials", [])]
    except TypeError:  # of another version: tried anew
        known = []
    if known:
        return _fastest(known), known
    trials = try_engines(made, sample())
    remember(memory, *key, found={"trials": [trial.__dict__ for trial in trials]})
    return _fastest(trials), trials


def recall(memory: Path | None, *key: str) -> dict[str, Any] | None:
    """What a trial found for `key` on this machine with these libraries, if it is remembered below
    `memory`.
    """
    place = _place(memory, key)
    if place is None or not os.path.isfile(place):
        return None
    try:
        found = read_json(place)
    except UsageError:  # torn: tried anew
        return None
    return found if isinstance(found, dict) else None


def remember(memory: Path | None, *key: str, found: dict[str, Any]) -> None:
    """Keep what a trial found, where it can be kept: the next run tries anew otherwise."""
    place = _place(memory, key)
    if place is not None:
        with contextlib.suppress(OSError):
            write_json(place, found)


def _place(memory: Path | None, key: tuple[str, ...]) -> Path | None:
    return memory / "trials" / f"{fingerprint(*key, *_machine())}.json" if memory else None


def try_engines(made: dict[str, Maker], sample: Batch) -> list[Trial]:
    """Engines on a batch of any size: the speed of each, and its agreement with the reference.

    One that agrees and is FAST_ENOUGH times as fast as the reference ends the trial: the rest stays
    untried.
    """
    trials: list[Trial] = []
    expected = np.zeros(0)
    for name in made:
        try:
            engine = made[name]()
            found, speed = _timed(engine, sample)
        except ImportError:
            trials.append(Trial(name, None, None, None, "not installed"))
            continue
        except Exception as error:  # whatever a backend stumbles over, the reference is there
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            if name == REFERENCE:
                raise
            trials.append(Trial(name, None, None, None, f"did not run ({reason})"))
            continue
        if name == REFERENCE:
            expected = found
        cosines = agreement(expected, found)
        trials.append(Trial(name, speed, float(cosines.mean()), float(cosines.min())))
        if trials[-1].fits and speed >= FAST_ENOUGH * (trials[0].speed or speed):
            break
    return trials


def agreement(expected: np.ndarray, found: np.ndarray) -> np.ndarray:
    """(N,) cosines of (N, D) features, both less the mean of `expected`: what all examples share proves
    nothing.
    """
    if not np.isfinite(found).all():
        return np.zeros(len(expected))
    centre = expected.mean(axis=0) if len(expected) > 1 else 0.0
    a, b = expected - centre, found - centre
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    same = np.isclose(a, b, atol=1e-6).all(axis=1)
    cosines = (a * b).sum(axis=1) / np.maximum(lengths, 1e-12)
    return np.where(same, 1.0, cosines)  # type: ignore[no-any-return]


def agree(expected: np.ndarray, found: np.ndarray) -> bool:
    """True if (N, ...) activations are those of float32 by the measure of the trial."""
    cosines = agreement(expected.reshape(len(expected), -1), found.reshape(len(found), -1))
    return _enough(float(cosines.mean()), float(cosines.min()))


def _enough(mean: float, least: float) -> bool:
    return mean >= MEAN_COSINE and least >= WORST_COSINE


def _timed(engine: Engine, sample: Batch) -> tuple[np.ndarray, float]:
    batches = split(sample, engine.batch)
    found = np.concatenate([engine.run(batch)[0] for batch in batches])
    full, done, best = padded(batches[0], engine.batch), 0.0, float("inf")
    with Feed(engine.lanes) as feed:
        while done < PATIENCE:
            began = time.perf_counter()
            list(feed.run([full] * engine.lanes, engine.run))
            seconds = time.perf_counter() - began
            done, best = done + seconds, min(best, seconds)
    return found, engine.lanes * engine.batch / best


def _fastest(trials: list[Trial]) -> str:
    return max(
        (t for t in trials if t.fits or t.engine == REFERENCE), key=lambda trial: trial.speed or 0.0
    ).engine


def _machine() -> tuple[str, ...]:
    from importlib.metadata import PackageNotFoundError, version

    def installed(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "none"

    threads = str(torch.get_num_threads())
    return (
        platform.node(),
        platform.machine(),
        _processor(),
        str(os.cpu_count()),
        threads,
        installed("torch"),
        installed("openvino"),
    )


def _processor() -> str:
    """The processor's model: platform.processor() says nothing on Linux."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as handle:
            return next(
                (line.partition(":")[2].strip() for line in handle if line.startswith("model name")), ""
            )
    except OSError:
        return platform.processor()

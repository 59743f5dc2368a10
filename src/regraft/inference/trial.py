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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regraft.artifacts import fingerprint, read_json, write_json
from regraft.backbones import Backbone, Batch, computes_aside, padded, split
from regraft.errors import UsageError
from regraft.inference.engines import Engine, OpenVinoEngine, TorchEngine, passes
from regraft.inference.feed import Feed, lanes_for
from regraft.inference.gpu import COMPILED, FOLDED, GpuEngine

REFERENCE = "torch-float32"
FOLDED_BFLOAT16, COMPILED_BFLOAT16 = f"torch-bfloat16-{FOLDED}", f"torch-bfloat16-{COMPILED}"
ENGINES = (REFERENCE, "torch-bfloat16", "openvino-float32", "openvino-bfloat16")  # of a CPU
COMPILED_FROM = 120.0  # seconds of passes from which on compiling is tried, which takes most of a minute
SHORT = 64  # positions of an item, of which eight fill no matrix
LONG = 2_048  # numbers of an item: texts have fewer tokens, and the shortest of sounds has more samples
FEW = 8  # examples a batch that fill a CPU's units, unless they are short
FEWEST_ITEMS = 64  # examples for which no trial pays
# Least mean cosine between an engine's and float32's features, both less float32's mean feature
MEAN_COSINE = 0.99
WORST_COSINE = 0.95  # the same for the worst example of the sample
FAST_ENOUGH = 2.0  # times float32's speed: an engine that agrees and is so fast ends the trial, each of which costs up to 3 s
ON_CARD = 4  # batches in a row by which a GPU is timed: copies and passes overlap
PATIENCE = 0.15  # seconds of repeated batches an engine is timed for


@dataclass(frozen=True)
class Trial:
    """One engine: examples/s, and its agreement with float32 (None: it did not run; `why` says so). `start` is
    how many seconds it needs before its first batch, where that is counted: those of compiling.
    """

    engine: str
    speed: float | None
    cosine: float | None
    least: float | None
    why: str = ""
    start: float = 0.0

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
        started = f" after {self.start:.0f} s" if self.start else ""
        return (
            f"{self.engine}: {self.speed:.0f} examples/s{started}{agreed}{'' if self.fits else ', refused'}"
        )

    def seconds(self, count: int) -> float:
        """What it takes for so many examples, from the first to the last."""
        return self.start + count / self.speed if self.speed else float("inf")


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
    on = _on_card if computes_aside(device) else _on_others
    made = on(backbone, device, batch, depths, cut, cache, lanes)

    def remembered(name: str) -> Engine:
        engine = made[name]()
        engine.making = Making(name, backbone, device, batch, depths, cut)
        return engine

    return {name: functools.partial(remembered, name) for name in made}


def _on_others(
    backbone: Backbone,
    device: torch.device,
    batch: int,
    depths: tuple[int, ...],
    cut: int | None,
    cache: Path | None,
    lanes: int | None,
) -> dict[str, Maker]:
    """The engines of a device that is waited for."""
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
    return made


def _on_card(
    backbone: Backbone, device: torch.device, batch: int, depths: tuple[int, ...], cut: int | None, *_: Any
) -> dict[str, Maker]:
    """The engines of a GPU. Compiling is offered where the network's end alone is asked for: to look inside, hooks
    are hung into it, which break what is compiled into pieces.
    """

    def maker(precision: str, way: str) -> Maker:
        return lambda: GpuEngine(backbone, device, batch, precision, depths, cut, way)

    made = {REFERENCE: maker("float32", ""), "torch-bfloat16": maker("bfloat16", "")}
    made[FOLDED_BFLOAT16] = maker("bfloat16", FOLDED)
    if not depths and cut is None:
        made[COMPILED_BFLOAT16] = maker("bfloat16", COMPILED)
    return made


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
    input, the shape. Whether depths are joined takes no time beside the network, and one trial does for all ways.
    """
    network = replace(backbone, module=backbone.network, join=False)
    return network.fingerprint(), backbone.preprocess.fingerprint, str(device), str(batch), str(depths)


def pick_engine(
    made: dict[str, Maker], sample: Callable[[], Batch], count: int, key: tuple[str, ...], memory: Path | None
) -> tuple[str, list[Trial]]:
    """The name of the fastest engine that agrees with float32 on `sample` (a batch of any size),
    and the trials.

    With fewer than FEWEST_ITEMS examples to run (`count`) it is the reference. Compiling is tried where the
    passes take COMPILED_FROM without it, and taken where they end sooner with it, the time it takes counted. What was
    found is remembered below `memory` for this machine, the libraries and `key` (`trial_key`).
    """
    if count < FEWEST_ITEMS:
        return REFERENCE, []
    try:
        trials = [Trial(**item) for item in (recall(memory, *key) or {}).get("trials", [])]
    except TypeError:  # of another version: tried anew
        trials = []
    before = len(trials)
    if not trials:
        trials = try_engines({name: made[name] for name in made if name != COMPILED_BFLOAT16}, sample())
    best = {trial.engine: trial for trial in trials}[_fastest(trials, count)]
    if (
        COMPILED_BFLOAT16 in made
        and COMPILED_BFLOAT16 not in {t.engine for t in trials}
        and best.seconds(count) > COMPILED_FROM
    ):
        some = {REFERENCE: made[REFERENCE], COMPILED_BFLOAT16: made[COMPILED_BFLOAT16]}
        trials.append(try_engines(some, sample())[1])
    if len(trials) > before:
        remember(memory, *key, found={"trials": [trial.__dict__ for trial in trials]})
    return _fastest(trials, count), trials


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
            found, speed, first = _timed(engine, sample)
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
        start = first if name == COMPILED_BFLOAT16 else 0.0
        trials.append(Trial(name, speed, float(cosines.mean()), float(cosines.min()), start=start))
        if isinstance(engine, GpuEngine):
            continue  # each takes a moment
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


def _timed(engine: Engine, sample: Batch) -> tuple[np.ndarray, float, float]:
    """The features of a sample, examples/s of full batches, and the seconds that the sample took: those of
    getting ready.
    """
    batches = split(sample, engine.batch)
    began = time.perf_counter()
    found = np.concatenate([engine.run(batch)[0] for batch in batches])
    first = time.perf_counter() - began
    full, done, best = padded(batches[0], engine.batch), 0.0, float("inf")
    count = ON_CARD if isinstance(engine, GpuEngine) else engine.lanes
    with Feed(engine.lanes) as feed:
        while done < PATIENCE:
            began = time.perf_counter()
            for _ in passes(engine, feed, [([], lambda: full)] * count):
                pass
            seconds = time.perf_counter() - began
            done, best = done + seconds, min(best, seconds)
    return found, count * engine.batch / best, first


def _fastest(trials: list[Trial], count: int) -> str:
    return min((t for t in trials if t.fits or t.engine == REFERENCE), key=lambda t: t.seconds(count)).engine


def _machine() -> tuple[str, ...]:
    from importlib.metadata import PackageNotFoundError, version

    def installed(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "none"

    threads = str(torch.get_num_threads())
    cards = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    return (
        platform.node(),
        platform.machine(),
        _processor(),
        str(os.cpu_count()),
        threads,
        installed("torch"),
        installed("openvino"),
        *cards,
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

"""How time and memory grow from 10,000 to 1,000,000 examples of 1,000 classes, part by part of a run
without its pictures.

    python benchmarks/scale.py [--counts 10000 100000 1000000] [--write docs/benchmarks.md]

Features are synthetic and memory-mapped: 64 wide, around a centre a class; one in a hundred is nearly
another one. A fifth of the examples is test. Each size has a process of its own. Peak memory is that of
anonymous pages (RssAnon of Linux), the interpreter and its libraries included; mapped features are not
among them. Files are neither hashed nor decoded, nothing is fine-tuned.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.special import softmax

from page import between_marks
from regraft.data.audit import Seen, audit_features, find_near
from regraft.data.part import Part
from regraft.data.splits import assign_splits
from regraft.evaluation import (
    choose_thresholds,
    evaluate_single,
    fit_temperature,
    folds_of,
    knn_logits,
    paired_accuracy,
    per_class,
    predicted_classes,
    reliability,
)
from regraft.modalities import modality_of
from regraft.predictions import write_predictions
from regraft.tasks.single import Single, Temperature, majority_logits
from regraft.training import fit_linear, fit_path, linear_outputs

COUNTS = (10_000, 100_000, 1_000_000)
CLASSES, WIDTH = 1_000, 64
SIGNAL = 0.35  # of a feature's variance that is its class's centre
CHUNK = 50_000
PARTS = ("splits", "near-duplicates", "head", "audit", "baselines", "evaluation", "predictions")


def anonymous() -> int:
    """Bytes of this process's memory that no file stands behind."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


class Clock:
    """Seconds and peak anonymous memory of each part."""

    def __init__(self) -> None:
        self.parts: dict[str, dict[str, float]] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        peak, done = [anonymous()], threading.Event()

        def watch() -> None:
            while not done.wait(0.02):
                peak[0] = max(peak[0], anonymous())

        watcher = threading.Thread(target=watch)
        watcher.start()
        began, worked = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            seconds, worked = time.perf_counter() - began, time.process_time() - worked
            done.set()
            watcher.join()
            before = self.parts.get(name, {"seconds": 0.0, "peak": 0})
            self.parts[name] = {"seconds": before["seconds"] + seconds, "peak": max(before["peak"], *peak)}
            print(
                f"{name}: {seconds:.1f} s, {worked:.1f} s of a core, {peak[0] / 1e6:,.0f} MB",
                file=sys.stderr,
                flush=True,
            )


def features(labels: np.ndarray, twins: np.ndarray, place: Path) -> np.ndarray:
    """(N, WIDTH) float32, memory-mapped; a row is nearly that of its twin's number."""
    centres = np.random.default_rng(0).normal(size=(CLASSES, WIDTH)).astype(np.float32)
    found = np.memmap(place, dtype=np.float32, mode="w+", shape=(len(labels), WIDTH))
    for start in range(0, len(labels), CHUNK):
        some = slice(start, start + CHUNK)
        rng = np.random.default_rng([1, start])
        noise = rng.normal(size=(len(labels[some]), WIDTH)).astype(np.float32)
        found[some] = SIGNAL**0.5 * centres[labels[some]] + (1 - SIGNAL) ** 0.5 * noise
    copies = np.flatnonzero(twins != np.arange(len(twins)))
    spread = np.random.default_rng(2).normal(size=(len(copies), WIDTH)).astype(np.float32)
    found[copies] = found[twins[copies]] + 0.2 * spread
    found.flush()
    return np.memmap(place, dtype=np.float32, mode="r", shape=found.shape)


def picture(name: str) -> np.ndarray:
    """(64, 64, 3) uint8: twins show the same."""
    rng = np.random.default_rng(int(name.split("-")[1], 16))
    return rng.integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)


@dataclass(frozen=True)
class Synthetic:
    """Synthetic examples, those of train and val first: their `ids`, (N,) `labels` and `splits`, and the
    (N,) position `twin` of the example that each is nearly the same as, itself for most.
    """

    ids: list[str]
    labels: np.ndarray
    splits: np.ndarray
    twin: np.ndarray
    known: int  # examples of train and val

    def inputs(self, begin: int, end: int, rng: np.random.Generator) -> Part:
        """The examples from `begin` to `end` as the audit sees them, with random difference hashes."""
        images, some = modality_of("image"), tuple(self.ids[begin:end])
        hashes = rng.integers(0, 256, (end - begin, 16), dtype=np.uint8)
        columns = {"width": [64] * len(some), "height": [64] * len(some)}
        columns |= {"dhash": [line.tobytes().hex() for line in hashes]}
        empty = dict.fromkeys(images.facts.names, [None] * len(some))
        return Part(
            name="inputs",
            ids=some,
            sources=some,
            items=some,
            identities=some,
            facts=pa.table({**empty, **columns}, schema=images.facts),
        )

    def recalled(self, pairs: set[tuple[int, int]]) -> float:
        """The share of the planted near-duplicates that is among `pairs`."""
        planted = {(min(i, j), max(i, j)) for i, j in enumerate(self.twin.tolist()) if i != j}
        return len(pairs & planted) / len(planted)


def synthetic(count: int, names: tuple[str, ...], rng: np.random.Generator, clock: Clock) -> Synthetic:
    """As many examples, split; one in a hundred is nearly another one of its class."""
    labels = rng.permutation(np.arange(count) % CLASSES)
    twins = np.arange(count)
    copies = rng.permutation(count)[: count // 100]
    twins[copies] = rng.permutation(np.setdiff1d(twins, copies))[: len(copies)]
    labels[copies] = labels[twins[copies]]
    ids = [f"{number:016x}-{twin:016x}" for number, twin in enumerate(twins.tolist())]
    with clock.part("splits"):
        splits = np.array(assign_splits(ids, [names[k] for k in labels], [None] * count, [None] * count))
    order = np.concatenate([np.flatnonzero(splits == split) for split in ("train", "val", "test")])
    place = np.empty(count, dtype=np.int64)
    place[order] = np.arange(count)
    known = int((splits != "test").sum())
    return Synthetic([ids[i] for i in order], labels[order], splits[order], place[twins[order]], known)


def measure(count: int) -> dict[str, dict[str, float]]:
    """Every part once, in the order of a run."""
    clock, rng = Clock(), np.random.default_rng(0)
    names = tuple(f"class {k:03d}" for k in range(CLASSES))
    data = synthetic(count, names, rng, clock)
    labels, known = data.labels, data.known
    with tempfile.TemporaryDirectory() as folder:
        every = features(labels, data.twin, Path(folder) / "features")
        values, ahead = every[:known], every[known:]
        both, test = data.inputs(0, known, rng), data.inputs(known, count, rng)
        with clock.part("near-duplicates"):
            likeness = replace(modality_of("image").likeness(both.facts), read=picture)
            near = find_near(both, test, (values, ahead), likeness, lambda **_: None)
        blocks = np.minimum(np.arange(count), data.twin)[:known]
        with clock.part("splits"):
            folds_of(labels[:known], 5, 0, blocks)

        weights = np.ones(known)
        with clock.part("head"):
            path = fit_path(values, labels[:known], weights, Single(names), blocks=blocks)
            weight, bias = fit_linear(values, labels[:known], weights, Single(names), path.l2[path.chosen])
        with clock.part("audit"):
            findings = audit_features(
                Seen(
                    names,
                    both,
                    tuple(data.splits[:known].tolist()),
                    labels[:known],
                    values,
                    path.rows,
                    softmax(path.logits, axis=1),
                    test,
                    near,
                )
            )
        held = labels[path.rows], path.logits
        truth, answers = labels[known:], linear_outputs(ahead, weight, bias)
        with clock.part("evaluation"):
            answers /= fit_temperature(*held)
            choose_thresholds(*held)
            result = evaluate_single(truth, answers)
            per_class(truth, answers, names)
            reliability(truth, answers)
        part = Part(
            "test",
            test.ids,
            test.ids,
            test.ids,
            truth,
            np.ones(len(truth)),
            (None,) * len(truth),
            np.arange(len(truth)),
        )
        with clock.part("predictions"):
            write_predictions(
                Path(folder) / "predictions.parquet", [(part, answers)], Single(names), Temperature()
            )
        mine = answers.argmax(axis=1)
        del answers, path, held
        with clock.part("baselines"):
            near_logits, _ = knn_logits(values, labels[:known], ahead, CLASSES)
            most = majority_logits(labels[:known], len(truth), CLASSES)
        with clock.part("evaluation"):
            told = {
                name: evaluate_single(truth, logits)
                for name, logits in (("neighbours", near_logits), ("majority", most))
            }
            for logits in (near_logits, most):
                paired_accuracy(truth, mine, predicted_classes(logits), "it")
    said = ", ".join(
        f"{name} {scores['accuracy'].value:.3f}" for name, scores in (("head", result), *told.items())
    )
    print(
        f"{data.recalled({pair[:2] for pair in near.pairs}):.3f} of planted near-duplicates found, "
        f"{len(findings)} findings; accuracy: {said}",
        file=sys.stderr,
    )
    return clock.parts


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS))
    parser.add_argument("--write", type=Path)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    sizes: dict[int, dict[str, dict[str, float]]] = {}
    for count in options.counts:
        words = [sys.executable, __file__, "--one", str(count)]
        sizes[count] = json.loads(
            subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
        )
    table = drawn(sizes)
    print(table)
    if options.write:
        between_marks(options.write, "scale", table)


def drawn(sizes: dict[int, dict[str, dict[str, float]]]) -> str:
    """Seconds of each part and size; how much more than linear the last step is; the peak at the largest
    size.
    """
    counts = sorted(sizes)
    last, before = counts[-1], counts[-2] if len(counts) > 1 else counts[-1]
    head = [*(f"{count:,}" for count in counts), f"{last:,} against linear", f"peak at {last:,}"]
    rows = [f"| part | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]

    def line(name: str, seconds: Callable[[int], float], peak: float) -> str:
        growth = seconds(last) / seconds(before) / (last / before)
        times = " | ".join(f"{seconds(count):.1f} s" for count in counts)
        return f"| {name} | {times} | {growth:.2f} | {peak / 1e6:,.0f} MB |"

    for name in PARTS:
        rows.append(
            line(name, lambda count, name=name: sizes[count][name]["seconds"], sizes[last][name]["peak"])
        )
    whole = max(part["peak"] for part in sizes[last].values())
    rows.append(line("all", lambda count: sum(part["seconds"] for part in sizes[count].values()), whole))
    return "\n".join(rows)


if __name__ == "__main__":
    main()

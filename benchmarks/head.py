"""The head on cached features: the whole L2 path, and how time and memory grow with the number of examples.

    python benchmarks/head.py [--write docs/benchmarks.md]

Features are synthetic: normal, rotated, their spectrum falling like that of real ones. `path` is 10,000 x
1,280 features of 100 classes, all strengths and folds and the final fit; `curve` is one fit and one path
each of 1,000 to 1,000,000 examples with 256 features and 10 classes, memory-mapped, each in a process of
its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from page import between_marks, lines

COUNTS = (1_000, 10_000, 100_000, 1_000_000)


def made(count: int, width: int, classes: int, place: Path) -> tuple[np.ndarray, np.ndarray]:
    """(N, D) memory-mapped float32 features and (N,) labels."""
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(width, width)))[0].astype(np.float32)
    turn *= (np.arange(1, width + 1) ** -0.7).astype(np.float32)[:, None]
    rule = rng.normal(size=(64, classes)).astype(np.float32)
    features = np.memmap(place, dtype=np.float32, mode="w+", shape=(count, width))
    labels = np.empty(count, dtype=np.int64)
    for start in range(0, count, 50_000):
        some = slice(start, min(start + 50_000, count))
        hidden = rng.normal(size=(some.stop - start, width)).astype(np.float32)
        labels[some] = (0.7 * hidden[:, :64] @ rule + 2 * rng.gumbel(size=(len(hidden), classes))).argmax(
            axis=1
        )
        features[some] = hidden @ turn
    features.flush()
    return np.memmap(place, dtype=np.float32, mode="r", shape=(count, width)), labels


def measure(count: int, width: int, classes: int) -> dict:
    """Seconds of the path and of the final fit, the gradient there, and the peak of the process's own pages
    meanwhile.
    """
    import threading

    import psutil

    from regraft.runtime import keep_large_blocks
    from regraft.tasks import Single
    from regraft.training import fit_linear, fit_path
    from regraft.training.linear import _Problem
    from regraft.training.rows import Here, pareto_scaling

    keep_large_blocks()
    with tempfile.TemporaryDirectory() as folder:
        features, labels = made(count, width, classes, Path(folder) / "features")
        task = Single(tuple(str(number) for number in range(classes)))
        weights, peak, done, process = np.ones(count), [0], threading.Event(), psutil.Process()

        def watch() -> None:
            while not done.wait(0.05):
                about = process.memory_info()
                peak[0] = max(peak[0], about.rss - about.shared)

        watcher = threading.Thread(target=watch)
        watcher.start()
        began = time.perf_counter()
        path = fit_path(features, labels, weights, task)
        middle = time.perf_counter()
        l2 = path.l2[path.chosen]
        weight, bias = fit_linear(features, labels, weights, task, l2)
        ended = time.perf_counter()
        done.set()
        watcher.join()
        import torch

        mean, scale = pareto_scaling(features)
        rows = Here(features, labels, (weights / count)[None], task, (mean, scale))
        problem = _Problem(rows, task.link)
        theta = torch.from_numpy(np.column_stack([weight * scale, bias + weight @ mean]).astype(np.float32))[
            None
        ]
        slope = float(problem.slope(theta, l2)[1].norm())
    return {
        "examples": count,
        "path": middle - began,
        "fit": ended - middle,
        "strengths": len(path.l2),
        "gradient": slope,
        "peak": peak[0],
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", type=Path)
    parser.add_argument("--one", type=int, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one)))
        return
    rows = [
        "| examples | features | classes | path | strengths | final fit | gradient norm | peak memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    curve = []
    for count, width, classes in ((10_000, 1_280, 100), *((count, 256, 10) for count in COUNTS)):
        words = [sys.executable, __file__, "--one", str(count), str(width), str(classes)]
        found = json.loads(
            subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        )
        rows.append(
            f"| {count:,} | {width:,} | {classes} | {found['path']:.1f} s | {found['strengths']} "
            f"| {found['fit']:.1f} s | {found['gradient']:.1e} | {found['peak'] / 1e6:,.0f} MB |"
        )
        print(rows[-1], flush=True)
        if width == 256:
            curve.append(found)
    if options.write:
        between_marks(options.write, "head", "\n".join(rows))
        counts = [found["examples"] for found in curve]
        series = {
            "path and fit": (counts, [found["path"] + found["fit"] for found in curve]),
            "fit": (counts, [found["fit"] for found in curve]),
        }
        lines(options.write.with_name("head_time.svg"), series, "examples", "seconds")


if __name__ == "__main__":
    main()

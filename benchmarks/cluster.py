"""Features by workers beside features at home: how much is lost on the way, and whether the answers are the same.

    python benchmarks/cluster.py DATA [--images 20000] [--rounds 3] [--workers 2] [--write FILE]
    python benchmarks/cluster.py DATA --passes     what a pass of 64 empty jobs takes, beside one by Ray Data

DATA is a folder of pictures, which are taken again and again until there are so many. The local engine uses all
threads, each worker its share of them. Rounds alternate, workers have begun before the first, and what is told is
the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import regraft
from page import between_marks
from regraft.crew import Crew
from regraft.inference import FeatureStore, feature_key, makers, pick_engine
from regraft.modalities import modality_of
from regraft.runtime import keep_large_blocks
from regraft.scale import Cluster, crew_of

WARM = 512  # images before the first round: workers import, load and compile


class Pass:
    """The features of so many pictures, here or by workers; nothing is kept between two calls."""

    def __init__(self, files: list[Path], reference: str, size: int | None) -> None:
        keep_large_blocks()
        self.files, self.base = files, regraft.backbone(reference, size)
        pre = self.base.preprocess
        made = makers(self.base, torch.device("cpu"), 32)
        sample = pre.collate([pre.host(file) for file in files[:32]])
        name, _ = pick_engine(made, lambda: sample, len(files), ("benchmark",), None)
        self.engine = made[name]()
        self.ids = [f"{number:032x}" for number in range(len(files))]

    def __call__(self, count: int, crew: Crew | None = None, folder: Path | None = None) -> np.ndarray:
        """(count, width) features."""
        items, ids = self.files[:count], self.ids[:count]
        store, key = FeatureStore(folder, crew=crew), feature_key(self.engine)
        return store.features(ids, items, key, self.base.preprocess, self.engine, lambda **_: None)[0]


def many(data: Path, count: int) -> list[Path]:
    """So many files, the folder's in turn."""
    kind = modality_of("image")
    files = sorted(path for path in data.rglob("*") if path.suffix.lower() in kind.endings)
    return list(itertools.islice(itertools.cycle(files), count))


def timed(work: Callable[[], object]) -> float:
    """Seconds of a call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Nothing:
    """A job of workers that does nothing, and a factory of it."""

    def __call__(self, job: object = None) -> object:
        return self if job is None else job


def passes(workers: int, jobs: int = 64, rounds: int = 3) -> None:
    """Print the seconds of passes that do nothing: by workers that stay, and by Ray Data, which begins its actors
    for each.
    """
    import pyarrow as pa
    import ray.data

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with crew_of(Cluster(workers), print) as crew:
        stay = [timed(lambda: list(crew.each(Nothing(), range(1, jobs + 1)))) for _ in range(rounds)]
        crew.rest()
        tables = [pa.table({"job": [number]}) for number in range(jobs)]

        def by_ray_data() -> None:
            pool = ray.data.ActorPoolStrategy(size=workers)
            data = ray.data.from_arrow(tables).map_batches(Nothing, compute=pool, batch_size=1)
            assert sum(len(batch["job"]) for batch in data.iter_batches(batch_size=None)) == jobs

        anew = [timed(by_ray_data) for _ in range(rounds)]
    for name, found in (("workers that stay", stay), ("Ray Data", anew)):
        print(f"{name}: the first pass {found[0]:.2f} s, later ones {statistics.median(found[1:]):.2f} s")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--backbone", default="packaged:efficientnet_lite0")
    parser.add_argument("--size", type=int)
    parser.add_argument("--write", type=Path, help="the page whose marks 'cluster' get what was found")
    parser.add_argument(
        "--passes", action="store_true", help="measure passes that do nothing, and nothing else"
    )
    asked = parser.parse_args()
    if asked.passes:
        return passes(asked.workers)
    work = Pass(many(asked.data, asked.images), asked.backbone, asked.size)
    few = min(WARM, asked.images)
    home = work(few)
    with crew_of(Cluster(asked.workers), print) as crew:
        away = work(few, crew)
        ratios, speeds = [], []
        for _ in range(asked.rounds):
            here = timed(lambda: work(asked.images))
            there = timed(lambda: work(asked.images, crew))
            ratios.append(here / there)
            speeds.append((asked.images / here, asked.images / there))
    with crew_of(Cluster(1), print) as crew:
        one = work(few, crew)
    ratio = statistics.median(ratios)
    here, there = (statistics.median(speed[k] for speed in speeds) for k in (0, 1))
    lines = [
        "| images | engine | here, images/s | by workers, images/s | ratio | wanted | one worker: same bits | "
        f"{asked.workers} workers: same bits |",
        "|---|---|---|---|---|---|---|---|",
        f"| {asked.images:,} | {work.engine.name} | {here:.0f} | {there:.0f} | {ratio:.2f} ({min(ratios):.2f} to "
        f"{max(ratios):.2f}) | 0.85 | {'yes' if np.array_equal(home, one) else 'NO'} | "
        f"{'yes' if np.array_equal(home, away) else 'NO'} |",
    ]
    print("\n".join(lines))
    if asked.write:
        between_marks(asked.write, "cluster", "\n".join(lines))


if __name__ == "__main__":
    main()

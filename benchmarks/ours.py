"""What benchmarks/speed.py measures of regraft inside one process; one JSON line out.

python benchmarks/ours.py extract FOLDER      features of train: the engine of a trial, decoding and the
store included python benchmarks/ours.py bound FOLDER        the network alone and decoding alone, each on
all cores python benchmarks/ours.py steps FOLDER STAGES training steps with the last STAGES stages released
("all": the whole) python benchmarks/ours.py memory COUNT        peak anonymous memory of extracting COUNT
generated images
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from regraft.runtime import keep_large_blocks

SIZE, STEPS = 224, 8


def ready():
    """Base, engine (by trial, warmed up), paths and ids of train."""
    import torch

    import regraft
    from regraft.artifacts import file_sha256
    from regraft.backbones import split
    from regraft.inference import makers, pick_engine

    keep_large_blocks()
    base = regraft.backbone("packaged:efficientnet_lite0", SIZE)
    paths = sorted(str(p) for p in (Path(sys.argv[2]) / "train").rglob("*") if p.is_file())
    made = makers(base, torch.device("cpu"), 32)
    sample = base.preprocess.collate([base.preprocess.host(p) for p in paths[:: len(paths) // 32][:32]])
    name, trials = pick_engine(made, lambda: sample, len(paths), ("bench",), None)
    engine = made[name]()
    engine.run(split(sample, engine.batch)[0])
    return base, engine, sample, paths, [file_sha256(Path(p))[:32] for p in paths], trials


def extract() -> dict:
    """Seconds from the first file to the last feature in the store."""
    from regraft.inference import FeatureStore

    base, engine, _, paths, ids, trials = ready()
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        found = FeatureStore(Path(folder)).features(
            ids, paths, ("bench",), base.preprocess, engine, lambda **_: None
        )[0]
        seconds = time.perf_counter() - began
    return {
        "images": len(found),
        "seconds": seconds,
        "engine": engine.name,
        "trials": [t.in_words() for t in trials],
    }


def bound() -> dict:
    """1 / (1 / forward + 1 / decode), in images/s."""
    from regraft.backbones import length, split

    base, engine, sample, paths, _, _ = ready()
    batch, times = split(sample, engine.batch)[0], []
    for _ in range(30):
        began = time.perf_counter()
        engine.run(batch)
        times.append(time.perf_counter() - began)
    forward = length(batch) / float(np.median(times))
    with ThreadPoolExecutor() as pool:
        list(pool.map(base.preprocess.host, paths[:50]))
        began = time.perf_counter()
        list(pool.map(base.preprocess.host, paths))
    decode = len(paths) / (time.perf_counter() - began)
    return {"forward": forward, "decode": decode, "bound": 1 / (1 / forward + 1 / decode)}


def steps() -> dict:
    """images/s of training steps on a batch of 32: of images, or of cached activations where the first
    stages are frozen.
    """
    import torch

    import regraft
    from regraft.backbones import Suffix, Tapped, pick_arithmetic, tensors
    from regraft.training import Network, make_head, plan_freeze

    keep_large_blocks()
    base = regraft.backbone("packaged:efficientnet_lite0", SIZE)
    plan = plan_freeze(base.module, base.stages, "full" if sys.argv[3] == "all" else f"last-{sys.argv[3]}")
    base.module.to(memory_format=torch.channels_last)
    plan.apply(base.module)
    given = tensors(base.preprocess.blank(32, np.random.default_rng(0)))
    labels, suffix = torch.randint(0, 10, (32,)), None
    if plan.boundary:
        suffix = Suffix(base, plan.boundary)
        with torch.no_grad():
            given = Tapped(base, (), plan.boundary).eval()(given)[-1]
    network = (
        Network(base, make_head("linear", base.width, 10), suffix)
        .to(memory_format=torch.channels_last)
        .train()
    )
    arithmetic, speed = pick_arithmetic(network, given)
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-4, fused=True)
    times = []
    for _ in range(STEPS):
        began = time.perf_counter()
        with arithmetic():
            logits = network(given)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        optimiser.step()
        times.append(time.perf_counter() - began)
    return {
        "examples_per_second": 32 / float(np.median(times[1:])),
        "precision": arithmetic.precision,
        "trial": speed,
    }


def memory() -> dict:
    """Peak of the process's own pages (the page cache and mapped files left out) while COUNT images are
    extracted.
    """
    import threading

    import psutil
    import torch

    import regraft
    from regraft.inference import FeatureStore, makers

    keep_large_blocks()
    base, count = regraft.backbone("packaged:efficientnet_lite0", 64), int(sys.argv[2])
    engine = makers(base, torch.device("cpu"), 32)["torch-float32"]()
    peak, done, process = [0], threading.Event(), psutil.Process()

    def watch() -> None:
        while not done.wait(0.1):
            about = process.memory_info()
            peak[0] = max(peak[0], about.rss - about.shared)

    class Made:
        def host(self, number: int) -> np.ndarray:
            return np.full((64, 64, 3), number % 256, dtype=np.uint8)

        def collate(self, raws: list[np.ndarray]) -> dict[str, np.ndarray]:
            return {"pixels": np.stack(raws)}

    from regraft.inference import store

    store.IN_MEMORY = 0  # as if there were too many for memory: what is measured is the rest
    watcher = threading.Thread(target=watch)
    watcher.start()
    with tempfile.TemporaryDirectory() as folder:
        ids = [f"{number:032x}" for number in range(count)]
        FeatureStore(Path(folder)).features(ids, range(count), ("bench",), Made(), engine, lambda **_: None)
    done.set()
    watcher.join()
    return {"images": count, "peak_anonymous_bytes": peak[0]}


if __name__ == "__main__":
    print(json.dumps({"extract": extract, "bound": bound, "steps": steps, "memory": memory}[sys.argv[1]]()))

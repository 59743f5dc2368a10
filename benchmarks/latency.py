"""What a call of `model.predict` costs beside the bare work in it, at 224 pixels, for one picture and for
thirty.

    REGRAFT_DATA=... python benchmarks/latency.py [--before CHECKOUT] [--rounds 30] [--threads 2]

The bare work is done by hand with timm and PyTorch: the pictures are prepared one after another by the
model's own preprocessing, then one forward pass takes them all, in float32, channels last, with torch's own
fusion of norms into convolutions. Every round times it and `predict` in turn, in one process; what is told
is the median of a round's ratio. With `--before` another checkout of regraft is measured in the same run,
round about with this one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
EACH, CLASSES, PASSES = 14, 3, 4


def small_set(data: Path, place: Path) -> None:
    """A few pictures of a few classes: what the model learnt does not matter here."""
    for folder in sorted(path for path in (data / "flowers5" / "train").iterdir() if path.is_dir())[:CLASSES]:
        (place / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[:EACH]:
            shutil.copy(file, place / folder.name)


def by_hand(folder: Path):
    """The network of a model folder as plain timm and PyTorch run it fastest in float32."""
    import timm
    import torch
    from timm.layers import BatchNormAct2d
    from torch import nn
    from torch.nn.utils import fuse_conv_bn_eval

    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    for parent in [*network.modules()]:
        children, before = list(parent.named_children()), None
        for name, child in children:
            if isinstance(child, nn.BatchNorm2d) and before is not None:
                setattr(parent, before[0], fuse_conv_bn_eval(before[1], child))
                rest = nn.Sequential(child.drop, child.act) if isinstance(child, BatchNormAct2d) else None
                setattr(parent, name, rest or nn.Identity())
            before = (name, child) if isinstance(child, nn.Conv2d) else None
    return network.to(memory_format=torch.channels_last)


def measure(folder: Path, data: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of each round: `predict` and the bare work, for one picture and for thirty."""
    import numpy as np
    import torch

    import regraft
    from regraft.runtime import keep_large_blocks

    keep_large_blocks()
    model, network = regraft.load(folder), by_hand(folder)
    prepare = model.backbone.preprocess
    files = sorted(path for path in data.rglob("*") if path.is_file())[:30]
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (prepare.mean, prepare.std))

    def bare(some: list[Path]) -> np.ndarray:
        pixels = torch.from_numpy(np.stack([prepare.host(file) for file in some]))
        with torch.inference_mode():
            given = (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std
            return (network(given) / model.temperature).softmax(1).numpy()

    def whole(some: list[Path]) -> np.ndarray:
        return np.array([list(answer.probabilities.values()) for answer in model.predict(some)])

    def clock(work: Callable[[list[Path]], np.ndarray], some: list[Path]) -> float:
        began = time.perf_counter()
        for _ in range(PASSES if len(some) == 1 else 1):
            work(some)
        return (time.perf_counter() - began) / (PASSES if len(some) == 1 else 1)

    gap = float(np.abs(bare(files) - whole(files)).max())
    if gap > 1e-4:
        raise SystemExit(f"the two do not answer the same: {gap}")
    found: dict[str, list[float]] = {}
    for count in (1, 30):
        for name, work in (("bare", bare), ("predict", whole)):
            clock(work, files[:count])
            found[f"{name} {count}"] = []
    for _ in range(rounds):
        for count in (1, 30):
            for name, work in (("bare", bare), ("predict", whole)):
                found[f"{name} {count}"].append(clock(work, files[:count]))
    return found


def child(checkout: Path, threads: int, *words: object) -> str:
    """The last line of what a process says that imports the regraft of a checkout."""
    env = {**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run([sys.executable, *map(str, words)], env=env, text=True, capture_output=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return (done.stdout.splitlines() or [""])[-1]


def main() -> None:
    """Fit a small model with each checkout, then measure them in turn."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--before", type=Path, help="another checkout of regraft")
    ask.add_argument("--rounds", type=int, default=30)
    ask.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    ask.add_argument("--measure", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = ask.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure, options.rounds)))
        return
    checkouts = {"now": HERE.parent, **({"before": options.before} if options.before else {})}
    sittings, results = 3, {name: {} for name in checkouts}
    with tempfile.TemporaryDirectory() as place:
        pictures = Path(place) / "pictures"
        small_set(Path(os.environ["REGRAFT_DATA"]), pictures)
        fit = ("-m", "regraft", "fit", pictures, "--freeze", "head", "--size", 224, "--out")
        for name, checkout in checkouts.items():
            child(checkout, options.threads, *fit, Path(place) / name)
        for _ in range(sittings):
            for name, checkout in checkouts.items():
                again = (__file__, "--rounds", max(1, options.rounds // sittings), "--measure")
                said = json.loads(
                    child(checkout, options.threads, *again, Path(place) / name / "model", pictures)
                )
                for key, seconds in said.items():
                    results[name].setdefault(key, []).extend(seconds)
    print("| regraft | pictures | predict, ms | bare work, ms | ratio |\n|---|---|---|---|---|")
    for name, found in results.items():
        for count in (1, 30):
            pairs = list(zip(found[f"predict {count}"], found[f"bare {count}"], strict=True))
            ratio = middle([whole / bare for whole, bare in pairs])
            ms = " | ".join(f"{1000 * middle(list(some)):.1f}" for some in zip(*pairs, strict=True))
            print(f"| {name} | {count} | {ms} | {ratio:.2f} |")


def middle(values: list[float]) -> float:
    """The median."""
    return sorted(values)[len(values) // 2]


if __name__ == "__main__":
    main()

"""What `regraft predict` makes of a long list, against its own bound and against a plain loop; and of one file.

    REGRAFT_DATA=... python benchmarks/predict.py [--run RUN] [--files 10000] [--threads 2]

The files are the photos of flowers5, hard-linked again and again. The bound is 1 / (1/forward + 1/decode): the
engine alone on prepared batches, and the reading threads alone without a network, one after the other on all
processors. The plain loop is what timm's documentation shows: its model in float32, its transform, a DataLoader
with a worker a processor, batches of 32. Halves and whole are measured in turn, as the machine's speed wanders.
One file is the whole process, from the shell's call to its end, the graph in the cache; beside it what the
interpreter and the largest imports take alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
# Files of the plain loop; of each half alone in a round; rounds; calls with one file
PLAIN, ALONE, ROUNDS, ONE = 400, 500, 10, 5


def linked(data: Path, place: Path, count: int) -> list[str]:
    """So many links to the photos, in folders of a thousand."""
    photos = sorted(path for path in (data / "flowers5").rglob("*.jpg"))
    names = []
    for number in range(count):
        folder = place / f"{number // 1000:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        name = folder / f"{number:06d}.jpg"
        try:
            os.link(photos[number % len(photos)], name)
        except OSError:  # another file system
            os.symlink(photos[number % len(photos)], name)
        names.append(str(name))
    return names


def forward_alone(runs, batch: dict, count: int) -> float:
    """Items a second of the engine on one prepared batch, again and again."""
    shape, done, began = runs.shapes[-1], 0, time.perf_counter()
    while done < count:
        runs.of_batch(batch, shape)
        done += shape
    return done / (time.perf_counter() - began)


def decode_alone(model, names: list[str]) -> float:
    """Items a second of the threads that read ahead, without a network."""
    from regraft.inference import batched, prefetch

    began = time.perf_counter()
    for _ in prefetch(batched(names, 8), model.backbone.preprocess.host):
        pass
    return len(names) / (time.perf_counter() - began)


def plain(folder: Path, names: list[str]) -> float:
    """Files a second of timm's own model and transform in a DataLoader, float32."""
    from regraft.runtime import ready_torchvision

    ready_torchvision()
    import timm
    import torch
    from PIL import Image
    from timm.data import create_transform, resolve_data_config
    from torch.utils.data import DataLoader, Dataset

    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = create_transform(**resolve_data_config({}, model=network))

    class Files(Dataset):
        def __len__(self) -> int:
            return min(PLAIN, len(names))

        def __getitem__(self, number: int):
            return transform(Image.open(names[number]).convert("RGB"))

    began = time.perf_counter()
    with torch.inference_mode():
        for batch in DataLoader(Files(), batch_size=32, num_workers=os.cpu_count() or 1):
            network(batch).softmax(1).tolist()
    return len(Files()) / (time.perf_counter() - began)


def measure(run: Path, names: list[str], threads: int) -> dict:
    """The two halves and the whole in turn, ROUNDS times, as the machine's speed wanders: medians of each, and
    of the share of the bound that a round reached.
    """
    import torch

    import regraft
    from regraft.backbones import padded
    from regraft.runtime import keep_large_blocks

    torch.set_num_threads(threads)
    keep_large_blocks()
    model = regraft.load(run)
    engine = model.fastest(names)
    runs, pre = model.predictor(engine=engine), model.backbone.preprocess
    shape, each = runs.shapes[-1], -(-len(names) // ROUNDS)
    batch = padded(pre.collate([pre.host(name) for name in names[:shape]]), shape)
    model.predict(names[:100])  # compiled, and read from the disk
    found: dict[str, list[float]] = {"forward": [], "decode": [], "ours": [], "share": []}
    for number in range(ROUNDS):
        some = names[number * each : (number + 1) * each]
        forward = forward_alone(runs, batch, min(ALONE, each))
        decode = decode_alone(model, some[:ALONE])
        began = time.perf_counter()
        for _ in model.predict_each(some):
            pass
        ours = len(some) / (time.perf_counter() - began)
        for name, value in zip(
            found, (forward, decode, ours, ours * (1 / forward + 1 / decode)), strict=True
        ):
            found[name].append(value)
    agreed = model.agreement(names)
    told = {name: middle(values) for name, values in found.items()}
    return {**told, "engine": engine, "agreement": agreed.in_words() if agreed else ""}


def child(threads: int, *words: object) -> tuple[str, float]:
    """What a process prints, and the seconds it takes."""
    env = {**os.environ, "PYTHONPATH": str(HERE.parent / "src"), "OMP_NUM_THREADS": str(threads)}
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *map(str, words)], env=env, text=True, capture_output=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return done.stdout, seconds


def middle(values: list[float]) -> float:
    """The median."""
    return sorted(values)[len(values) // 2]


def main() -> None:
    """Fit a model where none is named, link the files, and measure."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--run", type=Path, help="a finished run on photos; else one is fitted on flowers5")
    ask.add_argument("--files", type=int, default=10_000)
    ask.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    ask.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = ask.parse_args()
    if options.child:
        what, place = options.child
        names = sorted(map(str, Path(place).rglob("*.jpg")))
        made = (
            plain(options.run / "model", names)
            if what == "plain"
            else measure(options.run, names, options.threads)
        )
        print(json.dumps(made))
        return
    data = Path(os.environ["REGRAFT_DATA"])
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as place:
        run = options.run or Path(place) / "run"
        if options.run is None:
            child(
                options.threads,
                "-m",
                "regraft",
                "fit",
                data / "flowers5",
                "--freeze",
                "head",
                "--out",
                run,
                "-q",
            )
        photos = Path(place) / "photos"
        names = linked(data, photos, options.files)
        again = (__file__, "--run", run, "--threads", options.threads, "--child")
        found = json.loads(child(options.threads, *again, "ours", photos)[0].splitlines()[-1])
        loop = json.loads(child(options.threads, *again, "plain", photos)[0].splitlines()[-1])
        command = ("-m", "regraft", "predict", run)
        _, whole = child(options.threads, *command, photos, "--out", Path(place) / "answers.jsonl")
        child(options.threads, *command, names[0])
        one = middle([child(options.threads, *command, names[0])[1] for _ in range(ONE)])
        alone = {
            what: middle([child(options.threads, "-c", code)[1] for _ in range(3)])
            for what, code in (
                ("Python alone", "pass"),
                ("import numpy", "import numpy"),
                ("import openvino", "import openvino"),
                ("import torch", "import torch"),
                (
                    "import regraft.ready",
                    "import regraft.ready, regraft.modalities.image, regraft.tasks.single",
                ),
            )
        }
    bound = 1 / (1 / found["forward"] + 1 / found["decode"])
    print(f"| {options.files:,} files | files/s |\n|---|---|")
    print(f"| forward alone ({found['engine']}) | {found['forward']:.0f} |")
    print(f"| decode alone | {found['decode']:.0f} |")
    print(f"| bound | {bound:.0f} |")
    print(f"| model.predict_each | {found['ours']:.0f} ({found['share']:.2f} of the bound) |")
    print(f"| regraft predict, whole process | {options.files / whole:.0f} |")
    print(f"| timm and DataLoader, float32 | {loop:.0f} ({found['ours'] / loop:.1f} times slower) |")
    print(f"\n{found['agreement']}\n\none file, whole process: {one:.2f} s")
    for what, seconds in alone.items():
        print(f"  {what}: {seconds:.2f} s")


if __name__ == "__main__":
    main()

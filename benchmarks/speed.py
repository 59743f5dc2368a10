"""Speed beside the others: every row in one run, on the same images, weights and machine, in turn, as ratios of medians.

    make bench        (or: REGRAFT_DATA=... python benchmarks/speed.py [--rounds 3] [--write docs/benchmarks.md] [ROW ...])

Rows: extraction, head, steps, whole, again, memory. A ratio above 1 says that regraft is so many times faster; in brackets
the least and the most of the rounds. fastai and the transformers Trainer run where they are installed (the extra `bench`).
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
from importlib.util import find_spec
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
MARKS = ("<!-- speed: begin -->", "<!-- speed: end -->")
ROWS = ("extraction", "head", "steps", "whole", "again", "memory")


def call(*words: object, env: dict[str, str] | None = None) -> dict:
    """A process of its own: its last line as JSON, with its wall seconds and peak memory."""
    environment = {k: v for k, v in {**os.environ, **(env or {})}.items() if not k.startswith("OPENBLAS_")}
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen([sys.executable, *map(str, words)], stdout=out, stderr=err, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        out.seek(0)
        err.seek(0)
        lines = [line for line in out.read().splitlines() if line.startswith("{")]
        if process.returncode or not lines:
            raise SystemExit(f"{words}: exit {process.returncode}\n{err.read()[-2000:]}")
    return {**json.loads(lines[-1]), "wall": seconds, "peak": usage.ru_maxrss * 1024}


def fit(data: Path, out: Path, cache: Path, *extra: str) -> dict:
    """A whole `regraft fit`, from process start to exit."""
    words = ["-c", "from regraft.cli import main; main()", "fit", data, "--out", out, "--overwrite", "--json", *extra]
    return call(*words, env={"REGRAFT_CACHE": str(cache)})


def seconds_of(run: Path, step: str) -> float:
    return json.loads((run / "run.json").read_text(encoding="utf-8"))["steps"][step]["seconds"]


def ratio(slow: list[float], fast: list[float]) -> str:
    """Ratio of medians, with the least and most of the rounds' own ratios."""
    each = [a / b for a, b in zip(slow, fast, strict=True)]
    return f"{np.median(slow) / np.median(fast):.1f} [{min(each):.1f}, {max(each):.1f}]"


def extraction(data: Path, rounds: int) -> list[str]:
    rows = []
    for name in ("flowers5", "dtd10"):
        plain, ours, bounds, engines = [], [], [], set()
        for _ in range(rounds):
            a, b = call(HERE / "peers.py", "extract", data / name), call(HERE / "ours.py", "extract", data / name)
            c = call(HERE / "ours.py", "bound", data / name)
            plain.append(a["images"] / a["seconds"])
            ours.append(b["images"] / b["seconds"])
            bounds.append(c["bound"])
            engines.add(b["engine"])
        rows.append(f"| extraction, {name} | timm + DataLoader, float32 | {np.median(plain):.0f} images/s | "
                    f"{np.median(ours):.0f} images/s ({', '.join(sorted(engines))}) | {ratio(ours, plain)} |")  # fmt: skip
        rows.append(f"| the same | bound: forward and decode alone, all cores | {np.median(bounds):.0f} images/s | "
                    f"{np.median(ours):.0f} images/s | {np.median(ours) / np.median(bounds):.2f} of it |")  # fmt: skip
    return rows


def head(data: Path, rounds: int) -> list[str]:
    theirs, ours, peaks, scores = [], [], [], {}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as place:
            a = call(HERE / "peers.py", "probe", data / "flowers5")
            b = fit(data / "flowers5", Path(place) / "run", Path(place) / "cache", "--freeze", "head")
            theirs.append(a["wall"])
            ours.append(b["wall"])
            peaks.append((a["peak"], b["peak"]))
            scores = {"theirs": a["accuracy"], "ours": b["metrics"]["test"]["accuracy"]}
    e = scores["ours"]
    memory = np.median(np.array(peaks), axis=0) / 1e9
    return [f"| head only, flowers5, whole process, nothing cached | timm features, scikit-learn, {scores['theirs']:.1%} | "
            f"{np.median(theirs):.1f} s, {memory[0]:.1f} GB | {np.median(ours):.1f} s, {memory[1]:.1f} GB, {e['value']:.1%} "
            f"[{e['low']:.1%}, {e['high']:.1%}] | {ratio(theirs, ours)} |"]  # fmt: skip


def steps(data: Path, rounds: int) -> list[str]:
    rows = []
    for text, theirs, ours in (
        ("everything", "all", "all"), ("blocks.5 and after", "blocks.5", "2"), ("the last blocks and conv_head", "blocks.6", "1"),
    ):  # fmt: skip
        plain, own, how = [], [], set()
        for _ in range(rounds):
            plain.append(call(HERE / "peers.py", "steps", data / "flowers5", theirs)["images_per_second"])
            found = call(HERE / "ours.py", "steps", data / "flowers5", ours)
            own.append(found["images_per_second"])
            how.add(found["precision"])
        rows.append(f"| training steps, released: {text} | plain PyTorch loop | {np.median(plain):.0f} images/s | "
                    f"{np.median(own):.0f} images/s ({', '.join(how)}) | {ratio(own, plain)} |")  # fmt: skip
    return rows


def whole(data: Path, rounds: int) -> list[str]:
    rows, others = [], [name for name, needs in (("fastai", "fastai"), ("trainer", "accelerate")) if find_spec(needs)]
    for name in {"fastai", "trainer"} - set(others):
        print(f"{name}: not installed (pip install 'regraft[bench]'), left out", file=sys.stderr)
    for name in ("flowers5", "dtd10", "hymenoptera"):
        with tempfile.TemporaryDirectory() as place:
            full = fit(data / name, Path(place) / "full", Path(place) / "cache")
            quick = fit(data / name, Path(place) / "head", Path(place) / "other cache", "--freeze", "head")
        for other in others:
            a = call(HERE / "peers.py", other, data / name)
            for text, b in (("head only", quick), ("seven steps", full)):
                score = b["metrics"]["test"]["accuracy"]["value"]
                rows.append(f"| whole fit, {name}, {text} | {other}, {a['accuracy']:.1%} | {a['seconds']:.0f} s, "
                            f"{a['peak'] / 1e9:.1f} GB | {b['wall']:.0f} s, {b['peak'] / 1e9:.1f} GB, {score:.1%} | "
                            f"{a['seconds'] / b['wall']:.1f} |")  # fmt: skip
    return rows


def again(data: Path, rounds: int) -> list[str]:
    firsts, seconds, thirds = [], [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as place:
            copy, run, cache = Path(place) / "data", Path(place) / "run", Path(place) / "cache"
            shutil.copytree(data / "flowers5", copy)
            files = sorted(p for p in (copy / "train").rglob("*") if p.is_file())
            away = [(p, p.read_bytes()) for p in files[:: len(files) // 7][:7]]
            for path, _ in away:
                path.unlink()
            for times in (firsts, seconds):
                fit(copy, run, cache, "--freeze", "head")
                times.append(seconds_of(run, "features"))
            for path, content in away:
                path.write_bytes(content)
            fit(copy, run, cache, "--freeze", "head")
            thirds.append(seconds_of(run, "features"))
    return [f"| features of a second run, flowers5 | the first run, its trial included | {np.median(firsts):.2f} s | "
            f"{np.median(seconds):.2f} s | {ratio(firsts, seconds)} |",
            f"| features after 1 % new images | the first run | {np.median(firsts):.2f} s | {np.median(thirds):.2f} s | "
            f"{ratio(firsts, thirds)} |"]  # fmt: skip


def memory(data: Path, rounds: int) -> list[str]:
    few, many = (call(HERE / "ours.py", "memory", count)["peak_anonymous_bytes"] for count in (10_000, 100_000))
    return [f"| peak anonymous memory of extraction | 10,000 images | {few / 1e6:.0f} MB | 100,000 images: {many / 1e6:.0f} MB | "
            f"{many / few:.2f} |"]  # fmt: skip


def main() -> None:
    """Run the rows named and print, and write, the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", default=list(ROWS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    data = Path(os.environ.get("REGRAFT_DATA", ""))
    if not os.environ.get("REGRAFT_DATA") or not data.is_dir():
        parser.error("set REGRAFT_DATA to the folder of the real data sets")
    lines = ["| what | beside | theirs | regraft | ratio |", "|---|---|---|---|---|"]
    for row in options.rows or ROWS:
        found = globals()[row](data, options.rounds)
        print("\n".join(found), flush=True)
        lines += found
    if options.write:
        text = options.write.read_text(encoding="utf-8")
        start, _, rest = text.partition(MARKS[0])
        table = "\n".join(lines)
        options.write.write_text(f"{start}{MARKS[0]}\n{table}\n{MARKS[1]}{rest.partition(MARKS[1])[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()

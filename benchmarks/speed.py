"""Speed beside the others: every row in one run, on the same images, weights and machine, in turn, as
ratios of medians.

    make bench        (or: python benchmarks/speed.py [--rounds 3] [--write FILE] [ROW ...])

Rows: extraction, head, steps, again, memory, and whole fits of flowers5, hymenoptera and dtd10. A ratio
above 1 says that regraft is so many times faster; in brackets the least and the most of the rounds. fastai
and the transformers Trainer run where they are installed (the extra `bench`).
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
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from page import bars, between_marks

HERE = Path(__file__).parent
WHOLE = ("flowers5", "hymenoptera", "dtd10")
ROWS = ("extraction", "head", "steps", "again", "memory", *WHOLE)


def call(*words: object, env: dict[str, str] | None = None) -> dict:
    """A process of its own: its last line as JSON, with its wall seconds and peak memory."""
    environment = {k: v for k, v in {**os.environ, **(env or {})}.items() if not k.startswith("OPENBLAS_")}
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            [sys.executable, *map(str, words)], stdout=out, stderr=err, env=environment
        )
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
    words = [
        "-c",
        "from regraft.cli import main; main()",
        "fit",
        data,
        "--out",
        out,
        "--overwrite",
        "--json",
        *extra,
    ]
    return call(*words, env={"REGRAFT_CACHE": str(cache)})


def seconds_of(run: Path, step: str) -> float:
    return json.loads((run / "run.json").read_text(encoding="utf-8"))["steps"][step]["seconds"]


Ratio = tuple[float, float, float]


@dataclass(frozen=True)
class Row:
    """One line of the table; `bar` names it in the picture (empty: not shown there)."""

    what: str
    beside: str
    theirs: str
    ours: str
    ratio: Ratio
    bar: str = ""

    def __str__(self) -> str:
        value, low, high = self.ratio
        spread = "" if low == high else f" [{low:.3g}, {high:.3g}]"
        return f"| {self.what} | {self.beside} | {self.theirs} | {self.ours} | {value:.3g}{spread} |"


def ratio(slow: list[float], fast: list[float]) -> Ratio:
    """Ratio of medians, with the least and most of the rounds' own ratios."""
    each = [a / b for a, b in zip(slow, fast, strict=True)]
    return float(np.median(slow) / np.median(fast)), min(each), max(each)


def extraction(data: Path, rounds: int) -> list[Row]:
    rows = []
    for name in ("flowers5", "dtd10"):
        plain, ours, bounds, engines = [], [], [], set()
        for _ in range(rounds):
            a, b = (
                call(HERE / "peers.py", "extract", data / name),
                call(HERE / "ours.py", "extract", data / name),
            )
            c = call(HERE / "ours.py", "bound", data / name)
            plain.append(a["images"] / a["seconds"])
            ours.append(b["images"] / b["seconds"])
            bounds.append(c["bound"])
            engines.add(b["engine"])
        theirs, own = f"{np.median(plain):.0f} images/s", f"{np.median(ours):.0f} images/s"
        rows.append(
            Row(
                f"extraction, {name}",
                "timm + DataLoader, float32",
                theirs,
                f"{own} ({', '.join(sorted(engines))})",
                ratio(ours, plain),
                f"extraction, {name}",
            )
        )
        rows.append(
            Row(
                "the same",
                "the bound: forward and decode alone, all cores",
                f"{np.median(bounds):.0f} images/s",
                own,
                ratio(ours, bounds),
            )
        )
    return rows


def head(data: Path, rounds: int) -> list[Row]:
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
    return [
        Row(
            "head only, flowers5, whole process, nothing cached",
            f"timm features, scikit-learn: {scores['theirs']:.1%}",
            f"{np.median(theirs):.1f} s, {memory[0]:.1f} GB",
            f"{np.median(ours):.1f} s, {memory[1]:.1f} GB, "
            f"{e['value']:.1%} [{e['low']:.1%}, {e['high']:.1%}]",
            ratio(theirs, ours),
            "head only against scikit-learn",
        )
    ]


def steps(data: Path, rounds: int) -> list[Row]:
    rows = []
    for text, theirs, ours in (
        ("everything", "all", "all"),
        ("blocks.5 and after", "blocks.5", "2"),
        ("the last blocks and conv_head", "blocks.6", "1"),
    ):
        plain, own, how = [], [], set()
        for _ in range(rounds):
            plain.append(call(HERE / "peers.py", "steps", data / "flowers5", theirs)["examples_per_second"])
            found = call(HERE / "ours.py", "steps", data / "flowers5", ours)
            own.append(found["examples_per_second"])
            how.add(found["precision"])
        rows.append(
            Row(
                f"training steps, released: {text}",
                "plain PyTorch loop",
                f"{np.median(plain):.0f} images/s",
                f"{np.median(own):.0f} images/s ({', '.join(how)})",
                ratio(own, plain),
                f"steps, {text}",
            )
        )
    return rows


def whole(data: Path, name: str) -> list[Row]:
    """Two whole fits of one set, each from nothing, beside each of the others."""
    rows, others = (
        [],
        [name for name, needs in (("fastai", "fastai"), ("trainer", "accelerate")) if find_spec(needs)],
    )
    for missing in {"fastai", "trainer"} - set(others):
        print(f"{missing}: not installed (pip install 'regraft[bench]'), left out", file=sys.stderr)
    with tempfile.TemporaryDirectory() as place:
        full = fit(data / name, Path(place) / "full", Path(place) / "cache")
        quick = fit(data / name, Path(place) / "head", Path(place) / "other cache", "--freeze", "head")
    for other in others:
        a = call(HERE / "peers.py", other, data / name)
        for text, b in (("head only", quick), ("seven steps", full)):
            score = b["metrics"]["test"]["accuracy"]["value"]
            gain = a["seconds"] / b["wall"]
            rows.append(
                Row(
                    f"whole fit, {name}, {text}",
                    f"{other}: {a['accuracy']:.1%}",
                    f"{a['seconds']:.0f} s, {a['peak'] / 1e9:.1f} GB",
                    f"{b['wall']:.0f} s, {b['peak'] / 1e9:.1f} GB, {score:.1%}",
                    (gain, gain, gain),
                    f"{text}, {name}, against {other}",
                )
            )
    return rows


def again(data: Path, rounds: int) -> list[Row]:
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
    first, second, third = (f"{np.median(times):.2f} s" for times in (firsts, seconds, thirds))
    beside = "the first run, the choice of the engine not counted"
    return [
        Row(
            "features in a second run, flowers5",
            beside,
            first,
            second,
            ratio(firsts, seconds),
            "features again",
        ),
        Row(
            "features after 1 % new images",
            beside,
            first,
            third,
            ratio(firsts, thirds),
            "features after 1 % new",
        ),
    ]


def memory(data: Path, rounds: int) -> list[Row]:
    few, many = (
        call(HERE / "ours.py", "memory", count)["peak_anonymous_bytes"] for count in (10_000, 100_000)
    )
    share = few / many
    return [
        Row(
            "peak anonymous memory of extraction: 100,000 images",
            "10,000 images",
            f"{few / 1e6:.0f} MB",
            f"{many / 1e6:.0f} MB",
            (share, share, share),
        )
    ]


def main() -> None:
    """Run the rows named and print, and write, the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", default=list(ROWS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    data = Path(os.environ.get("REGRAFT_DATA", ""))
    if not os.environ.get("REGRAFT_DATA") or not data.is_dir():
        parser.error("set REGRAFT_DATA to the folder of the real data sets")
    found: list[Row] = []
    for row in options.rows or ROWS:
        new = whole(data, row) if row in WHOLE else globals()[row](data, options.rounds)
        found += new
        print(*new, sep="\n", flush=True)
        if options.write:  # after each row: what was measured is kept, whatever happens to the next
            head = [
                "| what | beside | theirs | regraft | times as fast [least, most] |",
                "|---|---|---|---|---|",
            ]
            between_marks(options.write, "speed", "\n".join([*head, *map(str, found)]))
            shown = [item for item in found if item.bar]
            values, lows, highs = ([item.ratio[number] for item in shown] for number in range(3))
            bars(
                options.write.with_name("speed.svg"),
                [item.bar for item in shown],
                values,
                lows,
                highs,
                "times as fast",
            )


if __name__ == "__main__":
    main()

"""A run killed (SIGKILL) at N random moments, resumed each time, beside one that never was: the same bits?

    python benchmarks/kills.py DATA [--kills 20] [--freeze full] [--set section.name=value ...] [--write FILE]

Checkpoints are written as in any run, every 20 seconds and after each epoch, or more often with --every.
Moments are drawn over the time the undisturbed run took, so that they fall into every step. POSIX only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from page import between_marks

CODE = (
    "import sys; from regraft.training import checkpoint; checkpoint.SECONDS = float(sys.argv.pop(1))\n"
    "checkpoint.Checkpoint.__init__.__defaults__ = (None, checkpoint.SECONDS, 1.0)\n"
    "from regraft.cli import main; main()"
)


def started(every: float, words: list[str], cache: Path) -> subprocess.Popen:
    """A regraft process that saves every so many seconds."""
    import os

    environment = {**os.environ, "REGRAFT_CACHE": str(cache)}
    return subprocess.Popen(
        [sys.executable, "-c", CODE, str(every), *words],
        env=environment,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )


def digests(run: Path) -> dict[str, str]:
    """SHA-256 of what a run hands back."""
    names = ("model/model.safetensors", "model/regraft.json", "predictions.parquet")
    return {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in names}


def main() -> None:
    """Kill, resume, compare, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--freeze", default="full")
    parser.add_argument("--every", type=float, default=2.0)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    settings = [word for setting in options.set for word in ("--set", setting)]
    words = ["fit", str(options.data), "--freeze", options.freeze, *settings]
    rng, at = random.Random(0), []
    with tempfile.TemporaryDirectory() as place:
        whole, out = Path(place) / "whole", Path(place) / "killed"
        began = time.monotonic()
        if started(options.every, [*words, "--out", str(whole)], Path(place) / "cache 1").wait():
            sys.exit("the undisturbed run failed")
        seconds = time.monotonic() - began
        while len(at) < options.kills:
            more = (
                ["fit", "--resume"]
                if (out / "run.json").exists()
                else [*words, "--overwrite"]
                if out.exists()
                else words
            )
            process = started(options.every, [*more, "--out", str(out)], Path(place) / "cache 2")
            pause = rng.uniform(4, 4 + 1.6 * seconds / options.kills)  # starting takes four seconds
            end = time.monotonic() + pause
            while process.poll() is None and time.monotonic() < end:
                time.sleep(0.01)
            if process.poll() is not None:
                break
            process.kill()
            process.wait()
            at.append(step(out))
        if started(options.every, ["fit", "--resume", "--out", str(out)], Path(place) / "cache 2").wait():
            sys.exit("the resumed run failed")
        same = {name: digest == digests(out)[name] for name, digest in digests(whole).items()}
    counts = {name: at.count(name) for name in dict.fromkeys(at)}
    text = (
        f"{options.data.name}, `--freeze {options.freeze}`, "
        f"{' '.join(options.set)}: undisturbed {seconds:.0f} s; "
        f"killed {len(at)} times ({', '.join(f'{n} in {name}' for name, n in counts.items())}); "
        + "; ".join(f"{name} {'the same bits' if ok else 'DIFFERENT'}" for name, ok in same.items())
    )
    print(text)
    if options.write:
        between_marks(options.write, f"kills {options.freeze}", text)
    sys.exit(0 if all(same.values()) else 1)


def step(run: Path) -> str:
    """The step a run was in when it was killed."""
    try:
        lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "audit"
    steps = [
        json.loads(line).get("step", "") for line in lines if line.endswith("}") and '"kind": "step"' in line
    ]
    return steps[-1] if steps else "import"


if __name__ == "__main__":
    main()

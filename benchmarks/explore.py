"""What trying freezing strategies costs beside one full fine-tuning of the same data, and what it finds.

    python benchmarks/explore.py [SET ...] [--write docs/benchmarks.md]

The sets are looked for in $REGRAFT_DATA. Both runs are processes of their own on one cache of features, the
full fine-tuning first; seconds are those of step 6 alone. Eight strategies are tried unless peft is
installed, which adds LoRA.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from page import between_marks

SETS = ("flowers5", "hymenoptera")


def fitted(words: list[str], cache: Path, out: Path) -> dict:
    """run.json of a run."""
    command = [
        sys.executable,
        "-c",
        "from regraft.cli import main; main()",
        *words,
        "--out",
        str(out),
        "--quiet",
    ]
    subprocess.run(command, check=True, env={**os.environ, "REGRAFT_CACHE": str(cache)})
    return json.loads((out / "run.json").read_text(encoding="utf-8"))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="*", default=list(SETS))
    parser.add_argument("--write", type=Path)
    parser.add_argument("--set", action="append", default=[], help="passed on to both")
    options = parser.parse_args()
    data, extra = Path(os.environ.get("REGRAFT_DATA", "")), [w for s in options.set for w in ("--set", s)]
    if not os.environ.get("REGRAFT_DATA") or not data.is_dir():
        parser.error("set REGRAFT_DATA to the folder of the real data sets")
    rows = [
        "| set | full fine-tuning | strategies | exploring | ratio | found |",
        "|---|---|---|---|---|---|",
    ]
    for name in options.sets or SETS:
        with tempfile.TemporaryDirectory() as place:
            cache = Path(place) / "cache"
            one = fitted(
                ["fit", str(data / name), "--set", "finetune.refit=false", *extra],
                cache,
                Path(place) / "full",
            )
            many = fitted(["explore", str(data / name), *extra], cache, Path(place) / "explored")
            tried = json.loads((Path(place) / "explored" / "strategies.json").read_text(encoding="utf-8"))
        a, b = (run["steps"]["finetune"]["seconds"] for run in (one, many))
        count = len({trial["strategy"] for trial in tried["trials"]})
        rows.append(f"| {name} | {a:.0f} s | {count} | {b:.0f} s | {b / a:.2f} | {tried['advice']} |")
        print(rows[-1], flush=True)
    if options.write:
        between_marks(options.write, "explore", "\n".join(rows))


if __name__ == "__main__":
    main()

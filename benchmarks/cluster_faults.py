"""Workers, machines and the command itself killed (SIGKILL) at random moments: is the result right, and what was
computed twice?

    python benchmarks/cluster_faults.py DATA [--images 3000] [--kills 10] [--kinds worker node driver room team]
                                        [--write FILE]

Four kinds fall into a pass over so many images: `worker` kills the process of one worker, `node` ends a machine (one
of the three nodes of a cluster that stand for machines here: its raylet and all that runs below it), `driver` the
command, which is then begun again, and `room` gives Ray's object store so little room that it is full. Each part that
a worker begins is noted in a file: what was begun more often than there are parts was computed twice, at least in part.
`team` kills one of two processes that fine-tune in a whole run on 300 of the images, whose test predictions are held
against those of a run that nothing disturbed; its epochs that were begun twice are counted. What was measured is kept
in results/faults, one file a kind. The network is tiny, so that passing things on is what takes the time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
from ray.cluster_utils import Cluster as Nodes

import regraft
from cluster import Pass, many
from page import between_marks
from regraft.crew import Crew
from regraft.inference import shared
from regraft.scale import Cluster, crew_of
from regraft.steps.finetune import team

SIZE = 64
RESULTS = Path(__file__).parent / "results" / "faults"
TUNED, TEST = 300, 100  # images of a whole run: to learn from and val, and test
EPOCHS = 8
KINDS = ("worker", "node", "driver", "room", "team")


@dataclass(frozen=True)
class Outcome:
    """What came of one kill; `again` counts the parts of a pass, or the epochs, that were begun once more."""

    right: bool
    killed: bool  # the kill fell into the pass, or into fine-tuning
    seconds: float
    again: int


@dataclass(frozen=True)
class Noted:
    """A factory of work that adds a byte to a file with each part that it begins."""

    make: Callable[[], Callable[[Any], Any]]
    file: Path

    def __call__(self) -> Callable[[Any], Any]:
        work = self.make()

        def noted(part: Any) -> Any:
            with self.file.open("ab") as file:
                file.write(b".")
            return work(part)

        return noted


class Noting:
    """A crew whose workers, all on this machine, note what they begin."""

    def __init__(self, crew: Crew, file: Path) -> None:
        self.crew, self.file, self.workers = crew, file, crew.workers

    def each(
        self, make: Callable[[], Callable[[Any], Any]], jobs: Iterable[Any]
    ) -> Iterator[tuple[int, Any]]:
        """See `Crew.each`."""
        return self.crew.each(Noted(make, self.file), jobs)


def begun(file: Path) -> int:
    """How many parts were begun since this was last asked."""
    count = file.stat().st_size if file.exists() else 0
    file.unlink(missing_ok=True)
    return count


def tiny(folder: Path) -> str:
    """A reference to an untrained network."""
    import timm
    from safetensors.torch import save_file

    torch_model = timm.create_model("test_efficientnet", num_classes=10)
    save_file(torch_model.state_dict(), str(folder / "tiny.safetensors"))
    return f"path:{folder / 'tiny.safetensors'}@test_efficientnet"


def during(
    work: Callable[[], np.ndarray], kill: Callable[[], bool], after: float
) -> tuple[np.ndarray, bool, float]:
    """What a pass gives while something is killed after so many seconds; whether the kill fell into it."""
    fell, ended = [], threading.Event()

    def later() -> None:
        if not ended.wait(after):
            fell.append(kill())

    thread = threading.Thread(target=later)
    began = time.perf_counter()
    thread.start()
    found = work()
    seconds = time.perf_counter() - began
    ended.set()
    thread.join()
    return found, any(fell), seconds


def of_worker(work: Pass, expected: np.ndarray, kills: int, rng: random.Random) -> list[Outcome]:
    """A worker's process is killed."""
    outcomes = []
    with crew_of(Cluster(2), lambda text: None) as crew, tempfile.TemporaryDirectory() as folder:
        noting = Noting(crew, file := Path(folder) / "begun")
        usual, parts = _usual(work, noting)
        for _ in range(kills):

            def kill() -> bool:
                hand = rng.choice([hand for hand in crew.hands.values() if hand.begun])
                os.kill(ray.get(hand.actor.ready.remote()), signal.SIGKILL)
                return True

            found, fell, seconds = during(lambda: _whole(work, noting), kill, rng.uniform(0.05, usual))
            outcomes.append(Outcome(np.array_equal(found, expected), fell, seconds, begun(file) - parts))
    return outcomes


def of_node(work: Pass, expected: np.ndarray, kills: int, rng: random.Random) -> list[Outcome]:
    """A machine goes, with its raylet; another joins for the next round."""
    outcomes = []
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 1})
    others = [nodes.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=nodes.address, log_to_driver=False, logging_level="fatal")
    try:
        for _ in range(kills):
            with crew_of(Cluster(3), lambda text: None) as crew, tempfile.TemporaryDirectory() as folder:
                noting = Noting(crew, file := Path(folder) / "begun")
                usual, parts = _usual(work, noting)

                def kill(others: list[Any] = others) -> bool:
                    gone = others.pop(rng.randrange(len(others)))
                    nodes.remove_node(gone, allow_graceful=False)
                    return True

                found, fell, seconds = during(
                    lambda noting=noting: _whole(work, noting), kill, rng.uniform(0.05, usual)
                )
                outcomes.append(Outcome(np.array_equal(found, expected), fell, seconds, begun(file) - parts))
            others += [nodes.add_node(num_cpus=1) for _ in range(2 - len(others))]
            nodes.wait_for_nodes()
    finally:
        ray.shutdown()
        nodes.shutdown()
    return outcomes


def of_driver(
    work: Pass, expected: np.ndarray, kills: int, rng: random.Random, again: list[str]
) -> list[Outcome]:
    """The command is killed and begun anew: what it had kept is not computed again."""
    outcomes = []
    with crew_of(Cluster(2), lambda text: None) as crew, tempfile.TemporaryDirectory() as folder:
        _, parts = _usual(work, Noting(crew, Path(folder) / "begun"))
    for _ in range(kills):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            process = subprocess.Popen([*again, "--one-pass", folder], stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            process.stdout.readline()  # the pass begins
            time.sleep(rng.uniform(0.5, 4.0))
            killed = process.poll() is None
            process.kill()
            process.wait()
            done = subprocess.run(
                [*again, "--one-pass", folder], stdout=subprocess.PIPE, text=True, check=True
            )
            found = np.load(Path(folder) / "found.npy")
            right = np.array_equal(found, expected) and "asked for" in done.stdout
            again_begun = begun(Path(folder) / "begun") - parts
            outcomes.append(Outcome(right, killed, time.perf_counter() - began, again_begun))
    return outcomes


def of_room(work: Pass, expected: np.ndarray, kills: int, rng: random.Random) -> list[Outcome]:
    """Ray's object store has the least room there can be, and others fill it."""
    outcomes = []
    ray.init(num_cpus=2, object_store_memory=78 << 20, log_to_driver=False, logging_level="fatal")
    try:
        filling = [ray.put(np.zeros(8 << 20, dtype=np.uint8)) for _ in range(8)]
        with crew_of(Cluster(2), lambda text: None) as crew, tempfile.TemporaryDirectory() as folder:
            noting = Noting(crew, file := Path(folder) / "begun")
            _, parts = _usual(work, noting)
            for _ in range(kills):
                began = time.perf_counter()
                found = _whole(work, noting)
                seconds = time.perf_counter() - began
                outcomes.append(Outcome(np.array_equal(found, expected), True, seconds, begun(file) - parts))
        del filling
    finally:
        ray.shutdown()
    return outcomes


def of_team(reference: str, files: list[Path], kills: int, rng: random.Random) -> list[Outcome]:
    """One of two processes that fine-tune is killed, and the run goes on to its end."""
    team.BEGINNING = 0.0  # however little there is to do, it is done together
    outcomes = []
    with tempfile.TemporaryDirectory() as place:
        data = _classes(files, Path(place) / "data")
        usual = Tuned(reference, data, Path(place) / "undisturbed")
        for number in range(kills):
            kill = rng.randrange(2), rng.uniform(0.0, usual.lived)
            tuned = Tuned(reference, data, Path(place) / f"run{number}", kill)
            outcomes.append(Outcome(tuned.like(usual), tuned.fell, tuned.lived, tuned.again))
            shutil.rmtree(tuned.out)
    return outcomes


def _classes(files: list[Path], folder: Path) -> Path:
    """A folder of the images that a whole run learns from, those of test in another."""
    names = sorted({file.parent.name for file in files})
    each = (TUNED + TEST) // len(names)
    for name in names:
        own = list(dict.fromkeys(file for file in files if file.parent.name == name))[:each]
        for number, file in enumerate(own):
            part = folder / ("train" if number < each * TUNED // (TUNED + TEST) else "test") / name
            part.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, part)
    return folder


class Tuned:
    """A whole run whose two processes of fine-tuning were watched, and one of them killed where `kill` says which
    of the two and how many seconds after they were there.
    """

    def __init__(self, reference: str, data: Path, out: Path, kill: tuple[int, float] | None = None) -> None:
        self.out, self.kill, self.fell, self.lived = out, kill, False, 0.0
        self.told: Counter[int] = Counter()
        self.losses: dict[int, float] = {}
        self.ended = threading.Event()
        finetune = {"epochs": EPOCHS, "patience": EPOCHS, "folds": 0, "refit": False}
        recipe = {
            "obtain": {"backbone": reference},
            "base": {"size": SIZE},
            "finetune": {**finetune, "precision": "float32"},
        }
        watching = threading.Thread(target=self._watch, daemon=True)
        watching.start()
        run = regraft.fit(data, out, recipe=recipe, cache=None, cluster=Cluster(2), listeners=[self._hear])
        self.ended.set()
        watching.join()
        self.labels = [answer.label for answer in run.model.predict(sorted(data.glob("test/*/*")))]

    @property
    def again(self) -> int:
        """How many epochs were told more than once."""
        return sum(self.told.values()) - len(self.told)

    def like(self, other: Tuned) -> bool:
        """Whether all epochs ended where the other's did, within a thousandth of the val loss, and the test
        predictions are the same.
        """
        ends = [(self.losses.get(epoch, np.inf), loss) for epoch, loss in other.losses.items()]
        near = all(abs(mine - theirs) <= 1e-3 * theirs for mine, theirs in ends)
        return near and bool(ends) and self.labels == other.labels

    def _hear(self, event: dict[str, Any]) -> None:
        if event["kind"] == "epoch":
            self.told[event["epoch"]] += 1
            self.losses[event["epoch"]] = event["val_loss"]

    def _watch(self) -> None:
        """Wait until both are there, kill one at its moment, and take the time to the end of the last epoch."""
        while not self.ended.wait(0.02) and len(self._members()) < 2:
            pass
        began = time.perf_counter()
        if self.kill is not None and not self.ended.wait(self.kill[1]) and not self.told[EPOCHS]:
            found = self._members()
            if len(found) == 2:
                os.kill(found[self.kill[0]], signal.SIGKILL)
                self.fell = True
        while not self.ended.wait(0.02) and not self.told[EPOCHS]:
            pass
        self.lived = time.perf_counter() - began

    def _members(self) -> list[int]:
        """The processes of fine-tuning that there are now."""
        found = []
        for process in psutil.Process().children(recursive=True):
            try:
                if "RayTrainWorker" in " ".join(process.cmdline()):
                    found.append(process.pid)
            except psutil.NoSuchProcess:
                continue
        return sorted(found)


def _usual(work: Pass, noting: Noting) -> tuple[float, int]:
    """Seconds of a pass that nothing disturbs, by workers that have begun, and the number of its parts."""
    work(64, noting)  # type: ignore[arg-type]
    begun(noting.file)
    began = time.perf_counter()
    _whole(work, noting)
    return time.perf_counter() - began, begun(noting.file)


def _whole(work: Pass, noting: Noting, folder: Path | None = None) -> np.ndarray:
    """A pass over all images."""
    return work(len(work.files), noting, folder)  # type: ignore[arg-type]


def one_pass(work: Pass, folder: Path) -> None:
    """One pass into a store, for the command that is killed."""
    with crew_of(Cluster(2), lambda text: None) as crew:
        print("asked for", len(work.files), flush=True)
        found = _whole(work, Noting(crew, folder / "begun"), folder / "store")
        np.save(folder / "found.npy", found)


def main() -> None:
    """Kill, compare, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=3_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--network", type=Path, help="where the tiny network lies; else one is made")
    parser.add_argument("--one-pass", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path, help="the page whose marks 'faults' get what was found")
    asked = parser.parse_args()
    place = asked.network or Path(tempfile.mkdtemp(prefix="regraft-faults-"))
    reference = f"path:{place / 'tiny.safetensors'}@test_efficientnet" if asked.network else tiny(place)
    shared.PART = 64  # parts so small that a kill finds many still to be done
    work = Pass(many(asked.data, asked.images), reference, SIZE)
    if asked.one_pass:
        return one_pass(work, asked.one_pass)
    expected, rng = work(len(work.files)), random.Random(asked.seed)
    again = [
        sys.executable,
        __file__,
        str(asked.data),
        "--images",
        str(asked.images),
        "--network",
        str(place),
    ]
    kinds: dict[str, Callable[[], list[Outcome]]] = {
        "worker": lambda: of_worker(work, expected, asked.kills, rng),
        "node": lambda: of_node(work, expected, asked.kills, rng),
        "driver": lambda: of_driver(work, expected, asked.kills, rng, again),
        "room": lambda: of_room(work, expected, asked.kills, rng),
        "team": lambda: of_team(reference, work.files, asked.kills, rng),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    for kind in asked.kinds:
        found = {"images": asked.images, "outcomes": [asdict(one) for one in kinds[kind]()]}
        (RESULTS / f"{kind}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(table().splitlines()[-1], flush=True)
    print(table())
    if asked.write:
        between_marks(asked.write, "faults", table())


def table() -> str:
    """The markdown table of all that is kept."""
    lines = [
        "| what | images | times | fell into it | right | begun once more, in all (at most) | seconds, least to most |",
        "|---" * 7 + "|",
    ]
    for kind in KINDS:
        if (place := RESULTS / f"{kind}.json").is_file():
            kept = json.loads(place.read_text(encoding="utf-8"))
            found = [Outcome(**one) for one in kept["outcomes"]]
            seconds, again = [one.seconds for one in found], [one.again for one in found]
            what = "epochs" if kind == "team" else "parts"
            lines.append(
                f"| {kind} | {kept['images']:,} | {len(found)} | {sum(one.killed for one in found)} | "
                f"{sum(one.right for one in found)} | {sum(again)} {what} ({max(again)}) | "
                f"{min(seconds):.0f} to {max(seconds):.0f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()

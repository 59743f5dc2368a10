"""Workers, machines and the command itself killed (SIGKILL) at random moments of a pass: is the result right, and
what was computed twice?

    python benchmarks/cluster_faults.py DATA [--images 3000] [--kills 10] [--kinds worker node driver room] [--write FILE]

`worker` kills the process of one worker, `node` ends a machine (one of the three nodes of a cluster that stand for
machines here: its raylet and all that runs below it), `driver` the command, which is then begun again, and `room`
gives Ray's object store so little room that it is full. The network is tiny, so that passing things on is what takes the time.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.cluster_utils import Cluster as Nodes

from cluster import Pass, many
from page import between_marks
from regraft.inference import shared
from regraft.scale import Cluster, crew_of

SIZE = 64


@dataclass(frozen=True)
class Outcome:
    """What came of one kill."""

    right: bool
    killed: bool  # the kill fell into the pass
    seconds: float


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
    with crew_of(Cluster(2), lambda text: None) as crew:
        usual = _usual(work, crew)
        for _ in range(kills):

            def kill() -> bool:
                hand = rng.choice([hand for hand in crew.hands.values() if hand.begun])
                os.kill(ray.get(hand.actor.ready.remote()), signal.SIGKILL)
                return True

            found, fell, seconds = during(lambda: work(len(work.files), crew), kill, rng.uniform(0.05, usual))
            outcomes.append(Outcome(np.array_equal(found, expected), fell, seconds))
    return outcomes


def of_node(work: Pass, expected: np.ndarray, kills: int, rng: random.Random) -> list[Outcome]:
    """A machine goes, with its raylet; another joins for the next round."""
    outcomes = []
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 1})
    others = [nodes.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=nodes.address, log_to_driver=False, logging_level="fatal")
    try:
        for _ in range(kills):
            with crew_of(Cluster(3), lambda text: None) as crew:
                usual = _usual(work, crew)

                def kill(others: list[Any] = others) -> bool:
                    gone = others.pop(rng.randrange(len(others)))
                    nodes.remove_node(gone, allow_graceful=False)
                    return True

                found, fell, seconds = during(
                    lambda: work(len(work.files), crew), kill, rng.uniform(0.05, usual)
                )
                outcomes.append(Outcome(np.array_equal(found, expected), fell, seconds))
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
            outcomes.append(Outcome(right, killed, time.perf_counter() - began))
    return outcomes


def of_room(work: Pass, expected: np.ndarray, kills: int, rng: random.Random) -> list[Outcome]:
    """Ray's object store has the least room there can be, and others fill it."""
    outcomes = []
    ray.init(num_cpus=2, object_store_memory=78 << 20, log_to_driver=False, logging_level="fatal")
    try:
        filling = [ray.put(np.zeros(8 << 20, dtype=np.uint8)) for _ in range(8)]
        with crew_of(Cluster(2), lambda text: None) as crew:
            for _ in range(kills):
                began = time.perf_counter()
                found = work(len(work.files), crew)
                outcomes.append(Outcome(np.array_equal(found, expected), True, time.perf_counter() - began))
        del filling
    finally:
        ray.shutdown()
    return outcomes


def _usual(work: Pass, crew: Any) -> float:
    """Seconds of a pass that nothing disturbs, by workers that have begun."""
    work(64, crew)
    began = time.perf_counter()
    work(len(work.files), crew)
    return time.perf_counter() - began


def one_pass(work: Pass, folder: Path) -> None:
    """One pass into a store, for the command that is killed."""
    with crew_of(Cluster(2), lambda text: None) as crew:
        print("asked for", len(work.files), flush=True)
        np.save(folder / "found.npy", work(len(work.files), crew, folder / "store"))


def main() -> None:
    """Kill, compare, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=3_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--kinds", nargs="+", default=["worker", "node", "driver", "room"])
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
    }
    lines = [
        "| what | times | fell into the pass | right bits | seconds, least to most |",
        "|---|---|---|---|---|",
    ]
    for kind in asked.kinds:
        found = kinds[kind]()
        seconds = [one.seconds for one in found]
        lines.append(
            f"| {kind} | {len(found)} | {sum(one.killed for one in found)} | {sum(one.right for one in found)} | "
            f"{min(seconds):.0f} to {max(seconds):.0f} |"
        )
        print(lines[-1], flush=True)
    if asked.write:
        between_marks(asked.write, "faults", "\n".join(lines))


if __name__ == "__main__":
    main()

"""What several workers cost and save: how long a team takes to begin, and the head on features here and held by
two workers.

    python benchmarks/team.py
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from regraft.crew import Crew, Seat


def now(seat: Seat, given: None) -> float:
    """When a member of a team has begun."""
    return time.time()


def beginnings(crew: Crew, times: int = 2) -> None:
    """How long a team with nothing to do takes."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    for _ in range(times):
        began = time.time()
        reached = crew.team(now, None, lambda event: None, lambda state: None, None)
        print(
            f"a team: begun after {reached - began:.1f} s, over after {time.time() - began:.1f} s", flush=True
        )


def heads(crew: Crew, counts: Sequence[int], width: int = 1280, classes: int = 50) -> None:
    """The same fit by this process and by workers that hold the rows."""
    from regraft.tasks import Single
    from regraft.training import fit_linear, rows

    rows.SPREAD = 0
    for count in counts:
        rng = np.random.default_rng(0)
        features = rng.normal(size=(count, width)).astype(np.float32)
        labels = (features[:, :classes] + rng.gumbel(size=(count, classes))).argmax(axis=1)
        task, weights = Single(tuple(map(str, range(classes)))), np.ones(count)
        seconds, found = [], []
        for who in (None, crew):
            began = time.perf_counter()
            found.append(fit_linear(features, labels, weights, task, 0.01, crew=who)[0])
            seconds.append(time.perf_counter() - began)
        apart = np.abs(found[1] - found[0]).max() / np.abs(found[0]).max()
        print(
            f"{count:,} examples, {features.nbytes >> 20} MiB: {seconds[0]:.1f} s here, {seconds[1]:.1f} s by "
            f"{crew.workers} workers; the weights differ by {apart:.0e} of the largest",
            flush=True,
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", type=int, nargs="+", default=[20_000, 52_000, 100_000])
    options = parser.parse_args()
    from regraft.scale import Cluster, crew_of

    with crew_of(Cluster(2), print) as crew:
        assert crew is not None
        beginnings(crew)
        heads(crew, options.counts)


if __name__ == "__main__":
    main()

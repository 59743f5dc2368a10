"""Labels that predictions do not believe: confident learning (cleanlab; Northcutt et al. 2021)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence

import numpy as np

from regraft.tasks.task import Suspect

FEWEST = 5  # examples that have a label, and that lack it, from which on wrong ones are looked for


def doubted_classes(classes: Sequence[str], targets: np.ndarray, shares: np.ndarray) -> list[Suspect]:
    """Those of (N,) positions in the classes that (N, K) probabilities speak against, the surest first; none where a
    class is missing, or there are fewer than two examples a class.
    """
    if len(targets) < 2 * len(classes) or len(np.unique(targets)) < len(classes):
        return []
    from cleanlab.filter import find_label_issues

    with _quiet():
        order = find_label_issues(
            targets,
            shares,
            return_indices_ranked_by="self_confidence",
            filter_by="low_self_confidence",
            n_jobs=1,
        )
    looks = shares.argmax(axis=1)
    return [
        Suspect(
            int(row),
            classes[looks[row]],
            f"labelled {classes[targets[row]]}, looks like {classes[looks[row]]} ({shares[row].max():.0%})",
        )
        for row in order
        if looks[row] != targets[row]
    ]


def doubted(has: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(N,) whether the probabilities (N,) of one label speak against what is known of it, (N,) 1, 0 or NaN
    (Thyagarajan et al. 2022); nowhere unless FEWEST examples have it and as many lack it.
    """
    rows, odd = np.flatnonzero(np.isfinite(has)), np.zeros(len(has), dtype=bool)
    known = has[rows].astype(np.int64)
    if min(known.sum(), (1 - known).sum()) < FEWEST:
        return odd
    from cleanlab.filter import find_label_issues

    both = np.stack([1 - shares[rows], shares[rows]], axis=1)
    with _quiet():
        wrong = find_label_issues(known, both, filter_by="low_self_confidence", n_jobs=1)
    odd[rows] = wrong & ((both[:, 1] > 0.5) != (known > 0))
    return odd


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """cleanlab warns through the root logger of what is of no interest here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)

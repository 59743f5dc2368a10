"""Answer only when sure: a confidence above which answers are right as often as was asked for, and the
proof of it.

The lower end of a Clopper-Pearson interval on held-out examples has to reach the wanted precision; as
several thresholds are looked at, its error is divided by their number (Bonferroni), so the promise holds
whichever is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike

from regraft.evaluation.blocks import all_alone, numbered
from regraft.evaluation.calibration import answers
from regraft.evaluation.estimate import Estimate, wilson

WANTED = (0.95, 0.99)
GRID = 20  # thresholds looked at
ERROR = 0.05  # the chance that a promise is broken


@dataclass(frozen=True)
class Threshold:
    """Answers of `threshold` confidence and more are promised to be right in a share `wanted` of cases;
    None: no promise.

    `answered` and `precision` are the shares on the `n` held-out examples, `bound` what their number lets
    promise.
    """

    wanted: float
    threshold: float | None
    n: int
    answered: float
    precision: float
    bound: float
    why: str


def choose_thresholds(
    labels: ArrayLike, logits: ArrayLike, wanted: tuple[float, ...] = WANTED, blocks: ArrayLike | None = None
) -> list[Threshold]:
    """For each wanted precision the threshold that answers most and keeps the promise, by (N,) labels and
    (N, K) logits.

    The logits are those the temperature was found on, divided by it, of examples the model has not learnt
    from. Where rows belong together in `blocks` (N,), the bound counts a block once, right by the share of
    its answers that are: a hundred pictures of one patient prove no more than that patient.
    """
    confidence, answer = answers(logits)
    right = answer == np.asarray(labels)
    cuts = np.unique(np.r_[0.0, np.quantile(confidence, np.arange(1, GRID) / GRID)])
    rows, bounds = [], []
    for cut in cuts:  # the lowest first: it answers most
        kept = confidence >= cut
        rows.append((float(cut), int(kept.sum()), int(right[kept].sum())))
        bounds.append(
            lower_bound(
                *counted_blocks(right[kept], None if blocks is None else np.asarray(blocks)[kept]), len(cuts)
            )
        )
    n, thresholds = len(confidence), []
    for share in wanted:
        best = next((i for i, bound in enumerate(bounds) if bound >= share), None)
        i = int(np.argmax(bounds)) if best is None else best
        cut, answered, hits = rows[i]
        kept, precision = answered / n, hits / answered
        if best is None:
            needed = int(np.ceil(np.log(ERROR / len(cuts)) / np.log(share)))
            what = (
                "held-out answers"
                if all_alone(blocks)
                else "held-out groups of examples that belong together, all answered"
            )
            why = (
                f"too few examples to promise {share:.0%}: "
                f"it takes {needed} {what} without a mistake, or more"
            )
            thresholds.append(Threshold(share, None, n, kept, precision, bounds[i], why))
        else:
            said = "all answers" if cut == 0 else f"answer only above {cut:.2f}"
            why = (
                f"{said}: {precision:.1%} right on {kept:.0%} of "
                f"{n} held-out examples, {bounds[i]:.1%} at least"
            )
            thresholds.append(Threshold(share, cut, n, kept, precision, bounds[i], why))
    return thresholds


def counted_blocks(right: np.ndarray, blocks: np.ndarray | None) -> tuple[float, int]:
    """How many of (M,) answers are right, and M; of blocks, the sum of their shares of right answers, and
    their number.
    """
    if blocks is None or all_alone(blocks):
        return float(right.sum()), len(right)
    number = numbered(blocks)
    shares = np.bincount(number, weights=right) / np.bincount(number)
    return float(shares.sum()), len(shares)


def lower_bound(hits: float, answered: int, looked_at: int) -> float:
    """The lower Clopper-Pearson bound of hits of answered, at an error of ERROR shared by so many looks."""
    return 0.0 if hits == 0 else float(scipy.stats.beta.ppf(ERROR / looked_at, hits, answered - hits + 1))


def verify(threshold: float, labels: ArrayLike, logits: ArrayLike) -> tuple[Estimate, Estimate]:
    """The share of (N, K) logits that are answered at a threshold, and how many of these are right, with
    Wilson intervals.
    """
    confidence, answer = answers(logits)
    kept = confidence >= threshold
    hits, answered, n = int((answer == np.asarray(labels))[kept].sum()), int(kept.sum()), len(kept)
    precision = hits / answered if answered else float("nan")
    told = Estimate(precision, *wilson(hits, answered), answered, "Wilson")
    return Estimate(answered / n, *wilson(answered, n), n, "Wilson"), told

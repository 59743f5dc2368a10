"""Several labels at once: how their probabilities are made to mean what they say, from which on a label is said,
and from which on it is promised to be right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.special import expit

from regraft.evaluation import best_threshold, ece, fit_temperature, promised_threshold, reliability, wilson
from regraft.tasks.task import Held

FEWEST = 10  # examples that have a label, and that lack it, from which on it gets a temperature of its own
WANTED = (0.9, 0.95)  # of what is said of a label, so much is to be right


@dataclass(frozen=True)
class Cutoff:
    """What one label's logits are divided by, and the probability from which on the label is said: that of the
    highest F1 on held-out examples, 0.5 where nothing is known. `promised` are the probabilities from which on
    saying it is promised to be right so often as is wanted; a wanted one that held-out examples could not prove
    is not there.
    """

    temperature: float = 1.0
    threshold: float = 0.5
    promised: Mapping[float, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Cutoffs:
    """The calibration of several labels: one `Cutoff` each, by name."""

    fitted_on: str
    by_label: Mapping[str, Cutoff]

    @classmethod
    def of(cls, classes: tuple[str, ...], held: Held) -> Cutoffs:
        """Of held-out examples; one that changes nothing where there are none."""
        if not len(held.targets):
            return cls(held.name, {name: Cutoff() for name in classes})
        known, y, z = np.isfinite(held.targets), held.targets, np.asarray(held.outputs, dtype=np.float64)
        usual = fit_temperature(y[known].astype(np.int64), _pairs(z[known]))
        found = {}
        for k, name in enumerate(classes):
            rows = known[:, k]
            has = y[rows, k] > 0
            enough = min(int(has.sum()), int((~has).sum())) >= FEWEST
            own = fit_temperature(has.astype(np.int64), _pairs(z[rows, k])) if enough else usual
            shares = expit(z[rows, k] / own)
            blocks = None if held.blocks is None else held.blocks[rows]
            offers = {wanted: promised_threshold(has, shares, wanted, blocks) for wanted in WANTED}
            kept = {wanted: at for wanted, at in offers.items() if at is not None}
            found[name] = Cutoff(own, best_threshold(has, shares), kept)
        return cls(held.name, found)

    @property
    def temperatures(self) -> tuple[float, ...]:
        """(K,) what the logits are divided by."""
        return tuple(cut.temperature for cut in self.by_label.values())

    @property
    def thresholds(self) -> tuple[float, ...]:
        """(K,) the probabilities from which on labels are said."""
        return tuple(cut.threshold for cut in self.by_label.values())

    def applied(self, outputs: np.ndarray) -> np.ndarray:
        """(N, K) logits, each divided by the temperature of its label."""
        return np.asarray(outputs / np.array(self.temperatures))

    @property
    def promises(self) -> tuple[float, ...]:
        """The precisions that are promised of a label at least, the least first."""
        return tuple(sorted({wanted for cut in self.by_label.values() for wanted in cut.promised}))

    def keeping(self, precision: float) -> Cutoffs:
        """Saying each label from the probability on that promises this precision; never where none does."""
        return replace(
            self,
            by_label={
                name: replace(cut, threshold=cut.promised.get(precision, math.inf))
                for name, cut in self.by_label.items()
            },
        )

    def promising_nothing(self, why: str) -> Cutoffs:
        """These without a promise."""
        return replace(
            self, by_label={name: replace(cut, promised={}) for name, cut in self.by_label.items()}
        )

    def saved(self) -> dict[str, Any]:
        """`labels` of regraft.json."""
        return {
            "labels": {
                name: {
                    "temperature": cut.temperature,
                    "threshold": cut.threshold,
                    "promised": {f"{wanted:g}": at for wanted, at in cut.promised.items()},
                }
                for name, cut in self.by_label.items()
            }
        }

    @classmethod
    def restored(cls, classes: tuple[str, ...], saved: Mapping[str, Any]) -> Cutoffs:
        """What `saved` told."""
        kept = saved.get("labels") or {}
        return cls(
            "",
            {
                name: Cutoff(
                    float(kept[name]["temperature"]),
                    float(kept[name]["threshold"]),
                    {float(wanted): float(at) for wanted, at in kept[name]["promised"].items()},
                )
                if name in kept
                else Cutoff()
                for name in classes
            },
        )

    def to_metrics(self) -> dict[str, Any]:
        """`calibration` and `cutoffs` of metrics.json, before test."""
        rows = [
            {
                "label": name,
                "temperature": cut.temperature,
                "threshold": cut.threshold,
                "promised": {f"{wanted:g}": at for wanted, at in cut.promised.items()},
            }
            for name, cut in self.by_label.items()
        ]
        return {"calibration": {"fitted_on": self.fitted_on}, "cutoffs": rows}

    def tested(self, targets: np.ndarray, outputs: np.ndarray) -> dict[str, Any]:
        """The calibration before and after on test, all labels together and one by one, and what came of each
        promise there.
        """
        told, known, scaled = self.to_metrics(), np.isfinite(targets), self.applied(outputs)
        for side, logits in {"before": outputs, "after": scaled}.items():
            y, pairs = targets[known].astype(np.int64), _pairs(logits[known])
            told["calibration"][side] = {"ece": ece(y, pairs), "bins": reliability(y, pairs)}
        told["calibration"]["split"] = "test"
        for k, row in enumerate(told["cutoffs"]):
            rows = known[:, k]
            has, shares = targets[rows, k] > 0, expit(scaled[rows, k])
            row["ece"] = ece(has.astype(np.int64), _pairs(scaled[rows, k])) if rows.any() else None
            row["kept"] = {wanted: _kept(has, shares >= at) for wanted, at in row["promised"].items()}
        return told


def _kept(has: np.ndarray, said: np.ndarray) -> dict[str, Any]:
    """How often saying a label was right: {"value", "low", "high", "n"}; None without an answer."""
    hits, count = int(has[said].sum()), int(said.sum())
    low, high = wilson(hits, count)
    return {
        "value": hits / count if count else None,
        "low": low if count else None,
        "high": high if count else None,
        "n": count,
    }


def _pairs(logits: np.ndarray) -> np.ndarray:
    """(M, 2) logits of no and yes of (M,) logits."""
    return np.stack([np.zeros_like(logits), logits], axis=1)

"""Single classes: how their probabilities are made to mean what they say, and from which on answers are promised to
be right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from regraft.evaluation import Threshold, choose_thresholds, ece, fit_temperature, reliability, verify
from regraft.tasks.task import Held


@dataclass(frozen=True)
class Temperature:
    """What logits are divided by (1 where nothing is known), and the confidences above which precisions can
    be promised.

    `fitted_on` names the predictions both come from, "val" or "out-of-fold"; `indicative` says whether
    these also chose the epoch and the winner: then what they promise is not proven by them.
    """

    fitted_on: str = "val"
    temperature: float = 1.0
    offers: tuple[Threshold, ...] = ()
    kept: Mapping[float, float] | None = None  # the promises of a model that was loaded

    @classmethod
    def of(cls, held: Held) -> Temperature:
        """By the log loss of the held-out examples, and the promises that these prove."""
        temperature = fit_temperature(held.targets, held.outputs)
        scaled = held.outputs / temperature
        offers = choose_thresholds(held.targets, scaled, blocks=held.blocks) if len(held.targets) else []
        return cls(held.name, temperature, tuple(offers))

    @classmethod
    def restored(cls, saved: Mapping[str, Any]) -> Temperature:
        """What `saved` told."""
        kept = {float(wanted): float(at) for wanted, at in (saved.get("thresholds") or {}).items()}
        return cls("", float(saved["temperature"]), (), kept)

    @property
    def indicative(self) -> bool:
        """Whether the promises are not proven."""
        return self.fitted_on == "val"

    @property
    def thresholds(self) -> dict[float, float]:
        """The promises that can be kept: the threshold by wanted precision."""
        thresholds = {offer.wanted: offer.threshold for offer in self.offers if offer.threshold is not None}
        return thresholds or dict(self.kept or {})

    @property
    def promises(self) -> tuple[float, ...]:
        """The precisions that are promised, the least first."""
        return tuple(sorted(self.thresholds))

    def keeping(self, precision: float) -> Temperature:
        """As it is: what is not sure enough is answered too, and marked."""
        return self

    def applied(self, outputs: np.ndarray) -> np.ndarray:
        """(N, K) logits divided by the temperature."""
        return np.asarray(outputs / self.temperature)

    def promising_nothing(self, why: str) -> Temperature:
        """This calibration without a promise: the examples were seen before, so predictions prove nothing."""
        offers = (replace(offer, threshold=None, bound=0.0, why=why) for offer in self.offers)
        return replace(self, offers=tuple(offers), kept=None)

    def saved(self) -> dict[str, Any]:
        """`temperature` and `thresholds` of regraft.json."""
        thresholds = {f"{wanted:g}": threshold for wanted, threshold in self.thresholds.items()}
        return {"temperature": self.temperature, "thresholds": thresholds}

    def to_metrics(self) -> dict[str, Any]:
        """`calibration` and `thresholds` of metrics.json, before test."""
        return self._told([None] * len(self.offers))

    def tested(self, targets: np.ndarray, outputs: np.ndarray) -> dict[str, Any]:
        """Metrics of the calibration on test: its bins before and after, and what came of each promise."""
        scaled = self.applied(outputs)
        tested = self._told([_kept(offer, targets, scaled) for offer in self.offers])
        for side, logits in {"before": outputs, "after": scaled}.items():
            tested["calibration"][side] = {"ece": ece(targets, logits), "bins": reliability(targets, logits)}
        tested["calibration"]["split"] = "test"
        return tested

    def _told(self, kept: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
        about = {"chosen_on": self.fitted_on, "indicative": self.indicative}
        offers = zip(self.offers, kept, strict=True)
        return {
            "calibration": {"temperature": self.temperature, "fitted_on": self.fitted_on},
            "thresholds": [{**asdict(offer), **about, "test": tested} for offer, tested in offers],
        }


def _kept(offer: Threshold, targets: np.ndarray, scaled: np.ndarray) -> dict[str, Any] | None:
    """What came of an offered threshold on test."""
    if offer.threshold is None:
        return None
    answered, precision = verify(offer.threshold, targets, scaled)
    return {"answered": asdict(answered), "precision": asdict(precision)}

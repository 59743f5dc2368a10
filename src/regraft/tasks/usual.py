"""What is so of most tasks, for a task of its own to build on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.evaluation import Metric, PairedDifference
from regraft.tasks.imbalance import class_weighted
from regraft.tasks.task import Probed, Score, Spoken, Suspect, headline_score

if TYPE_CHECKING:
    from typing_extensions import Self


class Usual:
    """What is so of most tasks: they know nothing of their targets but the classes, answer as outputs say,
    weigh no answer more than another, and suspect nothing.
    """

    @property
    def noun(self) -> str:
        """A class."""
        return "class"

    @property
    def spoken(self) -> Spoken:
        """Of labels."""
        return Spoken()

    @property
    def spread(self) -> tuple[str, ...]:
        """The probability of each class."""
        return ("probability",)

    def shown(self, label: str) -> str:
        """The label itself."""
        return label

    def differ(self, targets: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Where they are not the same."""
        return np.asarray(targets != others)

    def same(self, answers: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Where all of them are."""
        return np.asarray((answers == others).reshape(len(answers), -1).all(axis=1))

    def ways(self) -> Mapping[str, Self]:
        """This one."""
        return {"": self}

    def fitted(self, targets: np.ndarray) -> Self:
        """As it is."""
        return self

    def settings(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def restored(self, settings: Mapping[str, Any]) -> Self:
        """As it is."""
        return self

    def decided(self, calibration: Any) -> Self:
        """As it is."""
        return self

    def decided_each(self, calibrations: Sequence[Any], of: np.ndarray) -> Self:
        """As it is."""
        return self

    def scores(self: Any, probed: Probed) -> tuple[Score, ...]:
        """The headline of the probe."""
        return (headline_score(self, probed),)

    @property
    def known_weightings(self) -> tuple[str, ...]:
        """None."""
        return ("none",)

    def weightings(self, targets: np.ndarray) -> tuple[tuple[str, ...], str]:
        """None."""
        return ("none",), ""

    def weighed_by(self, metric: Metric) -> Metric:
        """The metric itself."""
        return metric

    def weighted(self: Any, targets: np.ndarray, weights: np.ndarray, weighting: str) -> np.ndarray:
        """The examples' own weights, of mean 1."""
        return class_weighted(targets, weights, False, self.outputs)

    def offset(self, targets: np.ndarray, weighting: str) -> np.ndarray | None:
        """None."""
        return None

    def suspects(self, targets: np.ndarray, outputs: np.ndarray) -> list[Suspect]:
        """None."""
        return []

    def versus(
        self: Any,
        targets: np.ndarray,
        outputs: np.ndarray,
        others: np.ndarray,
        against: str,
        groups: np.ndarray | None = None,
    ) -> PairedDifference:
        """By what each answers."""
        paired: PairedDifference = self.paired(
            targets, self.answers(outputs), self.answers(others), against, groups
        )
        return paired

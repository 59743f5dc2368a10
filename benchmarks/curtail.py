"""When judging fine-tuning may end: what ending it early saves, and what it costs in the choice.

    python benchmarks/curtail.py

Of each subset that benchmarks/choice.py has measured, the true gain of fine-tuning in log loss on examples that
were kept aside, and the spread of gains of single examples by the standard error of the folds, are known. Evidence
of three folds is drawn from these (normal, 4,000 times a subset), the rule is asked after each fold, and what it
hands over is compared with the truth. The same with gains a third as large, and with none at all.

`folds` are trainings in units of one training of the whole length on all of the subset, those of the folds alone;
`all` has the last training in it, where fine-tuning was chosen. `regret` is by how much the loss of what was chosen
lies above that of the better one, in the mean of the subsets; `chosen` is how often fine-tuning was.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from regraft.steps.evidence import foreseen
from regraft.steps.finetune.judge import DOUBT, LOST_FROM, WON_FROM
from regraft.steps.finetune.rules import HELD, THIRDS

RESULTS = Path(__file__).parent / "results" / "choice"
DRAWS = 4_000
Rule = Callable[
    [np.ndarray, float, int, float], np.ndarray
]  # gain, error, held out, share of all: (R,) ended


@dataclass(frozen=True)
class Subset:
    """What is known of one: how many examples, the true gain, and the standard deviation of an example's gain."""

    count: int
    gain: float
    spread: float


def subsets() -> list[Subset]:
    """Those that were measured."""
    found = []
    for place in sorted(RESULTS.glob("*.json")):
        one = json.loads(place.read_text(encoding="utf-8"))
        loss, now = {float(share): value for share, value in one["loss"].items()}, one["now"]
        tuned = min(value for share, value in loss.items() if share)
        held = one["count"] * now["folds"] / THIRDS
        found.append(Subset(one["count"], loss[0.0] - tuned, now["error"] * np.sqrt(held)))
    return found


def before(gain: np.ndarray, error: float, held: int, share: float) -> np.ndarray:
    """The rule before: from 100 examples on, two standard errors."""
    return (np.abs(gain) > 2 * error) & (held >= 100)


def foresight(doubt: float) -> Rule:
    """The rule that foresees what all folds would say."""

    def ended(gain: np.ndarray, error: float, held: int, share: float) -> np.ndarray:
        chance = foreseen(gain, error, share)
        return ((chance < doubt) & (held >= LOST_FROM)) | ((chance > 1 - doubt) & (held >= WON_FROM))

    return ended


def judged(
    rule: Rule, one: Subset, times: float, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Trainings in folds, trainings in all, regret, and how often fine-tuning was chosen, in the mean of the draws."""
    fold, gain = one.count / THIRDS, times * one.gain
    planned = next(folds for folds in range(1, THIRDS + 1) if folds * fold >= HELD or folds == THIRDS)
    folds = rng.normal(gain, one.spread / np.sqrt(fold), (DRAWS, planned))
    tried, wins, going = np.zeros(DRAWS), np.zeros(DRAWS, dtype=bool), np.ones(DRAWS, dtype=bool)
    for number in range(1, planned + 1):
        mean, error = folds[:, :number].mean(axis=1), one.spread / np.sqrt(number * fold)
        ends = going & (rule(mean, error, int(number * fold), number / planned) if number < planned else True)
        tried[ends], wins[ends] = number, (mean > error)[ends]
        going &= ~ends
    spent, chosen = tried.mean() * (1 - 1 / THIRDS), wins.mean()
    return spent, spent + chosen, chosen * max(-gain, 0) + (1 - chosen) * max(gain, 0), chosen


def main() -> None:
    known = subsets()
    print("| gains | rule | folds | all | regret | chosen |\n|---|---|---|---|---|---|")
    for times, title in ((1.0, "as measured"), (1 / 3, "a third"), (0.0, "none")):
        rules = {"before": before} | {
            f"doubt {doubt:g}": foresight(doubt) for doubt in (0.05, 0.1, 0.15, 0.2)
        }
        for name, rule in rules.items():
            rng = np.random.default_rng(0)
            spent, total, regret, chosen = np.mean([judged(rule, one, times, rng) for one in known], axis=0)
            taken = " (taken)" if name == f"doubt {DOUBT:g}" else ""
            print(
                f"| {title} | {name}{taken} | {spent:.2f} | {total:.2f} | {regret:.4f} | {100 * chosen:.0f} % |"
            )


if __name__ == "__main__":
    main()

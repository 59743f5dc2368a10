"""Candidates of a ranking beside each other: a network cut short and the whole one."""

from __future__ import annotations

import numpy as np
import pytest

from regraft.evaluation import Estimate
from regraft.recipe import Recipe
from regraft.steps.rank.entrants import Entrant
from regraft.steps.rank.probing import Probe, Standing, standings

WHOLE, CUT = 8, 5
NONE = Estimate(0.5, 0.4, 0.6, 100, "made")


def probes(gain: float) -> tuple[Probe, Probe]:
    """The whole network, and a cut whose losses are lower by `gain` in the mean; the difference varies."""
    rng = np.random.default_rng(0)
    entrant = Entrant("made", 64, WHOLE, (CUT,), "torch-float32", 1e-3, 1e-2, {}, "", "")
    losses, noise = rng.uniform(0.5, 1.5, 100), rng.normal(0, 0.5, 100)
    of_cut = losses - gain + noise - noise.mean()
    blocks = np.arange(100)
    return (Probe(entrant, WHOLE, losses, blocks, ()), Probe(entrant, CUT, of_cut, blocks, ()))


def test_a_cut_that_is_not_clearly_better_stands_behind_the_whole() -> None:
    whole, cut = probes(0.05)  # one standard error of the difference
    found = standings([whole, cut], Recipe())
    assert found[id(whole)] == Standing(float(whole.losses.mean()), False)
    assert found[id(cut)] == Standing(float(whole.losses.mean()), True)
    assert found[id(whole)] < found[id(cut)]


def test_a_cut_that_is_clearly_better_stands_by_its_own_loss() -> None:
    whole, cut = probes(0.3)
    found = standings([whole, cut], Recipe())
    assert found[id(cut)] == Standing(float(cut.losses.mean()), False)
    assert found[id(cut)] < found[id(whole)]


@pytest.mark.parametrize("settings", [{"freeze": {"strategy": "head"}}, {"finetune": {"epochs": 0}}])
def test_where_nothing_is_fine_tuned_a_cut_is_like_any_other(settings: dict[str, dict[str, object]]) -> None:
    whole, cut = probes(0.05)
    found = standings([whole, cut], Recipe.build(settings))
    assert found[id(cut)] == Standing(float(cut.losses.mean()), False)
    assert standings([cut], Recipe())[id(cut)].cut is False, "the whole one is out of the race"

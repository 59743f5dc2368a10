"""Step 3 tells how much of each stage may move."""

from __future__ import annotations

import pytest

from regraft import backbone
from regraft.steps.freeze import released
from regraft.training import plan_freeze


@pytest.mark.parametrize(("strategy", "whole"), [("last-2", 2), ("half", 4), ("full", 8), ("head", 0)])
def test_whole_stages_move_or_stay(strategy: str, whole: int) -> None:
    base = backbone(size=64)
    plan = plan_freeze(base.module, base.stages, strategy)
    assert released(base, plan, 0.0) == [0.0] * (8 - whole) + [1.0] * whole


def test_of_norms_a_small_share_of_every_stage_moves() -> None:
    base = backbone(size=64)
    shares = released(base, plan_freeze(base.module, base.stages, "norm"), 0.0)
    assert len(shares) == len(base.stages)
    assert all(0 < share < 0.2 for share in shares)

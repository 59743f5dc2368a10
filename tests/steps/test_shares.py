"""What each of several processes is given of a batch: together, what one would be given, drawn alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tinted import context, data, tuner

import regraft
from regraft.backbones import Backbone
from regraft.steps.finetune.work import Found, Work
from regraft.training import Checkpoint, Ranks, make_head, plan_freeze


@pytest.fixture(scope="module")
def base(tiny: str) -> Backbone:
    return regraft.backbone(tiny, 32)


def batches_of(base: Backbone, ranks: Ranks, size: int) -> list[tuple[torch.Tensor, ...]]:
    """The pixels, targets and weights of the batches of the second epoch, of one rank."""
    here = replace(context(None, batch_size=size), ranks=ranks)
    part = data(11, 1)
    part = replace(part, weights=torch.linspace(0.5, 1.5, 11).numpy())
    plan = plan_freeze(base.module, base.stages, "full")
    head = make_head("linear", base.width, 2).eval()
    work = Work(tuner(base, plan, here), head, part, None, here, Found(None, "float32"))
    return [(inputs["pixels"], targets, weights) for inputs, targets, weights in work.batches(2)]


@pytest.mark.parametrize("size", [4, 2])
def test_the_shares_are_the_batch_and_augmentation_knows_no_rank(base: Backbone, size: int) -> None:
    """Of batches of two, the third of three ranks has nothing."""
    whole = batches_of(base, Ranks(), size)
    shares = [batches_of(base, Ranks(rank, 3), size) for rank in range(3)]
    assert {len(share) for share in shares} == {len(whole)}
    for number, batch in enumerate(whole):
        for column, expected in enumerate(batch):
            for rank, share in enumerate(shares):
                assert torch.equal(share[number][column], expected[rank::3])
    assert (size == 2) == any(not len(targets) for _, targets, _ in shares[2])


def test_a_checkpoint_reaches_another_process_whole(tmp_path: Path) -> None:
    here, there = (Checkpoint(tmp_path / name) for name in ("here", "there"))
    assert here.content() is None
    here.save({"weights": torch.arange(3), "epoch": 2})
    there.put(here.content() or b"")
    state = there.load()
    assert state is not None
    assert state["epoch"] == 2
    assert torch.equal(state["weights"], torch.arange(3))
    Checkpoint().put(b"kept nowhere")
    assert Checkpoint().content() is None

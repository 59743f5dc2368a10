"""Several processes that train one model together, and one that does it alone: the same gradients, the same
weights.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from regraft.training import Checkpoint, Learner, Listeners, Loop, Ranks, Schedule, shuffled

COUNT, BATCH, WORLD = 41, 8, 2  # batches of 8; the last one has 9, so that no example is left alone
X = torch.from_numpy(np.random.default_rng(0).normal(size=(COUNT, 5)).astype(np.float32))
Y = (X[:, 0] > 0).long()
W = torch.linspace(0.2, 1.8, COUNT)


def loss_of(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(outputs, targets, reduction="none")


def looped(ranks: Ranks, place: Path, told: list[str]) -> Loop:
    """A training of three epochs of which each rank has its share."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2))

    def batches(epoch: int, skip: int = 0, /):
        for order in shuffled(COUNT, 0, epoch, BATCH, ranks.rank, ranks.world)[skip:]:
            yield X[order], Y[order], W[order]

    def judge() -> tuple[np.ndarray, dict[str, float]]:
        network.eval()
        with torch.no_grad():
            return loss_of(network(X), Y).double().numpy(), {}

    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    keeper = Checkpoint(place / f"rank{ranks.rank}.safetensors", seconds=0, share=1.0)
    listeners = Listeners(tick=lambda **f: told.append(f"{f['done']} {f['loss']:.4f}"), note=told.append)
    schedule = Schedule(len(shuffled(COUNT, 0, 1, BATCH)), 3, patience=9)
    learner = Learner(network, optimiser, loss_of, math.log(2))
    return Loop(learner, schedule, batches, judge, listeners, keeper, ranks)


def one_of_several(rank: int, place: Path) -> None:
    """What each process does: the gradients of the first step, then the whole training; both are left in a
    file.
    """
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{place}/meeting", rank=rank, world_size=WORLD
    )
    told: list[str] = []
    first = looped(Ranks(rank, WORLD), place / "nowhere", told)
    count = first.step(next(iter(first.batches(1))))
    loss = first.progress.loss / count
    gradients = [parameter.grad.clone() for parameter in first.moving]
    trained = looped(Ranks(rank, WORLD), place, told).run()
    found = {"loss": loss, "gradients": gradients, "best": trained.best, "told": told}
    torch.save({**found, "ended": (trained.epoch, trained.val_loss)}, place / f"found{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    place = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(one_of_several, (place,), WORLD)
    every = [torch.load(place / f"found{rank}.pt") for rank in range(WORLD)]
    for rank, one in enumerate(every):
        one["kept"] = (place / f"rank{rank}.safetensors").is_file()
    return every


def test_the_shares_of_the_ranks_are_the_batches_of_one() -> None:
    whole = shuffled(COUNT, 3, 2, BATCH)
    for world in (1, 2, 3, 12):  # more ranks than a batch has examples: some have nothing to do
        shares = [shuffled(COUNT, 3, 2, BATCH, rank, world) for rank in range(world)]
        assert {len(share) for share in shares} == {len(whole)}
        for number, batch in enumerate(whole):
            together = np.concatenate([share[number] for share in shares])
            assert sorted(together) == sorted(batch)


def test_the_gradients_of_two_ranks_add_up_to_those_of_one(
    found: list[dict[str, Any]], tmp_path: Path
) -> None:
    alone = looped(Ranks(), tmp_path, [])
    examples = alone.step(next(iter(alone.batches(1))))
    loss = alone.progress.loss / examples
    assert examples == BATCH
    for rank in found:
        assert rank["loss"] == pytest.approx(loss, rel=1e-6)
        for parameter, gradient in zip(alone.moving, rank["gradients"], strict=True):
            torch.testing.assert_close(gradient, parameter.grad, rtol=1e-5, atol=1e-7)


def test_two_ranks_end_with_the_same_weights_as_each_other_and_as_one(
    found: list[dict[str, Any]], tmp_path: Path
) -> None:
    told: list[str] = []
    trained = looped(Ranks(), tmp_path, told).run()
    first, second = found
    assert all(torch.equal(first["best"][name], second["best"][name]) for name in trained.best)
    assert first["ended"] == second["ended"]
    assert first["ended"] == (trained.epoch, pytest.approx(trained.val_loss, rel=1e-4))
    for name, value in trained.best.items():
        torch.testing.assert_close(first["best"][name], value, rtol=1e-3, atol=1e-4)
    assert first["told"] == told, "the losses that are told are those of the whole batches"


def test_rank_0_alone_tells_and_keeps(found: list[dict[str, Any]]) -> None:
    first, second = found
    assert len(first["told"]) > 10
    assert second["told"] == []
    assert (first["kept"], second["kept"]) == (True, False)


def test_a_rank_without_examples_adds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other rank is simulated: it adds one example without weight, and gradients of zero."""
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda numbers: numbers.add_(numbers.numel() == 1))
    lone = looped(Ranks(1, 2), tmp_path, [])
    nothing = np.zeros(0, dtype=np.int64)
    examples = lone.step((X[nothing], Y[nothing], W[nothing]))
    assert (lone.progress.loss, examples) == (0.0, 1)
    assert not any(bool(parameter.grad.any()) for parameter in lone.moving)

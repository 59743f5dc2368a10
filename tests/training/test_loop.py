"""The training loop where things go wrong: losses that are no numbers, memory that runs out;
and what it keeps.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cards import SlowCard
from regraft.tasks.imbalance import class_weighted
from regraft.training import Checkpoint, Learner, Listeners, Loop, Schedule, shuffled
from regraft.training import loop as module

X = torch.from_numpy(np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32))
Y = (X[:, 0] + 0.5 * X[:, 1] > 0).long()


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2))


def batches(epoch: int, skip: int = 0, /):
    for order in shuffled(64, 0, epoch, 16)[skip:]:
        yield X[order], Y[order], torch.ones(len(order))


def loss_of(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(outputs, targets, reduction="none")


def judged(net: nn.Module):
    """What val says of a network as it stands."""

    def judge() -> tuple[np.ndarray, dict[str, float]]:
        net.eval()
        with torch.no_grad():
            return loss_of(net(X), Y).double().numpy(), {}

    return judge


def learner(net: nn.Module, lr: float = 1e-2, loss=loss_of, decay: float = 0.01) -> Learner:
    optimiser = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=decay)
    return Learner(net, optimiser, loss, math.log(2))


def run(net: nn.Module, given=batches, epochs: int = 4, lr: float = 1e-2, loss=loss_of, **more):
    said: list[str] = []
    trained = Loop(
        learner(net, lr, loss),
        Schedule(4, epochs, patience=9),
        given,
        more.pop("judge", judged(net)),
        Listeners(note=said.append),
        **more,
    ).run()
    return trained, said


def test_a_loss_that_is_no_number_goes_back_and_halves_the_rate() -> None:
    broken = {"left": 1}

    def poisoned(epoch: int, skip: int = 0, /):
        for number, (x, y, w) in enumerate(batches(epoch, skip)):
            if epoch == 2 and number == 1 and broken["left"]:
                broken["left"] -= 1
                x = x * math.nan
            yield x, y, w

    trained, said = run(network(), poisoned)
    assert trained.stopped == "length"
    assert trained.epochs_run == 4
    assert len(said) == 1
    assert "half the rate" in said[0]
    assert all(torch.isfinite(value).all() for value in trained.best.values())


def test_a_loss_that_never_mends_ends_with_the_best() -> None:
    def poisoned(epoch: int, skip: int = 0, /):
        for x, y, w in batches(epoch, skip):
            yield (x * math.nan if epoch > 1 else x), y, w

    trained, said = run(network(), poisoned)
    assert trained.stopped == "diverged"
    assert trained.epoch == 1
    assert len(said) == module.RETRIES


def test_an_exploding_loss_counts_too() -> None:
    def loud(epoch: int, skip: int = 0, /):
        for x, y, w in batches(epoch, skip):
            yield (x * 1e6 if epoch == 2 else x), y, w

    trained, said = run(network(), loud)
    assert trained.stopped == "diverged"
    assert "rose to" in said[0]


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that computes aside: losses come only once they are waited for."""
    monkeypatch.setattr(module, "computes_aside", lambda device: True)
    monkeypatch.setattr(module, "Card", SlowCard)


def test_losses_that_come_late_change_nothing(late, monkeypatch, tmp_path: Path) -> None:
    said: list[list[float]] = [[], []]

    def ended(number: int) -> tuple[dict[str, torch.Tensor], list[float]]:
        told = Listeners(epoch=lambda **fields: said[number].append(fields["train_loss"]))
        net = network()
        Loop(learner(net), Schedule(4, 4, patience=9), batches, judged(net), told).run()
        return net.state_dict()

    aside = ended(0)
    monkeypatch.setattr(module, "computes_aside", lambda device: False)
    at_once = ended(1)
    assert all(torch.equal(aside[name], value) for name, value in at_once.items())
    assert said[0] == said[1]
    assert len(said[0]) == 4


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_loss_that_is_no_number_is_met_late_too(late, number) -> None:
    left = [1]

    def poisoned(epoch: int, skip: int = 0, /):
        for at, (x, y, w) in enumerate(batches(epoch, skip)):
            yield (x * math.nan if epoch == 2 and at == number and left and left.pop() else x), y, w

    trained, said = run(network(), poisoned)
    assert (trained.stopped, trained.epochs_run, len(said)) == ("length", 4, 1)
    assert all(torch.isfinite(value).all() for value in trained.best.values())


def test_a_checkpoint_counts_the_losses_that_were_under_way(late, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stopping(epoch: int, skip: int = 0, /):
        for at, batch in enumerate(batches(epoch, skip), start=skip):
            if (epoch, at) == (2, 3):
                raise Stopped
            yield batch

    def ended(given, checkpoint: Checkpoint | None = None) -> tuple[dict[str, torch.Tensor], list[float]]:
        losses: list[float] = []
        net = network()
        told = Listeners(epoch=lambda **fields: losses.append(fields["train_loss"]))
        Loop(learner(net), Schedule(4, 3, patience=9), given, judged(net), told, checkpoint).run()
        return net.state_dict(), losses

    always = Checkpoint(tmp_path / "going", seconds=0.0, share=1.0)
    always.key = "one"
    with pytest.raises(Stopped):
        ended(stopping, always)
    again = Checkpoint(tmp_path / "going", seconds=0.0, share=1.0)
    again.key = "one"
    resumed, losses = ended(batches, again)
    whole, expected = ended(batches)
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    assert losses == expected[1:]


def test_micro_batches_give_the_gradient_of_the_whole() -> None:
    x, y, w = X[:13], Y[:13], torch.linspace(0.5, 2, 13)
    gradients = []
    for parts in (1, 2, 5):
        net = network()
        value = module.slope(learner(net), (x, y, w), parts, 13)
        gradients.append((float(value), [p.grad.clone() for p in net.parameters()]))
    for value, other in gradients[1:]:
        assert value == pytest.approx(gradients[0][0], rel=1e-5)
        for a, b in zip(gradients[0][1], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_batch_too_large_for_memory_is_cut_and_training_goes_on() -> None:
    class Tight(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training and len(x) > 5:
                raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
            return self.inner(x)

    trained, said = run(Tight())
    assert trained.stopped == "length"
    assert [line.split("as ")[1].split()[0] for line in said] == ["2", "4"]
    whole, _ = run(network())
    for name, value in whole.best.items():
        torch.testing.assert_close(trained.best[f"inner.{name}"], value, rtol=1e-3, atol=1e-4)


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    class Wrong(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                raise RuntimeError("shapes cannot be multiplied")
            return self.inner(x)

    with pytest.raises(RuntimeError, match="shapes"):
        run(Wrong())


@pytest.mark.parametrize(
    ("rises", "kept"),
    [((0.0, 0.02, 0.03), 3), ((0.0, 0.5, 0.6), 1), ((0.0, 0.5, 0.02), 3), ((0.3, 0.0, 0.6), 2)],
)
def test_a_later_epoch_is_kept_unless_it_is_clearly_worse(rises: tuple[float, ...], kept: int) -> None:
    noise = np.random.default_rng(0).normal(0, 0.3, (4, 64))
    given = iter(
        [
            (np.full(64, 9.0), {}),
            *((1 + rise + noise[i] - noise[i].mean(), {}) for i, rise in enumerate(rises)),
        ]
    )
    trained, _ = run(network(), epochs=3, judge=lambda: next(given))
    assert (trained.epoch, trained.val_loss) == (kept, pytest.approx(1 + rises[kept - 1]))


def test_patience_counts_from_the_epoch_that_is_kept() -> None:
    given = iter([(np.full(8, 9.0), {}), (np.ones(8), {}), *((np.full(8, 2.0), {}) for _ in range(20))])
    trained, _ = run(network(), epochs=15, judge=lambda: next(given))
    assert (trained.epoch, trained.epochs_run, trained.stopped) == (1, 10, "patience")


def test_without_val_it_goes_its_whole_length() -> None:
    trained, _ = run(network(), epochs=2, judge=None)
    assert (trained.epoch, trained.epochs_run, trained.stopped) == (2, 2, "length")
    assert math.isnan(trained.val_loss)


def test_log_priors_in_the_loss_lift_the_rare_class() -> None:
    rare = torch.cat([torch.nonzero(Y == 0)[:, 0], torch.nonzero(Y == 1)[:4, 0]])

    def few(epoch: int, skip: int = 0, /):
        yield X[rare], Y[rare], torch.ones(len(rare))

    shares = torch.bincount(Y[rare]).float() / len(rare)
    plain, adjusted = network(), network()
    run(plain, few, epochs=40)
    run(adjusted, few, epochs=40, loss=lambda outputs, targets: loss_of(outputs + shares.log(), targets))
    assert (adjusted(X).argmax(1) == 1).sum() > (plain(X).argmax(1) == 1).sum()


@pytest.mark.parametrize("stop", [3, 6, 9])
def test_a_stopped_training_goes_on_and_ends_with_the_same_bits(stop: int, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    expected, _ = run(network())
    keeper = Checkpoint(tmp_path / "kept.safetensors", seconds=0, share=1.0)
    keeper.key = "k"
    count = {"steps": 0}

    def tick(**_) -> None:
        count["steps"] += 1
        if count["steps"] == stop:
            raise Stop

    def go(net: nn.Module, on_tick):
        return Loop(
            learner(net), Schedule(4, 4, 9), batches, judged(net), Listeners(tick=on_tick), keeper
        ).run()

    with pytest.raises(Stop):
        go(network(), tick)
    found = go(network(), lambda **_: None)
    assert found.val_loss == expected.val_loss
    for name, value in expected.best.items():
        assert torch.equal(found.best[name], value)


def test_saving_takes_no_more_than_a_share_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine times the weights were written every 20 s and after each epoch, whatever that took."""
    now, writes = 0.0, []

    def slow(*_: object, **__: object) -> None:
        nonlocal now
        now += 10.0
        writes.append(now)

    monkeypatch.setattr("regraft.training.checkpoint.time.monotonic", lambda: now)
    monkeypatch.setattr("regraft.training.checkpoint.save_file", slow)
    keeper = Checkpoint(tmp_path / "kept.safetensors")
    for step in range(3_000):  # a second each; an epoch has ten
        now += 1.0
        if keeper.due(complete=step % 10 == 9):
            keeper.save({"weights": torch.zeros(1)})
    assert len(writes) >= 10
    assert 10.0 * len(writes) <= 0.06 * now


def test_a_checkpoint_gives_back_what_it_was_given(tmp_path: Path) -> None:
    keeper, weights = Checkpoint(tmp_path / "kept.safetensors"), torch.randn(2, 3, 4, 4)
    channels_last = weights.to(memory_format=torch.channels_last)
    keeper.save(
        {"best": {"a.b": weights, "c": channels_last}, "none": {}, "at": {"epoch": 3, "loss": math.nan}}
    )
    kept = keeper.load()
    assert kept is not None
    assert torch.equal(kept["best"]["a.b"], weights)
    assert torch.equal(kept["best"]["c"], weights)
    assert (kept["none"], kept["at"]["epoch"]) == ({}, 3)
    assert math.isnan(kept["at"]["loss"])
    keeper.key = "other data"
    assert keeper.load() is None


class Pair(nn.Module):
    """A network that takes two named tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, given: dict[str, torch.Tensor]) -> torch.Tensor:
        if self.training and len(given["left"]) > 9:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return self.inner(torch.cat([given["left"], given["right"]], dim=1))


def test_inputs_may_be_several_named_tensors_and_are_cut_alike() -> None:
    def named(epoch: int, skip: int = 0, /):
        for x, y, w in batches(epoch, skip):
            yield {"left": x[:, :2], "right": x[:, 2:]}, y, w

    whole, _ = run(network(), judge=None)
    trained, said = run(Pair(), named, judge=None)
    assert len(said) == 1
    for name, value in whole.best.items():
        torch.testing.assert_close(trained.best[f"inner.{name}"], value, rtol=1e-3, atol=1e-4)


def test_the_loop_leaves_the_given_module_at_its_best() -> None:
    net = network()
    before = copy.deepcopy(net.state_dict())
    trained, _ = run(net)
    assert all(torch.equal(net.state_dict()[name], value) for name, value in trained.best.items())
    assert any(not torch.equal(before[name], value) for name, value in trained.best.items())


def test_a_batch_without_weight_teaches_nothing_and_breaks_nothing() -> None:
    def idle(epoch: int, skip: int = 0, /):
        for number, (x, y, w) in enumerate(batches(epoch, skip), start=skip):
            yield x, y, w * (number != 1)

    trained, said = run(network(), idle)
    assert trained.stopped == "length"
    assert not said
    assert trained.val_loss < 0.65
    assert all(torch.isfinite(value).all() for value in trained.best.values())
    assert module.slope(learner(network()), (X, Y, torch.zeros(64)), 1, 64) == 0.0


def test_a_heavy_example_is_no_sign_of_a_loss_that_fell_apart() -> None:
    weights = torch.full((64,), 0.5)
    weights[3] = 32.5  # the mean is 1

    def heavy(epoch: int, skip: int = 0, /):
        for order in shuffled(64, 0, epoch, 16)[skip:]:
            yield X[order], Y[order], weights[order]

    trained, said = run(network(), heavy)
    assert trained.stopped == "length"
    assert not said


@pytest.mark.parametrize("with_val", [True, False])
def test_weights_that_the_last_step_spoilt_are_not_kept(with_val: bool) -> None:
    net = network()

    def spoils(epoch: int, skip: int = 0, /):
        yield from batches(epoch, skip)
        with torch.no_grad():  # after the last step: no loss will tell
            net[0].weight.mul_(math.nan if epoch == 3 else 1.0)

    trained, said = run(net, spoils, epochs=3, **({} if with_val else {"judge": None}))
    assert trained.stopped == "diverged"
    assert trained.epoch == 2
    assert "no numbers" in said[0]
    assert all(torch.isfinite(value).all() for value in net.state_dict().values())


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([1e-30, 1e-3, 1.0, 50.0]),
    st.sampled_from([0.0, 1e-3, 1e3]),
    st.sampled_from([0.0, 0.5, 1 - 1e-9]),
    st.sampled_from([1, 2, 16, 4096]),
    st.lists(st.sampled_from([0.0, 1e-300, 1.0, 1e300]), min_size=64, max_size=64),
    st.booleans(),
)
def test_any_settings_give_numbers(
    lr: float, decay: float, drop: float, size: int, weights: list[float], val: bool
) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Dropout(drop), network())
    used = torch.from_numpy(class_weighted(Y.numpy(), np.array(weights), True, 2)).float()

    def given_(epoch: int, skip: int = 0, /):
        for order in shuffled(64, 0, epoch, size)[skip:]:
            yield X[order], Y[order], used[order]

    trained = Loop(
        learner(net, lr, decay=decay),
        Schedule(len(shuffled(64, 0, 1, size)), 2, patience=1),
        given_,
        judged(net) if val else None,
    ).run()
    assert all(torch.isfinite(value).all() for value in trained.best.values())
    assert math.isfinite(trained.val_loss) == val

"""The one training loop: forward, loss, backward, step; val after each epoch; the best kept; patience."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from regraft.backbones import Answers, Card, computes_aside
from regraft.training.checkpoint import Checkpoint
from regraft.training.ranks import Ranks

Inputs = torch.Tensor | dict[str, torch.Tensor]  # whatever the module takes, examples first
Batch = tuple[Inputs, torch.Tensor, torch.Tensor]  # inputs, targets (B, ...), and (B,) weights
State = dict[str, torch.Tensor]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of float32 outputs and targets: (B,) losses
Judge = Callable[[], tuple[np.ndarray, dict[str, float]]]  # (V,) losses on val, and what else is told of them
RETRIES = 3  # times that training which fell apart begins again from its best, each at half the rate
CHANCE = 10.0  # times the loss of guessing: above it training has fallen apart
WARMUP = 0.1  # share of the steps with a rising rate
LARGEST_SLOPE = 5.0  # norm to which the gradients of a step are clipped
TAUGHT = 3  # passes that an example counts for in training: the way back costs about two more


class Batches(Protocol):
    """The batches of an epoch (from 1 on), without its first `skip`. They depend on the epoch only."""

    def __call__(self, epoch: int, skip: int = 0, /) -> Iterable[Batch]: ...


def _silent(*_: Any, **__: Any) -> None:
    pass


@dataclass(frozen=True)
class Learner:
    """What is trained: the parameters of `module` that require gradients, by `optimiser`, to lower `loss`.

    Each optimiser group's `lr` is its peak. `guessing` is the loss of who knows nothing (log K of K
    classes). `autocast` is the context of forward passes: their precision.
    """

    module: nn.Module
    optimiser: torch.optim.Optimizer
    loss: Loss
    guessing: float
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext


@dataclass(frozen=True)
class Schedule:
    """How long it may take: `epochs` of so many `steps`; fewer when `patience` epochs have passed since the
    one that is kept, or when `out_of_time` says so. `interrupted` is asked after each step: where it says
    so, on one of several ranks, all end as by Ctrl-C.
    """

    steps: int
    epochs: int
    patience: int
    out_of_time: Callable[[], bool] = lambda: False
    interrupted: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Listeners:
    """Who is told of each step (`tick`), of each epoch, and in words of what is out of the ordinary."""

    tick: Callable[..., None] = _silent
    epoch: Callable[..., None] = _silent
    note: Callable[[str], None] = _silent


@dataclass
class Trained:
    """How training ended. `best` is the state that is kept, of epoch `epoch`; epoch 0, the start, if none
    was finished.

    That is the last epoch within one standard error of the lowest val loss: the rate falls to zero,
    late weights are the steadier ones, and the lowest of a dozen losses on a small val set is mostly luck.
    """

    best: State
    epoch: int
    epochs_run: int
    val_loss: float  # not a number where there is no val
    stopped: str  # "length", "patience", "budget", "interrupted" or "diverged"


@dataclass
class Progress:
    """Where a training stands, in numbers."""

    epoch: int = 1  # the one under way
    done: int = 0  # steps of it
    loss: float = 0.0  # of it, summed over the examples
    seen: int = 0  # examples of it
    retries: int = 0
    parts: int = 1  # micro-batches a batch is cut in
    best_epoch: int = 0
    val_loss: float = math.nan  # the mean on val, of the epoch that is kept

    def restart(self, epoch: int) -> None:
        """Go to the beginning of an epoch."""
        self.epoch, self.done, self.loss, self.seen = epoch, 0, 0.0, 0


class Loop:
    """A training with a linear warm-up and a cosine to zero, which can be stopped and taken up at any step.

    `judge` looks at val as the module stands; without it the last epoch counts as the best. A loss or a
    weight that is no number, or a loss ten times that of guessing, sends training back to its best state at
    half the rate, three times at most. A batch that does not fit the memory is cut in micro-batches whose
    gradients add up. Where `checkpoint` holds a training under way, this one goes on in the middle of its
    epoch, and on a CPU ends with the same bits as if it had never stopped.

    With several `ranks` each is given its own share of every batch (`shuffled`), whose gradients add up to
    those of the whole; `judge` has to give the same to all of them.
    """

    def __init__(
        self,
        learner: Learner,
        schedule: Schedule,
        batches: Batches,
        judge: Judge | None = None,
        listeners: Listeners | None = None,
        checkpoint: Checkpoint | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.learner, self.schedule, self.batches, self.judge = learner, schedule, batches, judge
        self.ranks = ranks or Ranks()
        kept = checkpoint or Checkpoint()
        self.listeners = (listeners if self.ranks.leads else None) or Listeners()
        self.checkpoint = kept if self.ranks.leads else Checkpoint()
        self.peaks = [float(group["lr"]) for group in learner.optimiser.param_groups]
        self.moving = [p for p in learner.module.parameters() if p.requires_grad]
        self.progress = Progress()
        device = self.moving[0].device if self.moving else torch.device("cpu")
        self.card = Card(device) if computes_aside(device) else None
        self.under_way: deque[tuple[Answers, int]] = deque()  # steps, and how many examples they had
        if (state := kept.load()) is not None:
            self.load_state_dict(state)
            return
        self.ranks.part_ways()
        self.lowest = judge()[0] if judge else np.zeros(0)  # losses of the epoch whose mean is lowest
        self.progress.val_loss = float(self.lowest.mean()) if judge else math.nan
        self.best = self.snapshot()

    def run(self) -> Trained:
        """Train to the end, and leave the module at its best, in eval mode. Ctrl-C ends it with the best so
        far.
        """
        at, module, stopped = self.progress, self.learner.module, ""
        try:
            while at.epoch <= self.schedule.epochs and not stopped:
                module.train()
                began, here, speed = time.perf_counter(), 0, 0.0
                try:
                    for batch in self.batches(at.epoch, at.done):
                        taught = self.step(batch)
                        here += taught
                        speed = here / (time.perf_counter() - began)
                        self.listeners.tick(**self._told(speed), passes=TAUGHT * taught)
                        if self._out_of_time():
                            break
                        if self.checkpoint.due():
                            self.settle()
                            self.checkpoint.save(self.state_dict())
                    self.settle()
                    said = self.look()
                except FloatingPointError as error:
                    stopped = self.go_back(str(error))
                    continue
                epoch, mean = at.epoch, at.loss / max(1, at.seen)
                at.restart(epoch + 1)
                self.listeners.epoch(
                    epoch=epoch,
                    epochs=self.schedule.epochs,
                    train_loss=mean,
                    examples_per_second=speed,
                    **said,
                )
                stopped = self._ended(epoch)
                if not stopped and (at.epoch > self.schedule.epochs or self.checkpoint.due(complete=True)):
                    self.checkpoint.save(self.state_dict())  # what is finished is kept, whatever it costs
        except KeyboardInterrupt:
            stopped = "interrupted"
        module.load_state_dict(self.best, strict=False)
        module.eval()
        return Trained(self.best, at.best_epoch, at.epoch - 1, at.val_loss, stopped or "length")

    def step(self, batch: Batch) -> int:
        """One step down the slope of a batch; how many examples it has, of all ranks together.

        Raises FloatingPointError for a loss no training comes back from: before the step is taken, or, on a
        device that computes aside, while the step after it is under way. Either way training goes back.
        """
        examples = int(self.ranks.total(len(batch[1]))[0])
        loss = self._slope(batch, examples)
        self.ranks.add_gradients(self.moving)
        told = self.ranks.sum(torch.stack([loss, batch[2].sum().to(loss.dtype)]))
        self.under_way.append((Answers([told], self.card), examples))
        self.settle(but=0 if self.card is None else 1)
        share = warmup_cosine(self._steps(), self.schedule.steps * self.schedule.epochs)
        for group, peak in zip(self.learner.optimiser.param_groups, self.peaks, strict=True):
            group["lr"] = peak * share * 0.5**self.progress.retries
        nn.utils.clip_grad_norm_(self.moving, LARGEST_SLOPE)
        self.learner.optimiser.step()
        self.progress.done += 1
        return examples

    def settle(self, but: int = 0) -> None:
        """Read the losses of all steps under way `but` so many of the last: a device that computes aside is
        not waited for after each. Raises FloatingPointError as `step` says.
        """
        at = self.progress
        while len(self.under_way) > but:
            answers, examples = self.under_way.popleft()
            loss, weight = answers.result()[0].tolist()
            if not math.isfinite(loss):
                raise FloatingPointError("the loss was no number")
            # A batch whose weights are all 0 teaches nothing
            mean = loss * examples / weight if weight else 0.0
            if mean > CHANCE * self.learner.guessing:
                raise FloatingPointError(f"the loss rose to {mean:.1f}")
            at.seen, at.loss = at.seen + examples, at.loss + loss * examples

    def look(self) -> dict[str, float]:
        """Keep the weights as they stand unless they are clearly worse on val; what there is to tell of
        them.

        Raises FloatingPointError where they, or their losses, are no numbers.
        """
        at = self.progress
        statistics = [b for b in self.learner.module.buffers() if b.is_floating_point()]
        finite = all(bool(tensor.isfinite().all()) for tensor in (*self.moving, *statistics))
        if not self.ranks.agree(finite):
            raise FloatingPointError("the weights, or running statistics, were no numbers")
        if self.judge is None:
            self.best, at.best_epoch = self.snapshot(), at.epoch
            return {}
        losses, said = self.judge()
        mean = float(losses.mean())
        if not math.isfinite(mean):
            raise FloatingPointError("the val loss was no number")
        if at.best_epoch == 0 or mean < self.lowest.mean():  # the start is the caller's to compare with
            self.lowest = losses
        if self.ranks.agree(within_error(losses, self.lowest)):
            self.best, at.best_epoch, at.val_loss = self.snapshot(), at.epoch, mean
        return {"val_loss": mean, **said}

    def go_back(self, why: str) -> str:
        """Begin the epoch again from the best state, at half the rate; "diverged" where that was tried too
        often.
        """
        at = self.progress
        if at.retries == RETRIES:
            return "diverged"
        at.retries += 1
        at.restart(at.epoch)
        self.under_way.clear()
        self.learner.module.load_state_dict(self.best, strict=False)
        self.learner.optimiser.state.clear()
        self.listeners.note(f"{why} in epoch {at.epoch}: back to the best state so far, at half the rate")
        return ""

    def snapshot(self) -> State:
        """A copy of all that training may move: parameters that require gradients, and buffers."""
        module = self.learner.module
        names = [name for name, p in module.named_parameters() if p.requires_grad]
        names += [name for name, _ in module.named_buffers()]
        state = module.state_dict()
        return {name: state[name].detach().clone() for name in names if name in state}

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on, as nested dictionaries of tensors and numbers."""
        return {
            "epochs": self.schedule.epochs,
            "progress": asdict(self.progress),
            "lowest": self.lowest.tolist(),
            "module": self.snapshot(),
            "best": self.best,
            "optimiser": self.learner.optimiser.state_dict()["state"],
            "random": torch.get_rng_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`; each tensor takes the memory order of what it stands for."""
        module, optimiser = self.learner.module, self.learner.optimiser
        module.load_state_dict(state["module"], strict=False)
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        states = {
            int(number): {name: _like(parameters[int(number)], value) for name, value in entries.items()}
            for number, entries in state["optimiser"].items()
        }
        optimiser.load_state_dict({**optimiser.state_dict(), "state": states})
        torch.set_rng_state(state["random"])
        self.ranks.part_ways()
        here = module.state_dict()
        self.best = {name: _like(here[name], tensor) for name, tensor in state["best"].items()}
        self.lowest, self.progress = np.array(state["lowest"]), Progress(**state["progress"])

    def _slope(self, batch: Batch, examples: int) -> torch.Tensor:
        """Leave the gradients of a batch's loss on the parameters; smaller micro-batches if memory is
        short.
        """
        at, count = self.progress, len(batch[1])
        while True:
            self.learner.optimiser.zero_grad(set_to_none=True)
            try:
                return slope(self.learner, batch, at.parts, examples)
            except (RuntimeError, MemoryError) as error:
                if not short_of_memory(error) or 2 * at.parts > count:
                    raise
                at.parts *= 2
                self.listeners.note(
                    f"short of memory: batches of {count} go on as "
                    f"{at.parts} micro-batches whose gradients add up"
                )

    def _ended(self, epoch: int) -> str:
        if self._out_of_time():
            return "budget"
        waited = epoch - self.progress.best_epoch >= self.schedule.patience
        return "patience" if waited and epoch < self.schedule.epochs else ""

    def _out_of_time(self) -> bool:
        """Whether the time is up on any rank. Raises KeyboardInterrupt where any was told to stop."""
        schedule = self.schedule
        late, stopped = self.ranks.total(float(schedule.out_of_time()), float(schedule.interrupted()))
        if stopped:
            raise KeyboardInterrupt
        return late > 0

    def _steps(self) -> int:
        return (self.progress.epoch - 1) * self.schedule.steps + self.progress.done

    def _told(self, speed: float) -> dict[str, float]:
        at, epochs = self.progress, self.schedule.epochs
        return {
            "done": self._steps(),
            "total": self.schedule.steps * epochs,
            "epoch": at.epoch,
            "epochs": epochs,
            "loss": at.loss / max(1, at.seen),
            "examples_per_second": speed,
        }


def slope(learner: Learner, batch: Batch, parts: int, examples: int) -> torch.Tensor:
    """Add the gradients of the sum over a batch of each example's weight times its loss, divided by
    `examples`, and give that value, a float64 on the batch's device (float32 on MPS, which has no other).

    The batch goes through in so many `parts`. `examples` counts those of all ranks, so that what each of
    them finds adds up to the mean over the whole batch.
    """
    inputs, targets, weights = batch
    exact = torch.float32 if targets.device.type == "mps" else torch.float64
    value = torch.zeros((), dtype=exact, device=targets.device)
    for span in _slices(len(targets), parts):
        with learner.autocast():
            outputs = learner.module(_rows(inputs, span))
        losses = learner.loss(outputs.float(), targets[span])
        loss = (losses * weights[span]).sum() / examples
        loss.backward()
        value += loss.detach()
    return value


def warmup_cosine(step: int, steps: int) -> float:
    """The share of its peak that the rate has at a step, from 0 on: a linear rise over the first tenth,
    then a cosine to zero (Loshchilov and Hutter 2017).

    A function of the step alone: nothing of it has to be kept for a resume. The schedulers of torch and
    timm carry a state of their own, and round the rise differently.
    """
    rising = max(1, round(steps * WARMUP))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def within_error(losses: np.ndarray, lowest: np.ndarray) -> bool:
    """Whether (V,) losses are above the lowest, on average, by one standard error of the paired difference
    at most.
    """
    above = losses - lowest
    error = above.std(ddof=1) / math.sqrt(len(above)) if len(above) > 1 else math.inf
    return bool(above.mean() <= error)


def _rows(inputs: Inputs, span: slice) -> Inputs:
    if isinstance(inputs, dict):
        return {name: tensor[span] for name, tensor in inputs.items()}
    return inputs[span]


def _slices(count: int, parts: int) -> Iterator[slice]:
    edges = [round(number * count / parts) for number in range(parts + 1)]
    return (slice(a, b) for a, b in pairwise(edges) if b > a)


def _like(model: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """The values of a tensor in the memory order of another, where their shapes agree."""
    if tensor.shape != model.shape or not tensor.ndim:
        return tensor
    return torch.empty_like(model).copy_(tensor)


def short_of_memory(error: BaseException) -> bool:
    """True for the errors by which Python, CUDA, MPS and the CPU allocator say that memory is out."""
    text = str(error).lower()
    said = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")
    return isinstance(error, MemoryError) or any(words in text for words in said)

"""The one training loop: forward, loss, backward, step; val after each epoch; the best kept; patience."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from regraft.errors import UsageError
from regraft.training.checkpoint import Checkpoint, pack, unpack

# inputs, (B,) labels, and (B,) weights whose mean over all examples is 1
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
State = dict[str, torch.Tensor]
RETRIES = 3  # times that training which fell apart begins again from its best, each at half the rate
CHANCE = 10.0  # times the loss of guessing: above it training has fallen apart
WARMUP = 0.1  # share of the steps with a rising rate


class Batches(Protocol):
    """The batches of an epoch (from 1 on), without its first `skip`. They depend on the epoch only."""

    def __call__(self, epoch: int, skip: int = 0, /) -> Iterable[Batch]: ...


@dataclass
class Trained:
    """How training ended. `best` is the state that is kept, of epoch `epoch`; epoch 0, the start, if none was
    finished.

    That is the last epoch within one standard error of the lowest val log loss: the rate falls to zero, late
    weights are the steadier ones, and the lowest of a dozen losses on a small val set is mostly luck."""

    best: State
    epoch: int
    epochs_run: int
    log_loss: float  # not a number where there is no val
    stopped: str  # "length", "patience", "budget", "interrupted" or "diverged"


def train(
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    batches: Batches,
    steps_per_epoch: int,
    epochs: int,
    val_loss: Callable[[], tuple[np.ndarray, float]] | None,
    *,
    patience: int,
    offset: torch.Tensor | None = None,
    tick: Callable[..., None],
    on_epoch: Callable[..., None],
    say: Callable[[str], None] = lambda _: None,
    out_of_time: Callable[[], bool] = lambda: False,
    numbers: Callable[[], AbstractContextManager[None]] = nullcontext,
    checkpoint: Checkpoint | None = None,
) -> Trained:
    """Train with a linear warm-up and a cosine to zero. Ctrl-C ends it with the best so far.

    `val_loss` gives the (V,) log losses of val and the accuracy; without it the last epoch counts as the
    best. `patience` epochs after the one that is kept it stops. Each optimiser group's `lr` is its peak.
    `offset` (K,) is added to the logits in the loss only (logit adjustment). `numbers` is
    the context of forward passes: their precision.

    A loss or a weight that is no number, or a loss ten times that of guessing, sends training back to its
    best state at half the rate, three times at most. A batch that does not fit the memory is cut in
    micro-batches whose gradients add up. Where `checkpoint` holds a training under way, this one goes on in
    the middle of its epoch, and on a CPU ends with the same bits as if it had never stopped.
    """
    peaks = [float(group["lr"]) for group in optimiser.param_groups]
    total, step = steps_per_epoch * epochs, 0
    rising = max(1, round(total * WARMUP))
    kept_names = [name for name, p in module.named_parameters() if p.requires_grad] + [
        n for n, _ in module.named_buffers()
    ]

    def snapshot() -> State:
        state = module.state_dict()
        return {name: state[name].detach().clone() for name in kept_names if name in state}

    checkpoint = checkpoint or Checkpoint()
    losses, seen, done, epoch, retries, parts = 0.0, 0, 0, 1, 0, 1
    if (kept := checkpoint.load()) is not None:
        tensors, at = kept
        extra = unpack(tensors, module, optimiser)
        trained = Trained(extra["best"], at["best_epoch"], at["epoch"] - 1, at["log_loss"], "length")
        lowest = np.array(at["lowest"])
        epoch, done, step, losses, seen = at["epoch"], at["done"], at["step"], at["losses"], at["seen"]
        retries, parts = at["retries"], at["parts"]
    else:
        lowest = val_loss()[0] if val_loss else np.zeros(0)
        trained = Trained(snapshot(), 0, 0, float(lowest.mean()) if val_loss else math.nan, "length")

    def save() -> None:
        progress = {
            "epoch": epoch,
            "done": done,
            "step": step,
            "losses": losses,
            "seen": seen,
            "epochs": epochs,
            "best_epoch": trained.epoch,
            "log_loss": trained.log_loss,
            "retries": retries,
            "parts": parts,
            "lowest": lowest.tolist(),
        }
        checkpoint.save(pack(snapshot(), {"best": trained.best}, optimiser), progress)

    def judge() -> tuple[float, float]:
        """Val log loss and accuracy of the weights, which are kept unless clearly worse."""
        nonlocal lowest
        state = snapshot()
        if not all(
            bool(parameter.isfinite().all()) for parameter in module.parameters() if parameter.requires_grad
        ):
            raise FloatingPointError("the weights were no numbers")
        if not val_loss:
            trained.best, trained.epoch = state, epoch
            return math.nan, math.nan
        losses, accuracy = val_loss()
        found = float(losses.mean())
        if not math.isfinite(found):
            raise FloatingPointError("the val loss was no number")
        if trained.epoch == 0 or found < lowest.mean():  # the start is the caller's to compare with
            lowest = losses
        if within_error(losses, lowest):
            trained.best, trained.epoch, trained.log_loss = state, epoch, found
        return found, accuracy

    def slope(batch: Batch) -> float:
        """The weighted mean loss of a batch, its gradients left on the parameters; smaller micro-batches if
        memory is short.
        """
        nonlocal parts
        while True:
            optimiser.zero_grad(set_to_none=True)
            try:
                return _slope(module, batch, parts, offset, numbers)
            except (RuntimeError, MemoryError) as error:
                if not short_of_memory(error) or 2 * parts > len(batch[1]):
                    raise
                parts *= 2
                say(
                    f"short of memory: batches of {len(batch[1])} go on as {parts} micro-batches whose gradients add up"
                )

    try:
        while epoch <= epochs:
            module.train()
            began, here, speed = time.perf_counter(), 0, 0.0
            try:
                for batch in batches(epoch, done):
                    rate = (
                        (step + 1) / rising
                        if step < rising
                        else 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))
                    )
                    for group, peak in zip(optimiser.param_groups, peaks, strict=True):
                        group["lr"] = peak * rate * 0.5**retries
                    value, count = slope(batch), len(batch[1])
                    nn.utils.clip_grad_norm_([p for p in module.parameters() if p.requires_grad], 5.0)
                    optimiser.step()
                    step, done, here = step + 1, done + 1, here + count
                    seen, losses = seen + count, losses + value * count
                    speed = here / (time.perf_counter() - began)
                    tick(
                        done=step,
                        total=total,
                        epoch=epoch,
                        epochs=epochs,
                        loss=losses / seen,
                        images_per_second=speed,
                    )
                    if out_of_time():
                        break
                    if checkpoint.due():
                        save()
                found, accuracy = judge()
            except FloatingPointError as error:
                if retries == RETRIES:
                    trained.stopped = "diverged"
                    break
                retries, step = retries + 1, step - done
                losses, seen, done = 0.0, 0, 0
                module.load_state_dict(trained.best, strict=False)
                optimiser.state.clear()
                say(f"{error} in epoch {epoch}: back to the best state so far, at half the rate")
                continue
            trained.epochs_run = epoch
            on_epoch(
                epoch=epoch,
                epochs=epochs,
                train_loss=losses / max(1, seen),
                val_log_loss=found,
                val_accuracy=accuracy,
                images_per_second=speed,
            )
            if out_of_time():
                trained.stopped = "budget"
                break
            if epoch - trained.epoch >= patience and epoch < epochs:
                trained.stopped = "patience"
                break
            losses, seen, done, epoch = 0.0, 0, 0, epoch + 1
            if epoch > epochs or checkpoint.due(complete=True):  # what is finished is kept, whatever it costs
                save()
    except KeyboardInterrupt:
        trained.stopped = "interrupted"
    module.load_state_dict(trained.best, strict=False)
    module.eval()
    return trained


def within_error(losses: np.ndarray, lowest: np.ndarray) -> bool:
    """Whether (V,) losses are above the lowest, on average, by one standard error of the paired difference at
    most.
    """
    above = losses - lowest
    error = above.std(ddof=1) / math.sqrt(len(above)) if len(above) > 1 else math.inf
    return bool(above.mean() <= error)


def _slope(
    module: nn.Module,
    batch: Batch,
    parts: int,
    offset: torch.Tensor | None,
    numbers: Callable[[], AbstractContextManager[None]],
) -> float:
    """Add the gradients of the mean over a batch of each example's weight times its loss, and give that mean.

    A batch whose weights are all 0 teaches nothing. Raises FloatingPointError for a loss no training comes
    back from.
    """
    inputs, labels, weights = batch
    whole, value = float(weights.sum()), 0.0
    for some in (slice(None),) if parts == 1 else _slices(len(labels), parts):
        with numbers():
            logits = module(inputs[some])
        logits = logits.float() if offset is None else logits.float() + offset
        each = F.cross_entropy(logits, labels[some], reduction="none")
        loss = (each * weights[some]).sum() / len(labels)
        loss.backward()
        value += float(loss.detach())
    if not math.isfinite(value):
        raise FloatingPointError("the loss was no number")
    mean = value * len(labels) / whole if whole else 0.0
    if mean > CHANCE * math.log(max(2, logits.shape[1])):
        raise FloatingPointError(f"the loss rose to {mean:.1f}")
    return value


def _slices(count: int, parts: int) -> list[slice]:
    edges = [round(number * count / parts) for number in range(parts + 1)]
    return [slice(a, b) for a, b in pairwise(edges) if b > a]


def short_of_memory(error: BaseException) -> bool:
    """True for the errors by which Python, CUDA, MPS and the CPU allocator say that memory is out."""
    text = str(error).lower()
    said = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")
    return isinstance(error, MemoryError) or any(words in text for words in said)


def shuffled(count: int, seed: int, epoch: int, batch: int) -> list[np.ndarray]:
    """Batches of indices of one epoch; the order depends on (seed, epoch) only. A last lone example joins its
    neighbours.

    Of no examples there are no batches.
    """
    if not count:
        return []
    order = np.random.default_rng([seed, epoch]).permutation(count)
    cuts = list(range(0, count, batch))
    if len(cuts) > 1 and count - cuts[-1] == 1:
        cuts.pop()
    return [order[a:b] for a, b in zip(cuts, [*cuts[1:], count], strict=True)]


def class_weighted(labels: np.ndarray, weights: np.ndarray, balanced: bool, classes: int) -> np.ndarray:
    """(N,) weights of mean 1: the examples' own, times n / (K n_c) where `balanced` (King and Zeng 2001).

    An example of weight 0 counts nowhere. Where all are 0, they stay so. Raises UsageError for weights that
    are negative or no numbers.
    """
    result = weights.astype(np.float64)
    if not np.isfinite(result).all() or (result < 0).any():
        raise UsageError("example weights are numbers from 0 up; some of these are not.")
    result = result / (result.max(initial=0.0) or 1.0)  # no sum overflows
    if balanced:
        counts = np.bincount(labels[result > 0], minlength=classes)
        result *= (counts.sum() / (classes * np.maximum(counts, 1)))[labels]
    return np.asarray(result / (result.mean() or 1.0)) if len(result) else result

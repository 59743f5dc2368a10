"""The one training loop: forward, loss, backward, step; val after each epoch; the best kept; patience."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from regraft.training.checkpoint import Checkpoint, pack, unpack

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # inputs, (B,) labels, (B,) weights


class Batches(Protocol):
    """The batches of an epoch (from 1 on), without its first `skip`. They depend on the epoch only."""

    def __call__(self, epoch: int, skip: int = 0, /) -> Iterable[Batch]: ...


@dataclass
class Trained:
    """How training ended. `best` is the state of the best epoch by val log loss; epoch 0, the start, if none was finished."""

    best: dict[str, torch.Tensor]
    epoch: int
    epochs_run: int
    log_loss: float
    stopped: str  # "length", "patience", "budget", "interrupted" or "diverged"


def train(
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    batches: Batches,
    steps_per_epoch: int,
    epochs: int,
    val_loss: Callable[[], tuple[float, float]],
    *,
    warmup: float,
    patience: int,
    smoothing: float = 0.0,
    tick: Callable[..., None],
    on_epoch: Callable[..., None],
    out_of_time: Callable[[], bool] = lambda: False,
    numbers: Callable[[], AbstractContextManager[None]] = nullcontext,
    checkpoint: Checkpoint | None = None,
) -> Trained:
    """Train with a linear warm-up and a cosine to zero. Ctrl-C ends it with the best so far.

    `val_loss` gives (log loss, accuracy). Each optimiser group's `lr` is its peak. `numbers` is the context of forward
    passes: their precision. A loss that is no number ends training too. Where `checkpoint` holds a training under way,
    this one goes on in the middle of its epoch, and on a CPU ends with the same bits as if it had never stopped.
    """
    peaks = [float(group["lr"]) for group in optimiser.param_groups]
    total, step = steps_per_epoch * epochs, 0
    rising = max(1, round(total * warmup))
    moving = [name for name, p in module.named_parameters() if p.requires_grad]

    def snapshot() -> dict[str, torch.Tensor]:
        state = module.state_dict()
        kept = set(moving) | {name for name, _ in module.named_buffers()}
        return {name: state[name].detach().clone() for name in kept if name in state}

    checkpoint = checkpoint or Checkpoint()
    losses, seen, done, first = 0.0, 0, 0, 1
    if (kept := checkpoint.load()) is not None:
        tensors, at = kept
        best = unpack(tensors, module, optimiser)
        trained = Trained(best, at["best_epoch"], at["epoch"] - 1, at["log_loss"], "length")
        first, done, step, losses, seen = at["epoch"], at["done"], at["step"], at["losses"], at["seen"]
    else:
        trained = Trained(snapshot(), 0, 0, val_loss()[0], "length")

    def save(epoch: int) -> None:
        progress = {"epoch": epoch, "done": done, "step": step, "losses": losses, "seen": seen,
                    "epochs": epochs, "best_epoch": trained.epoch, "log_loss": trained.log_loss}  # fmt: skip
        checkpoint.save(pack(snapshot(), trained.best, optimiser), progress)

    try:
        for epoch in range(first, epochs + 1):
            module.train()
            began, here = time.perf_counter(), 0
            speed = 0.0
            for inputs, labels, weights in batches(epoch, done):
                rate = (step + 1) / rising if step < rising else 0.5 * (
                    1 + math.cos(math.pi * (step - rising) / max(1, total - rising))
                )  # fmt: skip
                for group, peak in zip(optimiser.param_groups, peaks, strict=True):
                    group["lr"] = peak * rate
                with numbers():
                    logits = module(inputs)
                losses_each = F.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=smoothing)
                loss = (losses_each * weights).sum() / weights.sum()
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_([p for p in module.parameters() if p.requires_grad], 5.0)
                optimiser.step()
                value = float(loss.detach())
                if not math.isfinite(value):
                    raise FloatingPointError
                step, done, here = step + 1, done + 1, here + len(labels)
                seen, losses = seen + len(labels), losses + value * len(labels)
                speed = here / (time.perf_counter() - began)
                tick(done=step, total=total, epoch=epoch, epochs=epochs, loss=losses / seen, images_per_second=speed)
                if out_of_time():
                    break
                if checkpoint.due():
                    save(epoch)
            trained.epochs_run = epoch
            found, accuracy = val_loss()
            if found < trained.log_loss or trained.epoch == 0:  # the start is the caller's to compare with
                trained.best, trained.epoch, trained.log_loss = snapshot(), epoch, found
            on_epoch(epoch=epoch, epochs=epochs, train_loss=losses / max(1, seen), val_log_loss=found,
                     val_accuracy=accuracy, images_per_second=speed)  # fmt: skip
            if out_of_time():
                trained.stopped = "budget"
                break
            if epoch - trained.epoch >= patience and epoch < epochs:
                trained.stopped = "patience"
                break
            losses, seen, done = 0.0, 0, 0
            save(epoch + 1)
    except KeyboardInterrupt:
        trained.stopped = "interrupted"
    except FloatingPointError:
        trained.stopped = "diverged"
    module.load_state_dict(trained.best, strict=False)
    module.eval()
    return trained


def shuffled(count: int, seed: int, epoch: int, batch: int) -> list[np.ndarray]:
    """Batches of indices of one epoch; the order depends on (seed, epoch) only. A last lone example joins its neighbours."""
    order = np.random.default_rng([seed, epoch]).permutation(count)
    cuts = list(range(0, count, batch))
    if len(cuts) > 1 and count - cuts[-1] == 1:
        cuts.pop()
    return [order[a:b] for a, b in zip(cuts, [*cuts[1:], count], strict=True)]


def class_weighted(labels: np.ndarray, weights: np.ndarray, balanced: bool, classes: int) -> np.ndarray:
    """(N,) weights of mean 1: the examples' own, times n / (K n_c) where `balanced` (King and Zeng 2001)."""
    result = weights.astype(np.float64).copy()
    if balanced:
        counts = np.bincount(labels, minlength=classes)
        result *= (len(labels) / (classes * np.maximum(counts, 1)))[labels]
    return result / result.mean()  # type: ignore[no-any-return]



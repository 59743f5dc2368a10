"""A head with one hidden layer, trained on features by AdamW: several networks at once, with out-of-fold
logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from regraft.tasks import Task
from regraft.training.linear import tried_folds
from regraft.training.network import Layers, make_head
from regraft.training.ranks import shuffled
from regraft.training.rows import pareto_scaling, scaled

RATE = 1e-3
BATCH, BATCHES = 256, 8  # most examples a step, and least steps an epoch
AVERAGED = 20  # steps that the average of the weights looks back
PATIENCE = 6  # epochs
# Steps that tell heads apart: of very many examples fewer epochs are tried, but this number
STEPS, FEWEST_EPOCHS = 3_000, 3
CHUNK = 4_096  # examples looked at at once


@dataclass(frozen=True)
class OutOfFold:
    """(M, K) logits of the held-out `rows` after the best number of `epochs`."""

    rows: np.ndarray
    logits: np.ndarray
    epochs: int


class _Networks(nn.Module):
    """F networks on the same (B, D) scaled features: one product gives the hidden layers of all. Out come
    (F, B, K) logits.
    """

    def __init__(self, count: int, width: int, classes: int, layers: Layers) -> None:
        super().__init__()
        self.count, self.layers = count, layers
        bound = width**-0.5
        self.first = nn.Parameter(torch.empty(count * layers.hidden, width).uniform_(-bound, bound))
        self.first_bias = nn.Parameter(torch.zeros(count * layers.hidden))
        self.last = nn.Parameter(torch.zeros(count, layers.hidden, classes))
        self.last_bias = nn.Parameter(torch.zeros(count, 1, classes))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        inner = F.gelu(F.linear(features, self.first, self.first_bias))
        inner = F.dropout(inner, self.layers.dropout, self.training)
        return torch.baddbmm(
            self.last_bias, inner.view(len(features), self.count, -1).transpose(0, 1), self.last
        )

    def one(self, number: int) -> dict[str, torch.Tensor]:
        """The weights of one network, by their names in what `make_head` makes."""
        units = slice(number * self.layers.hidden, (number + 1) * self.layers.hidden)
        parameters = {
            "0.weight": self.first[units],
            "0.bias": self.first_bias[units],
            "3.weight": self.last[number].T,
            "3.bias": self.last_bias[number, 0],
        }
        return {name: values.detach() for name, values in parameters.items()}


class _Problem:
    """(N, D) features and the targets of a task, and the (F, N) shares that examples have in the networks."""

    def __init__(self, features: np.ndarray, targets: np.ndarray, shares: np.ndarray, task: Task) -> None:
        self.features, self.targets, self.task = features, torch.from_numpy(targets), task
        self.shares = torch.from_numpy(shares.astype(np.float32))
        self.scaling = pareto_scaling(features)
        self.used = np.flatnonzero(shares.any(axis=0))
        self.batch = max(1, min(BATCH, -(-len(self.used) // BATCHES)))

    def scaled(self, rows: np.ndarray) -> torch.Tensor:
        return scaled(self.features[rows], self.scaling)

    def solve(
        self, layers: Layers, decay: float, epochs: int, seed: int, after: Callable[[int, _Networks], bool]
    ) -> _Networks:
        """Train for `epochs`, or until `after`, which is shown the averaged weights after each, says that
        it is enough.

        The rate stays as it is, for a schedule would have to know the end, which is what is looked for; the
        average of the last weights (Polyak and Juditsky 1992) stands in for it.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            moving, averaged = (
                _Networks(len(self.shares), self.features.shape[1], self.task.outputs, layers)
                for _ in range(2)
            )
            averaged.load_state_dict(moving.state_dict())
            averaged.requires_grad_(False).eval()
            decayed, free = [moving.first, moving.last], [moving.first_bias, moving.last_bias]
            groups = [{"params": decayed, "weight_decay": decay}, {"params": free, "weight_decay": 0.0}]
            optimiser = torch.optim.AdamW(groups, lr=RATE, fused=True)
            step = 0
            for epoch in range(1, epochs + 1):
                for batch in shuffled(len(self.used), seed, epoch, self.batch):
                    step += 1
                    self._step(moving, optimiser, self.used[batch])
                    with torch.no_grad():
                        for mean, now in zip(averaged.parameters(), moving.parameters(), strict=True):
                            mean.lerp_(now, 1 / min(step, AVERAGED))
                if after(epoch, averaged):
                    break
        return averaged

    def _step(self, networks: _Networks, optimiser: torch.optim.Optimizer, rows: np.ndarray) -> None:
        outputs, own = networks(self.scaled(rows)), self.targets[rows]
        losses = self.task.loss(outputs.flatten(0, 1), own.repeat(len(outputs), *[1] * (own.dim() - 1)))
        loss = (losses * self.shares[:, rows].flatten()).sum() / len(rows)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    def logits(self, networks: _Networks, number: int, rows: np.ndarray) -> np.ndarray:
        """(M, K) logits of some examples by one of the networks."""
        of, parts = networks.one(number), []
        for start in range(0, len(rows), CHUNK):
            inner = F.gelu(F.linear(self.scaled(rows[start : start + CHUNK]), of["0.weight"], of["0.bias"]))
            parts.append(F.linear(inner, of["3.weight"], of["3.bias"]))
        return torch.cat(parts).numpy()

    def head(self, networks: _Networks) -> nn.Sequential:
        """The first of the networks as a head on raw features: their scaling is folded into its first
        layer.
        """
        mean, scale = (torch.from_numpy(values).double() for values in self.scaling)
        of, layers = networks.one(0), networks.layers
        weight = of["0.weight"].double() / scale
        made = make_head("mlp", self.features.shape[1], len(of["3.bias"]), layers.hidden, layers.dropout)
        made.load_state_dict(of | {"0.weight": weight, "0.bias": of["0.bias"] - weight @ mean})
        return made.eval()


def mlp_out_of_fold(
    features: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    task: Task,
    layers: Layers,
    decay: float,
    epochs: int,
    folds: int = 5,
    seed: int = 0,
    tick: Callable[..., None] = lambda **_: None,
    stop: Callable[[], bool] = lambda: False,
    blocks: np.ndarray | None = None,
) -> OutOfFold:
    """Logits of each held-out example of (N, D) features after the epoch with the lowest mean loss, at
    most `epochs`.

    The folds are those of `fit_path` with the same `blocks`, so the losses of both can be compared example
    by example. It ends after PATIENCE epochs without a lower loss, or when `stop` says so.
    """
    splits = tried_folds(task.strata(targets), folds, seed, blocks)
    shares = np.zeros((len(splits), len(targets)), dtype=np.float32)
    for share, (train, _) in zip(shares, splits, strict=True):
        share[train] = weights[train]
    rows = np.sort(np.concatenate([held for _, held in splits]))
    problem = _Problem(features, targets, shares, task)
    epochs = min(epochs, max(FEWEST_EPOCHS, STEPS * BATCH // max(1, len(problem.used))))
    best, lowest = OutOfFold(rows, np.zeros((len(rows), task.outputs), dtype=np.float32), 0), float("inf")

    def after(epoch: int, networks: _Networks) -> bool:
        nonlocal best, lowest
        oof = np.empty((len(rows), task.outputs), dtype=np.float32)
        for number, (_, held) in enumerate(splits):
            oof[np.searchsorted(rows, held)] = problem.logits(networks, number, held)
        loss = float(task.link.losses(targets[rows], oof).mean())
        if loss < lowest:
            best, lowest = OutOfFold(rows, oof, epoch), loss
        tick(label=f"trying an MLP of {layers.hidden}", done=epoch, total=epochs)
        return stop() or epoch - best.epochs >= PATIENCE

    problem.solve(layers, decay, epochs, seed, after)
    return best


def mlp_head(
    features: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    task: Task,
    layers: Layers,
    decay: float,
    epochs: int,
    seed: int = 0,
    tick: Callable[..., None] = lambda **_: None,
    stop: Callable[[], bool] = lambda: False,
) -> nn.Sequential:
    """The MLP on all of (N, D) features after `epochs` passes, or fewer where `stop` says so; ready for raw
    features.
    """
    problem = _Problem(features, targets, weights[None], task)

    def after(epoch: int, _: _Networks) -> bool:
        tick(label=f"training an MLP of {layers.hidden}", done=epoch, total=epochs)
        return stop()

    return problem.head(problem.solve(layers, decay, epochs, seed, after))

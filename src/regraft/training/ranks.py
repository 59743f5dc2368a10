"""The processes that train one model together: each takes a share of every batch, and their gradients add
up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

WINDOW = 32  # batches among which examples of like length are put together: the order stays mostly chance


@dataclass(frozen=True)
class Ranks:
    """Process `rank` of `world`, from 0 on. One process alone, the default, talks to nobody.

    With several, torch.distributed is initialised by whoever starts them, and every method is called by all
    of them. Rank 0 leads: it alone tells of the training and writes the checkpoint. `device` is where the
    numbers that are exchanged lie, as the backend wants it (the CPU for gloo, the GPU for nccl).
    """

    rank: int = 0
    world: int = 1
    device: str = "cpu"

    @property
    def leads(self) -> bool:
        """True for rank 0."""
        return self.rank == 0

    @property
    def place(self) -> tuple[int, int]:
        """The rank, and how many there are."""
        return self.rank, self.world

    def total(self, *values: float) -> tuple[float, ...]:
        """The sum over all processes of each value."""
        if self.world == 1:
            return values
        numbers = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(numbers)
        return tuple(numbers.tolist())

    def agree(self, said: bool) -> bool:
        """What rank 0 says, on every rank."""
        if self.world == 1:
            return said
        return bool(self.total(float(said and self.leads))[0])

    def same(self, value: Any) -> Any:
        """The value of rank 0, on every rank: plain numbers, texts, arrays and dictionaries of them."""
        if self.world == 1:
            return value
        one = [value]
        torch.distributed.broadcast_object_list(one, src=0, device=torch.device(self.device))
        return one[0]

    def joined(self, values: np.ndarray) -> np.ndarray:
        """The sum over all processes of float arrays of one shape: where each has filled rows of its own in
        zeros, all of them, bit by bit.
        """
        if self.world == 1:
            return values
        numbers = torch.from_numpy(values).to(self.device)
        torch.distributed.all_reduce(numbers)
        return numbers.cpu().numpy()

    def every(self, digest: str) -> list[str]:
        """What each process says, in their order."""
        if self.world == 1:
            return [digest]
        said: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(said, digest)
        return said

    def part_ways(self) -> None:
        """Let what this process draws (dropout) differ from what the others draw; rank 0 goes on as it is."""
        if not self.leads:
            torch.manual_seed(int(torch.randint(2**62, ())) + self.rank)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes of each value of a tensor, which is not waited for."""
        if self.world > 1:
            torch.distributed.all_reduce(values)
        return values

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by the sum over all processes; one that is missing counts as zero."""
        if self.world == 1:
            return
        gradients = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


def shuffled(
    count: int,
    seed: int,
    epoch: int,
    batch: int,
    rank: int = 0,
    world: int = 1,
    lengths: np.ndarray | None = None,
) -> list[np.ndarray]:
    """Batches of indices of one epoch; the order depends on (seed, epoch) only. A last lone example joins
    its neighbours. With (N,) `lengths` the examples of each batch are about as long as each other: each
    WINDOW of batches is sorted, and the batches are shuffled.

    Of several processes each is given every `world`-th example of each batch: together they have the
    batches of one. Of no examples there are no batches.
    """
    if not count:
        return []
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(count)
    if lengths is not None:
        windows = np.split(order, range(WINDOW * batch, count, WINDOW * batch))
        order = np.concatenate([window[np.argsort(lengths[window], kind="stable")] for window in windows])
    cuts = list(range(0, count, batch))
    if len(cuts) > 1 and count - cuts[-1] == 1:
        cuts.pop()
    batches = [order[a:b][rank::world] for a, b in zip(cuts, [*cuts[1:], count], strict=True)]
    return batches if lengths is None else [batches[number] for number in rng.permutation(len(batches))]

"""One forward pass, several depths: pooled features of the end, of stages, and the whole activation at a
cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from regraft.backbones.base import Backbone
from regraft.backbones.batches import tensors

LEAST = 1e-8  # added to variances: the root of 0 has no gradient
Shape = tuple[int, ...]
VARIES = -1  # in a shape: as long as the items are


def entrance(backbone: Backbone, depth: int) -> str:
    """The name of the module a stage begins with: what it is given is the activation at that depth. A list
    of modules is given nothing.
    """
    return next(
        name
        for name in backbone.stages[depth].modules
        if not isinstance(backbone.module.get_submodule(name), (nn.ModuleList, nn.ModuleDict))
    )


class Tapped(nn.Module):
    """A batch of B examples to a tuple: (B, width) pooled features, those after each stage of `depths`
    (each (B, its channels)), and, with `cut`, the whole activation that stage `cut` is given. Depth d means
    after the first d stages; as many as there are means what the network itself gives, of a joined backbone
    that before it is joined.
    """

    def __init__(self, backbone: Backbone, depths: tuple[int, ...] = (), cut: int | None = None) -> None:
        super().__init__()
        self.prepare = backbone.preprocess.device()
        self.module = backbone.module
        wanted = (*depths, *(() if cut is None else (cut,)))
        self.depths, self.cut, self.whole = depths, cut, len(backbone.stages)
        self.within = "network" if backbone.join else ""  # the network itself, by its name in the module
        self.entrances = {depth: entrance(backbone, depth) for depth in wanted if depth != self.whole}

    def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Features of one batch, at every depth asked for."""
        given, network = self.prepare(batch), self.module.get_submodule(self.within)
        own: list[torch.Tensor] = []
        handle = network.register_forward_hook(lambda _, __, found: own.append(found))
        try:
            last, caught = tapped(self.module, given, self.entrances)
        finally:
            handle.remove()
        shallow = tuple(
            own[0] if depth == self.whole else pooled(network, caught[depth], given) for depth in self.depths
        )
        return (last, *shallow) if self.cut is None else (last, *shallow, caught[self.cut])


def tapped(
    module: nn.Module, given: Any, entrances: Mapping[int, str]
) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
    """What a network makes of `given`, and what the modules of `entrances` were given meanwhile, by their
    keys.
    """
    caught: dict[int, torch.Tensor] = {}

    def catch(depth: int) -> Any:
        def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            caught.setdefault(depth, inputs[0])

        return hook

    handles = [
        module.get_submodule(name).register_forward_pre_hook(catch(depth))
        for depth, name in entrances.items()
    ]
    try:
        return module(given), caught
    finally:
        for handle in handles:
            handle.remove()


def pooled(module: nn.Module, activation: torch.Tensor, given: Any) -> torch.Tensor:
    """(B, C) means over the positions of an activation within a network: by its own `pooled` where some of
    them are padding, else by its layout.
    """
    if hasattr(module, "pooled"):
        return module.pooled(activation, given)  # type: ignore[operator, no-any-return]
    last = getattr(module, "output_fmt", None) == "NHWC"
    return pool(activation, last, int(getattr(module, "num_prefix_tokens", 0)))


def pool(activation: torch.Tensor, channels_last: bool = False, prefix: int = 0) -> torch.Tensor:
    """(B, C) means over the positions of (B, C, H, W), (B, H, W, C) or (B, tokens, C).

    The first `prefix` tokens (class token, registers) stand for no position and are left out.
    """
    if activation.ndim == 4:
        return activation.mean(dim=(1, 2) if channels_last else (2, 3))
    return activation[:, prefix:].mean(dim=1) if activation.ndim == 3 else activation.flatten(1)


def spread(module: nn.Module, activation: torch.Tensor, given: Any, means: torch.Tensor) -> torch.Tensor:
    """(B, C) standard deviations over the positions of an activation within a network, whose (B, C) `means`
    are those of `pooled`. Positions at which all channels are 0 are padding; windows of an example that a
    network takes for examples of their own have its means.
    """
    if activation.ndim == 2:
        return torch.zeros_like(means)
    # sizes by `shape`: `len` would make the number of examples in a traced graph a constant
    if activation.shape[0] != means.shape[0]:
        means = means.repeat_interleave(activation.shape[0] // means.shape[0], dim=0)
    last = activation.ndim == 3 or getattr(module, "output_fmt", None) == "NHWC"
    shape = (means.shape[0], *(1,) * (activation.ndim - 2))
    places = means.reshape(*shape, -1) if last else means.reshape(*means.shape, 1, 1)
    there = activation.abs().amax(dim=-1 if last else 1, keepdim=True) > 0
    squares = pooled(module, (activation - places).square() * there, given)
    return (squares + LEAST).sqrt()


class Suffix:
    """What of a backbone runs from the activation at a cut on: (B, ...) activation to (B, width) pooled
    features.

    It runs the backbone's own forward, the modules before the cut answering with blanks of the right shape
    and the stage at the cut being given the activation; so it knows no architecture, shares every
    parameter, and is checked once against the whole. Where items have lengths of their own and the network is
    given a batch by names, the activation needs a position for each of theirs, and the batch itself tells which
    are padding. Raises ValueError where that does not give the same features.
    """

    def __init__(self, backbone: Backbone, cut: int) -> None:
        self.module, self.entrance = backbone.module, entrance(backbone, cut)
        before = [name for stage in backbone.stages[:cut] for name in stage.modules]
        known = set(before)
        self.outer = [name for name in before if not inside(name, known)]
        self.place = device = next(backbone.module.parameters()).device
        self.prepare = backbone.preprocess.device().to(device)
        tried = [tensors(backbone.preprocess.blank(2, np.random.default_rng(0)), device)]
        with torch.no_grad():
            prepared = self.prepare(tried[0])
        self.given = tuple(prepared.shape[1:]) if isinstance(prepared, torch.Tensor) else None
        varying = backbone.preprocess.varying if self.given is None else ()
        if varying:
            tried.append(
                {name: a[:, : -(-a.shape[1] // 2)] if name in varying else a for name, a in tried[0].items()}
            )
        training = self.module.training
        self.module.eval()
        try:
            with torch.no_grad():
                self.blanks = self._measure(backbone, tried)
                wholes = [Tapped(backbone, (), cut).to(device)(batch) for batch in tried]
                if varying and any(
                    w[-1].shape[1] != b[varying[0]].shape[1] for w, b in zip(wholes, tried, strict=True)
                ):
                    raise RuntimeError("its positions are not those of what goes in")
                outputs = [self(whole[-1], batch) for whole, batch in zip(wholes, tried, strict=True)]
        except (RuntimeError, TypeError, AttributeError, IndexError, KeyError) as error:
            raise ValueError(f"cannot be cut before {self.entrance}: {str(error).splitlines()[0]}") from None
        finally:
            self.module.train(training)
        for found, (whole, *_) in zip(outputs, wholes, strict=True):
            if not torch.allclose(found, whole, rtol=1e-4, atol=1e-4 * float(whole.abs().max())):
                raise ValueError(
                    f"cannot be cut before {self.entrance}: what follows needs more than its input"
                )

    def _measure(self, backbone: Backbone, batches: list[dict[str, torch.Tensor]]) -> dict[str, Shape]:
        """The shapes, without the batch, of what modules before the cut give. VARIES stands where they follow
        the items' lengths.
        """
        seen: list[dict[str, Shape]] = []
        handles = []
        for name in self.outer:

            def note(_: nn.Module, __: Any, result: torch.Tensor, name: str = name) -> None:
                seen[-1][name] = tuple(result.shape[1:])

            handles.append(self.module.get_submodule(name).register_forward_hook(note))
        try:
            for batch in batches:
                seen.append({})
                Tapped(backbone).to(self.place)(batch)
        finally:
            for handle in handles:
                handle.remove()
        first, last = seen[0], seen[-1]
        return {
            name: tuple(one if one == other else VARIES for one, other in zip(shape, last[name], strict=True))
            for name, shape in first.items()
        }

    def __call__(
        self, activation: torch.Tensor, batch: dict[str, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Pooled features of one batch; that batch itself is asked for only where its items have lengths of
        their own.
        """
        count = len(activation)

        def blank(shape: Shape) -> Any:
            here = (activation.shape[1] if size == VARIES else size for size in shape)
            found = activation.new_zeros(()).expand(count, *here)
            return lambda *_, **__: found

        if self.given is None:
            assert batch is not None
            given = self.prepare(batch)
        else:
            given = activation.new_zeros(()).expand(count, *self.given)
        door = self.module.get_submodule(self.entrance)
        handle = door.register_forward_pre_hook(lambda _, given: (activation, *given[1:]))
        places = [(self.module.get_submodule(name), shape) for name, shape in self.blanks.items()]
        try:
            for place, shape in places:
                place.forward = blank(shape)  # type: ignore[method-assign]
            return self.module(given)  # type: ignore[no-any-return]
        finally:
            for place, _ in places:
                del place.forward
            handle.remove()


def inside(name: str, others: set[str]) -> bool:
    """True if a module lies in one of the others."""
    parts = name.split(".")
    return any(".".join(parts[:length]) in others for length in range(1, len(parts)))

"""The first stages of a backbone as a backbone of their own: a shallower cut is often better far from the
pre-training.
"""

from __future__ import annotations

import copy
import inspect
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from regraft.backbones.base import Backbone, cut_stages
from regraft.backbones.batches import tensors
from regraft.backbones.taps import Tapped, inside

POOLING = ("global_pool", "flatten")


class Skipped(nn.Module):
    """What stands where a later stage was: gives back its first argument, whatever else a block is handed."""

    def forward(self, x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """The input."""
        return x


def cut_short(module: nn.Module, depth: int) -> None:
    """Cut a network without classifier, in place, to its first `depth` stages, pooled by the mean over the
    positions; by its own `cut_short` where it has one.
    """
    if hasattr(module, "cut_short"):
        module.cut_short(depth)  # type: ignore[operator]
        return
    stages = cut_stages(module)
    reset = getattr(module, "reset_classifier", None)
    if reset is not None and "global_pool" in inspect.signature(reset).parameters:
        reset(0, "avg")
    there = {name for name, _ in module.named_modules()}
    pooling = {name for name in there if name.split(".")[-1] in POOLING and name.count(".") < 2}
    # Timm's heads: a closing norm may stand beside the pooling
    above = {name.rpartition(".")[0] for name in pooling}
    goes = [name for stage in stages[depth:] for name in stage.modules if name in there - pooling - above]
    later = [name for name in goes if not inside(name, pooling)]
    known = set(later)
    for name in later:
        if not inside(name, known):
            parent, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(parent), leaf, Skipped())


def truncated(backbone: Backbone, depth: int) -> Backbone:
    """A copy with the first `depth` stages only; its features are the means that `Tapped` gives at that
    depth.

    Raises ValueError where that is not so: the network needs more than its stages in a row, or pools in a
    way of its own.
    """
    if not 0 < depth < len(backbone.stages):
        raise ValueError(
            f"depth is 1 to {len(backbone.stages) - 1}, less than there are stages; found {depth}"
        )
    where = f"cannot end after {backbone.stages[depth - 1].name}"
    module, training = copy.deepcopy(backbone.module), backbone.module.training
    device = next(module.parameters()).device
    drawn = tensors(backbone.preprocess.blank(2, np.random.default_rng(0)), device)
    try:
        with torch.no_grad():
            expected = Tapped(backbone, (depth,)).eval().to(device)(drawn)[1]
            cut_short(module, depth)
            shallow = replace(backbone, module=module, stages=cut_stages(module), classifier="", depth=depth)
            features = Tapped(shallow).eval().to(device)(drawn)[0]
    except (
        RuntimeError,
        TypeError,
        AttributeError,
        IndexError,
        KeyError,
        NameError,
        AssertionError,
    ) as error:
        raise ValueError(f"{where}: {(str(error).splitlines() or [type(error).__name__])[0]}") from None
    finally:
        backbone.module.train(training)
    close = features.shape == expected.shape and torch.allclose(
        features, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())
    )
    if not close or len(shallow.stages) != depth:
        raise ValueError(f"{where}: what is left gives other features than the whole at that depth")
    kept = sum(parameter.numel() for parameter in module.parameters())
    module.train(training)
    return replace(shallow, width=features.shape[1], provenance=replace(backbone.provenance, parameters=kept))

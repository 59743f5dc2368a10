"""The parts of a run for those with their own loop: a backbone, its features, freezing, a head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from regraft.modalities import modality_of
from regraft.runtime import quiet_libraries

if TYPE_CHECKING:  # torch and timm take seconds to import: names of theirs are fetched where they are used
    from torch import nn

    from regraft.backbones import Backbone
    from regraft.scale import Cluster
    from regraft.training import FreezePlan

__all__ = ["backbone", "extract", "fit_head", "freeze"]


def backbone(
    reference: str = "auto", size: int | None = None, offline: bool = False, depth: int | None = None
) -> Backbone:
    """A base model: pre-trained weights without their classifier, with their own preprocessing; "auto" is
    the usual one for images. Raises BackboneError.

    With `depth` its first stages only, pooled by the mean; raises ValueError where it cannot end there.
    """
    quiet_libraries()
    from regraft.backbones import make_base, obtain_weights, truncated

    obtained = obtain_weights(reference, offline)
    native = obtained.provenance.input_size
    preprocess, _ = modality_of(obtained.modality).preprocess(obtained.config, native, None, size, cpu=False)
    whole = make_base(obtained, preprocess)
    return whole if depth in (None, len(whole.stages)) else truncated(whole, depth)


@overload
def extract(
    base: Backbone,
    items: Sequence[Any],
    cache: str | Path | None = None,
    device: str = "auto",
    engine: str = "auto",
    *,
    cluster: Cluster | None = None,
) -> np.ndarray: ...


@overload
def extract(
    base: Backbone,
    items: Sequence[Any],
    cache: str | Path | None = None,
    device: str = "auto",
    engine: str = "auto",
    *,
    depths: Sequence[int],
    cluster: Cluster | None = None,
) -> list[np.ndarray]: ...


def extract(
    base: Backbone,
    items: Sequence[Any],
    cache: str | Path | None = None,
    device: str = "auto",
    engine: str = "auto",
    *,
    depths: Sequence[int] | None = None,
    cluster: Cluster | None = None,
) -> np.ndarray | list[np.ndarray]:
    """(N, width) float32 pooled features, in the order given. `items` are paths, bytes, PIL images or
    arrays.

    With `cache` (a folder; items are paths then) each is computed once. `engine` is "torch-float32",
    another of the engines a run may take, or "auto": the fastest that agrees with float32 on some of the
    items. With `depths` it is a list: the features, then, for each, the pooled (N, channels) output of so
    many first stages, all from one pass. Workers of a `cluster` share the items. Raises Unreadable for an
    item that is none, UsageError for an engine that does not run here and a depth there is not.
    """
    from regraft.inference.alone import features_alone
    from regraft.runtime import pick_device
    from regraft.scale import crew_of

    place = None if cache is None else Path(cache)
    gpus = cluster is not None and pick_device(device).type == "cuda"
    with crew_of(cluster, lambda note: None, gpus) as crew:
        features = features_alone(base, items, place, device, engine, tuple(depths or ()), crew)
    return features[0] if depths is None else features


def freeze(
    module: nn.Module, strategy: str | Sequence[str] = "head", norm_statistics: str = "frozen"
) -> FreezePlan:
    """Freeze parts of any nn.Module in place, so that they stay frozen whatever calls `.train()`; gives the
    plan applied.
    """
    from regraft.backbones import cut_stages
    from regraft.training import plan_freeze

    plan = plan_freeze(module, cut_stages(module), strategy, norm_statistics)
    plan.apply(module)
    return plan


def fit_head(
    features: np.ndarray,
    labels: Sequence[Any] | np.ndarray,
    l2: float | None = None,
    seed: int = 0,
    groups: Sequence[Any] | np.ndarray | None = None,
    task: str = "single",
) -> nn.Module:
    """A linear head (B, D) -> (B, K) on (N, D) features and (N,) integer labels; L2 by out-of-fold loss
    where None.

    With `task` "multi" labels are (N, K) of 0 and 1, and the head gives a logit a label; with "regression" they
    are (N,) or (N, K) numbers, which it gives in their own units. Of both nan says that one is not known.

    `groups` (N,), any hashable values, name what belongs together, such as a patient's pictures: no fold
    parts a group. An example whose group is None is alone. Raises UsageError for features that hold nan or
    infinity, and for whatever else no head can be fitted to.
    """
    from regraft.data.blocks import blocks_of
    from regraft.training import head_alone

    blocks = blocks_of(list(groups)) if groups is not None else None
    return head_alone(features, labels, l2, seed, blocks, task)

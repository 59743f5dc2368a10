"""The base model: a pre-trained network without its old classifier, cut into ordered stages."""

from __future__ import annotations

import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os.path import commonprefix
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from regraft.artifacts import fingerprint
from regraft.backbones.batches import tensors
from regraft.modalities import Preprocess

if TYPE_CHECKING:
    from regraft.backbones.sources import Obtained


@dataclass(frozen=True)
class Provenance:
    """Where weights came from; the licence is from our catalogue or the hub's card, never guessed.

    `sha256` is that of the weights as they came. What they have become since is told by
    `Backbone.fingerprint`.
    """

    id: str
    source: str
    sha256: str
    licence: str
    parameters: int
    input_size: int
    pretrained_on: str = "unknown"


@dataclass(frozen=True)
class Stage:
    """An ordered part of a backbone: the names of its parameters and of every module that belongs to it
    alone.
    """

    name: str
    parameters: tuple[str, ...]
    modules: tuple[str, ...]


@dataclass
class Backbone:
    """A module that maps what `preprocess.device()` makes of a batch (of images: (B, 3, size, size)
    normalised float32) to (B, width) pooled features.
    """

    module: nn.Module
    stages: tuple[Stage, ...]
    preprocess: Preprocess
    provenance: Provenance
    width: int
    architecture: str
    config: dict[str, Any]
    classifier: str
    depth: int | None = None  # stages kept, of one that was truncated
    # The features are those of all depths (`joined`): by which way; False: those of the last alone
    join: bool | Literal["faded", "deviations"] = False

    @property
    def network(self) -> nn.Module:
        """The network itself, without what joins its depths."""
        return self.module.network if self.join else self.module  # type: ignore[return-value]

    def fingerprint(self) -> str:
        """16 hex digits of the network and its weights as they are at this moment: what is stored of it
        goes by these.

        The weights are hashed anew each time, a second a gigabyte and core: nothing tells reliably that
        they did not change (a fused optimiser leaves torch's version counters as they are). Where they are
        held and in which layout does not matter.
        """
        # Where a function lies differs from process to process
        built = re.sub(r" at 0x[0-9a-f]+", "", repr(self.module))
        return fingerprint(
            self.architecture, self.config.get("transformers"), built, state_sha256(self.module)
        )


def make_base(obtained: Obtained, preprocess: Preprocess) -> Backbone:
    """Take the classifier off; `preprocess` is how items reach the network (`Modality.preprocess`)."""
    module, config = obtained.module, obtained.config
    whole = obtained.depth is None
    classifier = config.get("classifier") if whole else ""
    if whole and hasattr(module, "reset_classifier"):
        module.reset_classifier(0)  # type: ignore[operator]
    return Backbone(
        module=module,
        stages=cut_stages(module),
        preprocess=preprocess,
        provenance=obtained.provenance,
        width=(native_width(module) if whole else None) or measured_width(module, preprocess),
        architecture=obtained.architecture,
        config=config,
        classifier=classifier if isinstance(classifier, str) else "",
        depth=obtained.depth,
    )


def native_width(module: nn.Module) -> int | None:
    """The width of the features that a network declares, as timm's do; None for one that says nothing."""
    declared = getattr(module, "head_hidden_size", None) or getattr(module, "num_features", None)
    return None if declared is None else int(declared)


def measured_width(module: nn.Module, preprocess: Preprocess) -> int:
    """The width of what a network gives for one example."""
    training, device = module.training, next(module.parameters()).device
    with torch.no_grad():
        given = preprocess.device().to(device)(tensors(preprocess.blank(1), device))
        width = module.eval()(given).shape[1]
    module.train(training)
    return int(width)


def state_sha256(module: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and bytes of all tensors of a network."""

    def about(item: tuple[str, torch.Tensor]) -> bytes:
        name, tensor = item
        digest = hashlib.sha256(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return digest.digest()

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:  # hashing does not hold the interpreter
        return hashlib.sha256(b"".join(pool.map(about, sorted(module.state_dict().items())))).hexdigest()


def cut_stages(module: nn.Module) -> tuple[Stage, ...]:
    """Stages in order, from timm's own `group_matcher`; for other modules, the children that have
    parameters.

    A closing norm or convolution after the last repeated block belongs to that block's stage: releasing it
    alone would be a stage in name only.
    """
    if hasattr(module, "group_matcher"):
        from timm.models import group_parameters

        matcher = module.group_matcher(coarse=True)  # type: ignore[operator]
        groups = [list(names) for _, names in sorted(group_parameters(module, matcher).items())]
    else:
        groups = [
            [f"{name}.{leaf}" for leaf, _ in child.named_parameters()]
            for name, child in _children(module)
            if any(True for _ in child.parameters())
        ]
        own = [name for name, _ in module.named_parameters(recurse=False)]
        groups = [own, *groups] if own else groups
    blocks = [
        i for i, names in enumerate(groups) if any(part.isdigit() for n in names for part in n.split("."))
    ]
    last = blocks[-1] if blocks else len(groups) - 1
    tail = [name for names in groups[last + 1 :] for name in names]
    groups = groups[: last + 1]
    body = [list(names) for names in groups]
    if groups:
        groups[-1] = groups[-1] + tail
    owner = {name: i for i, names in enumerate(groups) for name in names}
    modules = _own_modules(module, owner)
    names = [_stage_name(names_, i) for i, names_ in enumerate(body)]
    return tuple(
        Stage(name, tuple(parameters), tuple(m for m, i in modules.items() if i == number))
        for number, (name, parameters) in enumerate(zip(names, groups, strict=True))
    )


def _children(module: nn.Module) -> list[tuple[str, nn.Module]]:
    children: list[tuple[str, nn.Module]] = []
    for name, child in module.named_children():
        if isinstance(child, (nn.Sequential, nn.ModuleList)) and len(child) > 1:
            children.extend((f"{name}.{inner}", layer) for inner, layer in child.named_children())
        else:
            children.append((name, child))
    return children


def _own_modules(module: nn.Module, owner: dict[str, int]) -> dict[str, int]:
    """The stage of every module that lies wholly in one; a module without parameters goes with what stands
    before it.
    """
    current, numbers = 0, {}
    for name, child in module.named_modules():
        if not name:
            continue
        stages = {
            owner[f"{name}.{leaf}"] for leaf, _ in child.named_parameters() if f"{name}.{leaf}" in owner
        }
        if len(stages) == 1:
            current = next(iter(stages))
            numbers[name] = current
        elif not stages and not any(True for _ in child.parameters()):
            numbers[name] = current
    return numbers


def _stage_name(names: list[str], number: int) -> str:
    """What the blocks of a stage share in their names, down to the first number: `blocks.5`, `layer4`,
    `stem`.
    """
    numbered = [name for name in names if any(part.isdigit() for part in name.split("."))]
    prefix: list[str] = list(commonprefix([name.split(".")[:-1] for name in numbered or names]))
    digits = [i for i, part in enumerate(prefix) if part.isdigit()]
    return ".".join(prefix[: digits[0] + 1] if digits else prefix) or (
        "stem" if number == 0 else f"stage{number}"
    )

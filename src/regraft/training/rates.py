"""Parameter groups with layer-wise decay of the learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from regraft.backbones import Stage


def layer_groups(
    module: nn.Module, stages: Sequence[Stage], rate: float, decay: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Groups of the parameters of a network that may move: those of the last layer at `rate`, those of each
    layer before it at `decay` times as much; no weight decay on norms and biases.

    Layers are timm's fine groups where the network knows them, else its `stages`. There is no group where
    nothing may move.
    """
    if not any(parameter.requires_grad for parameter in module.parameters()):
        return []
    if not hasattr(module, "group_matcher"):
        return _by_stages(module, stages, rate, decay, weight_decay)
    from timm.optim import param_groups_layer_decay

    return [
        {
            "params": group["params"],
            "lr": rate * float(group.get("lr_scale", 1.0)),
            "weight_decay": group["weight_decay"],
        }
        for group in param_groups_layer_decay(module, weight_decay, layer_decay=decay)
    ]


def _by_stages(
    module: nn.Module, stages: Sequence[Stage], rate: float, decay: float, weight_decay: float
) -> list[dict[str, Any]]:
    place = {name: number for number, stage in enumerate(stages) for name in stage.modules}
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            parts = name.split(".")
            owners = (".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1))
            stage = next((place[owner] for owner in owners if owner in place), 0)
            groups.setdefault((stage, parameter.ndim <= 1), []).append(parameter)
    last = len(stages) - 1
    return [
        {
            "params": parameters,
            "lr": rate * decay ** (last - stage),
            "weight_decay": 0.0 if small else weight_decay,
        }
        for (stage, small), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]

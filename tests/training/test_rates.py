"""Learning rates of layers: by timm's groups where it knows them, else by stages."""

from __future__ import annotations

import timm
import torch
from torch import nn

from regraft.backbones import cut_stages
from regraft.training import layer_groups


def test_a_network_that_timm_does_not_know_decays_by_its_stages() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Sequential(nn.Linear(3, 3), nn.GELU()))
    stages = cut_stages(module)
    assert len(stages) == 3
    groups = layer_groups(module, stages, rate=1.0, decay=0.5, weight_decay=0.1)
    found = {
        (group["lr"], group["weight_decay"]): [tuple(p.shape) for p in group["params"]] for group in groups
    }
    assert found == {
        (0.25, 0.1): [(3, 2)],
        (0.25, 0.0): [(3,)],
        (0.5, 0.0): [(3,), (3,)],
        (1.0, 0.1): [(3, 3)],
        (1.0, 0.0): [(3,)],
    }


def test_what_is_frozen_is_in_no_group() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3))
    stages = cut_stages(module)
    module[0].requires_grad_(False)
    (weight, bias) = layer_groups(module, stages, rate=1.0, decay=0.5, weight_decay=0.1)
    assert {id(p) for p in [*weight["params"], *bias["params"]]} == {id(p) for p in module[1].parameters()}
    assert weight["lr"] == bias["lr"] == 1.0
    module.requires_grad_(False)
    assert layer_groups(module, stages, rate=1.0, decay=0.5, weight_decay=0.1) == []


def test_a_network_of_timm_decays_by_its_fine_groups() -> None:
    module = timm.create_model("test_vit", num_classes=0)
    groups = layer_groups(module, cut_stages(module), rate=2.0, decay=0.5, weight_decay=0.1)
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert len(rate) == len(list(module.parameters()))
    assert max(rate.values()) == 2.0
    blocks = [rate[id(block.mlp.fc1.weight)] for block in module.blocks]  # type: ignore[union-attr]
    assert blocks == sorted(blocks)
    assert len(set(blocks)) == len(blocks)
    assert torch.isclose(torch.tensor(blocks[1] / blocks[0]), torch.tensor(2.0))

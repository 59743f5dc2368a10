"""One pass gives several depths, and what follows a cut gives the same features from the activation alone."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import nn

from regraft.backbones import Backbone, Provenance, Suffix, Tapped, cut_stages
from regraft.modalities.image import ImagePreprocess

ARCHITECTURES = [
    "tf_efficientnet_lite0",
    "resnet18",
    "vit_tiny_patch16_224",
    "convnext_atto",
    "mobilenetv3_small_050",
]


def made(module: nn.Module, size: int = 64) -> Backbone:
    pre = ImagePreprocess(size, 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3)
    about = Provenance("test", "test", "", "none", 1, size)
    return Backbone(
        module.eval(), cut_stages(module), pre, about, getattr(module, "num_features", 1), "test", {}, ""
    )


def images(size: int = 64) -> dict[str, torch.Tensor]:
    pixels = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    return {"pixels": torch.from_numpy(pixels)}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_follows_any_cut_gives_the_features_of_the_whole(name: str) -> None:
    torch.manual_seed(0)
    size = 224 if "vit" in name else 64
    backbone = made(timm.create_model(name, num_classes=0), size)
    for cut in range(1, len(backbone.stages)):
        with torch.no_grad():
            whole, activation = Tapped(backbone, (), cut)(images(size))
            assert torch.allclose(Suffix(backbone, cut)(activation), whole, rtol=1e-4, atol=1e-5)


def test_gradients_of_the_released_stages_are_those_of_the_whole() -> None:
    torch.manual_seed(0)
    backbone = made(timm.create_model("tf_efficientnet_lite0", num_classes=0))
    cut = len(backbone.stages) - 2
    backbone.module.requires_grad_(False)
    released = [
        p
        for n, p in backbone.module.named_parameters()
        if any(n in s.parameters for s in backbone.stages[cut:])
    ]
    for parameter in released:
        parameter.requires_grad_(True)
    whole, activation = Tapped(backbone, (), cut)(images())
    whole.square().sum().backward()
    expected = [p.grad.clone() for p in released]
    backbone.module.zero_grad()
    Suffix(backbone, cut)(activation.detach()).square().sum().backward()
    assert all(
        torch.allclose(p.grad, e, rtol=1e-3, atol=1e-5) for p, e in zip(released, expected, strict=True)
    )
    assert "forward" not in vars(backbone.module.conv_stem)


def test_depths_are_the_means_of_what_the_stages_give() -> None:
    backbone = made(timm.create_model("tf_efficientnet_lite0", num_classes=0))
    seen: dict[str, torch.Tensor] = {}
    backbone.module.blocks[2].register_forward_hook(lambda _, __, result: seen.update(after=result))
    with torch.no_grad():
        pooled, shallow = Tapped(backbone, (4,))(images())  # the stem and three groups of blocks
    assert pooled.shape == (3, 1280)
    assert torch.allclose(shallow, seen["after"].mean(dim=(2, 3)))
    assert not backbone.module.blocks[3]._forward_pre_hooks


def test_a_network_that_needs_more_than_one_activation_is_refused() -> None:
    class Skipping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            early = self.first(x)
            return (self.third(self.second(early)) + early).mean(dim=(2, 3))

    with pytest.raises(ValueError, match="third"):
        Suffix(made(Skipping()), 2)

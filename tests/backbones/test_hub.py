"""Weights from a hub, by the real client from a stand-in on loopback: what comes, and how it fails."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load, save

import regraft
import texts
from regraft.backbones import at_hand, catalogue, licence_of, obtain_weights
from regraft.backbones.sources import fetch
from regraft.backbones.sources.obtained import MADE
from regraft.errors import BackboneError
from standin import Repository, StandIn

NAME = "test_convnext.r160_in1k"
REPO = f"timm/{NAME}"


def tiny_weights(architecture: str, seed: int = 0) -> bytes:
    """An untrained network of timm's as a safetensors file."""
    torch.manual_seed(seed)
    return save(timm.create_model(architecture, num_classes=1000).state_dict())


@pytest.fixture(scope="module")
def weights() -> bytes:
    return tiny_weights("test_convnext")


@pytest.fixture
def there(hub: StandIn, weights: bytes) -> Repository:
    """The repository of a tiny model in timm's layout."""
    hub.repositories[REPO] = Repository({"model.safetensors": weights, "config.json": b"{}"})
    return hub.repositories[REPO]


def test_weights_in_timms_layout_come_once_and_are_used_offline_after(
    hub: StandIn, there: Repository, weights: bytes
) -> None:
    heard: list[tuple[str, int, int]] = []
    with pytest.raises(BackboneError, match="--offline is set"):
        obtain_weights(f"timm:{NAME}", offline=True)
    assert not hub.asked
    obtained = obtain_weights(f"timm:{NAME}", tick=lambda *said: heard.append(said))
    for name, value in load(weights).items():
        assert torch.equal(obtained.module.state_dict()[name], value)
    asked = hub.asked.total()
    assert obtain_weights(f"timm:{NAME}", offline=True).provenance.sha256 == obtained.provenance.sha256
    assert obtain_weights(f"timm:{NAME}").provenance.sha256 == obtained.provenance.sha256
    assert hub.asked.total() == asked
    assert hub.tokens == {None}  # who the user is is nobody's business here
    assert all(label == f"fetching {NAME}, kB" and done <= total for label, done, total in heard)


def test_a_repository_in_transformers_layout(hub: StandIn, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
    )
    transformers.ViTModel(config).save_pretrained(tmp_path / "vit")
    files = {path.name: path.read_bytes() for path in (tmp_path / "vit").iterdir()}
    files["preprocessor_config.json"] = json.dumps({"image_mean": [0.1, 0.2, 0.3]}).encode()
    files["README.md"] = b"---\nlicense: cc-by-nc-4.0\n---\n# A model\n"
    hub.repositories["some/vit"] = Repository(files)
    base = regraft.backbone("transformers:some/vit")
    assert (base.provenance.id, base.provenance.source) == ("transformers:some/vit", "some/vit")
    assert base.provenance.licence == "cc-by-nc-4.0"
    assert base.preprocess.to_dict()["mean"] == (0.1, 0.2, 0.3)
    asked = hub.asked.total()
    again = regraft.backbone("transformers:some/vit", offline=True)
    assert hub.asked.total() == asked
    picture = np.full((32, 32, 3), 9, np.uint8)
    np.testing.assert_array_equal(regraft.extract(base, [picture]), regraft.extract(again, [picture]))
    with pytest.raises(BackboneError, match="the hub does not have it"):
        obtain_weights("transformers:some/other")
    with pytest.raises(BackboneError, match="--offline is set"):
        obtain_weights("transformers:some/other", offline=True)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("cut", "the connection broke off|hub could not be talked to"),
        ("wrong", "has not the hash that the hub stated.*it was deleted"),
        ("silent", "the hub has sent nothing for"),
        ("slow", "the hub is too slow"),
        (404, "the hub does not have it"),
        (401, "only to those it knows"),
        (403, "only to those it knows"),
        (500, "the hub answered with status 500"),
    ],
)
def test_what_goes_wrong_ends_in_words_and_leaves_nothing_wrong_behind(
    hub: StandIn, there: Repository, monkeypatch: pytest.MonkeyPatch, fault: str | int, said: str
) -> None:
    monkeypatch.setattr(fetch, "STALL", 0.5)
    monkeypatch.setattr(fetch, "PIECE", 1 if fault == "slow" else 1 << 17)
    monkeypatch.setattr(fetch, "LOOK", 0.02)
    there.fault = fault
    with pytest.raises(BackboneError, match=said) as caught:
        obtain_weights(f"timm:{NAME}")
    assert "which needs no network" in str(caught.value)
    assert not catalogue.is_cached(f"timm:{NAME}")
    there.fault = ""
    obtain_weights(f"timm:{NAME}")  # nothing of the failure is in its way


def test_no_hub_at_all_a_closed_one_and_a_cache_that_cannot_be_written(
    hub: StandIn, there: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BackboneError, match="HF_HUB_OFFLINE is set"):
        obtain_weights(f"timm:{NAME}")
    assert not hub.asked
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    (tmp_path / "file").touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "file"))
    with pytest.raises(BackboneError, match=r"Not a directory: .*file"):
        obtain_weights(f"timm:{NAME}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    hub.close()  # a connection that was kept open breaks off, a new one is refused
    with pytest.raises(BackboneError, match=r"could not be talked to|broke off"):
        obtain_weights(f"timm:{NAME}")


def test_a_download_nobody_waits_for_ends(
    hub: StandIn, there: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = set(threading.enumerate())
    there.fault = "slow"
    monkeypatch.setattr(fetch, "LOOK", 0.02)
    with pytest.raises(KeyboardInterrupt):
        obtain_weights(f"timm:{NAME}", tick=stop)
    there.fault = ""
    hub.closing.set()
    ours = [one for one in threading.enumerate() if one not in before and "_work" in one.name]
    for one in ours:
        one.join(20)
    assert ours
    assert not any(one.is_alive() for one in ours)


def test_encoders_of_texts_come_with_their_tokenizer_and_are_listed(hub: StandIn, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    folder = texts.tiny_encoder(tmp_path / "bert")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    files |= {
        "1_Pooling/config.json": b'{"pooling_mode_cls_token": true}',
        "config_sentence_transformers.json": b'{"prompts": {"Classification": "tell: "}}',
        "modules.json": b'[{"path": "", "type": "sentence_transformers.models.Transformer"}]',
        "README.md": b"---\nlicense: mit\n---\n",
    }
    hub.repositories["some/bert"] = Repository(files)
    found = obtain_weights("hf:some/bert", modality="text")
    assert (found.provenance.id, found.provenance.licence) == ("transformers:some/bert", "mit")
    assert (found.config["pooling"], found.config["prefix"]) == ("cls", "tell: ")
    (listed,) = [item for item in at_hand(tmp_path) if item["reference"] == "transformers:some/bert"]
    assert (listed["modality"], listed["at_hand"]) == ("text", True)
    # PyTorch's own file, of a repository that has no other
    torch.save(found.module.model.state_dict(), tmp_path / "pytorch_model.bin")
    del files["model.safetensors"]
    files["pytorch_model.bin"] = (tmp_path / "pytorch_model.bin").read_bytes()
    hub.repositories["some/older"] = Repository(files)
    older = obtain_weights("transformers:some/older")
    assert older.provenance.sha256 == found.provenance.sha256
    asked = hub.asked.total()
    assert (
        obtain_weights("transformers:some/older", offline=True).provenance.sha256 == found.provenance.sha256
    )
    assert hub.asked.total() == asked


def test_the_catalogue_says_what_is_fetched_and_under_which_licence() -> None:
    stronger = [entry for entry in catalogue.entries() if entry.stronger]
    families = {"dinov2", "dinov3", "convnext", "siglip", "fastvit_mci"}
    of_timm = [entry for entry in stronger if entry.reference.startswith("timm:")]
    assert all(any(family in entry.name for entry in of_timm) for family in families)
    for entry in of_timm:
        assert entry.source == f"https://huggingface.co/timm/{entry.name}"
        assert entry.download is not None
        config = timm.get_pretrained_cfg(entry.name)
        assert config.hf_hub_id == f"timm/{entry.name}"
        assert config.input_size[-1] == entry.input_size
        told = {"Apple AMLR": "apple-amlr", "DINOv3 License": "dinov3-license"}.get(
            entry.licence, entry.licence
        )
        assert config.license == told.lower()
    for entry in stronger:
        assert licence_of(entry.licence).commercial != "unknown"
    for modality in ("text", "audio"):
        some = [
            entry
            for entry in catalogue.entries()
            if entry.modality == modality and "packaged" not in entry.reference
        ]
        assert len(some) > 5
        for entry in some:
            assert entry.source == f"https://huggingface.co/{entry.name}"
            assert entry.download >= 3.9 * entry.parameters  # whole files, in float32
            assert entry.good_for
            assert entry.architecture.partition(":")[0] + ":" in MADE
    assert not licence_of("CC-BY-NC-4.0").free
    assert not licence_of("something else").free
    assert licence_of("something else").commercial == "unknown"

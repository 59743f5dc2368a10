"""A source of weights that src knows nothing of: its models are obtained, are candidates and are built
again.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from vectors import Toys, Vectors

from regraft import modalities
from regraft.artifacts import write_json
from regraft.backbones import at_hand, candidates, obtain_weights, register_source, usual
from regraft.backbones.sources import registered
from regraft.errors import BackboneError, UsageError


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modalities, "_known", dict(modalities._known))
    monkeypatch.setattr(registered, "_known", {})
    modalities.register(Vectors())
    register_source(Toys())


def test_a_model_of_a_registered_source_is_obtained_by_name_and_by_modality() -> None:
    found = obtain_weights("toy:tiny")
    assert (found.modality, found.provenance.id) == ("vector", "toy:tiny")
    assert found.module(torch.zeros(2, 12)).shape == (2, 16)
    assert obtain_weights("auto", modality="vector").provenance.id == "toy:tiny"
    assert candidates("vector") == ["toy:tiny"]
    assert "toy:tiny" not in candidates("image")
    assert [item["modality"] for item in at_hand() if item["reference"] == "toy:tiny"] == ["vector"]
    assert usual("image") == "packaged:efficientnet_lite0"
    with pytest.raises(BackboneError, match="no toy:huge; there is toy:tiny"):
        obtain_weights("toy:huge")
    with pytest.raises(BackboneError, match="run:RUN, toy:NAME"):
        obtain_weights("tiny")
    with pytest.raises(BackboneError, match="no backbone for examples of the modality smell is at hand"):
        obtain_weights("auto", modality="smell")


def test_a_backbone_of_another_modality_is_a_clear_error() -> None:
    with pytest.raises(
        UsageError,
        match=r"of the modality image, and these are of the modality vector\. Name one for these: toy:tiny",
    ):
        obtain_weights("packaged:efficientnet_lite0", modality="vector")
    with pytest.raises(UsageError, match="of the modality vector, and these are of the modality image"):
        obtain_weights("toy:tiny", modality="image")


def test_its_weights_in_a_folder_are_read_by_the_network_it_builds(tmp_path: Path) -> None:
    first = obtain_weights("toy:tiny")
    save_file(first.module.state_dict(), str(tmp_path / "model.safetensors"))
    write_json(tmp_path / "config.json", {"architecture": first.architecture, "pretrained_cfg": first.config})
    second = obtain_weights(f"path:{tmp_path}")
    assert (second.modality, second.config, second.provenance.input_size) == ("vector", first.config, 12)
    inputs = torch.randn(3, 12)
    assert torch.equal(first.module(inputs), second.module(inputs))


def test_a_built_in_prefix_stays_what_it_is() -> None:
    class Wrong(Toys):
        prefix = "timm"

    with pytest.raises(UsageError, match="built-in"):
        register_source(Wrong())

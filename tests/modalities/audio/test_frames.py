"""Log-mel frames are those of Whisper's feature extractor, whatever a batch is padded to, in every engine."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from regraft.modalities import modality_of
from regraft.modalities.audio.mel import Frames, slaney
from regraft.modalities.audio.preprocess import AudioPreprocess
from sounds import hiss, tone

SOUNDS = (
    tone(440, 0.7),
    hiss(1.2),
    np.concatenate([tone(200, 0.3), 1e-4 * hiss(0.2)]),
    3 * tone(3_000, 0.05),
)


def test_frames_are_those_of_the_library() -> None:
    import regraft.backbones.ready  # noqa: F401

    extractor = pytest.importorskip("transformers").WhisperFeatureExtractor()
    assert np.allclose(extractor.mel_filters.T, slaney(80), atol=1e-12)
    pre = AudioPreprocess(160, 80)
    with torch.no_grad():
        found = pre.device()({name: torch.from_numpy(array) for name, array in pre.collate(SOUNDS).items()})
    for ours, samples in zip(found.numpy(), SOUNDS, strict=True):
        theirs = extractor(samples, sampling_rate=16_000, return_tensors="np").input_features[0]
        assert np.abs(ours[:80] - theirs[:, : ours.shape[1]]).max() < 1e-4
        assert ours[80].sum() == -(-len(samples) // 160)


def test_frames_do_not_depend_on_the_padding() -> None:
    found = []
    for size in (128, 240):
        pre = AudioPreprocess(size, 80)
        batch = {name: torch.from_numpy(array) for name, array in pre.collate(SOUNDS[:2]).items()}
        found.append(pre.device()(batch)[:, :, :128])
    assert torch.allclose(*found, atol=1e-6)


def test_openvino_gives_the_same_frames() -> None:
    from regraft.inference.graphs import openvino

    library = openvino()
    pre = AudioPreprocess(128, 80)
    batch = pre.collate(SOUNDS[:2])

    class Row(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frames = Frames(80)

        def forward(self, samples: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            return self.frames({"samples": samples, "lengths": lengths})

    example = tuple(torch.from_numpy(array) for array in batch.values())
    model = library.convert_model(Row(), example_input=example)
    compiled = library.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(list(batch.values()))[0]
    assert np.abs(found - Row()(*example).numpy()).max() < 1e-3


def test_the_length_of_the_input_follows_the_data() -> None:
    sounds = modality_of("audio")

    def chosen(lengths: list[float], size: int | None = None) -> AudioPreprocess:
        table = sounds.facts.empty_table().to_pydict() | {"seconds": lengths}
        columns = {name: table[name] or [None] * len(lengths) for name in sounds.facts.names}
        facts = pa.table(columns, schema=sounds.facts)
        return sounds.preprocess({"mels": 80}, 3_000, facts, size, True)[0]

    assert chosen([0.5, 2.0]).size == 200
    assert chosen([0.5] * 99 + [60.0]).size == 1_000
    assert (chosen([25.0] * 10).size, chosen([25.0] * 10).windows) == (3_000, 3)
    assert chosen([900.0] * 10).size == 4_000
    assert chosen([0.5], size=320).size == 320
    assert len(chosen([25.0] * 10).host(hiss(27))) == 27 * 16_000
    assert AudioPreprocess.from_dict(chosen([0.5]).to_dict()) == chosen([0.5])

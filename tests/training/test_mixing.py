from __future__ import annotations

import numpy as np
import pytest
import torch

from regraft.training import mixed
from regraft.training.loop import Batch

CLASSES = 3


def _batches(epoch: int, skip: int = 0, /) -> list[Batch]:
    """Two batches of four images of one colour each, told apart by their label."""
    labels = torch.tensor([0, 1, 2, 0])
    images = (labels * 100).to(torch.uint8).reshape(4, 1, 1, 1).expand(4, 20, 30, 3).contiguous()
    return [(images, labels, torch.ones(4)) for _ in range(2)][skip:]


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_labels_hold_what_the_images_hold(mixup: float, cutmix: float) -> None:
    for epoch in range(1, 9):
        for images, labels, weights in mixed(_batches, mixup, cutmix, CLASSES, 0)(epoch):
            assert torch.allclose(labels.sum(dim=1), torch.ones(4))
            assert torch.equal(weights, torch.ones(4))
            shown = images.float().mean(
                dim=(1, 2, 3)
            )  # of colours 0, 100 and 200, in the shares of their classes
            assert torch.allclose(shown, labels @ torch.tensor([0.0, 100.0, 200.0]), atol=1e-3)


def test_cutmix_pastes_one_rectangle_and_leaves_the_given_images_alone() -> None:
    given = _batches(1)
    partly = 0
    for epoch in range(1, 9):
        for images, labels, _ in mixed(lambda *_: given, 0.0, 1.0, CLASSES, 0)(epoch):
            assert images.dtype == torch.uint8
            assert set(images[0].unique().tolist()) <= {0}
            other = (images[1, :, :, 0] == 200).nonzero()
            area = len(other) / (20 * 30)
            assert float(labels[1, 2]) == pytest.approx(area, abs=1e-6)
            if len(other):
                (top, left), (bottom, right) = (
                    other.min(dim=0).values.tolist(),
                    other.max(dim=0).values.tolist(),
                )
                assert len(other) == (bottom - top + 1) * (right - left + 1)
            partly += 0 < area < 1
    assert partly > 8
    assert all(torch.equal(now[0], then[0]) for now, then in zip(given, _batches(1), strict=True))


def test_both_take_turns() -> None:
    kinds = {
        images.dtype for epoch in range(1, 9) for images, _, _ in mixed(_batches, 0.4, 1.0, CLASSES, 0)(epoch)
    }
    assert kinds == {torch.uint8, torch.float32}


def test_activations_are_blended() -> None:
    values = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 8, 5, 5)

    def batches(epoch: int, skip: int = 0, /) -> list[Batch]:
        return [(values, torch.tensor([0, 1, 2, 0]), torch.ones(4))]

    ((inputs, labels, _),) = mixed(batches, 0.0, 1.0, CLASSES, 0)(1)
    assert inputs[0].unique().numel() == 1
    assert 3 * (1 - float(inputs[3].mean()) / 3) == pytest.approx(float(inputs[0].mean()), abs=1e-5)
    assert float(labels[1, 2]) == pytest.approx(float(inputs[1].mean()) - 1, abs=1e-5)


def test_a_resumed_epoch_mixes_as_the_whole_one() -> None:
    whole = list(mixed(_batches, 0.4, 1.0, CLASSES, 7)(3))
    rest = list(mixed(_batches, 0.4, 1.0, CLASSES, 7)(3, 1))
    assert len(rest) == 1
    assert all(torch.equal(a, b) for a, b in zip(whole[1], rest[0], strict=True))
    assert not np.array_equal(whole[1][1], next(iter(mixed(_batches, 0.4, 1.0, CLASSES, 7)(4, 1)))[1])

"""Where the model looks: the place that makes the answer is the one whose loss costs it."""

from __future__ import annotations

import numpy as np
import torch

from regraft import backbone
from regraft.evaluation import softmax
from regraft.inference import occlusion
from regraft.modalities.image.hide import GRID, hide
from regraft.model import Model
from regraft.tasks.single import Single
from regraft.tasks.temperature import Temperature
from regraft.training import make_head


def bright(images: np.ndarray) -> np.ndarray:
    """A model of two classes: how much white is there in the upper left quarter?"""
    half = images.shape[1] // 2
    share = np.clip((images[:, :half, :half] == 255).mean(axis=(1, 2, 3)), 0.01, 0.99)
    return np.stack([1 - share, share], axis=1)


def test_the_place_that_decides_is_found() -> None:
    image = np.zeros((70, 70, 3), np.uint8)
    image[:20, 10:30] = 255
    found = occlusion(image, hide(image), 1, bright)
    assert found.whole == bright(image[None])[0, 1]
    fall = found.fall()
    assert fall.shape == (GRID, GRID)
    assert tuple(np.unravel_index(fall.argmax(), fall.shape)) in {(0, 1), (0, 2), (1, 1), (1, 2)}
    assert fall.argmax() == found.hidden.argmin()
    assert not fall[4:].any()
    assert not fall[:, 5:].any()


def test_a_place_that_speaks_against_the_answer_is_no_fall() -> None:
    image = np.zeros((70, 70, 3), np.uint8)
    image[:20, 10:30] = 255
    found = occlusion(image, hide(image), 0, bright)
    assert found.hidden.max() > found.whole
    assert not found.fall().any()


def test_every_pixel_is_hidden_by_some_square_and_kept_by_others() -> None:
    image = np.full((50, 50, 3), 7, np.uint8)
    hidden = (hide(image, 6) == 128).all(axis=-1)
    assert hidden.shape == (6, 6, 50, 50)
    assert hidden.any(axis=(0, 1)).all()
    assert not hidden.all(axis=(0, 1)).any()


def test_the_answers_are_the_models() -> None:
    base = backbone(size=64)
    model = Model(
        base,
        make_head("linear", base.width, 3),
        "linear",
        Single(("a", "b", "c")),
        calibration=Temperature("val", 1.7),
    )
    images = np.random.default_rng(0).integers(0, 255, (30, 64, 64, 3), dtype=np.uint8)
    found = model.answers(list(images))
    shares = np.array([list(answer.probabilities.values()) for answer in found])
    whole = Model(base, model.head, "linear", model.task)
    with torch.inference_mode():
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (base.preprocess.mean, base.preprocess.std))
        logits = whole.head(base.module.eval()((pixels - mean) / std)).numpy()
    np.testing.assert_allclose(shares, softmax(logits, 1.7), atol=1e-4)


def test_places_may_be_of_any_shape() -> None:
    """As of a text or a sound: places in a row. The largest value decides."""

    def largest(raws: np.ndarray) -> np.ndarray:
        share = np.clip(raws.max(axis=1) / 10, 0.01, 0.99)
        return np.stack([1 - share, share], axis=1)

    raw = np.array([1.0, 8.0, 2.0, 3.0])
    found = occlusion(raw, np.where(np.eye(4, dtype=bool), 0.0, raw), 1, largest)
    assert found.whole == 0.8
    np.testing.assert_allclose(found.hidden, [0.8, 0.3, 0.8, 0.8])
    assert found.fall().argmax() == 1

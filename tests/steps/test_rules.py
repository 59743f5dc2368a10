"""The rules that decide for the user, one by one."""

from __future__ import annotations

import numpy as np

from regraft.modalities import Suited, modality_of
from regraft.modalities.image.settings import crop_scale, input_size, mirror_allowed
from regraft.recipe import Recipe
from regraft.steps.estimate import run_seconds
from regraft.steps.finetune.rules import learns_again, length


def test_input_size_follows_the_images_between_64_and_native() -> None:
    def size(side: int, images: int = 100, cpu: bool = True) -> int:
        return input_size(224, False, np.full(images, side), images, cpu)[0]

    assert size(8) == 64  # digits of 8x8 pixels are not worth 224
    assert size(32) == 128
    assert size(500) == 224
    assert size(500, images=100_000, cpu=True) < size(500, images=100_000, cpu=False) == 224
    assert input_size(224, True, np.full(9, 8), 9, True)[0] == 224  # a network of one size keeps it
    assert all(size(side) % 32 == 0 for side in range(1, 300, 7))


def test_mirror_images_are_refused_where_a_probe_can_tell_them_from_the_data() -> None:
    rng = np.random.default_rng(0)
    # What is left and right differs by chance
    alike = rng.normal(size=(2, 300, 40)) + rng.normal(size=(300, 40))
    assert mirror_allowed(*alike)[0]
    assert mirror_allowed(alike[0], alike[0])[0]
    writing = alike.copy()
    writing[0, :, 0] += 2
    writing[1, :, 0] -= 2
    assert not mirror_allowed(*writing)[0]


def test_digits_are_not_mirrored() -> None:
    from sklearn.datasets import load_digits

    scans = load_digits().images[:400]
    assert not mirror_allowed(scans.reshape(400, -1), scans[:, :, ::-1].reshape(400, -1))[0]


def test_more_data_mean_fewer_epochs() -> None:
    epochs = [length(n, 224) for n in (100, 1_000, 5_000, 30_000, 1_000_000)]
    assert epochs == sorted(epochs, reverse=True)
    assert epochs[-1] >= 1
    assert length(1_000, 64) > length(1_000, 224)  # small inputs cost little


def test_closely_framed_images_are_cropped_less() -> None:
    assert crop_scale(np.full(5, 8), 64) > crop_scale(np.full(5, 300), 224)


def test_a_second_training_on_train_and_val_is_for_as_many_as_the_modality_affords() -> None:
    usual, text = Suited(1e-4, 0.9), modality_of("text")
    of_texts = text.settings(text.table([text.inspect("some words")]), 256)

    def again(examples: int, suited: Suited | None, prefer: str = "accuracy", **asked: object) -> bool:
        return learns_again(Recipe.build({"finetune": asked}).finetune, prefer, examples, suited)[0]

    assert again(1_000, usual)
    assert not again(1_001, usual)
    assert not again(1_001, None)
    assert again(9_000, of_texts)
    assert not again(100_000, of_texts)
    assert not again(9_000, of_texts, prefer="speed")
    assert not again(9_000, of_texts, refit=False)
    assert again(100_000, usual, refit=True)


def test_what_a_run_takes_goes_by_what_suits_the_modality() -> None:
    recipe, counts = Recipe.build(), {"train": 4_000, "val": 800, "test": 0}

    def training(suited: Suited | None) -> float:
        return run_seconds(recipe, counts, 224, 0.0, 0.05, suited)

    assert training(None) == training(Suited(1e-4, 0.9))
    assert training(Suited(1e-4, 0.9, epochs=3)) == 3 * training(Suited(1e-4, 0.9, epochs=1))
    assert training(Suited(1e-4, 0.9, refit=10_000)) == 2 * training(None)

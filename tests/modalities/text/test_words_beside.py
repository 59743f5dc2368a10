"""Words beside the network: what they see, that they learn, and that any engine runs them alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import texts
from regraft.modalities import modality_of
from regraft.modalities.text import lexical
from regraft.modalities.text.grams import FACTORS, LONGEST, SLOTS, pieces
from regraft.modalities.text.preprocess import PADDING
from regraft.modalities.text.sparse import solved
from regraft.tasks import Single
from regraft.tasks.multi import Multi

BESIDE = modality_of("text").beside
TASK = Single(tuple(texts.SAYINGS))
MOST_TOKENS = 500_000  # of a vocabulary: the largest that are in use have half of them


def raws_and_targets(each: int, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """Sentences as rows of numbers, a number a word."""
    rows = texts.labelled(each, seed)
    known = {
        word: number
        for number, word in enumerate([*texts.FILLERS, *" ".join(texts.SAYINGS.values()).split()])
    }
    raws = [np.array([*(known[word] for word in text.split()), PADDING], dtype=np.int32) for text, _ in rows]
    return raws, np.array([TASK.classes.index(label) for _, label in rows])


def batch(raws: list[np.ndarray], length: int = 24) -> dict[str, torch.Tensor]:
    ids = np.full((len(raws), length), PADDING, dtype=np.int64)
    for row, raw in zip(ids, raws, strict=True):
        row[: len(raw)] = raw
    mask = ids != PADDING
    return {"ids": torch.from_numpy(ids * mask), "mask": torch.from_numpy(mask.astype(np.int64))}


@pytest.fixture(scope="module")
def learnt() -> nn.Module:
    raws, targets = raws_and_targets(60)
    return BESIDE.learnt(raws, targets, np.ones(len(raws)), TASK)


def test_it_learns_the_words_that_tell(learnt: nn.Module) -> None:
    raws, targets = raws_and_targets(30, seed=7)
    assert (learnt(batch(raws)).numpy().argmax(1) == targets).mean() > 0.95


def test_a_text_has_the_same_answer_however_it_is_padded(learnt: nn.Module) -> None:
    raws, _ = raws_and_targets(4, seed=3)
    alone = np.concatenate([learnt(batch([raw], len(raw))).numpy() for raw in raws])
    np.testing.assert_allclose(learnt(batch(raws, 64)).numpy(), alone, atol=1e-6)


def test_pieces_are_tokens_pairs_and_threes_and_none_goes_beyond_the_text() -> None:
    slots, checks, whole = pieces(batch([np.array([5, 6, 5, 6, PADDING])], 8))
    assert slots.shape == (1, LONGEST * 8)
    assert int(whole.sum()) == 4 + 3 + 2
    pairs = [(int(slots[0, 8 + at]), int(checks[0, 8 + at])) for at in range(3)]
    assert pairs[0] == pairs[2] != pairs[1]
    assert (SLOTS - 1) * max(FACTORS) + MOST_TOKENS < 2**31


def test_a_text_of_unknown_words_gets_what_is_known_of_all(learnt: nn.Module) -> None:
    found = learnt(batch([np.array([900, 901, PADDING]), np.array([PADDING])])).numpy()
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_it_learns_several_labels_a_text() -> None:
    raws, targets = raws_and_targets(60)
    task = Multi(TASK.classes)
    several = np.eye(3)[targets]
    several[:, 2] = several[:, 0]
    outputs = BESIDE.learnt(raws, several, np.ones(len(raws)), task)(batch(raws)).numpy()
    assert ((outputs > 0) == (several == 1)).mean() > 0.95


def test_what_was_kept_answers_alike_and_a_scaled_one_so_many_times(learnt: nn.Module) -> None:
    given = batch(raws_and_targets(5, seed=2)[0])
    again = BESIDE.restored(learnt.state_dict())
    assert torch.equal(again(given), learnt(given))
    offset = np.array([0.5, -1.0, 0.0], dtype=np.float32)
    twice = learnt.scaled(2.0, offset)(given)
    torch.testing.assert_close(twice, 2 * (learnt(given) - torch.from_numpy(offset)))


def test_openvino_runs_it_as_pytorch_does(learnt: nn.Module) -> None:
    openvino = pytest.importorskip("openvino", reason="needs OpenVINO, which this machine has no wheel of")

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = learnt

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.inner({"ids": ids, "mask": mask})

    given = batch(raws_and_targets(5, seed=4)[0])
    shape = openvino.PartialShape([-1, -1])
    graph = openvino.convert_model(Pair(), example_input=tuple(given.values()), input=[shape, shape])
    outputs = openvino.Core().compile_model(graph, "CPU")([each.numpy() for each in given.values()])
    np.testing.assert_allclose(next(iter(outputs.values())), learnt(given).numpy(), atol=1e-3)


def test_the_solver_of_sparse_features_finds_what_scikit_learn_finds() -> None:
    from scipy import sparse
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    features = sparse.random(200, 30, 0.2, format="csr", random_state=0, dtype=np.float32)
    targets, weights = rng.integers(0, 3, 200), rng.uniform(0.5, 2.0, 200)
    ours, bias = solved(features, targets, weights, TASK.link, 3, 0.01)
    model = LogisticRegression(C=1 / (0.01 * weights.sum()), tol=1e-8, max_iter=1_000)
    theirs = model.fit(features, targets, sample_weight=weights)
    shares = [each - each.mean(axis=1, keepdims=True) for each in (features @ ours + bias,)]
    expected = theirs.decision_function(features)
    np.testing.assert_allclose(shares[0], expected - expected.mean(axis=1, keepdims=True), atol=0.02)


def test_words_alone_hold_no_more_weights_than_are_allowed_however_many_answers_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held: list[tuple[int, int]] = []

    def watched(features, *others):  # type: ignore[no-untyped-def]
        found = solved(features, *others)
        held.append(found[0].shape)
        return found

    monkeypatch.setattr(lexical, "solved", watched)
    rows, answers = texts.labelled(40), len(texts.SAYINGS)
    known, targets = [text for text, _ in rows], np.array([TASK.classes.index(label) for _, label in rows])
    (words,) = modality_of("text").evidence

    def told(outputs: int) -> np.ndarray:
        return words.answers(known[:90], targets[:90], np.ones(90), known[90:], outputs)

    right = (told(answers).argmax(axis=1) == targets[90:]).mean()
    assert right > 0.9
    assert max(wide for wide, _ in held) > 200
    held.clear()
    monkeypatch.setattr(lexical, "MOST", 1_200)
    monkeypatch.setattr(lexical, "FEWEST", 10)
    few = told(answers)
    assert max(wide * outputs for wide, outputs in held) <= 1_200
    assert few.shape == (len(rows) - 90, answers)
    np.testing.assert_allclose(np.exp(few).sum(axis=1), 1, atol=1e-4)
    more = told(answers + 2)  # of two answers there is no example
    assert set(more.argmax(axis=1)) <= set(range(answers))

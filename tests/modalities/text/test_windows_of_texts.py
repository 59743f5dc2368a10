"""Texts that are longer than the network takes: windows, each seen alone, and averaged."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import texts
from regraft.backbones import Backbone, make_base, obtain_weights, tensors
from regraft.data import audit_files
from regraft.inference import ENGINES, makers
from regraft.modalities import modality_of, read_source
from regraft.modalities.text import TextPreprocess
from regraft.modalities.text.hide import hide
from regraft.modalities.text.preprocess import PADDING, spaced

SIZE = 16
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    folder = texts.tiny_encoder(tmp_path_factory.mktemp("encoder") / "bert")
    obtained = obtain_weights(f"path:{folder}", modality="text")
    preprocess, _ = modality_of("text").preprocess(obtained.config, 62, None, SIZE, True)
    assert isinstance(preprocess, TextPreprocess)
    return make_base(obtained, replace(preprocess, windows=3))


def long_text(words: int, seed: int = 1) -> str:
    return texts.sentence("weather", seed, words)


def test_a_long_text_becomes_windows_from_its_beginning_to_its_end(base: Backbone) -> None:
    preprocess = base.preprocess
    words = long_text(100).split()
    raw = preprocess.host(" ".join(words))
    assert len(raw) == 2 * SIZE + len(raw[2 * SIZE :])
    windows = [raw[:SIZE], raw[SIZE : 2 * SIZE], raw[2 * SIZE :]]
    assert all(window[0] == 2 and window[-1] == PADDING for window in windows)
    single = replace(preprocess, windows=1)
    np.testing.assert_array_equal(windows[0][: SIZE - 1], single.host(" ".join(words))[: SIZE - 1])
    last = windows[2][windows[2] != PADDING]
    end = single.host(" ".join(words[-(len(last) - 2) :]))
    np.testing.assert_array_equal(last, end[end != PADDING])
    short = long_text(4)
    np.testing.assert_array_equal(preprocess.host(short), single.host(short))
    assert spaced(9, 3) == [0, 4, 8]
    assert spaced(2, 3) == [0, 1]


def test_a_gigantic_text_is_bounded_before_it_is_tokenised(
    base: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules[TextPreprocess.__module__]
    seen: list[int] = []
    usual = module.tokenizer_of

    class Counting:
        def __init__(self, *given: object) -> None:
            self.tokenizer = usual(*given)

        def encode(self, text: str) -> object:
            seen.append(len(text))
            return self.tokenizer.encode(text)

    monkeypatch.setattr(module, "tokenizer_of", Counting)
    for windows in (1, 3):
        seen.clear()
        raw = replace(base.preprocess, windows=windows).host("rain and snow " * 700_000)
        assert len(raw) <= SIZE * windows
        assert sum(seen) <= windows * module.LONG_TOKEN * SIZE


@pytest.mark.parametrize("name", ENGINES)
def test_windows_are_seen_alone_and_averaged_by_their_tokens(name: str, base: Backbone) -> None:
    items = [long_text(100), long_text(5), long_text(20), long_text(200, 7)]
    preprocess, model = base.preprocess, base.module.model
    raws = [preprocess.host(item) for item in items]
    try:
        engine = makers(base, CPU, 4)[name]()
        alone = np.concatenate([engine.run(preprocess.collate([raw]))[0] for raw in raws])
        together = engine.run(preprocess.collate(raws))[0]
    except ImportError as error:
        pytest.skip(f"{error}: pip install openvino")
    except RuntimeError as error:
        if "no bfloat16 units" not in str(error):
            raise
        pytest.skip("needs a processor with bfloat16 units")
    expected = []
    for raw in raws:
        states = []
        for start in range(0, len(raw), SIZE):
            window = raw[start : start + SIZE]
            with torch.no_grad():
                ids = torch.tensor([window[window != PADDING].tolist()])
                states.append(model(input_ids=ids).last_hidden_state[0])
        expected.append(torch.cat(states).mean(0).numpy())
    tolerance = 1e-5 if name.endswith("float32") else 0.05
    np.testing.assert_allclose(alone, expected, atol=tolerance)
    np.testing.assert_allclose(together, expected, atol=tolerance)


@pytest.mark.parametrize("pooling", ["cls", "max"])
def test_other_poolings_take_the_windows_together(
    pooling: str, base: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base.module, "pooling", pooling)
    preprocess, raw = base.preprocess, base.preprocess.host(long_text(40))
    batch = preprocess.device()(tensors(preprocess.collate([raw, preprocess.host(long_text(3))])))
    with torch.no_grad():
        found = base.module.eval()(batch)[0]
        states = []
        for start in range(0, len(raw), SIZE):
            window = raw[start : start + SIZE]
            ids = torch.tensor([window[window != PADDING].tolist()])
            states.append(base.module.model(input_ids=ids).last_hidden_state[0])
    if pooling == "cls":
        expected = torch.stack([state[0] for state in states]).mean(0)
    else:
        expected = torch.cat(states).amax(0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_words_of_every_window_can_be_hidden_and_drawn(base: Backbone) -> None:
    text = long_text(40)
    raw = base.preprocess.host(text)
    copies = hide(raw)
    assert copies is not None
    assert copies.shape[1] == len(raw)
    heat = np.linspace(0, 1, len(copies))
    plain, drawn = modality_of("text").overlay(base.preprocess, text, heat)
    assert plain.startswith("data:image/svg+xml;base64,")
    assert drawn != plain


def test_windows_are_as_many_as_the_longest_needs_and_the_time_allows(base: Backbone) -> None:
    modality, one = modality_of("text"), replace(base.preprocess, windows=1)
    assert modality.longer is not None
    few = modality.table([modality.inspect(long_text(n)) for n in (3, 25)])
    found = modality.longer(one, few, True)
    assert found is not None
    assert 2 <= found[0].windows <= 6  # type: ignore[attr-defined]
    assert "windows" in found[1]
    short = modality.table([modality.inspect(long_text(3))])
    assert modality.longer(one, short, True) is None


def test_a_table_may_hold_cells_of_megabytes(tmp_path: Path) -> None:
    rows = [
        *texts.labelled(3),
        ("the rain in the spring " * 200_000, "weather"),
        ("x" * 1_000_000, "traffic"),
    ]
    source = read_source(texts.write_table(tmp_path / "long.csv", rows))
    audited = audit_files(source, lambda **_: None)
    assert not audited.quarantined
    assert [fact.about.characters for fact in audited.facts[-2:]] == [4_599_999, 1_000_000]
    assert all(len(fact.about.opening) <= 300 for fact in audited.facts)

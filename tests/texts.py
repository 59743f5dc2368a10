"""Texts that tests make, and a tiny text encoder of random weights with a tokenizer of its own."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

SAYINGS = {
    "weather": "rain snow storm cloud wind sunny cold warm forecast umbrella degrees fog",
    "kitchen": "bread butter oven salt pepper knife soup onion garlic plate cup spoon",
    "traffic": "car road train bus bridge wheel driver station ticket signal lane motor",
}
FILLERS = [
    "the",
    "a",
    "of",
    "in",
    "on",
    "and",
    "we",
    "they",
    "was",
    "is",
    "very",
    "today",
    "here",
    "some",
    "more",
    "then",
]


def sentence(label: str, seed: int, words: int | None = None) -> str:
    """A sentence of its own for each seed, with two words of its label's."""
    rng = np.random.default_rng(seed)
    some = list(rng.choice(FILLERS, words or int(rng.integers(3, 14))))
    for word in rng.choice(SAYINGS[label].split(), 3, replace=False):
        some.insert(int(rng.integers(0, len(some) + 1)), word)
    return " ".join(some)


def labelled(each: int, seed: int = 0) -> list[tuple[str, str]]:
    """(text, label) of so many sentences of each label, in turn."""
    return [
        (sentence(label, 1_000 * seed + 10 * number + place), label)
        for number in range(each)
        for place, label in enumerate(SAYINGS)
    ]


def write_table(place: Path, rows: Sequence[tuple[str, str]]) -> Path:
    """A csv of texts and labels."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle).writerows([("text", "label"), *rows])
    return place


KNOWN = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *FILLERS, *" ".join(SAYINGS.values()).split()]


def word_tokenizer() -> Any:
    """A tokenizer of the library `tokenizers` that knows the words of `SAYINGS`."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(KNOWN)}, "[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def tiny_encoder(folder: Path, layers: int = 2) -> Path:
    """A BERT of random weights, 16 wide, that knows the words of `SAYINGS`."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(KNOWN),
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    folder.mkdir(parents=True, exist_ok=True)
    BertModel(config).save_pretrained(folder)
    word_tokenizer().save(str(folder / "tokenizer.json"))
    return folder

"""Static embeddings of texts in the layout of model2vec: a vector a token, averaged. No network is asked, so it
is as fast as reading the texts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from regraft.artifacts import openable, read_json
from regraft.backbones.encoders import tokenizer_in
from regraft.errors import BackboneError

PREFIX = "static:"
LONGEST = 512  # tokens of a text that are read, as model2vec does by itself


class StaticEmbedding(nn.Module):
    """{"ids": (B, L), "mask": (B, L)} to (B, width): the mean of the tokens' vectors, of length 1 where it is
    `normed`. Padding and the `unknown` token do not count.
    """

    def __init__(self, tokens: int, width: int, unknown: int, normed: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.unknown, self.normed, self.num_features = unknown, normed, width

    def forward(self, given: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Features of one batch."""
        ids, mask = given["ids"].flatten(1), given["mask"].flatten(1)
        vectors = self.embedding(ids)
        there = (mask * (ids != self.unknown)).unsqueeze(-1).to(vectors.dtype)
        mean = (vectors * there).sum(dim=1) / there.sum(dim=1).clamp_min(1)
        return nn.functional.normalize(mean, dim=1) if self.normed else mean

    def reset_classifier(self, classes: int) -> None:
        """There is none to take off."""


def is_static(folder: Path) -> bool:
    """True for a folder in model2vec's layout."""
    file = folder / "config.json"
    about = read_json(file) if file.is_file() else None
    return isinstance(about, dict) and about.get("model_type") == "model2vec"


def read_folder(folder: Path, name: str = "") -> tuple[StaticEmbedding, str, dict[str, Any]]:
    """The embedding of such a folder, what its architecture is called, and its config. Raises BackboneError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    about = read_json(folder / "config.json")
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise BackboneError(f"{name or folder}: there is no model.safetensors in it.")
    tokenizer, unknown = without_signs(tokenizer_in(folder))
    try:
        with openable(weights) as file:
            found = load_file(file)
        vectors = found["embeddings"].float()
        if (rows := found.get("mapping")) is not None:  # tokens that share a vector
            vectors = vectors[rows.long()]
        if (weight := found.get("weights")) is not None:
            vectors = vectors * weight.float().unsqueeze(1)
    except (KeyError, IndexError, SafetensorError, RuntimeError, OSError) as error:
        raise BackboneError(f"{name or folder} holds no embeddings of model2vec: {error}") from None
    config = {
        "modality": "text",
        "input_size": [LONGEST],
        "classifier": None,
        "license": "unknown",
        "tokenizer": tokenizer,
        "static": {
            "tokens": len(vectors),
            "width": vectors.shape[1],
            "unknown": unknown,
            "normed": about.get("normalize", True) is not False,
        },
    }
    module = build(config)
    module.embedding.weight.data.copy_(vectors)
    return module.eval(), f"{PREFIX}embedding", config


def without_signs(tokenizer: str) -> tuple[str, int]:
    """The tokenizer.json of one that adds no signs for beginning and end, and the number of its token for what
    it does not know, -1 where there is none.
    """
    about = json.loads(tokenizer)
    model = about.get("model") or {}
    about["post_processor"] = None
    unknown = model.get("unk_id")
    if unknown is None and isinstance(vocabulary := model.get("vocab"), dict):
        unknown = vocabulary.get(model.get("unk_token"))
    return json.dumps(about, ensure_ascii=False), -1 if unknown is None else int(unknown)


def build(config: dict[str, Any]) -> StaticEmbedding:
    """The untrained embedding of a config."""
    return StaticEmbedding(**config["static"])

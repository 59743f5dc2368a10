"""Text encoders in the layout of transformers or sentence-transformers: config.json with a `model_type`,
model.safetensors, a tokenizer; and how their tokens are pooled.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from regraft.artifacts import read_json
from regraft.backbones.transformers_layout import library, ordinal_of
from regraft.errors import BackboneError

PREFIX = "encoder:"
TOKENIZER = "tokenizer.json"
POOLINGS = ("mean", "cls")
LONGEST = 512  # tokens of a network that says nothing of it
OFFSET = {
    "roberta": 2,
    "xlm-roberta": 2,
    "camembert": 2,
    "mpnet": 2,
}  # positions that count from behind the padding
# What these expect before a text, where their own config does not say so
PREFIXES = {"e5-": "query: ", "nomic-embed": "classification: ", "modernbert-embed": "classification: "}

Given = Mapping[str, torch.Tensor]  # `ids` and `mask`, (B, L) int64


class PooledEncoder(nn.Module):
    """{"ids": (B, L), "mask": (B, L)} to (B, width): the last layer's states, their mean over what is no
    padding, or that of the first token.
    """

    def __init__(self, model: nn.Module, pooling: str) -> None:
        super().__init__()
        if isinstance(getattr(model, "pooler", None), nn.Module):
            model.pooler = None  # type: ignore[assignment]  # trained for another task, and asked by nobody
        self.model, self.pooling = model, pooling
        model.loss_function = None  # type: ignore[assignment]  # who looks for one is warned by the library
        self.num_features = int(model.config.hidden_size)  # type: ignore[union-attr, arg-type]

    def forward(self, given: Given) -> torch.Tensor:
        """Pooled features of one batch."""
        states = self.model(input_ids=given["ids"], attention_mask=given["mask"]).last_hidden_state
        return self.pooled(states, given)

    def pooled(self, activation: torch.Tensor, given: Given) -> torch.Tensor:
        """(B, width) of the (B, L, width) states after any layer."""
        if self.pooling == "cls":
            return activation[:, 0]
        mask = given["mask"].unsqueeze(-1).to(activation.dtype)
        return (activation * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1)

    def reset_classifier(self, classes: int) -> None:
        """There is none to take off: the base class of the library has no classifier."""

    def group_matcher(self, coarse: bool = False) -> Any:
        """timm's interface: embeddings first, then a group a layer, what follows the last at the end."""
        return ordinal_of(coarse)


def is_encoder(folder: Path) -> bool:
    """True for a folder of a transformers model that takes tokens."""
    file = folder / "config.json"
    about = read_json(file) if file.is_file() else None
    if not isinstance(about, dict) or "model_type" not in about or "architecture" in about:
        return False
    return "vocab_size" in about and "image_size" not in about and not about.get("is_encoder_decoder")


def read_encoder(folder: Path, name: str = "") -> tuple[PooledEncoder, str, dict[str, Any]]:
    """The encoder of a folder, its name with our prefix, and a config of plain values; `name` is what it is
    called where it comes from. Raises BackboneError.
    """
    transformers = library()
    try:
        model, info = transformers.AutoModel.from_pretrained(
            str(folder),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise BackboneError(f"{folder}: transformers cannot load it: {str(error).splitlines()[0]}") from None
    missing = [key for key in info["missing_keys"] if not key.startswith("pooler.")]
    if missing or info.get("mismatched_keys"):
        raise BackboneError(
            f"{folder}: its weights lack {', '.join(sorted(missing)[:3]) or 'the right shapes'}."
        )
    kind = str(model.config.model_type)
    positions = int(getattr(model.config, "max_position_embeddings", LONGEST) or LONGEST)
    sentence = _json(folder / "sentence_bert_config.json")
    longest = int(sentence.get("max_seq_length") or positions - OFFSET.get(kind, 0))
    config = {
        "modality": "text",
        "input_size": [min(longest, positions - OFFSET.get(kind, 0))],
        "classifier": None,
        "license": "unknown",
        "pooling": pooling_of(folder),
        "prefix": prefix_of(folder, name),
        "padding": int(model.config.pad_token_id or 0),
        "transformers": model.config.to_dict(),
        "tokenizer": tokenizer_in(folder),
    }
    return PooledEncoder(model, config["pooling"] or "mean"), f"{PREFIX}{type(model).__name__}", config


def pooling_of(folder: Path) -> str:
    """How a sentence-transformers folder pools tokens; "" where it does not say, or in a way that is not
    known.
    """
    for place in sorted(folder.glob("*_Pooling/config.json")):
        about = _json(place)
        if about.get("pooling_mode_cls_token") or about.get("pooling_mode") == "cls":
            return "cls"
        if about.get("pooling_mode_mean_tokens") or about.get("pooling_mode") == "mean":
            return "mean"
    return ""


def prefix_of(folder: Path, name: str = "") -> str:
    """What an encoder expects before a text that is to be classified; "" for most."""
    about = _json(folder / "config_sentence_transformers.json")
    prompts = about.get("prompts") or {}
    usual = about.get("default_prompt_name")
    if isinstance(prompts, dict) and (found := prompts.get("classification") or prompts.get(usual or "")):
        return str(found)
    known = f"{folder.name} {name}".lower()
    return next((prefix for part, prefix in PREFIXES.items() if part in known), "")


def tokenizer_in(folder: Path) -> str:
    """The content of a folder's tokenizer.json, made by transformers where there is another form of it.
    Raises BackboneError.
    """
    file = folder / TOKENIZER
    if file.is_file():
        return file.read_text(encoding="utf-8")
    try:
        made = library().AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
        return str(made.backend_tokenizer.to_str())
    except Exception as error:  # whatever the library stumbles over
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise BackboneError(f"{folder}: no fast tokenizer can be made of what is there: {first}") from None


def build_encoder(config: Mapping[str, Any]) -> PooledEncoder:
    """An untrained network of the same shape, for weights to be loaded into."""
    transformers, inner = library(), dict(config["transformers"])
    inner.pop("loss_type", None)  # of a model without a loss; the library warns of it
    known = transformers.AutoConfig.for_model(inner.pop("model_type"), **inner)
    return PooledEncoder(
        transformers.AutoModel.from_config(known).float(), str(config.get("pooling") or "mean")
    )


def _json(file: Path) -> dict[str, Any]:
    about = read_json(file) if file.is_file() else {}
    return about if isinstance(about, dict) else {}

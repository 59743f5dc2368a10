"""Text encoders in the layout of transformers or sentence-transformers: config.json with a `model_type`,
weights, a tokenizer; and how their tokens are pooled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from regraft.artifacts import read_json
from regraft.backbones.transformers_layout import library, loaded
from regraft.errors import BackboneError

PREFIX = "encoder:"
TOKENIZER = "tokenizer.json"
POOLINGS = ("mean", "cls", "max")
LONGEST = 512  # tokens of a network that says nothing of it
OFFSET = {
    "roberta": 2,
    "xlm-roberta": 2,
    "camembert": 2,
    "mpnet": 2,
}  # positions that count from behind the padding
# What these expect before a text, where their own config does not say so
PREFIXES = {"e5-": "query: ", "nomic-embed": "classification: ", "modernbert-embed": "classification: "}
HALVES = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}  # of seq2seq models
TRIED = "albert, bert, camembert, deberta, deberta-v2, distilbert, electra, modernbert, mpnet, nomic_bert, roberta, xlm-roberta"
CLOSING = ("final_norm", "final_layer_norm", "norm")  # norms behind the last layer, beside the list of layers
WITHIN = {"encoder.conv": 0}  # what works within a layer, and stands beside the list of them: DeBERTa's
BEFORE, BEHIND = -1, 1 << 20  # ordinals
SLIDING = "sliding_attention"  # what the library calls layers that attend to what is near only
FAR = -1e4  # what a place counts as that is padding, where the largest is taken

Given = Mapping[str, torch.Tensor]  # `ids` and `mask`, (B, L) int64, or (B, W, L) of W windows each


class PooledEncoder(nn.Module):
    """{"ids": (B, L), "mask": (B, L)} to (B, width): the last layer's states, their mean over what is no
    padding, their maxima there, or the state of the first token; of length 1 where it is `normed`.

    Of (B, W, L) the network sees each of the W windows alone; the mean and the maxima are those over the tokens
    of all windows, and first tokens are averaged over the windows that are there.
    """

    def __init__(self, model: nn.Module, pooling: str, normed: bool = False) -> None:
        super().__init__()
        if isinstance(getattr(model, "pooler", None), nn.Module):
            model.pooler = None  # type: ignore[assignment]  # trained for another task, and asked by nobody
        self.model, self.pooling, self.normed = model, pooling, normed
        model.loss_function = None  # type: ignore[assignment]  # who looks for one is warned by the library
        self.num_features = int(model.config.hidden_size)  # type: ignore[union-attr, arg-type]
        self.layers = layers_of(model)

    def forward(self, given: Given) -> torch.Tensor:
        """Pooled features of one batch."""
        found = self.pooled(self.states(given), given)
        return nn.functional.normalize(found, dim=1) if self.normed else found

    def extra_repr(self) -> str:
        """What is stored of it goes by its pooling too (`Backbone.fingerprint`)."""
        return f"pooling={self.pooling}" + ", normed" * self.normed

    def states(self, given: Given) -> torch.Tensor:
        """(B, L, width) states after the last layer."""
        ids: torch.Tensor = given["ids"]
        mask: Any = given["mask"]
        if ids.ndim == 3:
            ids, mask = ids.flatten(0, 1), seen(mask).flatten(0, 1)
        if SLIDING in (getattr(self.model.config, "layer_types", None) or ()):
            mask = near(mask, int(self.model.config.sliding_window))  # type: ignore[union-attr, arg-type]
        return self.model(input_ids=ids, attention_mask=mask).last_hidden_state  # type: ignore[no-any-return]

    def pooled(self, activation: torch.Tensor, given: Given, pooling: str = "") -> torch.Tensor:
        """(B, width) of the (B, L, width) states after any layer, or (B * W, L, width) of W windows, by its own
        pooling or a named one.
        """
        pooling, mask = pooling or self.pooling, given["mask"]
        if mask.ndim == 3:
            examples, windows = mask.shape[:2]
            if pooling == "cls":
                there = mask[:, :, :1].to(activation.dtype)
                first = activation[:, 0].reshape(examples, windows, -1)
                return (first * there).sum(dim=1) / there.sum(dim=1).clamp_min(1)
            activation, mask = activation.reshape(examples, -1, activation.shape[-1]), mask.flatten(1)
        if pooling == "cls":
            return activation[:, 0]
        mask = mask.unsqueeze(-1).to(activation.dtype)
        if pooling == "max":
            return activation.masked_fill(mask == 0, FAR).amax(dim=1)
        return (activation * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1)

    def reset_classifier(self, classes: int) -> None:
        """There is none to take off: the base class of the library has no classifier."""

    def group_matcher(self, coarse: bool = False) -> Callable[[str], tuple[int, ...]]:
        """timm's interface, the ordinal of a parameter: those of layers by their numbers, a closing norm
        behind them, and before them whatever else there is, as all layers use it (positions among it).
        """
        there, closing = f"model.{self.layers}.", self._closing()

        def ordinal(name: str) -> tuple[int, ...]:
            if name.startswith(there):
                return (int(name.removeprefix(there).split(".")[0]),)
            module = name.removeprefix("model.").rpartition(".")[0]
            within = [number for place, number in WITHIN.items() if module.startswith(place)]
            return (within[0] if within else BEHIND if module in closing else BEFORE,)

        return ordinal

    def _closing(self) -> list[str]:
        """The names of the norms that close the model."""
        above = self.layers.rpartition(".")[0]
        beside = self.model.get_submodule(above)
        return [f"{above}.{leaf}".lstrip(".") for leaf in CLOSING if hasattr(beside, leaf)]

    def cut_short(self, depth: int) -> None:
        """Keep the first `depth` stages only, embeddings included; no norm closes them, and their features have
        lengths of their own.
        """
        self.normed = False
        layers: Any = self.model.get_submodule(self.layers)
        del layers[depth - 1 :]
        self.model.config.num_hidden_layers = depth - 1  # type: ignore[union-attr]
        for name in self._closing():
            above, _, leaf = name.rpartition(".")
            setattr(self.model.get_submodule(above), leaf, nn.Identity())


def seen(mask: torch.Tensor) -> torch.Tensor:
    """A (B, W, L) mask in which the first place of each window is seen: attention to nothing at all gives no
    numbers. What a window without a token gives is not pooled.
    """
    first = torch.ones_like(mask[:, :, :1])
    return torch.cat([first, mask[:, :, 1:]], dim=2)


def near(mask: torch.Tensor, reach: int) -> dict[str, torch.Tensor]:
    """(B, 1, L, L) truths, who attends to whom, of a (B, L) mask, for layers of both kinds. A place attends to
    itself, padding too: by the library's own truths padding far from all words attends to nothing, which
    engines answer with numbers that are none.
    """
    places = torch.arange(mask.shape[1], device=mask.device)
    away = (places[:, None] - places[None, :]).abs()[None, None]
    there = (mask[:, None, None, :] > 0) | (away == 0)
    return {"full_attention": there, SLIDING: there & (away <= reach)}


def layers_of(model: Any) -> str:
    """The name of the list of an encoder's layers. Raises BackboneError where there is none."""
    count = getattr(model.config, "num_hidden_layers", 0)
    lists = [(name, child) for name, child in model.named_modules() if isinstance(child, nn.ModuleList)]
    if not lists:
        raise BackboneError(
            f"a {type(model).__name__} has no layers in a row, so it cannot be cut into stages."
        )
    return str(next((name for name, child in lists if len(child) == count), lists[0][0]))


def is_encoder(folder: Path) -> bool:
    """True for a folder of a transformers model that takes tokens, in the folder itself or where its
    sentence-transformers config says.
    """
    about = _json(root_of(folder) / "config.json")
    if "model_type" not in about or "architecture" in about:
        return False
    return "vocab_size" in about and not {"image_size", "vision_config", "audio_config"} & about.keys()


def root_of(folder: Path) -> Path:
    """Where the network of a sentence-transformers folder lies: in older ones not in the folder itself."""
    if modules := _modules(folder):
        inner = folder / str(modules[0].get("path") or "")
        if inner.resolve().is_relative_to(folder.resolve()) and (inner / "config.json").is_file():
            return inner
    return folder


def is_normed(folder: Path) -> bool:
    """Whether a sentence-transformers folder brings its features to length 1 right behind the pooling. Behind a
    projection, which is left out, that is no part of what is used.
    """
    kinds = [str(module.get("type")).rpartition(".")[2] for module in _modules(folder)]
    return kinds[1:3] == ["Pooling", "Normalize"]


def _modules(folder: Path) -> list[dict[str, Any]]:
    """What a sentence-transformers folder says it is made of, in order; empty for others."""
    file = folder / "modules.json"
    modules = read_json(file) if file.is_file() else None
    found = modules if isinstance(modules, list) else []
    return found if all(isinstance(module, dict) for module in found) else []


def read_encoder(folder: Path, name: str = "") -> tuple[PooledEncoder, str, dict[str, Any]]:
    """The encoder of a folder, its name with our prefix, and a config of plain values; `name` is what it is
    called where it comes from. Raises BackboneError.
    """
    root = root_of(folder)
    kind = str(_json(root / "config.json")["model_type"])
    model = loaded(root, _class_of(kind, name or str(folder)), spare=("pooler.",), extra="text")
    model = model.encoder if kind in HALVES else model
    positions = int(getattr(model.config, "max_position_embeddings", LONGEST) or LONGEST)
    most = positions - OFFSET.get(kind, 0)
    sentence = _json(root / "sentence_bert_config.json")
    config = {
        "modality": "text",
        "input_size": [min(int(sentence.get("max_seq_length") or most), most)],
        "classifier": None,
        "license": "unknown",
        "pooling": pooling_of(folder),
        "normed": is_normed(folder),
        "prefix": prefix_of(folder, name),
        "padding": int(model.config.pad_token_id or 0),
        "transformers": model.config.to_dict(),
        "tokenizer": tokenizer_in(root),
    }
    module = PooledEncoder(model, config["pooling"] or "mean", config["normed"])
    return module, f"{PREFIX}{type(model).__name__}", config


def _class_of(kind: str, name: str) -> str:
    """What of the library reads a `model_type`. Raises BackboneError for what is no encoder of texts."""
    if kind in HALVES:
        return HALVES[kind]
    from transformers.models.auto import modeling_auto as auto

    if (
        kind in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
        and kind not in auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    ):
        return "AutoModel"
    if kind in auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        what = "which makes texts of texts (seq2seq)"
    elif kind in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        what = "which reads from left to right only (a decoder)"
    else:
        what = "which is not known to be an encoder of texts"
    raise BackboneError(
        f"{name}: its model_type is {kind!r}, {what}. Taken are encoders that learnt to fill in masked words ({TRIED} "
        f"were tried) and the encoders of {', '.join(HALVES)}; for sounds whisper, wav2vec2, hubert, wavlm, "
        "audio-spectrogram-transformer and clap."
    )


def pooling_of(folder: Path) -> str:
    """How a sentence-transformers folder pools tokens; "" where it does not say, or in a way that is not
    known, several at once among them.
    """
    for place in sorted(folder.glob("*_Pooling/config.json")):
        about = _json(place)
        modes = {key.removeprefix("pooling_mode_").split("_")[0] for key, on in about.items() if on is True}
        modes |= {str(about["pooling_mode"])} if "pooling_mode" in about else set()
        modes -= {"include"}  # include_prompt
        if len(modes) == 1 and modes <= set(POOLINGS):
            return str(modes.pop())
    return ""


def prefix_of(folder: Path, name: str = "") -> str:
    """What an encoder expects before a text that is to be classified; "" for most."""
    about = _json(folder / "config_sentence_transformers.json")
    prompts = about.get("prompts")
    known = {str(key).lower(): value for key, value in prompts.items()} if isinstance(prompts, dict) else {}
    usual = str(about.get("default_prompt_name") or "").lower()
    if found := known.get("classification") or known.get(usual):
        return str(found)
    called = f"{folder.name} {name}".lower()
    return next((prefix for part, prefix in PREFIXES.items() if part in called), "")


def tokenizer_in(folder: Path) -> str:
    """The content of a folder's tokenizer.json, made by transformers where there is another form of it.
    Raises BackboneError.
    """
    file = folder / TOKENIZER
    if file.is_file():
        return file.read_text(encoding="utf-8")
    try:
        made = library("text").AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
        return str(made.backend_tokenizer.to_str())
    except Exception as error:  # whatever the library stumbles over
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise BackboneError(f"{folder}: no fast tokenizer can be made of what is there: {first}") from None


def build_encoder(config: Mapping[str, Any]) -> PooledEncoder:
    """An untrained network of the same shape, for weights to be loaded into."""
    inner = dict(config["transformers"])
    inner.pop("loss_type", None)  # of a model without a loss; the library warns of it
    transformers, kind = library("text"), inner.pop("model_type")
    known = transformers.AutoConfig.for_model(kind, **inner)
    if kind in HALVES:
        model = getattr(transformers, HALVES[kind])(known).encoder
    else:
        model = transformers.AutoModel.from_config(known)
    pooling, normed = str(config.get("pooling") or "mean"), bool(config.get("normed"))
    return PooledEncoder(model.float(), pooling, normed)


def _json(file: Path) -> dict[str, Any]:
    about = read_json(file) if file.is_file() else {}
    return about if isinstance(about, dict) else {}

"""The one preprocessing that training, evaluation, prediction and export of texts share.

`host` turns a text into the numbers of its tokens, `collate` makes a batch of several, padded to a bucket of
lengths, with a mask.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from regraft.artifacts import fingerprint
from regraft.errors import BackboneError, NotInstalledError, UsageError
from regraft.modalities.buckets import bucket_of
from regraft.modalities.intake import Intake, prepared
from regraft.modalities.text.reading import NULS, read_text

if TYPE_CHECKING:
    from torch import nn

VERSION = "1"  # should the tokens ever change, this does, and old runs keep theirs
TOKENIZER = "tokenizer.json"
STANDALONE = Path(__file__).with_name("standalone")  # what goes with an export, to be used without regraft
PADDING = -1  # in what `host` gives: a place that the network does not see
LONG_TOKEN = 32  # characters a token: a text is cut to so many times its tokens before it is tokenised


@dataclass(frozen=True)
class TextPreprocess:
    """Preprocessing that travels with the weights.

    A text, behind `prefix`, becomes at most `size` - 1 tokens: what is more is cut off. One place more is
    padding, so that every batch has some and libraries take the same way for each. `tokenizer` is the
    content of a tokenizer.json, `padding` the number of its token for padding. Texts of the set that it was
    made for mostly have `typical` places: `blank` is as long.

    With several `windows` a text that needs more becomes so many parts of `size` places at most, the first at
    its beginning, the last at its end, those between evenly spaced. Each has the tokens that the tokenizer puts
    at both ends, and the network sees one without the others. What `host` and `collate` give has them one
    behind the other, and the module of `device` cuts them apart.
    """

    size: int
    tokenizer: str
    padding: int = 0
    prefix: str = ""
    typical: int = 32
    windows: int = 1
    version: str = VERSION
    modality: str = "text"
    varying: ClassVar[tuple[str, ...]] = ("ids", "mask")

    def __repr__(self) -> str:
        return f"TextPreprocess(size={self.size}, prefix={self.prefix!r})"

    @property
    def files(self) -> Mapping[str, bytes]:
        """The tokenizer, as the `tokenizers` library reads it."""
        return {TOKENIZER: self.tokenizer.encode()}

    @property
    def fingerprint(self) -> str:
        """Changes with anything that changes the tokens a model sees."""
        known = {k: v for k, v in asdict(self).items() if k not in ("tokenizer", "typical")}
        if self.windows == 1:
            del known["windows"]
        return fingerprint(known, hashlib.sha256(self.tokenizer.encode()).hexdigest())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for regraft.json; the tokenizer is a file beside it."""
        return {k: v for k, v in asdict(self).items() if k != "tokenizer"} | {"files": list(self.files)}

    def config(self) -> dict[str, Any]:
        """Nothing: a transformers folder tells of its tokens in tokenizer.json."""
        return {}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TextPreprocess:
        """The reverse of `to_dict`, with the contents under "files". Raises UsageError for a version this
        regraft does not have.
        """
        if values.get("version") != VERSION:
            raise UsageError(
                f"this model prepares texts by version {values.get('version')!r}, and this regraft has "
                f"version {VERSION!r}: load it with the regraft that made it, or fit it anew."
            )
        known = {k: v for k, v in values.items() if k != "files"}
        return cls(**known, tokenizer=values["files"][TOKENIZER].decode())

    def host(self, item: Any, rng: np.random.Generator | None = None, augment: Any = None) -> np.ndarray:
        """(L,) int32 numbers of the tokens of a str (the text itself, or the name of a .txt file), path,
        KnownFile or bytes, and PADDING; of several windows each but the last is padded to `size`. Raises
        Unreadable.
        """
        return np.array([*self.laid(read_text(item).text)[0], PADDING], dtype=np.int32)

    def laid(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The numbers of a text's tokens, windows one behind the other, and where in prefix and text each of
        them stands. However long the text is, no more of it is tokenised than the windows can hold.
        """
        text, tokenizer = self.prefix + text, tokenizer_of(self.tokenizer, self.size - 1)
        reach = LONG_TOKEN * self.size
        if self.windows == 1 or len(text) <= reach * self.windows:
            found = tokenizer.encode(text[: reach * self.windows])
            parts = [(0, part) for part in (found, *found.overflowing)][: None if self.windows > 1 else 1]
            parts = [parts[place] for place in spaced(len(parts), self.windows)]
        else:
            starts = spaced(len(text) - reach + 1, self.windows)
            parts = [(start, tokenizer.encode(text[start : start + reach])) for start in starts]
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        for start, part in parts:
            lacking = -len(ids) % self.size
            ids += [PADDING] * lacking + part.ids
            offsets += [(0, 0)] * lacking + [(start + a, start + b) for a, b in part.offsets]
        return ids, offsets

    def collate(self, raws: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """A batch of what `host` gave: `ids` and `mask` (B, L) int64, L the bucket of the longest, or whole
        windows.
        """
        most = max(map(len, raws))
        longest = min(bucket_of(most), max(self.size, most))
        if self.windows > 1 and most > self.size:
            longest = -(-most // self.size) * self.size
        ids = np.full((len(raws), longest), PADDING, dtype=np.int64)
        for row, raw in zip(ids, raws, strict=True):
            row[: len(raw)] = raw
        mask = (ids != PADDING).astype(np.int64)
        return {"ids": np.where(mask, ids, self.padding), "mask": mask}

    def device(self) -> nn.Module:
        """Cuts windows apart: (B, L) to (B, windows, places). Nothing is left to do where there is one: the
        network takes ids and mask.
        """
        from torch import nn

        if self.windows == 1:
            return nn.Identity()
        from regraft.modalities.text.windows import Windows

        return Windows(self.size)

    def intake(self) -> Intake:
        """A graph takes tokens and their mask; the tokenizer lies beside it."""
        settings = {
            "tokenizer": TOKENIZER,
            "size": self.size,
            "windows": self.windows,
            "characters": LONG_TOKEN * self.size,
            "prefix": self.prefix,
            "padding": self.padding,
            "nuls": NULS,
        }
        reading = (STANDALONE / "read.py.txt").read_text("utf-8")
        made = prepared(self)
        if self.windows > 1:  # traced with two, or the graph takes no more than one
            inputs = tuple(replace(one, example=(2, 2 * self.size)) for one in made.inputs)
            made = replace(made, inputs=inputs)
        return replace(
            made,
            reading=reading,
            needs=("tokenizers",),
            settings=settings,
            entering=f"as tokens, which {TOKENIZER} makes of a text",
            inside="",
        )

    def blank(self, count: int, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
        """A batch of `count` texts of one token over and over, or of tokens drawn from `rng`."""
        most = tokenizer_of(self.tokenizer, self.size - 1).get_vocab_size()
        shape = count, min(self.typical, self.size) - 1
        ids = np.full(shape, most // 2) if rng is None else rng.integers(0, most, shape)
        return self.collate(list(np.pad(ids, ((0, 0), (0, 1)), constant_values=PADDING)))


def spaced(count: int, most: int) -> list[int]:
    """The places of `most` of `count` things, evenly spaced from the first to the last; all of fewer."""
    if count <= most:
        return list(range(count))
    return [round(number * (count - 1) / (most - 1)) for number in range(most)] if most > 1 else [0]


@functools.lru_cache(maxsize=8)
def tokenizer_of(content: str, most: int) -> Any:
    """The tokenizer that a tokenizer.json holds, which gives `most` tokens at most. Raises BackboneError."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise NotInstalledError("texts need a tokenizer: pip install 'regraft[text]'") from None
    try:
        tokenizer = Tokenizer.from_str(content)
    except Exception as error:  # the library has no class of its own for it
        raise BackboneError(f"the tokenizer cannot be read: {str(error).splitlines()[0]}") from None
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=most)
    return tokenizer

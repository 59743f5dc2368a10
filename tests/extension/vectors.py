"""A modality that only tests know (.npy files of one vector each), and its source of weights, toy:tiny."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field
from torch import nn

from regraft.artifacts import fingerprint
from regraft.backbones import Obtained, Provenance
from regraft.data.audit import Finding
from regraft.data.audit.contents import Files
from regraft.data.kind import Likeness
from regraft.data.known import KnownFile, NewFile
from regraft.errors import BackboneError, Unreadable
from regraft.modalities import Extent, Intake, Shown, Suited, prepared
from regraft.recipe import Auto, Section

LENGTH = 12


def draw(root: Path, count: int = 16, start: int = 0, apart: float = 1.0) -> Path:
    """Vectors of two classes, in folders; their middles lie `apart` from 0."""
    for number in range(start, start + count):
        for label, middle in (("low", -apart), ("high", apart)):
            (root / label).mkdir(parents=True, exist_ok=True)
            values = np.random.default_rng([number, label == "low"]).normal(middle, 1, LENGTH)
            np.save(root / label / f"{number:02}.npy", values.astype(np.float32))
    return root


def read(item: Any) -> np.ndarray:
    """(D,) float32 of a path, a file that was looked at, bytes or an array. Raises Unreadable."""
    if isinstance(item, (KnownFile, NewFile)):
        item = item.read()
    if isinstance(item, (str, os.PathLike)):
        with open(item, "rb") as file:
            item = file.read()
    try:
        values = item if isinstance(item, np.ndarray) else np.load(io.BytesIO(item), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise Unreadable(f"no array: {error}") from None
    if values.ndim != 1:
        raise Unreadable(f"an array of shape {values.shape}; wanted (D,)")
    return np.asarray(values, dtype=np.float32)


@dataclass(frozen=True)
class Known:
    """The facts of one vector."""

    length: int
    rounded: str
    constant: bool
    identity: str


@dataclass(frozen=True)
class VectorPreprocess:
    """Vectors cut or padded to `size`, divided by `scale`."""

    size: int
    scale: float
    modality: str = "vector"
    varying: ClassVar[tuple[str, ...]] = ()
    files: ClassVar[dict[str, bytes]] = {}

    @property
    def fingerprint(self) -> str:
        return fingerprint(asdict(self))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def host(self, item: Any, rng: np.random.Generator | None = None, augment: Any = None) -> np.ndarray:
        values = read(item)[: self.size] / self.scale
        found = np.pad(values, (0, self.size - len(values)))
        return found if rng is None or augment is None else found + rng.normal(0, augment, self.size)

    def collate(self, raws: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        return {"values": np.stack(raws).astype(np.float32)}

    def device(self) -> nn.Module:
        return Values()

    def blank(self, count: int, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
        shape = count, self.size
        return self.collate(np.zeros(shape) if rng is None else rng.normal(size=shape))

    def intake(self) -> Intake:
        return prepared(self)

    def config(self) -> dict[str, Any]:
        return {}


class Values(nn.Module):
    """A network of vectors takes (B, size) float32 as they are."""

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return batch["values"]


class VectorAugment(Section):
    """How vectors are varied in training."""

    spread: Annotated[float, Field(ge=0, le=1)] | Auto = Field(
        "auto", description="of the noise that is added; auto: 0.01"
    )


def constant(files: Files) -> Iterator[Finding]:
    """Vectors whose numbers are all the same."""
    if sources := files.sources("constant vectors", np.array([f.about.constant for f in files.facts])):
        yield Finding("constant vectors", "warning", f"{len(sources)} vectors are constant", sources)


class Vectors:
    """See `regraft.modalities.Modality`."""

    name, noun, endings, columns = "vector", "vector", frozenset((".npy",)), ("vector", "vec")
    cells: tuple[str, ...] = ()
    facts = pa.schema([("length", pa.int32()), ("rounded", pa.string())])
    checks, probes, evidence, measures = (constant,), (), (), ()
    beside, item_of_name, foresight = None, None, None
    sizes, augmentation = range(4, 65), VectorAugment
    takes, joins, joined_up_to, resizes, longer = (), (), None, True, None
    extent = Extent("bytes", 1_000_000, len)

    def inspect(self, item: Any) -> Known:
        values = read(item)
        identity = hashlib.sha256(values.tobytes()).hexdigest()[:32]  # float32 and float64 may show the same
        return Known(len(values), np.round(values[:8], 3).tobytes().hex(), np.ptp(values) == 0, identity)

    def digest(self, item: Any) -> str:
        return self.inspect(item).identity

    def together(self, ids: Sequence[str], facts: Sequence[Known]) -> tuple[list[Known], list[int]]:
        return list(facts), []

    def table(self, facts: Sequence[Known]) -> pa.Table:
        columns = {name: [getattr(fact, name) for fact in facts] for name in self.facts.names}
        return pa.table(columns, schema=self.facts)

    def likeness(self, facts: pa.Table) -> Likeness:
        """The first eight numbers say which may be nearly the same, all of them whether they are."""

        def vectors(facts: pa.Table) -> np.ndarray:
            raw = [np.frombuffer(bytes.fromhex(text), np.float32) for text in facts["rounded"].to_pylist()]
            found = np.stack(raw)[:, None] if raw else np.zeros((0, 1, 8), np.float32)
            return found / np.maximum(np.linalg.norm(found, axis=2, keepdims=True), 1e-6)

        def confirm(first: np.ndarray, second: np.ndarray) -> np.ndarray:
            gap = np.abs(first - second).max(axis=1)
            return np.where(gap < 0.01, 1 - gap, 0)

        return Likeness(
            vectors,
            lambda facts: np.ones(facts.num_rows, dtype=bool),
            lambda facts: facts["length"].to_pylist(),
            read,
            confirm,
            alone=0.999,
            beside=0.9999,
            same=0.9999,
            surely=0.99999,
        )

    def preprocess(
        self, config: dict[str, Any], native: int, facts: pa.Table | None, size: int | None, cpu: bool
    ) -> tuple[VectorPreprocess, str]:
        return VectorPreprocess(size or native, float(config.get("scale", 1.0))), "the weights' own length"

    def preprocess_from(self, values: dict[str, Any]) -> VectorPreprocess:
        return VectorPreprocess(**values)

    def settings(self, facts: pa.Table, size: int) -> Suited:
        return Suited(1e-3, 1.0, {"spread": 0.01})

    def views(self, augment: VectorAugment) -> float:
        return float(augment.spread)

    def show(self, items: Sequence[Any], facts: pa.Table) -> list[Shown | None]:
        return [Shown("text", " ".join(f"{v:.2f}" for v in read(item)[:4])) for item in items]

    def hide(self, raw: np.ndarray) -> None:
        return None

    def overlay(self, preprocess: Any, item: Any, heat: np.ndarray) -> tuple[str, str]:
        raise Unreadable("vectors have no picture")

    def sheet(self, batch: dict[str, np.ndarray]) -> bytes:
        return b""


class TinyNetwork(nn.Module):
    """(B, length) to (B, width): a first layer and three that are alike. It knows nothing of timm."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Linear(length, width)
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Linear(width, width), nn.GELU()) for _ in range(3)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.blocks(self.stem(x))
        return found


class Toys:
    """See `regraft.backbones.WeightSource`: toy:tiny is a network of random weights that are always the
    same.
    """

    prefix, modality = "toy", "vector"

    def obtain(self, name: str, offline: bool) -> Obtained:
        if name != "tiny":
            raise BackboneError(f"there is no toy:{name}; there is toy:tiny.")
        config = {"input_size": [LENGTH], "width": 16, "scale": 2.0}
        module = self.build("toy:network", config)
        drawn = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.normal_(0, 0.3, generator=drawn)
        count = sum(parameter.numel() for parameter in module.parameters())
        origin = Provenance("toy:tiny", "drawn by the test", "0" * 64, "CC0-1.0", count, LENGTH, "nothing")
        return Obtained(module, "toy:network", config, origin, modality=self.modality)

    def candidates(self) -> list[str]:
        return ["toy:tiny"]

    def build(self, architecture: str, config: dict[str, Any]) -> nn.Module:
        return TinyNetwork(int(config["input_size"][-1]), int(config["width"]))

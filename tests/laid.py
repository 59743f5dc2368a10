"""The same examples laid out in every way that large data come in: folders, tables and shards, on disk or at an
address.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

import sounds
import texts


@dataclass(frozen=True)
class Item:
    """An example: the bytes of its file, and its class."""

    content: bytes
    label: str


def items(modality: str, folder: Path, each: int = 6) -> list[Item]:
    """Examples of a few classes of a modality; `folder` is for files that have to be written first."""
    if modality == "text":
        return [Item(text.encode(), label) for text, label in texts.labelled(each)]
    if modality == "audio":
        root = sounds.draw(folder / "sounds", each)
        return [Item(file.read_bytes(), file.parent.name) for file in sorted(root.glob("*/*.wav"))]
    rng, made = np.random.default_rng(0), []
    for number in range(3 * each):
        picture, content = rng.integers(0, 100, (40, 40, 3)), io.BytesIO()
        picture[:, :, number % 3] += 120
        Image.fromarray(picture.astype(np.uint8)).save(content, "PNG")
        made.append(Item(content.getvalue(), ("red", "green", "blue")[number % 3]))
    return made


ENDINGS = {"image": ".png", "text": ".txt", "audio": ".wav"}
COLUMNS = {"image": "image", "text": "text", "audio": "audio"}


def put(place: str, content: bytes) -> str:
    """Write a file at a path or an address."""
    with fsspec.open(place, "wb", auto_mkdir=True) as handle:
        handle.write(content)
    return place


def as_folder(root: str, some: Sequence[Item], ending: str) -> str:
    """Class folders."""
    for number, item in enumerate(some):
        put(f"{root}/{item.label}/{number:03}{ending}", item.content)
    return root


def as_paths(root: str, some: Sequence[Item], ending: str) -> str:
    """A csv with paths relative to it."""
    lines = ["path,label"]
    for number, item in enumerate(some):
        put(f"{root}/files/{number:03}{ending}", item.content)
        lines.append(f"files/{number:03}{ending},{item.label}")
    return put(f"{root}/all.csv", "\n".join(lines).encode())


def as_parquet(
    place: str, some: Sequence[Item], column: str, struct: bool = False, named: bool = False, group: int = 4
) -> str:
    """A parquet table with the bytes in a column: plain, or as the Hugging Face libraries write them; `named`:
    its classes as numbers whose names are in the metadata. Row groups of `group` rows.
    """
    contents: list[Any] = [item.content for item in some]
    cells = pa.array([{"bytes": one, "path": None} for one in contents] if struct else contents)
    classes = sorted({item.label for item in some})
    labels: list[Any] = [classes.index(item.label) if named else item.label for item in some]
    table = pa.table({column: cells, "label": labels})
    if named:
        features = {"label": {"names": classes, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    content = io.BytesIO()
    pq.write_table(table, content, row_group_size=group)
    return put(place, content.getvalue())


def tar(members: Iterable[tuple[str, bytes | tarfile.TarInfo]]) -> bytes:
    """A tar file of members by name; a TarInfo is one without content."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as file:
        for name, one in members:
            about = one if isinstance(one, tarfile.TarInfo) else tarfile.TarInfo(name)
            about.size = 0 if isinstance(one, tarfile.TarInfo) else len(one)
            file.addfile(about, None if isinstance(one, tarfile.TarInfo) else io.BytesIO(one))
    return content.getvalue()


def as_shards(root: str, some: Sequence[Item], ending: str, label: str = ".cls", shards: int = 3) -> str:
    """WebDataset shards called shards-000.tar and so on; gives them as a pattern in braces."""
    for shard in range(shards):
        members: list[tuple[str, bytes]] = []
        for number, item in list(enumerate(some))[shard::shards]:
            said = json.dumps({"label": item.label, "id": number}) if label == ".json" else item.label
            members += [(f"{number:03}{ending}", item.content), (f"{number:03}{label}", said.encode())]
        put(f"{root}/shards-{shard:03}.tar", tar(members))
    return f"{root}/shards-{{000..{shards - 1:03}}}.tar"


def every_layout(root: str, some: Sequence[Item], modality: str) -> Mapping[str, str]:
    """All of these below one root, by what they are called."""
    ending, column = ENDINGS[modality], COLUMNS[modality]
    label = ".json" if modality == "text" else ".txt"
    return {
        "folder": as_folder(f"{root}/folder", some, ending),
        "paths": as_paths(f"{root}/paths", some, ending),
        "bytes": as_parquet(f"{root}/plain.parquet", some, column),
        "struct": as_parquet(f"{root}/struct.parquet", some, column, struct=True, named=True),
        "shards": as_shards(f"{root}/shards", some, ending),
        "other labels": as_shards(f"{root}/labels", some, ending, label),
    }

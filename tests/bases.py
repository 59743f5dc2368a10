"""Backbones and facts as tests want them, without a set of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from regraft.backbones import Backbone, Obtained, make_base
from regraft.modalities import modality_of
from regraft.tasks import Single

IMAGES = modality_of("image")


def base_of(obtained: Obtained, size: int, upscaled: bool = False) -> Backbone:
    """The backbone at an input size; `upscaled` for images that are smaller."""
    facts = facts_of([(1, 1)]) if upscaled else None
    native = obtained.provenance.input_size
    return make_base(obtained, IMAGES.preprocess(obtained.config, native, facts, size, False)[0])


def facts_of(sizes: Sequence[tuple[int, int]], dhashes: Sequence[str] = ()) -> pa.Table:
    """The facts of images of these widths and heights."""
    columns: dict[str, list[Any]] = {
        "width": [width for width, _ in sizes],
        "height": [height for _, height in sizes],
        "dhash": list(dhashes) or ["0" * 32] * len(sizes),
    }
    return pa.table(
        {name: columns.get(name, [None] * len(sizes)) for name in IMAGES.facts.names}, schema=IMAGES.facts
    )


def single(count: int) -> Single:
    """The task of telling so many classes apart."""
    return Single(tuple(str(number) for number in range(count)))

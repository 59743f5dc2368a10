"""Images: reading, preprocessing, augmentation, and what an audit and a report know of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from regraft.modalities import Extent, Probe
from regraft.modalities.image.augment import Augment
from regraft.modalities.image.checks import CHECKS
from regraft.modalities.image.formats import ENDINGS
from regraft.modalities.image.hide import hide
from regraft.modalities.image.inspect import inspect_image, pixel_digest, small_image_or_none, thumbnail
from regraft.modalities.image.looks import Look, dhashes
from regraft.modalities.image.preprocess import ImagePreprocess, Mirrored
from regraft.modalities.image.reading import load_rgb, pixels_of
from regraft.modalities.image.same import levelled, likeness, perhaps_same
from regraft.modalities.image.settings import SIZES, ImageAugment, mirror_allowed, preprocess, settings, views
from regraft.modalities.image.show import overlay, sheet, show

__all__ = [
    "MODALITY",
    "Augment",
    "ImagePreprocess",
    "Mirrored",
    "inspect_image",
    "load_rgb",
    "pixel_digest",
    "small_image_or_none",
    "thumbnail",
]


class Images:
    """The modality of images: see `regraft.modalities.Modality`."""

    name, noun, endings, checks = "image", "image", ENDINGS, CHECKS
    takes, cells, evidence, measures = (), (), (), ()
    beside, item_of_name = None, None
    joins, joined_up_to, resizes = (False, "faded", True), None, True
    foresight = (-0.005, 0.101, 0.789)  # benchmarks/forecast.py
    columns = (
        "image",
        "imagepath",
        "imagefile",
        "imagename",
        "imagefilename",
        "imagefilepath",
        "img",
        "imgpath",
        "imgfile",
        "imgname",
        "picture",
        "photo",
    )
    facts = pa.schema(
        [
            ("width", pa.int32()),  # of the upright image
            ("height", pa.int32()),
            ("dhash", pa.string()),  # difference hashes of the image and its mirror, 32 hex digits
            ("deep", pa.string()),  # of more than 8 bits: whole or real, and the smallest and largest value
            ("low", pa.float64()),
            ("top", pa.float64()),
        ]
    )
    sizes, augmentation = SIZES, ImageAugment
    probes = (Probe("mirror", Mirrored, mirror_allowed),)
    longer = None
    extent = Extent("pixels", 50_000_000, pixels_of)  # what a good telephone takes
    inspect = staticmethod(inspect_image)
    digest = staticmethod(pixel_digest)
    likeness = staticmethod(likeness)
    preprocess = staticmethod(preprocess)
    preprocess_from = staticmethod(ImagePreprocess.from_dict)
    settings = staticmethod(settings)
    views = staticmethod(views)
    show = staticmethod(show)
    hide = staticmethod(hide)
    overlay = staticmethod(overlay)
    sheet = staticmethod(sheet)

    def together(self, ids: Sequence[str], facts: Sequence[Look]) -> tuple[list[Look], list[int]]:
        """Deep pictures on one scale, and the positions of those that may show the same pixels as another."""
        looks = levelled(facts)
        return looks, perhaps_same(ids, looks)

    def table(self, facts: Sequence[Look]) -> pa.Table:
        """Sizes, difference hashes and the ranges of deep pictures."""
        columns: dict[str, list[Any]] = {
            "width": [look.width for look in facts],
            "height": [look.height for look in facts],
            "dhash": dhashes(facts),
            "deep": [look.deep and look.deep.kind for look in facts],
            "low": [look.deep and look.deep.low for look in facts],
            "top": [look.deep and look.deep.top for look in facts],
        }
        return pa.table(columns, schema=self.facts)


MODALITY = Images()

"""Sounds: reading, preprocessing, augmentation, and what an audit and a report know of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from regraft.modalities import Extent, Measure
from regraft.modalities.audio.augment import Augment
from regraft.modalities.audio.checks import CHECKS
from regraft.modalities.audio.hide import hide
from regraft.modalities.audio.inspect import Sound, inspect_sound
from regraft.modalities.audio.preprocess import FRAMES, AudioPreprocess
from regraft.modalities.audio.reading import ENDINGS, seconds_of
from regraft.modalities.audio.same import likeness
from regraft.modalities.audio.settings import (
    NAMED,
    PROBES,
    AudioAugment,
    preprocess,
    seconds,
    settings,
    views,
)
from regraft.modalities.audio.show import overlay, sheet, show

__all__ = ["MODALITY", "AudioPreprocess", "Augment"]


class Sounds:
    """The modality of sounds: see `regraft.modalities.Modality`."""

    name, noun, endings, checks = "audio", "sound", ENDINGS, CHECKS
    takes, joins, joined_up_to, resizes = ("image",), (True, False, "deviations"), None, False
    foresight = None
    columns = (
        "audio",
        "audiopath",
        "audiofile",
        "audiofilename",
        "audiofilepath",
        "sound",
        "clip",
        "recording",
        "wav",
    )
    facts = pa.schema(
        [
            ("seconds", pa.float64()),
            ("rate", pa.int32()),  # Hz
            ("channels", pa.int32()),
            ("codec", pa.string()),
            ("peak", pa.float64()),  # of full scale
            ("loudness", pa.float64()),  # root mean square
            ("tones", pa.string()),  # the print by which near-duplicates are looked for, hexadecimal float16
        ]
    )
    sizes, augmentation = NAMED, AudioAugment
    probes, cells, evidence, beside, item_of_name = PROBES, (), (), None, None
    longer = None
    measures = (Measure("Lengths of the sounds", "seconds", seconds, lambda size: size / FRAMES),)
    extent = Extent("seconds", 600, seconds_of)
    inspect = staticmethod(inspect_sound)
    likeness = staticmethod(likeness)
    preprocess = staticmethod(preprocess)
    preprocess_from = staticmethod(AudioPreprocess.from_dict)
    settings = staticmethod(settings)
    views = staticmethod(views)
    show = staticmethod(show)
    hide = staticmethod(hide)
    overlay = staticmethod(overlay)
    sheet = staticmethod(sheet)

    def digest(self, item: Any) -> str:
        """A hash of all decoded samples, their rate and channels. Raises Unreadable."""
        return inspect_sound(item).identity

    def together(self, ids: Sequence[str], facts: Sequence[Sound]) -> tuple[list[Sound], list[int]]:
        """The facts as they are: each has its identity already."""
        return list(facts), []

    def table(self, facts: Sequence[Sound]) -> pa.Table:
        """What is kept of each sound."""
        columns: dict[str, list[Any]] = {
            name: [getattr(sound, name) for sound in facts] for name in self.facts.names if name != "tones"
        }
        return pa.table({**columns, "tones": [sound.tones.hex() for sound in facts]}, schema=self.facts)


MODALITY = Sounds()

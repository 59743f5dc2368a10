"""Several places in one text: `shards-{000..009}.tar`, `{a,b}.parquet`, `s3://bucket/shards/*.tar`."""

from __future__ import annotations

import glob
import os
import posixpath
import re
from collections.abc import Sequence

from regraft.data.addresses import Address, Place, as_place, is_address, matching, place_of
from regraft.errors import DataError

BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")
MOST = 1_000_000  # places that braces stand for at most


def braced(text: str) -> list[str]:
    """The texts that braces stand for, as a shell writes them out: `{000..009}` and `{a,b}`; what is neither
    stays as it is.
    """
    found = BRACES.search(text)
    if found is None:
        return [text]
    if span := RANGE.fullmatch(found[1]):
        low, high = int(span[1]), int(span[2])
        if abs(high - low) >= MOST:
            raise DataError(
                f"{text} stands for {abs(high - low) + 1:,} places; at most {MOST:,} are taken.", []
            )
        numbers = range(low, high + 1) if low <= high else range(low, high - 1, -1)
        inner = [str(number).zfill(len(span[1])) for number in numbers]
    elif "," in found[1]:
        inner = found[1].split(",")
    else:
        return [text[: found.end()] + rest for rest in braced(text[found.end() :])]
    ends = braced(text[found.end() :])
    return [f"{text[: found.start()]}{middle}{end}" for middle in inner for end in ends]


def places_in(text: str) -> list[Place]:
    """The places that a text with braces or a pattern stands for, patterns sorted; none where it is the name
    of one place. Raises DataError for a pattern that nothing matches.
    """
    if not ("{" in text or glob.has_magic(text)) or place_of(text).exists():
        return []
    found: list[Place] = []
    for one in braced(text):
        if not glob.has_magic(one):
            found.append(place_of(one))
            continue
        place = place_of(one)
        there = matching(one) if isinstance(place, Address) else sorted(glob.glob(str(place), recursive=True))
        if not there:
            raise DataError(f"nothing matches {one}.", [], "Check the pattern.")
        found += map(as_place, there)
    return [] if found == [place_of(text)] else found


def common_folder(places: Sequence[Place]) -> Place:
    """The folder or address that all of these are below. Raises DataError where there is none."""
    parents = [str(place.resolve().parent) for place in places]
    if not any(map(is_address, parents)):
        return as_place(os.path.commonpath(parents))
    heads = {parent.partition("://")[0] if is_address(parent) else "" for parent in parents}
    rests = [parent.partition("://")[2] for parent in parents]
    shared = posixpath.commonpath(rests) if len(heads) == 1 else ""
    if not shared:
        raise DataError("the places have no folder in common:", parents[:10])
    return Address(f"{heads.pop()}://{shared}")


def common_name(places: Sequence[Place]) -> str:
    """What several places are called together: how all their names begin, or their folder."""
    stem = os.path.commonprefix([place.stem for place in places])
    return re.sub(r"[\W_]*\d*[\W_]*$", "", stem) or places[0].parent.name or "data"

"""How a folder is laid out: class folders, or folders of splits that hold them. Lists names, opens nothing."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from regraft.data.addresses import Place, entries_of, within
from regraft.data.kind import Kind
from regraft.data.rows import Note, all_perhaps_splits, counted, perhaps_split, shown, split_of
from regraft.data.tables import is_table_name
from regraft.data.walker import ends_in, is_folder, is_hidden, own_output, some
from regraft.errors import DataError

SAY = (
    "Call the folders of splits train/, val/ and test/, each with a folder a class. "
    "Or give a csv with the columns path, label and, where wanted, split."
)


class Listing:
    """What lies directly in a folder, hidden things and what regraft wrote left out; sorted names."""

    def __init__(self, place: Place, kind: Kind) -> None:
        self.place, self.kind = place, kind
        items = entries_of(place)
        named = [(item.name, is_folder(item)) for item in items if not is_hidden(item.name)]
        self.folders = [name for name, folder in named if folder and not own_output(place / name)]
        self.own = [name for name, folder in named if folder and own_output(place / name)]
        self.files = [name for name, folder in named if not folder]

    @property
    def items(self) -> list[str]:
        return [name for name in self.files if ends_in(name, self.kind.endings)]

    @property
    def tables(self) -> list[str]:
        return [name for name in self.files if is_table_name(name)]

    def within(self, name: str) -> Listing:
        """The listing of the folder called `name` in this one."""
        return Listing(self.place / name, self.kind)


def inside(root: Place, kind: Kind) -> tuple[Place, list[Note]]:
    """The folder in which the classes or splits lie: `root` itself, or a single folder inside it where there
    is nothing else.
    """
    place = root
    for _ in range(8):
        here = Listing(place, kind)
        if len(here.folders) != 1 or here.items or here.tables or split_of(here.folders[0]):
            break
        inner = here.within(here.folders[0])
        if not inner.folders and not any(split_of(Path(name).stem) for name in inner.tables):
            break
        place = inner.place
    if place == root:
        return root, []
    return place, [
        Note(
            "layout", "info", f"{root} holds one folder; the data were read from {within(place, root)}/ in it"
        )
    ]


def are_classes(top: Listing, splits: dict[str, str]) -> bool:
    """True where the top folders are classes, False where they are splits. Raises DataError where neither
    is certain.
    """
    perhaps = [name for name in top.folders if perhaps_split(name)]
    if not splits and not perhaps and not all_perhaps_splits(top.folders):
        return True
    others = [name for name in top.folders if name not in splits]
    holds = (
        f"{top.place} holds "
        f"{', '.join(f'{shown(name)}/' for name in top.folders[:8])}{', ...' if top.folders[8:] else ''}:"
    )
    twice = [split for split, count in Counter(splits.values()).items() if count > 1]
    faults = [
        f"more than one folder for {split}: {', '.join(n for n in splits if splits[n] == split)}"
        for split in twice
    ]
    if not splits and not perhaps:
        faults.append("these look like splits, and it is not certain which is which")
    faults += [f"{name}/ could be a split, and it is not certain which" for name in perhaps]
    if "train" in splits.values():
        inner = {name: top.within(name) for name in top.folders}
        if (
            others
            and not any(inner[name].folders for name in top.folders)
            and any(inner[name].items for name in others)
        ):
            if len(splits) == 1 and len(others) > 1:
                # train/ is one of several folders that hold images and no folders,
                # as a class of vehicles does
                return True
            faults.append(
                f"{some([f'{name}/' for name in splits])} hold {top.kind.noun}s and no class folders"
            )
        known = {label for name in splits if splits[name] == "train" for label in inner[name].folders}
        for name in others:
            if name not in perhaps and len(known & set(inner[name].folders)) > 1:
                faults.append(f"{name}/ holds the same folders as train/, and its name is that of no split")
    elif splits and not others:
        faults.append("no train/")
    elif splits:
        faults.append(
            f"{some([f'{name}/' for name in splits])} looks like "
            "a split beside class folders, and there is no train/"
        )
    if faults:
        raise DataError(holds, faults, f"{SAY} A class of such a name needs another one.")
    return False


def check_splits(top: Listing, splits: dict[str, str]) -> None:
    """Raise DataError where train/ holds no class folders."""
    train = next(name for name, split in splits.items() if split == "train")
    inner = top.within(train)
    if not inner.folders and inner.items:
        raise _flat(inner, [f"{top.place / name}" for name in top.tables])


def check_classes(top: Listing) -> None:
    """Raise DataError for items that lie in no class folder, and for top folders that are rather splits or
    parts.
    """
    if not top.folders and top.items:
        raise _flat(top, [])
    if len(top.folders) < 2:
        return
    inner: dict[str, set[str]] = {}
    for name in top.folders:
        listing = top.within(name)
        inner[name] = set(listing.folders)
        if len(listing.folders) < 2 or listing.items:
            return  # as class folders are
    shared = set.intersection(*inner.values())
    if len(shared) < 2 or 2 * len(shared) < len(set.union(*inner.values())):
        return
    tops, below = (some([f"{shown(name)}/" for name in names]) for names in (top.folders, sorted(shared)))
    splits = all(split_of(name) for name in shared)
    fault = f"each of {tops} holds {below}, so it is not certain which of them are the classes"
    advice = (
        f"Turn them round: train/{top.folders[0]}/, test/{top.folders[0]}/."
        if splits
        else f"Give one of them, such as {top.place / top.folders[0]}; or, where {tops} are the classes, "
        f"a csv with the columns path and label. {SAY.split('. ')[0]}."
    )
    raise DataError(f"{top.place} can be read in two ways:", [fault], advice)


def _flat(place: Listing, tables: list[str]) -> DataError:
    """The error for items that lie directly in a folder, with no class folders."""
    tables = [str(place.place / name) for name in place.tables] + tables
    counts = Counter(re.sub(r"[\W\d_]*\d[\W\d_]*$", "", Path(name).stem).casefold() for name in place.items)
    names = [name for name, count in counts.most_common(6) if name and count > 1]
    advice = f"Put the {place.kind.noun}s of each class into a folder of their own, "
    advice += "or give a csv with the columns path and label."
    if tables:
        advice = f"If the labels are in {tables[0]}, give that file instead of the folder. Else: {advice}"
    elif len(names) > 1 and sum(counts[name] for name in names) > 0.8 * len(place.items):
        folders = ", ".join(f"{name}/" for name in names)
        advice = (
            f"The files' names begin with {', '.join(names)}: "
            f"if these are classes, make folders {folders}. Else: {advice}"
        )
    lie = "lies" if len(place.items) == 1 else "lie"
    fault = (
        f"{counted(place.kind.noun, len(place.items))} {lie} directly in it, such as {shown(place.items[0])}"
    )
    return DataError(f"{place.place} has no class folders:", [fault], advice)

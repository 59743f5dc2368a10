"""What `regraft audit` finds of faults planted in real image sets, and what it says of the sets as they
are.

    python benchmarks/audit.py [SET ...] [--out FOLDER] [--pictures FOLDER] [--write docs/benchmarks.md]

The sets are looked for in $REGRAFT_DATA; what audits said is kept in --out, so that verdicts can follow.
Near-duplicates: copies of test images, none of which the thresholds were set on, are put into train. Pairs
that a set holds by nature are those of audit_natural.csv, judged by eye; a reported pair that is neither
planted nor judged the same counts as a false alarm. Beside it the bare hash: pairs whose difference hashes,
mirrored ones too, differ in ten bits of 64 at most. Labels: 5 % of the training images are moved to another
class. Outliers: images of other sets.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from page import between_marks

SETS = ("flowers5", "dtd10", "trashnet", "hymenoptera", "cifar10_small")
UNIFORM = ("sign_digits", "apple_leaf4")
EACH = 20  # copies of each kind
FOREIGN = 10
NATURAL = Path(__file__).with_name("audit_natural.csv")


def copies(rng: np.random.Generator) -> dict:
    """How each kind of copy is made, as (function of an image, JPEG quality)."""

    def cropped(image: Image.Image) -> Image.Image:
        left, top = rng.uniform(0, 0.05, 2)
        w, h = image.size
        return image.crop(
            (round(left * w), round(top * h), round((left + 0.95) * w), round((top + 0.95) * h))
        )

    def resized(image: Image.Image) -> Image.Image:
        return image.resize((round(image.width * 0.7), round(image.height * 0.7)), Image.Resampling.BICUBIC)

    return {
        "re-encoded": (lambda image: image, 60),
        "resized": (resized, 88),
        "cropped 5 %": (cropped, 88),
        "mirrored": (ImageOps.mirror, 88),
        "brightness": (lambda image: ImageEnhance.Brightness(image).enhance(rng.choice([0.8, 1.2])), 88),
    }


def linked(source: Path, target: Path) -> Path:
    """The same tree, of links to its files."""
    for path in source.rglob("*.*"):
        if path.is_file():
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(path)
    return target


def pairs_of(found) -> set[frozenset[str]]:
    """All pairs of near-duplicates that an audit reports."""
    return {frozenset(pair[:2]) for finding in found.findings for pair in finding.pairs}


def listed(found, kind: str) -> set[str]:
    """The sources a kind of finding names."""
    return {source for finding in found.findings if finding.kind == kind for source in finding.examples}


def bare_hash(root: Path) -> set[frozenset[str]]:
    """Pairs of files whose hashes are ten bits apart at most."""
    from regraft.modalities import modality_of, read_source

    sources = [row.source for row in read_source(root).rows]
    images = modality_of("image")
    facts = images.table([images.inspect(root / source) for source in sources])
    signs = images.likeness(facts).vectors(facts)
    found = set()
    for hand in (0, 1):
        close = signs[:, hand] @ signs[:, 0].T >= 1 - 2 * 10 / 64
        found |= {
            frozenset((sources[i], sources[j])) for i, j in zip(*np.nonzero(close), strict=True) if i != j
        }
    return found


def plant_copies(name: str, data: Path, root: Path) -> dict[frozenset[str], str]:
    """Copies of test images in train, {pair: kind}."""
    rng = np.random.default_rng(0)
    makers, planted = copies(rng), {}
    tests = sorted(path for path in (data / name / "test").rglob("*.*") if path.is_file())
    chosen = [tests[i] for i in rng.choice(len(tests), min(len(tests), EACH * len(makers)), replace=False)]
    for number, path in enumerate(chosen):
        kind = list(makers)[number % len(makers)]
        make, quality = makers[kind]
        place = Path("train") / path.parent.name / f"planted-{number}.jpg"
        make(Image.open(path).convert("RGB")).save(root / place, quality=quality)
        planted[frozenset((str(path.relative_to(data / name)), place.as_posix()))] = kind
    return planted


def plant_noise(root: Path) -> set[str]:
    """5 % of the training images in another class's folder; their sources."""
    rng, folders = (
        np.random.default_rng(1),
        sorted(path for path in (root / "train").iterdir() if path.is_dir()),
    )
    files = [path for folder in folders for path in sorted(folder.iterdir())]
    wrong = set()
    for i in rng.choice(len(files), round(0.05 * len(files)), replace=False):
        others = [folder for folder in folders if folder != files[i].parent]
        place = others[rng.integers(len(others))] / f"noise-{i}-{files[i].name}"
        os.rename(files[i], place)
        wrong.add(place.relative_to(root).as_posix())
    return wrong


def plant_foreign(name: str, data: Path, root: Path) -> set[str]:
    """Images of the other sets among the training images; their sources."""
    rng = np.random.default_rng(2)
    folders = sorted(path for path in (root / "train").iterdir() if path.is_dir())
    others = [other for other in (*SETS, *UNIFORM) if other != name]
    foreign = set()
    for number in range(FOREIGN):
        files = sorted(
            path for path in (data / others[number % len(others)] / "train").rglob("*.*") if path.is_file()
        )
        path = files[rng.integers(len(files))]
        place = folders[rng.integers(len(folders))] / f"foreign-{number}{path.suffix}"
        place.symlink_to(path)
        foreign.add(place.relative_to(root).as_posix())
    return foreign


def judged(name: str) -> dict[frozenset[str], bool]:
    """Pairs of one set that were looked at: whether they show the same."""
    with open(NATURAL, newline="", encoding="utf-8") as handle:
        return {
            frozenset((row["source"], row["other"])): row["verdict"] == "same"
            for row in csv.DictReader(handle)
            if row["set"] == name
        }


def montage(root: Path, pairs: list[list[str]], place: Path) -> None:
    """Pairs side by side, 24 a picture, numbered by row in their order."""
    for start in range(0, len(pairs), 24):
        cells = []
        for pair in pairs[start : start + 24]:
            both = [
                np.asarray(Image.open(root / source).convert("RGB").resize((128, 128))) for source in pair
            ]
            cells.append(np.concatenate([*both, np.zeros((128, 8, 3), dtype=np.uint8)], axis=1))
        cells += [np.zeros_like(cells[0])] * (-len(cells) % 4)
        rows = [np.concatenate(cells[i : i + 4], axis=1) for i in range(0, len(cells), 4)]
        Image.fromarray(np.concatenate(rows)).save(place.with_name(f"{place.name}-{start // 24}.png"))


def plain_pairs(pairs: set[frozenset[str]]) -> list[list[str]]:
    """Pairs as JSON holds them."""
    return sorted(sorted(pair) for pair in pairs)


def audited(name: str, data: Path, out: Path) -> dict:
    """What audits of one set say, as it is and with faults planted; kept in `out`, and not done again where
    it is there.
    """
    import regraft

    place = out / f"{name}.json"
    if place.is_file():
        return json.loads(place.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as temporary:
        began = time.perf_counter()
        plain = regraft.audit(data / name)
        seconds = time.perf_counter() - began
        root = linked(data / name, Path(temporary) / "copies" / name)
        planted = plant_copies(name, data, root)
        told, hashed = pairs_of(regraft.audit(root)), bare_hash(root)
        noisy = linked(data / name, Path(temporary) / "noise" / name)
        wrong = plant_noise(noisy)
        suspected = listed(regraft.audit(noisy), "likely wrong labels")
        strange = linked(data / name, Path(temporary) / "foreign" / name)
        foreign = plant_foreign(name, data, strange)
        far = listed(regraft.audit(strange), "outliers")
    found = {
        "set": name,
        "images": sum(plain.counts.values()),
        "seconds": seconds,
        "natural": plain_pairs(pairs_of(plain)),
        "planted": [[*pair, kind] for pair, kind in sorted(((sorted(p), k) for p, k in planted.items()))],
        "told": plain_pairs(told),
        "hashed": plain_pairs(hashed),
        "noise": len(wrong),
        "noise found": len(wrong & suspected),
        "suspected": len(suspected),
        "labels as they are": len(listed(plain, "likely wrong labels")),
        "foreign found": len(far & foreign),
        "other outliers": len(far - foreign),
    }
    out.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(found, indent=0), encoding="utf-8")
    return found


def one(name: str, data: Path, out: Path, pictures: Path | None) -> dict:
    """All that is measured on one set, by the verdicts so far."""
    found, known = audited(name, data, out), judged(name)
    planted = {frozenset((a, b)): kind for a, b, kind in found["planted"]}
    original = {
        next(s for s in pair if "planted-" in s): next(s for s in pair if "planted-" not in s)
        for pair in planted
    }

    def by_nature(reported: list[list[str]]) -> set[frozenset[str]]:
        """What is reported beside the planted pairs, copies named as what they were made of."""
        rest = {
            frozenset(original.get(source, source) for source in pair)
            for pair in map(frozenset, reported)
            if pair not in planted
        }
        return {pair for pair in rest if len(pair) == 2}

    def score(reported: list[list[str]]) -> dict:
        hits = len({frozenset(pair) for pair in reported} & planted.keys())
        missed = sorted(planted[pair] for pair in planted.keys() - {frozenset(pair) for pair in reported})
        rest = by_nature(reported)
        right = hits + sum(known.get(pair, False) for pair in rest)
        false = sum(not known.get(pair, False) for pair in rest)
        return {
            "recall": hits / len(planted),
            "precision": right / max(1, right + false),
            "false": false,
            "missed": {kind: missed.count(kind) for kind in dict.fromkeys(missed)},
        }

    natural = {frozenset(pair) for pair in found["natural"]}
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        ordered = plain_pairs((natural | by_nature(found["told"])) - known.keys())
        montage(data / name, ordered, pictures / name)
        (pictures / f"{name}.json").write_text(json.dumps(ordered, indent=0), encoding="utf-8")
    alone = {source for pair in found["hashed"] if not any("planted-" in s for s in pair) for source in pair}
    return {
        "set": name,
        "images": found["images"],
        "planted": len(planted),
        "ours": score(found["told"]),
        "bare": score(found["hashed"]),
        "natural": len(natural),
        "same": sum(known.get(pair, False) for pair in natural),
        "unjudged": sum(pair not in known for pair in natural | by_nature(found["told"])),
        "hash calls": len(alone) / found["images"],
        "noise": found["noise"],
        "label recall": found["noise found"] / found["noise"],
        "label precision": found["noise found"] / max(1, found["suspected"]),
        "labels as they are": found["labels as they are"],
        "foreign found": found["foreign found"],
        "other outliers": found["other outliers"],
        "seconds": found["seconds"],
    }


def tables(rows: list[dict]) -> str:
    """The results as Markdown: copies, then labels and outliers, each with the uniform sets apart."""
    found = []
    for title, names in (("", SETS), ("Uniform sets, on which a hash is at a loss:", UNIFORM)):
        some = [row for row in rows if row["set"] in names]
        if not some:
            continue
        found += [title, ""] if title else []
        found += [
            "| set | images | planted | recall | precision | missed | by nature: reported, of these the same "
            "| bare hash: recall | precision | images it calls duplicates |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        for r in some:
            ours, bare = r["ours"], r["bare"]
            missed = ", ".join(f"{count} {kind}" for kind, count in ours["missed"].items()) or "-"
            found.append(
                f"| {r['set']} | {r['images']:,} | {r['planted']} | {ours['recall']:.3f} "
                f"| {ours['precision']:.3f} | {missed} | {r['natural']}, "
                f"{r['same']} | {bare['recall']:.3f} | {bare['precision']:.3f} | {r['hash calls']:.0%} |"
            )
        found.append("")
    found += [
        "| set | wrong labels planted | recall | precision | called wrong in the "
        f"set as it is | outliers found of {FOREIGN} | others called outliers |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        found.append(
            f"| {r['set']} | {r['noise']} | {r['label recall']:.2f} | {r['label precision']:.2f} "
            f"| {r['labels as they are']} | {r['foreign found']} | {r['other outliers']} |"
        )
    return "\n".join(found)


def main() -> None:
    """Measure the sets named, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="*", default=[*SETS, *UNIFORM])
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-audit"))
    parser.add_argument(
        "--pictures", type=Path, help="where reported pairs without a verdict are shown side by side"
    )
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    data = Path(os.environ.get("REGRAFT_DATA", ""))
    if not os.environ.get("REGRAFT_DATA") or not data.is_dir():
        parser.error("set REGRAFT_DATA to the folder of the real data sets")
    rows = []
    for name in options.sets or (*SETS, *UNIFORM):
        rows.append(one(name, data.resolve(), options.out, options.pictures))
        print(json.dumps(rows[-1]), flush=True)
    print(tables(rows))
    if options.write:
        between_marks(options.write, "audit", tables(rows))


if __name__ == "__main__":
    main()

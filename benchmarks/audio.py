"""Sounds: regraft beside an expert by hand with the same frozen weights, and the speed of extraction.

    python benchmarks/audio.py [accuracy] [joining] [speed] [--sets esc10 fsdd fsdd5] [--rows hand head regraft]
                             [--seeds 0 1 2] [--rounds 5] [--write]

The sets are looked for in $REGRAFT_DATA. esc10 is scored by its five folds in turn (the file's name begins
with the fold), fsdd by each of its six speakers left out in turn (the name holds the speaker), and fsdd5 on
the published test set with five clips a class to learn from, once a seed. By hand means: features once,
then scikit-learn's logistic regression on standardised features, its C chosen on a stratified fifth of train
and refitted on all. Features by hand are those of PyTorch in float32, each clip at its own length. `head` is
regraft without fine-tuning, `regraft` as it comes.

Results are kept in benchmarks/results/audio.json after every round, and those that are there are not made
again; `--write` puts them into docs/benchmarks.md, beside what else is there for sounds.

`joining` compares single depths of Whisper with all of them joined in several ways, by regraft's linear head
on esc10's folds. `speed` extracts from fsdd's test clips with regraft's usual engine, and with transformers
as its page shows it: WhisperFeatureExtractor, which pads to thirty seconds, and the encoder, eight at once.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import regraft
from regraft.artifacts import file_sha256
from regraft.backbones import Backbone, make_base, obtain_weights
from regraft.inference import FeatureStore, TorchEngine, feature_key, makers, pick_engine, trial_key
from regraft.modalities import modality_of
from regraft.runtime import cache_folder, keep_large_blocks
from regraft.steps.train import apply_head
from regraft.tasks import task_of
from regraft.training import fit_path, linear_head

RESULTS = Path(__file__).parent / "results" / "audio.json"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
WHISPER, LITE = "packaged:whisper_tiny_en", "packaged:efficientnet_lite0"
SOUNDS = modality_of("audio")
VERBS = ["accuracy", "joining", "speed"]


@dataclass(frozen=True)
class Cut:
    """Clips with labels and groups, and which of them are test."""

    name: str
    paths: list[Path]
    labels: np.ndarray
    groups: list[str]
    test: np.ndarray


def cuts(name: str, root: Path, seeds: list[int]) -> Iterator[Cut]:
    """The rounds of a set."""
    paths = sorted((root / name.rstrip("5")).glob("*/*/*.wav"))
    labels = np.array([path.parent.name for path in paths])
    if name == "esc10":
        parts = [path.stem.split("-") for path in paths]
        groups = [f"{fold}-{clip}" for fold, clip, _ in parts]
        for fold in "12345":
            yield Cut(f"fold {fold}", paths, labels, groups, np.array([part[0] == fold for part in parts]))
        return
    speakers = [path.stem.split("_")[1] for path in paths]
    if name == "fsdd":
        for one in sorted(set(speakers)):
            yield Cut(one, paths, labels, speakers, np.array([speaker == one for speaker in speakers]))
        return
    for seed in seeds:
        rng, kept = np.random.default_rng(seed), []
        for label in sorted(set(labels)):
            own = [i for i, path in enumerate(paths) if labels[i] == label and path.parts[-3] == "train"]
            kept += rng.choice(own, 5, replace=False).tolist()
        kept += [i for i, path in enumerate(paths) if path.parts[-3] == "test"]
        some = [paths[i] for i in kept]
        which = np.array([path.parts[-3] == "test" for path in some])
        yield Cut(f"seed {seed}", some, labels[kept], [path.stem for path in some], which)


def backbone(reference: str, paths: list[Path]) -> Backbone:
    """A backbone with the preprocessing that the clips get."""
    obtained = obtain_weights(reference, offline=True, modality="audio")
    facts = SOUNDS.table([SOUNDS.inspect(path) for path in paths])
    native = obtained.provenance.input_size
    return make_base(obtained, SOUNDS.preprocess(obtained.config, native, facts, None, True)[0])


def extracted(
    base: Backbone, paths: list[Path], store: FeatureStore, depths: tuple[int, ...] = ()
) -> list[np.ndarray]:
    """Features of the last stage, then those of `depths`, by PyTorch in float32."""
    engine = TorchEngine(base, torch.device("cpu"), 8, "float32", depths)
    columns = ("pooled", *(f"depth {depth}" for depth in depths))
    ids = [file_sha256(path)[:32] for path in paths]
    return store.features(
        ids, paths, feature_key(engine), base.preprocess, engine, lambda **_: None, columns=columns
    )


def at_depths(base: Backbone, paths: list[Path], store: FeatureStore) -> list[np.ndarray]:
    """(N, C) features after each stage, the shallowest first."""
    last, *shallow = extracted(base, paths, store, tuple(range(1, len(base.stages))))
    return [*shallow, last]


def by_hand(paths: list[Path], store: FeatureStore) -> dict[str, np.ndarray]:
    """(N, D) features of each row by hand."""
    whisper = backbone(WHISPER, paths)
    every = at_depths(whisper, paths, store)
    last = every[-1]
    frames = whisper.preprocess.device()
    statistics = []
    for path in paths:
        batch = whisper.preprocess.collate([whisper.preprocess.host(path)])
        made = frames({name: torch.from_numpy(array) for name, array in batch.items()})[0].numpy()
        mels = made[:-1, made[-1] > 0]
        statistics.append(np.concatenate([mels.mean(axis=1), mels.std(axis=1)]))
    return {
        "log-mel statistics": np.stack(statistics),
        "Lite0 on spectrograms": extracted(backbone(LITE, paths), paths, store)[0],
        "Whisper, last layer": last,
        "Whisper, layers 1 to 4 averaged": np.mean(every[1:], axis=0),
        "Whisper, all joined": np.concatenate(every, axis=1),
    }


def regression(features: np.ndarray, cut: Cut) -> float:
    """The test accuracy of scikit-learn's logistic regression, C chosen on a fifth of train."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train = ~cut.test
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))
    grid = {"logisticregression__C": np.logspace(-4, 0, 5)}
    fifth = StratifiedShuffleSplit(1, test_size=0.2, random_state=0)
    found = GridSearchCV(model, grid, cv=fifth)
    found.fit(features[train], cut.labels[train])
    return float(found.score(features[cut.test], cut.labels[cut.test]))


def ours(cut: Cut, folder: Path, recipe: dict[str, dict[str, object]]) -> dict[str, object]:
    """regraft's test accuracy, its seconds, and what it took."""
    table = folder / "clips.csv"
    with open(table, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split", "group"])
        for path, label, group, test in zip(cut.paths, cut.labels, cut.groups, cut.test, strict=True):
            writer.writerow([path, label, "test" if test else "train", group])
    began = time.perf_counter()
    run = regraft.fit(table, folder / "run", recipe=recipe)
    seconds = time.perf_counter() - began
    steps = run.state["steps"]
    said = f"{run.state['provenance']['id']}, {steps['base']['decided']}, {run.state['chosen']}"
    return {"accuracy": run.metrics["test"]["accuracy"].value, "seconds": round(seconds), "said": said}


OURS: dict[str, dict[str, dict[str, object]]] = {"head": {"finetune": {"epochs": 0}}, "regraft": {}}


def accuracy(names: list[str], rows: list[str], root: Path, seeds: list[int], most: int) -> None:
    """Test accuracies by set, row and round, each kept once it is there."""
    store = FeatureStore(cache_folder())
    for name in names:
        rounds = list(cuts(name, root, seeds))[:most]
        every = sorted({path for cut in rounds for path in cut.paths})
        place = {path: i for i, path in enumerate(every)}
        features = by_hand(every, store) if "hand" in rows else {}
        for cut in rounds:
            some = [place[path] for path in cut.paths]
            for row, values in features.items():
                if not known(name, row, cut.name):
                    keep(name, row, cut.name, {"accuracy": regression(values[some], cut)})
            for row in OURS.keys() & set(rows):
                if not known(name, row, cut.name):
                    with tempfile.TemporaryDirectory() as folder:
                        keep(name, row, cut.name, ours(cut, Path(folder), OURS[row]))


def results() -> dict[str, Any]:
    """What was measured before."""
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}  # type: ignore[no-any-return]


def known(name: str, row: str, cut: str) -> bool:
    """Whether a round has its result."""
    return cut in results().get("accuracy", {}).get(name, {}).get(row, {})


def keep(name: str, row: str, cut: str, found: dict[str, object]) -> None:
    """Put a round's result beside the others, and tell it."""
    kept = results()
    kept.setdefault("accuracy", {}).setdefault(name, {}).setdefault(row, {})[cut] = found
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    print(name, cut, row, *found.values(), flush=True)


ROUNDS = {"esc10": 5, "fsdd": 6, "fsdd5": 3}
TITLES = {
    "esc10": "esc10, five folds",
    "fsdd": "fsdd, six speakers",
    "fsdd5": "fsdd, 5 clips a class",
    "head": "regraft, head only",
    "regraft": "regraft as it comes",
}


def accuracies() -> str:
    """The table of docs/benchmarks.md: means over the rounds, how many where not all were made, and how far
    regraft lies above the best row by hand in the same rounds, with its standard error.
    """
    kept = results().get("accuracy", {})
    every = list(dict.fromkeys(row for rows in kept.values() for row in rows))
    every.sort(key=lambda row: list(OURS).index(row) if row in OURS else -1)
    names = [name for name in ("esc10", "fsdd", "fsdd5") if name in kept]
    lines = [
        f"| test accuracy, % | {' | '.join(TITLES[name] for name in names)} |",
        "|---" * (1 + len(names)) + "|",
    ]
    for row in every:
        cells = []
        for name in names:
            found = kept[name].get(row, {})
            values = [one["accuracy"] for one in found.values()]
            cell = f"{100 * np.mean(values):.1f}" if values else "not measured"
            if values and len(values) < ROUNDS[name]:
                cell += f" ({', '.join(found)} only)"
            cells.append(cell + beside(kept[name], row) if values else cell)
        lines.append(f"| {TITLES.get(row, row)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def beside(rows: dict[str, dict[str, dict[str, float]]], row: str) -> str:
    """How far one of regraft's rows lies above the best row by hand, over the rounds both have."""
    hand = {name: found for name, found in rows.items() if name not in OURS}
    if row not in OURS or not hand:
        return ""
    shared = [cut for cut in rows[row] if all(cut in found for found in hand.values())]
    best = max(hand.values(), key=lambda found: np.mean([found[cut]["accuracy"] for cut in shared]))
    gains = [100 * (rows[row][cut]["accuracy"] - best[cut]["accuracy"]) for cut in shared]
    spread = f" ± {np.std(gains, ddof=1) / np.sqrt(len(gains)):.1f}" if len(gains) > 1 else ""
    return f" ({np.mean(gains):+.1f}{spread})"


def write() -> None:
    """Put what is kept into docs/benchmarks.md, between the markers."""
    kept, page = results(), PAGE.read_text(encoding="utf-8")
    parts = {"sounds": accuracies()} if "accuracy" in kept else {}
    if "speed" in kept:
        fast = kept["speed"]
        parts["sound speed"] = (
            f"Extraction of fsdd's clips by regraft ({fast['engine']}), reading included, against plain transformers: "
            f"**{fast['regraft'] / fast['transformers']:.0f} times** as fast."
        )
    for name, text in parts.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, rest = page.split(begin)
        page = before + begin + "\n" + text + "\n" + end + rest.split(end)[1]
    PAGE.write_text(page, encoding="utf-8")


def joining(root: Path) -> dict[str, list[float]]:
    """Mean test accuracy and log loss over esc10's folds of regraft's linear head on each depth, and on all
    depths joined in several ways.
    """
    rounds = list(cuts("esc10", root, []))
    paths, labels = rounds[0].paths, rounds[0].labels
    classes = tuple(sorted(set(labels)))
    targets, task = np.searchsorted(classes, labels), task_of("single", classes)
    every = at_depths(backbone(WHISPER, paths), paths, FeatureStore(cache_folder()))
    centred = [values - values.mean(axis=0) for values in every]
    ways = {
        **{f"depth {number}": values for number, values in enumerate(every, start=1)},
        "joined as they are": every,
        "joined, each depth of the same spread": [x / np.sqrt((x**2).sum(axis=1).mean()) for x in centred],
        "joined, each depth of length 1": [x / np.linalg.norm(x, axis=1, keepdims=True) for x in every],
        "joined, each column of the same spread": [x / (x.std(axis=0) + 1e-6) for x in centred],
    }
    rows: dict[str, list[float]] = {}
    for way, values in ways.items():
        joined = np.hstack(values) if isinstance(values, list) else values
        features, scores = np.ascontiguousarray(joined, dtype=np.float32), []
        for cut in rounds:
            train = ~cut.test
            known, answers, weights = features[train], targets[train], np.ones(int(train.sum()))
            path = fit_path(known, answers, weights, task, 5, 0)
            outputs = apply_head(
                linear_head(known, answers, weights, task, path.l2[path.chosen]), features[cut.test]
            )
            truth = targets[cut.test]
            scores.append(((outputs.argmax(axis=1) == truth).mean(), task.losses(truth, outputs).mean()))
        rows[way] = np.mean(scores, axis=0).tolist()
        print(f"{way:40} {rows[way][0]:.2%}  log loss {rows[way][1]:.3f}", flush=True)
    return rows


def speed(root: Path, count: int = 96) -> dict[str, float]:
    """Clips a second of extraction: regraft's usual engine, reading included, and plain transformers."""
    from transformers import WhisperFeatureExtractor

    from regraft.backbones import whisper
    from regraft.modalities.audio.reading import waveform

    keep_large_blocks()
    paths = sorted((root / "fsdd").glob("test/*/*.wav"))[::3][:count]
    base = backbone(WHISPER, paths)
    made = makers(base, torch.device("cpu"), 32)
    pre = base.preprocess
    sample = [pre.host(path) for path in paths[::3]]
    name, _ = pick_engine(
        made, lambda: pre.collate(sample), count, trial_key(base, torch.device("cpu"), 32), None
    )
    engine, store = made[name](), FeatureStore(None)
    ids = [f"{i:032x}" for i in range(len(paths))]

    def run() -> None:
        store.features(ids, paths, feature_key(engine), pre, engine, lambda **_: None)

    run()  # converts
    began = time.perf_counter()
    run()
    fast = len(paths) / (time.perf_counter() - began)
    sizes = base.config["whisper"]
    library = whisper.library(sizes).eval()
    extractor, few = WhisperFeatureExtractor(feature_size=sizes["mels"]), paths[:16]
    began = time.perf_counter()
    with torch.no_grad():
        for start in range(0, len(few), 8):
            clips = [waveform(path, 16_000, 1, 480_000) for path in few[start : start + 8]]
            given = extractor(clips, sampling_rate=16_000, return_tensors="pt").input_features
            library(given).last_hidden_state.mean(dim=1)
    slow = len(few) / (time.perf_counter() - began)
    print(f"regraft ({name}) {fast:.0f} clips/s, transformers {slow:.1f} clips/s: {fast / slow:.0f} times")
    return {"engine": name, "regraft": fast, "transformers": slow}  # type: ignore[dict-item]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", nargs="*", help=", ".join(VERBS))
    parser.add_argument("--sets", nargs="+", default=["esc10", "fsdd", "fsdd5"])
    parser.add_argument("--rows", nargs="+", choices=("hand", *OURS), default=["hand", *OURS])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=6, help="of each set, at most")
    parser.add_argument("--write", action="store_true", help="put what is kept into docs/benchmarks.md")
    asked = parser.parse_args()
    if unknown := set(asked.what) - set(VERBS):
        parser.error(f"{', '.join(sorted(unknown))}: there are {', '.join(VERBS)}")
    root = Path(os.environ.get("REGRAFT_DATA", "."))
    for verb, measure in (("speed", speed), ("joining", joining)):
        if verb in asked.what:
            RESULTS.write_text(json.dumps(results() | {verb: measure(root)}, indent=1) + "\n")
    if "accuracy" in asked.what:
        accuracy(asked.sets, asked.rows, root, asked.seeds, asked.rounds)
    if asked.write:
        write()


if __name__ == "__main__":
    main()

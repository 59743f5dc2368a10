"""Sounds: regraft beside an expert by hand with the same frozen weights, and the speed of extraction.

    python benchmarks/audio.py [accuracy] [joining] [speed] [--sets esc10 fsdd fsdd5] [--seeds 0 1 2] [--epochs 0]
                             [--backbone auto]

The sets are looked for in $REGRAFT_DATA. esc10 is scored by its five folds in turn (the file's name begins
with the fold), fsdd by each of its six speakers left out in turn (the name holds the speaker), and fsdd5 on
the published test set with five clips a class to learn from, once a seed. By hand means: features once,
then scikit-learn's logistic regression on standardised features, its C chosen on a stratified fifth of train
and refitted on all. Features by hand are those of PyTorch in float32, each clip at its own length.
`--epochs 0` is regraft without fine-tuning, `auto` with it.

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


def ours(cut: Cut, folder: Path, epochs: str, reference: str) -> tuple[float, float, str]:
    """regraft's test accuracy, its seconds, and what it took."""
    table = folder / f"{cut.name.replace(' ', '')}.csv"
    with open(table, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split", "group"])
        for path, label, group, test in zip(cut.paths, cut.labels, cut.groups, cut.test, strict=True):
            writer.writerow([path, label, "test" if test else "train", group])
    recipe: dict[str, dict[str, object]] = {"obtain": {"backbone": reference}}
    if epochs != "auto":
        recipe["finetune"] = {"epochs": int(epochs)}
    began = time.perf_counter()
    run = regraft.fit(table, folder / f"run-{table.stem}", recipe=recipe)
    seconds = time.perf_counter() - began
    steps = run.state["steps"]
    said = f"{run.state['provenance']['id']}, {steps['base']['decided']}, {run.state['chosen']}"
    return run.metrics["test"]["accuracy"].value, seconds, said


def accuracy(
    names: list[str], root: Path, seeds: list[int], epochs: str, reference: str
) -> dict[str, dict[str, list[float]]]:
    """Test accuracies by set and row, one a round."""
    store, scores = FeatureStore(cache_folder()), {}
    for name in names:
        rows: dict[str, list[float]] = {}
        rounds = list(cuts(name, root, seeds))
        every = sorted({path for cut in rounds for path in cut.paths})
        place = {path: i for i, path in enumerate(every)}
        features = by_hand(every, store)
        with tempfile.TemporaryDirectory() as folder:
            for cut in rounds:
                some = [place[path] for path in cut.paths]
                for row, values in features.items():
                    rows.setdefault(row, []).append(regression(values[some], cut))
                value, seconds, said = ours(cut, Path(folder), epochs, reference)
                rows.setdefault("regraft", []).append(value)
                rows.setdefault("regraft, seconds", []).append(seconds)
                print(f"{name} {cut.name}: regraft {value:.1%} in {seconds:.0f} s ({said})", flush=True)
        for row, values in rows.items():
            shown = f"{np.mean(values):.0f}" if "seconds" in row else f"{np.mean(values):.1%}"
            print(f"{name:6} {row:34} {shown:>6}  {' '.join(f'{v:.3g}' for v in values)}", flush=True)
        scores[name] = rows
    return scores


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
    parser.add_argument("what", nargs="*", choices=VERBS, default=VERBS)
    parser.add_argument("--sets", nargs="+", default=["esc10", "fsdd", "fsdd5"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", default="auto", help="of fine-tuning; 0 stops at the head")
    parser.add_argument("--backbone", default="auto", help="of regraft: auto compares Whisper and Lite0")
    asked = parser.parse_args()
    root = Path(os.environ["REGRAFT_DATA"])
    kept = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    if "speed" in asked.what:
        kept["speed"] = speed(root)
    if "joining" in asked.what:
        kept["joining"] = joining(root)
    if "accuracy" in asked.what:
        kept |= accuracy(asked.sets, root, asked.seeds, asked.epochs, asked.backbone)
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Whether cheap signs tell, before anything is trained, that fine-tuning would gain nothing.

    python benchmarks/forecast.py [SET ...]

Of each subset that benchmarks/choice.py has measured, the true gain of fine-tuning in log loss is known from examples
kept aside. Signs are computed from the frozen features of the subset alone, at inputs of 96 pixels: the out-of-fold
loss of a head on the last depth, its gap to the loss on what it learnt from, how much higher it is with half of the
subset, how much joined depths gain, and how much 7 of 8 stages do. They are kept beside the results of choice.py.
A linear forecast of the gain (ridge on standardised signs) is fitted on six sets and asked about the seventh; where
it foresees less than a bound, fine-tuning is not begun.

`skipped` are the subsets where it is not, `spared` is the share of all trainings that this spares, and `regret` what
it costs in log loss beside the rule as it is, in the mean of all subsets and at most. `lowest` is the lowest forecast
of sets other than hymenoptera, where fine-tuning gains nothing.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

import regraft
from choice import RESULTS, SETS, SIZE, subset
from regraft.backbones import joined, make_base, obtain_weights, widths_of
from regraft.evaluation import log_losses
from regraft.modalities import modality_of
from regraft.steps.join import columns
from regraft.tasks import task_of
from regraft.training import fit_linear, fit_path, linear_outputs

KEPT = Path(__file__).parent / "results" / "forecast.json"
SIGNS = ("loss", "gap", "curve", "joined", "cut")
TAKEN = ("loss", "joined")
GAINS_NOTHING = "hymenoptera"
BOUNDS = (0.0, 0.01, 0.015, 0.02, 0.03, 0.04)


def features(paths: list[Path]) -> tuple[np.ndarray, list[int]]:
    """(N, D) features of all depths joined of Lite0 at SIZE pixels, and the width of each depth."""
    image, obtained = modality_of("image"), obtain_weights("packaged:efficientnet_lite0")
    plain = make_base(obtained, image.preprocess(obtained.config, SIZE, None, SIZE, True)[0])
    return regraft.extract(joined(plain), paths), widths_of(plain)


def signs(values: np.ndarray, widths: list[int], labels: np.ndarray, seed: int) -> dict[str, float]:
    """What the frozen features of a subset say."""
    task, whole = task_of("single", [str(label) for label in np.unique(labels)]), len(widths)
    ends = np.cumsum(widths)

    def path(x: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
        """The out-of-fold loss, and that on what the head learnt from."""
        x, y, weights = np.ascontiguousarray(x[rows]), labels[rows], np.ones(len(rows))
        found = fit_path(x, y, weights, task, 5, seed)
        fitted = linear_outputs(x, *fit_linear(x, y, weights, task, found.l2[found.chosen]))
        return float(log_losses(y[found.rows], found.logits).mean()), float(log_losses(y, fitted).mean())

    every = np.arange(len(labels))
    half = np.sort(np.concatenate([np.flatnonzero(labels == label)[::2] for label in np.unique(labels)]))
    last, before = values[:, ends[-2] :], values[:, ends[-3] : ends[-2]]
    loss, learnt = path(last, every)
    ways = [path(columns(values, way, widths, whole), every)[0] for way in ("faded", True)]
    cut, less = path(before, every)[0], path(last, half)[0]
    found = {
        "loss": loss,
        "gap": loss - learnt,
        "curve": less - loss,
        "joined": loss - min(ways),
        "cut": loss - cut,
    }
    return {name: found[name] for name in SIGNS}


def measured(names: list[str]) -> dict[str, dict[str, float]]:
    """The signs of all subsets of these sets that choice.py has measured, those that are kept included."""
    known = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.is_file() else {}
    data = Path(os.environ["REGRAFT_DATA"])
    for place in sorted(RESULTS.glob("*.json")):
        one = json.loads(place.read_text(encoding="utf-8"))
        if one["set"] not in names or place.stem in known:
            continue
        found = subset(data / one["set"], int(place.stem.split("-")[1]), one["seed"])
        assert found is not None
        rows = [(path, label) for path, label, own in zip(*found, strict=True) if own]
        labels = np.unique([label for _, label in rows], return_inverse=True)[1]
        known[place.stem] = signs(*features([path for path, _ in rows]), labels, one["seed"])
        KEPT.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        print(place.stem, known[place.stem], flush=True)
    return known


def table(known: dict[str, dict[str, float]]) -> str:
    """What a forecast by several signs and by each alone would spare and cost, each set foreseen from the others; and
    that by TAKEN as it comes from all sets.
    """
    results = [json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in known]
    sets = np.array([one["set"] for one in results])
    losses = [{float(share): loss for share, loss in one["loss"].items()} for one in results]
    truth = np.array([loss[0.0] - min(v for share, v in loss.items() if share) for loss in losses])
    handed = [loss[float(one["now"]["share"])] for loss, one in zip(losses, results, strict=True)]
    lost = np.array([loss[0.0] for loss in losses]) - handed
    spent = np.array([one["now"]["trainings"] for one in results])
    lines = ["| signs | lowest | bound | skipped | spared | regret: mean | most |", "|---" * 7 + "|"]
    for chosen in (SIGNS, TAKEN, *((name,) for name in SIGNS)):
        values = np.array([[row[name] for name in chosen] for row in known.values()])
        told = np.zeros(len(truth))
        for name in np.unique(sets):
            own = sets == name
            told[own] = fitted(values[~own], truth[~own]).predict(values[own])
        for bound in BOUNDS:
            out = told < bound
            cells = [", ".join(chosen), f"{told[sets != GAINS_NOTHING].min():.3f}", f"{bound:g}"]
            cells += [f"{out.sum()} of {len(out)}", f"{spent[out].sum() / spent.sum():.0%}"]
            lines.append(
                f"| {' | '.join([*cells, f'{(lost * out).mean():.4f}', f'{(lost * out).max():.3f}'])} |"
            )
    values = np.array([[row[name] for name in TAKEN] for row in known.values()])
    scale, ridge = fitted(values, truth)
    slopes = ridge.coef_ / scale.scale_
    told = " ".join(f"{slope:+.3f} {name}" for slope, name in zip(slopes, TAKEN, strict=True))
    return "\n".join([*lines, "", f"From all sets: {ridge.intercept_ - slopes @ scale.mean_:.3f} {told}"])


def fitted(values: np.ndarray, truth: np.ndarray) -> Pipeline:
    """A forecast of (N,) gains from (N, signs) values."""
    return make_pipeline(StandardScaler(), Ridge(1.0)).fit(values, truth)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="*", default=list(SETS))
    print(table(measured(parser.parse_args().sets)))


if __name__ == "__main__":
    main()

"""What Python users hold: fit, load, Run, and the parts for those with their own loop."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from regraft.artifacts import Events, Listener, RunFolder, write_json
from regraft.data import Examples, Inputs, KnownFile, read_source, readings
from regraft.data.known import DIGITS
from regraft.data.lineage import Seen, seen_by
from regraft.errors import UsageError
from regraft.evaluation import Estimate
from regraft.experiments.going import go
from regraft.experiments.going import resume as go_on
from regraft.experiments.repeats import Repeats
from regraft.modalities import pixel_digest, small_image_or_none
from regraft.recipe import Recipe, read_recipe
from regraft.run.handle import Run
from regraft.run.open import PAST, examples_of, looked_at, place_of, reserved, reserved_for_several
from regraft.runtime import NO_HOME, cache_folder, keep_large_blocks, pick_device, quiet_libraries
from regraft.tracking import tracked

if TYPE_CHECKING:  # torch and timm take seconds to import: names of theirs are fetched where they are used
    from torch import nn

    from regraft.backbones import Backbone
    from regraft.experiments.again import Evaluated
    from regraft.experiments.compare import Comparison
    from regraft.model import Model
    from regraft.steps.audit import Audit
    from regraft.steps.rank import Ranking
    from regraft.training import FreezePlan

__all__ = [
    "Estimate",
    "Recipe",
    "Repeats",
    "Run",
    "audit",
    "backbone",
    "compare",
    "evaluate",
    "explore",
    "extract",
    "fit",
    "fit_head",
    "freeze",
    "load",
    "rank",
    "repeat",
]


def fit(
    data: str | Path | None = None,
    out: str | Path | None = None,
    *,
    recipe: dict[str, Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    splits: str | Path | None = None,
    fixes: str | Path | None = None,
    cache: str | Path | None = "auto",
    listeners: Sequence[Listener] = (),
    track: Sequence[str] = (),
    until: str = "evaluate",
) -> Run:
    """Walk the seven steps on `data` and give back the finished Run.

    `out` defaults to `runs/<data name>`, next free number; `recipe` holds nested settings; `splits` names an
    earlier run whose assignment is kept, `fixes` a csv of `Audit.export` that was edited; `cache` is where
    features are stored (None: nowhere); `listeners` hear every event, and so do trackers named in `track`
    (tensorboard, mlflow, wandb); `until` "finetune" stops before the test set is read. With `resume` the run
    in `out` goes on by its own recipe; `data` then says where its files are now, if they were moved. Raises
    DataError, RecipeError, UsageError, ChangedError for a file that changes under way; KeyboardInterrupt
    after the best so far was kept.
    """
    started = time.monotonic()
    settings = Recipe.build(recipe or {})
    quiet_libraries()
    place = _cache(cache, listeners)
    if resume:
        if out is None:
            raise UsageError("--resume needs --out RUN, the folder of the run to go on with.")
        if any(recipe.values() if recipe else ()):
            raise UsageError(
                "--resume goes on with the run's own recipe.yaml: leave the settings out, or start a new run."
            )
        return go_on(out, place, listeners, track, started, data)
    if data is None:
        raise UsageError("name the data: a folder of class folders, or a table.")
    with contextlib.ExitStack() as inside:
        ears = inside.enter_context(tracked(track, settings.run.offline, listeners))
        source = read_source(data)
        folder = inside.enter_context(reserved(out, source.name, overwrite))
        looked = looked_at(source, settings, splits, Events(None, tuple(listeners)), fixes)
        folder.clear()
        for kind, fields in looked.logged:
            Events(folder.events).emit(kind, **fields)
        looked.examples.save(folder.examples)
        Seen.of(looked.examples, folder.path, looked.past).save(folder.seen)
        write_json(folder.audit, {"findings": [finding.to_dict() for finding in looked.findings]})
        about = {"name": source.name, **looked.about}
        return go(folder, looked.examples, settings, place, ears, about, started, until)


def explore(
    data: str | Path,
    out: str | Path | None = None,
    *,
    recipe: dict[str, Any] | None = None,
    overwrite: bool = False,
    splits: str | Path | None = None,
    cache: str | Path | None = "auto",
    listeners: Sequence[Listener] = (),
) -> Run:
    """Try freezing strategies against each other on val; the test set stays sealed. `Run.strategies` holds
    the table.

    `regraft.fit(out=run.path, resume=True)` goes on to a tested model with the strategy that won. Raises as
    `fit` does, and UsageError where there is no val set to judge by.
    """
    settings = Recipe.build({"freeze": {"strategy": "auto"}}, recipe or {})
    if settings.data.folds:
        raise UsageError("explore compares strategies once, on val: leave out data.folds.")
    if settings.freeze.strategy != "auto":
        raise UsageError(
            f"explore compares strategies; {settings.freeze.strategy!r} names one. Use fit for that."
        )
    asked = settings.model_dump(exclude_unset=True)
    run = fit(
        data,
        out,
        recipe=asked,
        overwrite=overwrite,
        splits=splits,
        cache=cache,
        listeners=listeners,
        until="finetune",
    )
    if not run.strategies["trials"]:
        raise UsageError(
            f"no strategies were compared: {run.state['steps']['finetune'].get('why', 'see events.jsonl')}."
        )
    return run


def repeat(
    data: str | Path,
    out: str | Path | None = None,
    repeats: int = 3,
    *,
    recipe: dict[str, Any] | None = None,
    overwrite: bool = False,
    splits: str | Path | None = None,
    fixes: str | Path | None = None,
    cache: str | Path | None = "auto",
    listeners: Sequence[Listener] = (),
    track: Sequence[str] = (),
) -> Repeats:
    """Runs that differ in the seed of training only, on one split: how much of a result is luck. `out` holds
    them all.

    The first one's backbone, input size and depth are kept for the others.
    Every run reads the test set once; nothing is chosen by it. Raises as `fit` does.
    """
    if repeats < 2:
        raise UsageError(f"--repeats {repeats}: two runs at least tell a spread.")
    first = Recipe.build(recipe or {}).run.seed
    Recipe.build(
        recipe or {}, {"run": {"seed": first + repeats - 1}}
    )  # the last one's, before the first has run
    runs: list[Run] = []
    kept: dict[str, Any] = {}
    with reserved_for_several(out, f"{read_source(data).name}-repeats") as folder:
        for seed in range(first, first + repeats):
            asked = Recipe.build(recipe or {}, kept, {"run": {"seed": seed}}).model_dump(exclude_unset=True)
            runs.append(
                fit(
                    data,
                    folder.path / f"seed-{seed}",
                    recipe=asked,
                    overwrite=overwrite,
                    splits=splits,
                    fixes=fixes,
                    cache=cache,
                    listeners=listeners,
                    track=track,
                )
            )
            first_run = read_recipe(runs[0].path / "recipe.yaml")
            kept = {
                "obtain": {"backbone": first_run["obtain"]["backbone"]},
                "base": {name: first_run["base"][name] for name in ("size", "depth")},
            }
        found = Repeats(folder.path, runs)
        write_json(folder.path / "repeats.json", found.to_dict())
    return found


def evaluate(
    run: str | Path | Run,
    data: str | Path | None = None,
    reason: str = "",
    *,
    device: str = "auto",
    listeners: Sequence[Listener] = (),
    moved: str | Path | None = None,
) -> Evaluated:
    """Evaluate a finished run's model again: on its own test set, or on `data`, all of it labelled and taken
    as a test set.

    `moved` says where the run's own data are now, if they are not where they were; files are known by their
    content. Each reading of the run's test set is recorded with its date and `reason`, and `said` tells how
    often it was read; of `data`, what the run was made with is left out. Raises DataError for labels that are
    no classes of the run, UsageError for a run that is not finished or has no test set.
    """
    quiet_libraries()
    from regraft.experiments.again import evaluate_on, evaluate_own

    keep_large_blocks()
    place = run.path if isinstance(run, Run) else Path(run)
    if data is None:
        return evaluate_own(place, reason, device, listeners, moved)
    return evaluate_on(place, data, reason, device, listeners, moved)


def compare(*runs: str | Path | Run) -> Comparison:
    """Finished runs side by side on the test set they share, with paired differences. Raises UsageError if
    they share none.
    """
    from regraft.experiments.compare import compare as side_by_side

    return side_by_side([run.path if isinstance(run, Run) else run for run in runs])


def plan(
    data: str | Path,
    out: str | Path | None = None,
    *,
    recipe: dict[str, Any] | None = None,
    splits: str | Path | None = None,
    fixes: str | Path | None = None,
    listeners: Sequence[Listener] = (),
) -> dict[str, Any]:
    """What `fit` would do: counts, findings, what steps 1 to 3 decide, a measured estimate of the seconds.
    Writes nothing.
    """
    settings = Recipe.build(recipe or {})
    quiet_libraries()
    source = read_source(data)
    target, name = place_of(out, source.name), source.name
    looked = looked_at(source, settings, splits, Events(None, tuple(listeners)), fixes)
    examples, about = looked.examples, looked.about

    from regraft.inference import FeatureStore, TorchEngine
    from regraft.steps.base import base
    from regraft.steps.context import Context
    from regraft.steps.estimate import epochs_of, run_seconds, step_seconds
    from regraft.steps.freeze import freeze
    from regraft.steps.obtain import obtain

    keep_large_blocks()
    device = pick_device(settings.run.device)
    settings.run.device = str(device)
    context = Context(
        settings, FeatureStore(None), device, Events(None, tuple(listeners)), levels=examples.levels()
    ).trial()
    settings = context.recipe
    counts, classes, both = (
        examples.counts(),
        len(examples.task.classes),
        examples.part("train").then(examples.part("val")),
    )
    obtained, _ = obtain(both, examples.image_sizes(), counts, classes, context)
    body = base(obtained, examples.image_sizes(), context)
    freeze(body, context)
    size = body.preprocess.size
    engine, blank = TorchEngine(body, device), np.zeros((32, size, size, 3), dtype=np.uint8)
    engine.run(blank)
    began = time.perf_counter()
    engine.run(blank)
    forward = (time.perf_counter() - began) / len(blank)
    epochs = epochs_of(settings, counts, size)
    step, folds = step_seconds(body, counts, classes, settings) if epochs else 0.0, settings.data.folds
    seconds = run_seconds(settings, counts, size, forward, step)
    return {
        "out": str(target),
        "name": name,
        "counts": counts,
        "classes": list(examples.task.classes),
        "findings": about["findings"],
        "steps": context.said,
        "epochs": epochs,
        "walks": folds + 1,
        "estimated_seconds": seconds,
    }


def rank(
    data: str | Path,
    backbones: Sequence[str] = ("auto",),
    *,
    recipe: dict[str, Any] | None = None,
    network: bool = False,
    cache: str | Path | None = "auto",
    listeners: Sequence[Listener] = (),
) -> Ranking:
    """Compare pre-trained models, input sizes and depths on `data`; nothing is written outside the cache,
    test stays sealed.

    `backbones` are references; "auto" stands for all at hand (installed, in the hub's cache, earlier runs
    below `runs/`), with `network` for the whole catalogue. What is allowed stands in `recipe`: obtain.prefer,
    obtain.max_parameters, run.budget_seconds. An earlier run that has seen some of the data is left out.
    Raises DataError, UsageError.
    """
    settings = Recipe.build(recipe or {})
    quiet_libraries()
    source = read_source(data)
    ears = Events(None, tuple(listeners))
    examples = examples_of(source, settings, None, ears).examples

    from dataclasses import replace

    from regraft.backbones import candidates, earlier_runs
    from regraft.inference import FeatureStore
    from regraft.steps.context import Context
    from regraft.steps.rank import rank as compare

    keep_large_blocks()
    place = _cache(cache, listeners)
    device = pick_device(settings.run.device)
    settings.run.device = str(device)
    context = Context(settings, FeatureStore(place, note=ears.note), device, ears, levels=examples.levels())
    wanted: list[str] = []
    for name in backbones:
        wanted += (
            [*candidates(network and not settings.run.offline), *earlier_runs()] if name == "auto" else [name]
        )
    every = examples.inputs().then(examples.audit_view(PAST, ears.emit))
    seen = {name: why for name in wanted if (why := _has_seen(name, every, ears))}
    ranking = compare(
        examples.part("train").then(examples.part("val")),
        examples.image_sizes(),
        examples.counts(),
        len(examples.task.classes),
        [name for name in dict.fromkeys(wanted) if name not in seen],
        context,
        named="auto" not in backbones,
    )
    return replace(ranking, left_out={**ranking.left_out, **seen})


def audit(
    data: str | Path,
    *,
    recipe: dict[str, Any] | None = None,
    features: bool = True,
    splits: str | Path | None = None,
    fixes: str | Path | None = None,
    cache: str | Path | None = "auto",
    listeners: Sequence[Listener] = (),
) -> Audit:
    """What is wrong with `data`: copies, near-duplicates, likely wrong labels, outliers, leaks and more;
    nothing is changed.

    Without `features` only files are looked at, and near-duplicates found by their hashes alone. Nothing is
    written outside the cache. Raises DataError, UsageError.
    """
    settings = Recipe.build(recipe or {})
    quiet_libraries()
    events, source = Events(None, tuple(listeners)), read_source(data)
    looked = examples_of(source, settings, splits, events, fixes)
    examples = looked.examples

    from regraft.inference import FeatureStore
    from regraft.steps.audit import Audit, audit_alone
    from regraft.steps.context import Context

    keep_large_blocks()
    place = _cache(cache, listeners)
    device = pick_device(settings.run.device)
    settings.run.device = str(device)
    kept = frozenset((name, kind) for name, kind in looked.about.get("fixes", {}).get("kept", []))
    context = Context(
        settings, FeatureStore(place, note=events.note), device, events, levels=examples.levels()
    )
    found, test = audit_alone(
        examples, partial(small_image_or_none, levels=context.levels), kept, context, features
    )
    return Audit(source.name, examples.counts(), (*looked.findings, *found), frozenset(test.sources))


def _has_seen(reference: str, examples: Inputs, ears: Events) -> str:
    """Why an earlier run cannot be judged on these examples; "" where it can, and for what comes from no run."""
    try:
        past = seen_by(reference)
    except UsageError as error:  # a damaged run beside the others
        return f"what it was made with is not known: {error}"
    if past is None:
        return ""
    shared = len(past.meet(examples, pixel_digest, ears.tick))
    return f"it was made with {shared} of these examples" if shared else "; ".join(past.unknown)


def load(path: str | Path) -> Model:
    """The model of a run's folder or of a model folder. Raises UsageError for what is neither."""
    from regraft.model import Model

    return Model.load(Path(path))


def backbone(
    reference: str = "auto", size: int | None = None, offline: bool = False, depth: int | None = None
) -> Backbone:
    """A base model: pre-trained weights without their classifier, with their own preprocessing. Raises
    BackboneError.

    With `depth` its first stages only, pooled by the mean; raises ValueError where it cannot end there.
    """
    quiet_libraries()
    from regraft.backbones import make_base, obtain_weights, truncated

    obtained = obtain_weights(reference, offline)
    whole = make_base(obtained, size or obtained.provenance.input_size)
    return whole if depth in (None, len(whole.stages)) else truncated(whole, depth)


@overload
def extract(
    base: Backbone,
    items: Sequence[Any],
    cache: str | Path | None = None,
    device: str = "auto",
    engine: str = "auto",
) -> np.ndarray: ...


@overload
def extract(
    base: Backbone,
    items: Sequence[Any],
    cache: str | Path | None = None,
    device: str = "auto",
    engine: str = "auto",
    *,
    depths: Sequence[int],
) -> list[np.ndarray]: ...


def extract(
    base: Backbone,
    items: Sequence[Any],
    cache: str | Path | None = None,
    device: str = "auto",
    engine: str = "auto",
    *,
    depths: Sequence[int] | None = None,
) -> np.ndarray | list[np.ndarray]:
    """(N, width) float32 pooled features, in the order given. `items` are paths, bytes, PIL images or arrays.

    With `cache` (a folder; items are paths then) each is computed once. `engine` is "torch-float32", another
    of the engines a run may take, or "auto": the fastest that agrees with float32 on some of the items. With
    `depths` it is a list: the features, then, for each, the pooled (N, channels) output of so many first
    stages, all from one pass. Raises UnreadableImage for an item that is none, UsageError for an engine that
    does not run here and a depth there is not.
    """
    from regraft.artifacts import file_sha256
    from regraft.inference import FeatureStore, feature_key, makers, pick_engine, trial_key

    keep_large_blocks()
    items, place, on = list(items), Path(cache) if cache is not None else None, pick_device(device)
    if wrong := [depth for depth in depths or () if not 0 < depth < len(base.stages)]:
        raise UsageError(
            f"depths are 1 to {len(base.stages) - 1}, one less than there are stages; found {wrong}."
        )
    made = makers(base, on, 32, tuple(depths or ()), cache=place)
    if engine == "auto":
        some = items[:: max(1, len(items) // 32)][:32]

        def sample() -> np.ndarray:
            return np.stack([base.preprocess.host(item) for item in some])

        engine, _ = pick_engine(made, sample, len(items), trial_key(base, on, 32, tuple(depths or ())), place)
    if engine not in made:
        raise UsageError(f"the engine {engine!r} does not run on {on}; these do: {', '.join(made)}.")
    if cache is None:
        ids = [f"{number:032x}" for number in range(len(items))]
    else:
        ids = [file_sha256(Path(item))[:DIGITS] for item in items]
        items = [KnownFile(os.fspath(item), identity) for item, identity in zip(items, ids, strict=True)]
    quiet: Callable[..., None] = lambda **_: None  # noqa: E731
    columns = ("pooled", *(f"depth {depth}" for depth in depths or ()))
    runs = made[engine]()
    found = FeatureStore(place).features(
        ids, items, feature_key(runs), base.preprocess, runs, quiet, columns=columns
    )
    return found[0] if depths is None else found


def freeze(
    module: nn.Module, strategy: str | Sequence[str] = "head", norm_statistics: str = "frozen"
) -> FreezePlan:
    """Freeze parts of any nn.Module in place, so that they stay frozen whatever calls `.train()`; gives the
    plan applied.
    """
    from regraft.backbones import cut_stages
    from regraft.training import plan_freeze

    plan = plan_freeze(module, cut_stages(module), strategy, norm_statistics)
    plan.apply(module)
    return plan


def fit_head(
    features: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    l2: float | None = None,
    seed: int = 0,
    groups: Sequence[Any] | np.ndarray | None = None,
) -> nn.Module:
    """A linear head (B, D) -> (B, K) on (N, D) features and (N,) integer labels; L2 by out-of-fold log loss
    where None.

    `groups` (N,), any hashable values, name what belongs together, such as a patient's pictures: no fold
    parts a group. An example whose group is None is alone. Raises UsageError for features that hold nan or
    infinity, and for whatever else no head can be fitted to.
    """
    from regraft.data.blocks import blocks_of
    from regraft.training import head_alone

    return head_alone(features, labels, l2, seed, blocks_of(list(groups)) if groups is not None else None)


def _cache(named: str | Path | None, listeners: Sequence[Listener]) -> Path | None:
    """Where features are stored: the folder named, the usual one for "auto", nowhere for None."""
    if named != "auto":
        return None if named is None else Path(named)
    usual = cache_folder()
    if usual is None:
        Events(None, tuple(listeners)).note(NO_HOME)
    return usual


def demo_data(folder: Path | None = None) -> Path:
    """scikit-learn's 1,797 scans of handwritten digits as a folder of class folders; written once.

    `folder` defaults to one in the cache, or to a temporary one where the cache cannot be written.
    """
    if folder is not None:
        return _write_digits(folder)
    cache = cache_folder()
    if cache is not None:
        with contextlib.suppress(OSError):
            return _write_digits(cache / "demo" / "digits")
    return _write_digits(Path(tempfile.mkdtemp(prefix="regraft-")) / "digits")


def _write_digits(folder: Path) -> Path:
    from PIL import Image
    from sklearn.datasets import load_digits

    if os.path.isdir(folder / "9"):
        return folder
    digits = load_digits()
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        for number, (picture, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            place = temporary / str(label)
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.rint(picture * 255 / 16).astype(np.uint8)).save(place / f"{number:04d}.png")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def nearest_neighbours(run: Run, k: int = 3) -> float:
    """Test accuracy of k nearest neighbours on the raw pixels of a run's data: the demo's yardstick."""
    from sklearn.neighbors import KNeighborsClassifier

    from regraft.modalities.image import load_rgb

    examples = Examples.load(run.path / "examples.parquet")
    train, val = examples.part("train"), examples.part("val")
    folder = RunFolder(run.path)
    folder.lock()
    try:
        test = examples.unseal("raw-pixel neighbours beside the demo's result", Events(folder.events).emit)
        write_json(folder.state, {**folder.read_state(), "readings": readings(folder)})
    finally:
        folder.release()

    def pixels(paths: Sequence[KnownFile]) -> np.ndarray:
        return np.stack([np.asarray(load_rgb(path).convert("L")).ravel() for path in paths]).astype(
            np.float32
        )

    known = KNeighborsClassifier(k).fit(
        pixels(train.paths + val.paths), np.concatenate([train.labels, val.labels])
    )
    return float(known.score(pixels(test.paths), test.labels))

"""What Python users hold: fit, load, Run and the verbs; the parts for those with their own loop are in parts.py."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.artifacts import Listener
from regraft.errors import UsageError
from regraft.evaluation import Estimate
from regraft.experiments.going import begin
from regraft.experiments.going import resume as go_on
from regraft.experiments.repeats import Repeats, repeated, seeds_of
from regraft.recipe import Recipe
from regraft.run.asked import asked
from regraft.run.handle import Run
from regraft.run.open import examples_of, looked_at, place_of, reserved, reserved_for_several
from regraft.run.session import Session
from regraft.runtime import cache_folder, keep_large_blocks, pick_device
from regraft.scale import Cluster, crew_of

if TYPE_CHECKING:  # torch and timm take seconds to import: names of theirs are fetched where they are used
    from regraft.experiments.again import Evaluated
    from regraft.experiments.compare import Comparison
    from regraft.exporting import Exported
    from regraft.model import Model
    from regraft.steps.audit import Audit
    from regraft.steps.rank import Ranking

__all__ = [
    "Cluster",
    "Estimate",
    "Recipe",
    "Repeats",
    "Run",
    "audit",
    "compare",
    "evaluate",
    "explore",
    "export",
    "fit",
    "load",
    "push",
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
    cluster: Cluster | None = None,
) -> Run:
    """Walk the seven steps on `data` and give back the finished Run.

    `out` defaults to `runs/<data name>`, next free number; `recipe` holds nested settings; `splits` names
    an earlier run whose assignment is kept, `fixes` a csv of `Audit.export` that was edited; `cache` is
    where features are stored (None: nowhere); `listeners` hear every event, and so do trackers named in
    `track` (tensorboard, mlflow, wandb); `until` "finetune" stops before the test set is read; a `cluster`
    has workers that share the passes over the examples (docs/scale.md). With
    `resume` the run in `out` goes on by its own recipe; `data` then says where its files are now, if they
    were moved. Raises DataError, RecipeError, UsageError, ChangedError for a file that changes under way;
    KeyboardInterrupt after the best so far was kept.
    """
    session = Session.open(recipe, cache, listeners)
    if resume:
        if out is None:
            raise UsageError("--resume needs --out RUN, the folder of the run to go on with.")
        if any(recipe.values() if recipe else ()):
            raise UsageError(
                "--resume goes on with the run's own recipe.yaml: leave the settings out, or start a new run."
            )
        with _manned(session, cluster) as session:
            return go_on(out, session, track, data)
    if data is None:
        raise UsageError("name the data: a folder of class folders, or a table.")
    with session.tracked(track) as heard:
        source = session.source(data)
        with reserved(out, source.name, overwrite) as folder, _manned(heard, cluster) as heard:
            looked = looked_at(source, session.recipe, splits, session.events, fixes, heard.crew)
            return begin(folder, source.name, looked, heard, until)


@contextlib.contextmanager
def _manned(session: Session, cluster: Cluster | None) -> Iterator[Session]:
    """The session with the workers of a cluster, for as long as the context lasts."""
    if cluster is None:
        yield session
        return
    device = pick_device(session.recipe.run.device)
    with crew_of(cluster, session.events.note, gpus=device.type == "cuda") as crew:
        yield replace(session, crew=crew)


def explore(
    data: str | Path,
    out: str | Path | None = None,
    *,
    recipe: dict[str, Any] | None = None,
    overwrite: bool = False,
    splits: str | Path | None = None,
    cache: str | Path | None = "auto",
    listeners: Sequence[Listener] = (),
    cluster: Cluster | None = None,
) -> Run:
    """Try freezing strategies against each other on val; the test set stays sealed. `Run.strategies` holds
    the table.

    `regraft.fit(out=run.path, resume=True)` goes on to a tested model with the strategy that won. Raises as
    `fit` does, and UsageError where there is no val set to judge by.
    """
    settings = asked({"freeze": {"strategy": "auto"}}, recipe or {})
    if settings.data.folds:
        raise UsageError("explore compares strategies once, on val: leave out data.folds.")
    if settings.freeze.strategy != "auto":
        raise UsageError(
            f"explore compares strategies; {settings.freeze.strategy!r} names one. Use fit for that."
        )
    run = fit(
        data,
        out,
        recipe=settings.model_dump(exclude_unset=True),
        overwrite=overwrite,
        splits=splits,
        cache=cache,
        listeners=listeners,
        until="finetune",
        cluster=cluster,
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
    cluster: Cluster | None = None,
) -> Repeats:
    """Runs that differ in the seed of training only, on one split: how much of a result is luck. `out`
    holds them all.

    The first one's backbone, input size and depth are kept for the others.
    Every run reads the test set once; nothing is chosen by it. Raises as `fit` does.
    """
    seeds = seeds_of(recipe or {}, repeats)
    same = {"overwrite": overwrite, "splits": splits, "fixes": fixes, "cache": cache, "cluster": cluster}

    def walk(place: Path, settings: dict[str, Any]) -> Run:
        return fit(data, place, recipe=settings, listeners=listeners, track=track, **same)  # type: ignore[arg-type]

    with reserved_for_several(out, f"{Session.open(recipe).source(data).name}-repeats") as folder:
        return repeated(folder.path, recipe or {}, seeds, walk)


def evaluate(
    run: str | Path | Run,
    data: str | Path | None = None,
    reason: str = "",
    *,
    device: str = "auto",
    listeners: Sequence[Listener] = (),
    moved: str | Path | None = None,
) -> Evaluated:
    """Evaluate a finished run's model again: on its own test set, or on `data`, all of it labelled and
    taken as a test set.

    `moved` says where the run's own data are now, if they are not where they were; files are known by their
    content. Each reading of the run's test set is recorded with its date and `reason`, and `said` tells how
    often it was read; of `data`, what the run was made with is left out. Raises DataError for labels that
    are no classes of the run, UsageError for a run that is not finished or has no test set.
    """
    session = Session.open({"run": {"device": device}}, None, listeners)

    from regraft.experiments.again import evaluate_on, evaluate_own

    keep_large_blocks()
    place = run.path if isinstance(run, Run) else Path(run)
    if data is None:
        return evaluate_own(place, session, reason, moved)
    return evaluate_on(place, data, session, reason, moved)


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
    session = Session.open(recipe, None, listeners)
    source = session.source(data)
    target = place_of(out, source.name)
    looked = looked_at(source, session.recipe, splits, session.events, fixes)

    from regraft.experiments.plan import planned_run
    from regraft.tasks import counted

    return {
        "out": str(target),
        "name": source.name,
        "counts": looked.examples.counts(),
        "classes": list(looked.examples.task.classes),
        "apart": counted(looked.examples.task.noun, len(looked.examples.task.classes)),
        "findings": looked.about["findings"],
        **planned_run(looked.examples, session),
    }


def rank(
    data: str | Path,
    backbones: Sequence[str] = ("auto",),
    *,
    recipe: dict[str, Any] | None = None,
    cache: str | Path | None = "auto",
    listeners: Sequence[Listener] = (),
    cluster: Cluster | None = None,
) -> Ranking:
    """Compare pre-trained models, input sizes and depths on `data`; nothing is written outside the cache,
    test stays sealed.

    `backbones` are references; "auto" stands for all at hand (installed, in the hub's cache, earlier runs
    below `runs/`), with obtain.network in `recipe` for stronger ones of the catalogue too, which are fetched.
    What is allowed stands there as well: obtain.max_parameters, obtain.accept_licences, run.budget_seconds.
    An earlier run that has seen some of the data is left out. Raises DataError, UsageError.
    """
    session = Session.open(recipe, cache, listeners)
    source = session.source(data)

    from regraft.experiments.contest import ranked

    with _manned(session, cluster) as session:
        looked = examples_of(source, session.recipe, None, session.events, crew=session.crew)
        return ranked(looked.examples, backbones, session)


def audit(
    data: str | Path,
    *,
    recipe: dict[str, Any] | None = None,
    features: bool = True,
    splits: str | Path | None = None,
    fixes: str | Path | None = None,
    cache: str | Path | None = "auto",
    listeners: Sequence[Listener] = (),
    cluster: Cluster | None = None,
) -> Audit:
    """What is wrong with `data`: copies, near-duplicates, likely wrong labels, outliers, leaks and more;
    nothing is changed.

    Without `features` only files are looked at, and near-duplicates found by their facts alone. Nothing is
    written outside the cache. Raises DataError, UsageError.
    """
    session = Session.open(recipe, cache, listeners)
    source = session.source(data)

    from regraft.steps.audit import Audit, audit_alone

    with _manned(session, cluster) as session:
        looked = examples_of(source, session.recipe, splits, session.events, fixes, session.crew)
        kept = frozenset((name, kind) for name, kind in looked.about.get("fixes", {}).get("kept", []))
        later, test = audit_alone(looked.examples, kept, session.context(looked.examples), features)
    counts = looked.examples.counts()
    return Audit(source.name, counts, (*looked.findings, *later), frozenset(test.sources))


def export(
    run: str | Path | Run,
    to: str = "onnx",
    out: str | Path | None = None,
    *,
    quantize: str | None = None,
    data: str | Path | None = None,
    force: bool = False,
    web: str | Path | None = None,
    listeners: Sequence[Listener] = (),
) -> Exported:
    """Write a model for other libraries into a folder (`to` is onnx, openvino, torch, timm or transformers),
    and hold it against the model on up to 200 real examples of val and test.

    `out` defaults to `exports/FORMAT` in the run's folder, next free number. `quantize` "int8" makes it
    smaller, and tells what that costs; one that answers too differently is refused without `force`. `web` is
    an unpacked npm package onnxruntime-web, for the page beside an ONNX graph to work offline. `data` says
    where the run's data are now, or names examples to compare a model without its run with. Raises
    RefusedError, with nothing written, where the export answers other things than the model, UsageError for a
    format that there is not, or that does not suit the model.
    """
    session = Session.open({}, None, listeners)

    from regraft.exporting import export as make

    keep_large_blocks()
    place = run.path if isinstance(run, Run) else Path(run)
    return make(place, to, out, quantize, data, force, web, tick=session.events.tick)


def load(path: str | Path, engine: str = "auto", device: str = "auto") -> Model:
    """The model of a run's folder or of a model folder, to be run on a device ("cpu", "cuda", "mps"; "auto"
    takes CUDA, MPS, CPU in this order) by an engine ("torch-float32", another of `regraft fit --engine`;
    "auto" takes float32 PyTorch for up to 63 items, and the fastest that agrees with it for more).

    Raises UsageError for what is no model, and for a device or an engine that there is not.
    """
    from regraft.model import Model

    return Model.load(Path(path), pick_device(device), engine, cache_folder())


def push(run: str | Path | Run, repo: str, public: bool = False) -> str:
    """Send a finished run's model and its card to the repository `repo` (OWNER/NAME) of a model hub, private
    unless `public`; gives its address.

    Weights, what it takes to load them and the card are sent; examples, predictions and paths of this
    machine are not. Raises UsageError for a run without a model, a name that is none, no token of the hub
    and a repository that is as visible as was not asked for; RegraftError for what the hub refuses.
    """
    from regraft import publish

    parcel, place = publish.pack(run.path if isinstance(run, Run) else run), publish.find(repo)
    return publish.send(parcel, place, public)

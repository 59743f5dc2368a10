"""The verbs that make a run: fit, explore, demo."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regraft.cli import completion, options, values
from regraft.cli.shown import print_json, progress, progress_of_run
from regraft.errors import UsageError
from regraft.scale import Cluster

if TYPE_CHECKING:
    from regraft.run.handle import Run

NO_DATA = "name the data: a folder of class folders, or a table."


def fit(
    places: Annotated[list[str] | None, typer.Argument(metavar="DATA", help=options.DATA)] = None,
    out: options.Out = None,
    task: options.Task = None,
    labels: options.Labels = None,
    targets: options.Targets = None,
    backbone: options.Backbone = None,
    freeze: Annotated[
        str | None,
        typer.Option(
            help="what fine-tuning may move: full (the default), head, half, last-K, norm, bias, lora, or stages a,b; "
            "auto tries them against each other",
            autocompletion=completion.strategies,
        ),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            help="linear, mlp, or auto: the simpler, unless the other is clearly better out of fold",
            autocompletion=completion.heads,
        ),
    ] = None,
    size: options.Size = None,
    metric: Annotated[
        str | None,
        typer.Option(help="what fine-tuning must not lose in, one of the task's: accuracy, macro_f1, ..."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, mps", autocompletion=completion.devices)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="of every random choice in training; the split has its own, data.seed")
    ] = None,
    budget: options.Budget = None,
    prefer: Annotated[
        str | None,
        typer.Option(
            help="accuracy, or speed: no fine-tuning where a short trial shows no gain, nothing trained twice",
            autocompletion=completion.preferences,
        ),
    ] = None,
    max_params: options.MaxParams = None,
    network: options.Network = None,
    accept_licence: options.AcceptLicence = None,
    repeats: Annotated[int, typer.Option(help="runs with different seeds: mean and spread")] = 1,
    baseline: Annotated[
        str | None, typer.Option(help="scratch: the same network from random weights, beside the others")
    ] = None,
    no_test: Annotated[
        bool, typer.Option("--no-test", help="set no test examples apart, and say so everywhere")
    ] = False,
    folds: Annotated[
        int | None, typer.Option(help="cross-validate the whole walk instead of a test set: 5")
    ] = None,
    splits: options.Splits = None,
    fixes: options.Fixes = None,
    strict: Annotated[
        bool,
        typer.Option(
            help="stop before training where scores would flatter: near-duplicates or groups across splits, leaks"
        ),
    ] = False,
    config: Annotated[
        Path | None, typer.Option(help="settings from a recipe.yaml, such as that of another run")
    ] = None,
    sets: options.Sets = None,
    offline: options.Offline = False,
    track: Annotated[
        list[str] | None,
        typer.Option(
            help="tensorboard, mlflow or wandb hear the run's events", autocompletion=completion.trackers
        ),
    ] = None,
    resume: Annotated[bool, typer.Option(help="go on with the run in --out, by its own recipe")] = False,
    moved: Annotated[
        str | None, typer.Option("--data", help="with --resume: where the run's data are now")
    ] = None,
    overwrite: options.Overwrite = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            help="counts, findings, what steps 1 to 3 decide and an estimate of the time; nothing is trained"
        ),
    ] = False,
    workers: options.Workers = None,
    address: options.Address = None,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Walk the seven steps of transfer learning on DATA."""
    data = values.place(places) or None
    if baseline not in (None, "scratch"):
        raise UsageError(
            f"--baseline {baseline!r}: scratch is the one that can be asked for; the others are there always."
        )
    named: values.Settings = {
        "data": {
            **values.asked_of_data(task, labels, targets),
            "test_share": 0.0 if no_test else None,
            "folds": folds,
            "strict": strict or None,
        },
        "obtain": {
            "backbone": backbone,
            "max_parameters": values.parameters(max_params),
            "network": network,
            "accept_licences": accept_licence or None,
        },
        "freeze": {"strategy": freeze.split(",") if freeze and "," in freeze else freeze},
        "head": {"kind": head},
        "base": {"size": size},
        "run": {
            "metric": metric,
            "device": device,
            "seed": seed,
            "budget_seconds": values.seconds(budget),
            "offline": offline or None,
            "prefer": prefer,
            "scratch": True if baseline else None,
        },
    }
    recipe = values.settings(config, sets, named)
    if repeats != 1 and (data is None or resume or dry_run or moved):
        raise UsageError(
            "--repeats starts new runs: name DATA, and leave out --resume, --data and --dry-run."
        )
    _agree(data, moved, resume, any((splits, fixes, overwrite, dry_run)))
    given: dict[str, Any] = {"recipe": recipe, "splits": splits, "fixes": fixes}
    if dry_run:
        _plan(data, out, quiet, as_json, given)
        return
    given |= {"overwrite": overwrite, "track": track or [], "cluster": Cluster.asked(workers, address)}
    if repeats != 1:
        _repeat(data, out, repeats, quiet, as_json, given)
    else:
        _fit(moved or data, out, quiet, as_json, {**given, "resume": resume})


def _agree(data: str | None, moved: str | None, resume: bool, others: bool) -> None:
    """Raise UsageError for options that do not go together; `others` are those that a resumed run cannot
    take.
    """
    if moved and (data or not resume):
        raise UsageError(
            "--data goes with --resume and says where the data of the run in --out are now. Else name DATA."
        )
    if resume and data:
        raise UsageError(
            "--resume goes on with the data of the run in --out: "
            "leave out DATA, or say with --data where they are."
        )
    if resume and others:
        names = "--splits, --fixes, --overwrite, --dry-run"
        raise UsageError(f"--resume goes on with the run in --out as it is: leave out {names}.")


def _fit(data: str | None, out: Path | None, quiet: bool, as_json: bool, given: dict[str, Any]) -> Run:
    """One run, made and shown; `given` are further arguments of `regraft.fit`."""
    from regraft.artifacts import read_json

    with progress_of_run(quiet or as_json) as screen:
        from regraft import api

        run = api.fit(data, out, listeners=[screen], **given)
    if as_json:
        about = {"out": run.path, "state": run.state["state"], "chosen": run.state["chosen"]}
        print_json({**about, "metrics": read_json(run.path / "metrics.json")})
    elif not quiet:
        show_run(run)
    return run


def _plan(data: str | None, out: Path | None, quiet: bool, as_json: bool, given: dict[str, Any]) -> None:
    if data is None:
        raise UsageError(NO_DATA)
    with progress_of_run(quiet or as_json) as screen:
        from regraft import api

        plan = api.plan(data, out, listeners=[screen], **given)
    if as_json:
        print_json(plan)
    else:
        show_plan(plan)


def _repeat(
    data: str | None, out: Path | None, repeats: int, quiet: bool, as_json: bool, given: dict[str, Any]
) -> None:
    if data is None:
        raise UsageError(NO_DATA)
    with progress(quiet or as_json) as screen:
        from regraft import api

        several = api.repeat(data, out, repeats, listeners=[screen], **given)
    if as_json:
        print_json({"out": several.path, **several.to_dict()})
    elif not quiet:
        for run in several.runs:
            print(f"  seed {run.state['seed']}  {run.headline()}  {run.state['chosen']}")
        print(f"{several.headline()}\nruns    {several.path}")


def explore(
    data: options.Data,
    out: options.Out = None,
    task: options.Task = None,
    labels: options.Labels = None,
    targets: options.Targets = None,
    backbone: options.Backbone = None,
    network: options.Network = None,
    accept_licence: options.AcceptLicence = None,
    size: options.Size = None,
    budget: options.Budget = None,
    offline: options.Offline = False,
    splits: options.Splits = None,
    sets: options.Sets = None,
    overwrite: options.Overwrite = False,
    workers: options.Workers = None,
    address: options.Address = None,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Try freezing strategies against each other on DATA; the test set stays sealed."""
    named: values.Settings = {
        "data": values.asked_of_data(task, labels, targets),
        "obtain": {"backbone": backbone, "network": network, "accept_licences": accept_licence or None},
        "base": {"size": size},
        "run": {"budget_seconds": values.seconds(budget), "offline": offline or None},
    }
    recipe = values.settings(None, sets, named)
    with progress_of_run(quiet or as_json) as screen:
        from regraft import api

        cluster = Cluster.asked(workers, address)
        same: dict[str, Any] = {"overwrite": overwrite, "splits": splits, "cluster": cluster}
        run = api.explore(values.place(data), out, recipe=recipe, listeners=[screen], **same)
    if as_json:
        print_json({"out": run.path, **run.strategies})
    elif not quiet:
        from regraft.console import strategies_table

        strategies_table(run.strategies)
        print(f"report    {run.path / 'report.html'}")
        print(f"go on to a tested model with  regraft fit --resume --out {quote(str(run.path))}")


def demo(
    what: Annotated[
        str,
        typer.Argument(
            help="image: 1,797 scans of handwritten digits; text: docstrings; audio: 240 computed sounds"
        ),
    ] = "image",
    out: options.Out = None,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Fit data that come with regraft or its libraries; no network needed."""
    from regraft.demo import demo_data, demo_of

    about = demo_of(what)
    run = _fit(str(demo_data(modality=what)), out, quiet, as_json, {"recipe": dict(about.settings)})
    if about.beside is not None and not as_json:
        print(about.beside(run))


def show_run(run: Run) -> None:
    """Print what came of a run, and how to use it."""
    from rich.console import Console
    from rich.markup import escape

    from regraft.evaluation import PairedDifference, in_words
    from regraft.tasks import Promises

    console = Console(highlight=False)
    console.print(f"\n[bold]{run.headline()}[/]")
    for pair in run.metrics.get("versus", []):
        console.print(f"  {in_words(PairedDifference.from_dict(pair))}", markup=False, soft_wrap=True)
    for section in run.task.sections(run.metrics):
        for offer in section.rows if isinstance(section, Promises) else ():
            console.print(f"  {_promise(offer)}", markup=False, soft_wrap=True)
    for what, place in (("model ", run.path / "model"), ("report", run.path / "report.html")):
        console.print(f"{what}  {escape(str(place))}", soft_wrap=True)
    console.print(f"use it  regraft predict {escape(quote(str(run.path)))} FILES", soft_wrap=True)


def _promise(offer: Mapping[str, Any]) -> str:
    """A confidence threshold in words, with what came of it on test, where there is one."""
    if offer["threshold"] is None or offer["test"] is None:
        return f"{offer['why']} (not tested)" if offer["threshold"] is not None else str(offer["why"])
    answered, right = (offer["test"][key]["value"] for key in ("answered", "precision"))
    said = "answer always" if offer["threshold"] == 0 else f"answer only above {offer['threshold']:.2f}"
    kept = "nothing" if right is None else f"{right:.1%} right on {answered:.0%} of examples"
    kind = ", indicative" if offer.get("indicative") else ""
    return f"{said} for {offer['wanted']:.0%}{kind}: on test {kept}"


def show_plan(plan: dict[str, Any]) -> None:
    """Print what `fit` would do."""
    counts = ", ".join(f"{n:,} {split}" for split, n in plan["counts"].items())
    print(f"{plan['name']}: {plan['apart']}; {counts}")
    for finding in plan["findings"]:
        print(f"  {'!' if finding['severity'] == 'warning' else 'i'} {finding['message']}")
    for name, said in plan["steps"].items():
        print(f"  {name:9} {said['decided']} ({said['why']})")
    print(f"  finetune  {plan['epochs']} epochs")
    if plan["walks"] > 1:
        print(
            f"  folds     {plan['walks'] - 1} walks of all seven steps to score it, and one on all examples"
        )
    print(f"would take about {plan['estimated_seconds'] / 60:.1f} minutes here and write {plan['out']}")

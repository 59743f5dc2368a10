"""The command line: one function a verb, no logic of its own. Heavy imports happen inside the verbs."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regraft import streams, verbs
from regraft.errors import RegraftError, UsageError

if TYPE_CHECKING:
    from regraft.console import Screen

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Transfer learning as a finished tool: from a folder of labelled images to a tested model.",
)


def _seconds(text: str | None) -> float | None:
    """`10m`, `90s`, `1h30m` or plain seconds."""
    import re

    if text is None:
        return None
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    if not match or not text.strip() or not any(match.groups()):
        raise UsageError(f"--budget {text!r} is no time. Write 10m, 90s or 1h30m.")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return _finite("--budget", hours * 3600 + minutes * 60 + seconds)


def _count(text: str | None) -> int | None:
    """`5M`, `400k` or a plain number."""
    import re

    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMG]?)", text.strip()) if text is not None else None
    if text is not None and not match:
        raise UsageError(f"--max-params {text!r} is no number. Write 5M or 400k.")
    return (
        int(_finite("--max-params", float(match[1]) * 1000 ** " kMG".index(match[2] or " ")))
        if match
        else None
    )


def _finite(option: str, number: float) -> float:
    if number > sys.maxsize:
        raise UsageError(f"{option}: the number is too large.")
    return number


def _settings(
    config: Path | None, sets: list[str] | None, named: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    from regraft.recipe import Recipe, parse_settings, read_recipe

    flags = {s: {k: v for k, v in values.items() if v is not None} for s, values in named.items()}
    layers = [
        read_recipe(config) if config else {},
        {s: v for s, v in flags.items() if v},
        parse_settings(sets or []),
    ]
    Recipe.build(*layers)
    merged: dict[str, Any] = {}
    for layer in layers:
        for section, values in layer.items():
            merged.setdefault(section, {}).update(values)
    return merged


def _show(run: Any, as_json: bool, quiet: bool) -> None:
    if as_json:
        print(
            json.dumps(
                {
                    "out": str(run.path),
                    "state": run.state["state"],
                    "chosen": run.state["chosen"],
                    "metrics": json.loads((run.path / "metrics.json").read_text(encoding="utf-8")),
                }
            )
        )
    elif not quiet:
        from rich.console import Console
        from rich.markup import escape

        console = Console(highlight=False)
        console.print(f"\n[bold]{run.headline()}[/]")
        from regraft.evaluation import PairedDifference, in_words

        for pair in run.metrics.get("versus", []):
            console.print(f"  {in_words(PairedDifference.from_dict(pair))}", markup=False)
        for offer in run.metrics.get("thresholds", []):
            console.print(f"  {_promise(offer)}", markup=False)
        for what, place in (("model ", run.path / "model"), ("report", run.path / "report.html")):
            console.print(f"{what}  {escape(str(place))}", soft_wrap=True)
        console.print(f"use it  regraft predict {escape(quote(str(run.path)))} FILES", soft_wrap=True)


def _promise(offer: dict[str, Any]) -> str:
    """A confidence threshold, and what came of it on test, where there is one."""
    if offer["threshold"] is None or offer["test"] is None:
        return f"{offer['why']} (not tested)" if offer["threshold"] is not None else str(offer["why"])
    answered, right = (offer["test"][key]["value"] for key in ("answered", "precision"))
    said = "answer always" if offer["threshold"] == 0 else f"answer only above {offer['threshold']:.2f}"
    found = "nothing" if right is None else f"{right:.1%} right on {answered:.0%} of examples"
    kind = ", indicative" if offer.get("indicative") else ""
    return f"{said} for {offer['wanted']:.0%}{kind}: on test {found}"


@app.command()
def fit(
    data: Annotated[
        Path | None, typer.Argument(help="folder of class folders, or with train/ and test/, or a table")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="the run's folder; default runs/<data name>, next free")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="packaged:NAME, timm:NAME, path:PLACE, run:FOLDER")
    ] = None,
    freeze: Annotated[
        str | None, typer.Option(help="head, last-K, half, full, norm, bias, or stages a,b")
    ] = None,
    head: Annotated[str | None, typer.Option(help="linear, mlp or auto")] = None,
    size: Annotated[int | None, typer.Option(help="input size in pixels")] = None,
    metric: Annotated[
        str | None, typer.Option(help="what fine-tuning must not lose in: accuracy, macro_f1, ...")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps")] = None,
    seed: Annotated[int | None, typer.Option(help="of every random choice in training")] = None,
    budget: Annotated[str | None, typer.Option(help="upper bound for the whole run: 10m, 1h30m")] = None,
    prefer: Annotated[str | None, typer.Option(help="accuracy or speed")] = None,
    max_params: Annotated[
        str | None, typer.Option(help="most parameters of a backbone chosen automatically: 5M, 400k")
    ] = None,
    repeats: Annotated[int, typer.Option(help="runs with different seeds: mean and spread")] = 1,
    baseline: Annotated[
        str | None, typer.Option(help="scratch: the same network from random weights, beside the others")
    ] = None,
    no_test: Annotated[
        bool, typer.Option("--no-test", help="set no test examples apart, and say so on every surface")
    ] = False,
    folds: Annotated[
        int | None, typer.Option(help="cross-validate the whole walk instead of a test set: 5")
    ] = None,
    splits: Annotated[Path | None, typer.Option(help="an earlier run whose split is kept")] = None,
    fixes: Annotated[Path | None, typer.Option(help="an edited csv of regraft audit --export")] = None,
    strict: Annotated[
        bool, typer.Option(help="stop where scores would flatter: near-duplicates across splits, leaks")
    ] = False,
    config: Annotated[Path | None, typer.Option(help="a recipe.yaml")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="section.name=value, as in recipe.yaml")
    ] = None,
    offline: Annotated[bool, typer.Option(help="never touch the network")] = False,
    track: Annotated[
        list[str] | None, typer.Option(help="tensorboard, mlflow or wandb hear the run's events")
    ] = None,
    resume: Annotated[bool, typer.Option(help="go on with the run in --out")] = False,
    moved: Annotated[
        Path | None, typer.Option("--data", help="with --resume: where the run's data are now")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="start anew in --out")] = False,
    dry_run: Annotated[
        bool, typer.Option(help="the plan and the estimated time; nothing is trained")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="the result as JSON on standard output")] = False,
) -> None:
    """Walk the seven steps of transfer learning on DATA."""
    strategy: Any = freeze.split(",") if freeze and "," in freeze else freeze
    if baseline not in (None, "scratch"):
        raise UsageError(
            f"--baseline {baseline!r}: scratch is the one that can be asked for; the others are there always."
        )
    named: dict[str, dict[str, Any]] = {
        "data": {"test_share": 0.0 if no_test else None, "folds": folds, "strict": strict or None},
        "obtain": {"backbone": backbone, "max_parameters": _count(max_params)},
        "freeze": {"strategy": strategy},
        "head": {"kind": head},
        "base": {"size": size},
        "run": {
            "metric": metric,
            "device": device,
            "seed": seed,
            "budget_seconds": _seconds(budget),
            "offline": offline or None,
            "prefer": prefer,
            "scratch": True if baseline else None,
        },
    }
    settings = _settings(config, sets, named)
    if repeats != 1:
        if data is None or resume or dry_run or moved:
            raise UsageError(
                "--repeats starts new runs: name DATA, and leave out --resume, --data and --dry-run."
            )
        return _repeat(data, out, repeats, settings, splits, track or [], overwrite, quiet, as_json, fixes)
    if moved and (data or not resume):
        raise UsageError(
            "--data goes with --resume and says where the data of the run in --out are now. Else name DATA."
        )
    if resume and data:
        raise UsageError(
            "--resume goes on with the data of the run in --out: leave out DATA, or say with --data where they are."
        )
    _fit(moved or data, out, settings, splits, track or [], resume, overwrite, dry_run, quiet, as_json, fixes)


def _fit(
    data: Path | None,
    out: Path | None,
    settings: dict[str, Any],
    splits: Path | None,
    track: list[str],
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
    fixes: Path | None = None,
) -> Any:
    from regraft.console import Screen

    screen = Screen(quiet or as_json)
    with _told(screen):
        from regraft import api

        if resume and (splits or fixes or overwrite or dry_run):
            others = "--splits, --fixes, --overwrite, --dry-run"
            raise UsageError(f"--resume goes on with the run in --out as it is: leave out {others}.")
        if dry_run:
            if data is None:
                raise UsageError("name the data: a folder of class folders, or a table.")
            _show_plan(
                api.plan(data, out, recipe=settings, splits=splits, fixes=fixes, listeners=[screen]), as_json
            )
            return None
        run = api.fit(
            data,
            out,
            recipe=settings,
            resume=resume,
            overwrite=overwrite,
            splits=splits,
            fixes=fixes,
            listeners=[screen],
            track=track,
        )
    _show(run, as_json, quiet)
    return run


@contextlib.contextmanager
def _told(screen: Screen) -> Iterator[None]:
    """Inside a run goes on; where it is stopped, or the disk is full, the message says how to go on with it."""
    try:
        yield
    except KeyboardInterrupt:
        screen.close()
        print(f"\nStopped. {screen.how_to_go_on()}", file=sys.stderr)
        raise typer.Exit(1) from None
    except OSError as error:
        if not screen.out:
            raise
        raise RegraftError(f"{_in_words(error)}. {screen.command()}") from error
    finally:
        screen.close()


def _repeat(
    data: Path,
    out: Path | None,
    repeats: int,
    settings: dict[str, Any],
    splits: Path | None,
    track: list[str],
    overwrite: bool,
    quiet: bool,
    as_json: bool,
    fixes: Path | None,
) -> None:
    from regraft import api
    from regraft.console import Screen

    screen = Screen(quiet or as_json)
    try:
        found = api.repeat(
            data,
            out,
            repeats,
            recipe=settings,
            overwrite=overwrite,
            splits=splits,
            fixes=fixes,
            listeners=[screen],
            track=track,
        )
    finally:
        screen.close()
    if as_json:
        print(json.dumps({"out": str(found.path), **found.to_dict()}))
    elif not quiet:
        for run in found.runs:
            print(f"  seed {run.state['seed']}  {run.headline()}  {run.state['chosen']}")
        print(f"{found.headline()}\nruns    {found.path}")


@app.command()
def explore(
    data: Annotated[
        Path, typer.Argument(help="folder of class folders, or with train/ and test/, or a table")
    ],
    out: Annotated[
        Path | None, typer.Option(help="the run's folder; default runs/<data name>, next free")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="packaged:NAME, timm:NAME, path:PLACE, run:FOLDER")
    ] = None,
    size: Annotated[int | None, typer.Option(help="input size in pixels")] = None,
    budget: Annotated[str | None, typer.Option(help="upper bound for the whole: 10m, 1h30m")] = None,
    splits: Annotated[Path | None, typer.Option(help="an earlier run whose split is kept")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="section.name=value, as in recipe.yaml")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="start anew in --out")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="the table as JSON on standard output")] = False,
) -> None:
    """Try freezing strategies against each other on DATA; the test set stays sealed."""
    named: dict[str, dict[str, Any]] = {
        "obtain": {"backbone": backbone},
        "base": {"size": size},
        "run": {"budget_seconds": _seconds(budget)},
    }
    settings = _settings(None, sets, named)

    from regraft import api
    from regraft.console import Screen, strategies_table

    screen = Screen(quiet or as_json)
    with _told(screen):
        run = api.explore(data, out, recipe=settings, overwrite=overwrite, splits=splits, listeners=[screen])
    if as_json:
        print(json.dumps({"out": str(run.path), **run.strategies}))
    elif not quiet:
        strategies_table(run.strategies)
        print(f"report    {run.path / 'report.html'}")
        print(f"go on to a tested model with  regraft fit --resume --out {quote(str(run.path))}")


def _show_plan(plan: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(plan))
        return
    print(
        f"{plan['name']}: {len(plan['classes'])} classes; "
        + ", ".join(f"{n:,} {s}" for s, n in plan["counts"].items())
    )
    for finding in plan["findings"]:
        print(f"  ! {finding['message']}")
    for name, said in plan["steps"].items():
        print(f"  {name:9} {said['decided']} ({said['why']})")
    print(f"  finetune  {plan['epochs']} epochs")
    if plan["walks"] > 1:
        print(
            f"  folds     {plan['walks'] - 1} walks of all seven steps to score it, and one on all examples"
        )
    print(f"would take about {plan['estimated_seconds'] / 60:.1f} minutes here and write {plan['out']}")


@app.command()
def demo(
    out: Annotated[Path | None, typer.Option(help="the run's folder")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="the result as JSON on standard output")] = False,
) -> None:
    """Fit scikit-learn's 1,797 real scans of handwritten digits; no network needed."""
    from regraft.demo import demo_data, nearest_neighbours

    run = _fit(demo_data(), out, {}, None, [], False, False, False, quiet, as_json)
    if run is not None and not as_json:
        print(
            f"beside it: 3 nearest neighbours on the raw pixels reach {nearest_neighbours(run):.1%} on the same test"
        )


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="a finished run, or a model folder")],
    files: Annotated[list[str], typer.Argument(help="files, folders, or - for names on standard input")],
    output: Annotated[str, typer.Option("--format", help="table, csv or jsonl")] = "table",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps")] = "auto",
) -> None:
    """Predict the class of images, in the order given. Exit code 1 if any, or a folder of them, could not be
    read.
    """
    if output not in ("table", "csv", "jsonl"):
        raise UsageError(f"--format {output!r} is none of table, csv, jsonl.")
    import csv
    from dataclasses import asdict

    from regraft import api
    from regraft.data import Passed
    from regraft.runtime import pick_device

    model, passed = api.load(run), Passed()
    failed = False
    if output != "table":
        streams.for_programs()
    writer = csv.writer(sys.stdout, lineterminator="\n")  # the stream makes of it what lines end with here
    for number, row in enumerate(model.predict_each(_inputs(files, passed), pick_device(device))):
        failed |= row.error is not None
        if output == "jsonl":
            print(json.dumps(asdict(row), ensure_ascii=False))
        elif output == "csv":
            if number == 0:
                writer.writerow(["source", "label", "probability", *model.classes, "error"])
            shares = [f"{row.probabilities[c]:.6f}" if row.probabilities else "" for c in model.classes]
            chance = "" if row.probability is None else f"{row.probability:.6f}"
            writer.writerow([row.source, row.label or "", chance, *shares, row.error or ""])
        else:
            answer = (
                f"{row.label:24} {row.probability:.3f}"
                if row.label is not None
                else f"cannot be read: {row.error}"
            )
            print(f"{row.source}  {answer}")
    if said := passed.in_words():
        print(f"passed over: {said}", file=sys.stderr)
    if failed or passed.unreadable:
        raise typer.Exit(1)


def _inputs(files: list[str], passed: Any) -> Any:
    """The images to predict, as they are found; `passed` hears of what is passed over. Raises DataError for
    none at all.
    """
    from itertools import chain

    from regraft.data import inputs

    lines = (line.rstrip("\r\n") for line in sys.stdin if line.strip())
    yield from inputs(chain.from_iterable(lines if name == "-" else (name,) for name in files), passed)


@app.command()
def rank(
    data: Annotated[
        Path, typer.Argument(help="folder of class folders, or with train/ and test/, or a table")
    ],
    backbone: Annotated[
        list[str] | None, typer.Option(help="a reference, as often as wanted; auto: all at hand")
    ] = None,
    budget: Annotated[str | None, typer.Option(help="upper bound for a whole run: 10m, 1h30m")] = None,
    prefer: Annotated[
        str | None, typer.Option(help="accuracy: the cheapest as good as the best; speed: nearly as good")
    ] = None,
    max_params: Annotated[str | None, typer.Option(help="most parameters: 5M, 400k")] = None,
    network: Annotated[
        bool, typer.Option(help="fetch what the catalogue names; else only what is at hand")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="the result as JSON on standard output")] = False,
) -> None:
    """Compare pre-trained models, input sizes and depths on DATA before one is fitted. Writes nothing but its
    cache.
    """
    from regraft.artifacts import to_json
    from regraft.console import Screen, ranking_table

    named: dict[str, dict[str, Any]] = {
        "obtain": {"max_parameters": _count(max_params)},
        "run": {"prefer": prefer, "budget_seconds": _seconds(budget)},
    }
    settings, screen = _settings(None, None, named), Screen(quiet or as_json)
    try:
        from regraft import api

        found = api.rank(data, backbone or ["auto"], recipe=settings, network=network, listeners=[screen])
    finally:
        screen.close()
    if as_json:
        print(to_json(found.to_dict()), file=streams.for_programs())
    else:
        ranking_table(found.to_dict())


@app.command()
def audit(
    data: Annotated[
        Path, typer.Argument(help="folder of class folders, or with train/ and test/, or a table")
    ],
    features: Annotated[bool, typer.Option(help="look at features too, not at files alone")] = True,
    strict: Annotated[bool, typer.Option(help="exit with 1 if there is any warning")] = False,
    export: Annotated[Path | None, typer.Option(help="a csv to be edited and given to fit --fixes")] = None,
    fixes: Annotated[Path | None, typer.Option(help="such a csv: its corrections are taken as made")] = None,
    splits: Annotated[Path | None, typer.Option(help="an earlier run whose split is kept")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="section.name=value, as in recipe.yaml")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="all findings as JSON on standard output")] = False,
) -> None:
    """Look for what is wrong with DATA: copies, near-duplicates, wrong labels, outliers, leaks. Changes
    nothing.
    """
    from regraft.artifacts import to_json
    from regraft.console import Screen, findings_table

    screen = Screen(quiet or as_json)
    try:
        from regraft import api

        found = api.audit(
            data,
            recipe=_settings(None, sets, {}),
            features=features,
            splits=splits,
            fixes=fixes,
            listeners=[screen],
        )
    finally:
        screen.close()
    if as_json:
        print(to_json(found.to_dict()), file=streams.for_programs())
    else:
        findings_table(found.to_dict())
    if export is not None:
        lines = found.export(export)
        print(
            f"{lines} lines in {export}: write drop, relabel or keep into `action`, then  "
            f"regraft fit {quote(str(data))} --fixes {quote(str(export))}",
            file=sys.stderr,
        )
    if strict and found.warnings:
        raise typer.Exit(1)


@app.command()
def models(as_json: Annotated[bool, typer.Option("--json", help="as JSON")] = False) -> None:
    """List the pre-trained models at hand and in the catalogue, and where others come from."""
    from regraft.backbones import at_hand

    found = at_hand()
    if as_json:
        print(json.dumps(found))
        return
    print(f"{'':51} {'params':>8} {'GMACs':>6} {'input':>5} {'top-1':>5}  {'licence':14}")
    for item in found:
        where = f"at hand ({item['source']})" if item["at_hand"] else f"not at hand: {item['source']}"
        size = f"{item['parameters'] / 1e6:6.1f} M" if item["parameters"] else ""
        macs, top = (
            f"{item[key]:.{digits}f}" if item[key] else ""
            for key, digits in (("gmacs", 2), ("imagenet_top1", 1))
        )
        print(
            f"{item['reference']:51} {size:>8} {macs:>6} {item['input_size'] or '':>5} {top:>5}  {item['licence']:14} {where}"
        )
    print("timm:NAME                          any timm model, from the hub or the local cache")
    print(
        "path:FOLDER                        model.safetensors and config.json, in timm's or transformers' layout"
    )
    print("path:FILE@ARCHITECTURE             a .safetensors file of a timm model")
    print("run:FOLDER                         the model of an earlier run")


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="delete all of it")] = False,
    limit: Annotated[
        str | None, typer.Option(help="delete what was used longest ago down to this: 500MB, 2GB")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="as JSON")] = False,
) -> None:
    """Show what the cache holds (features, converted models, trials), or clear it. Nothing in it is needed to
    keep.
    """
    from regraft.inference import FeatureStore
    from regraft.runtime import NO_HOME, cache_folder

    folder = cache_folder()
    if folder is None:
        raise UsageError(NO_HOME[0].upper() + NO_HOME[1:] + ".")
    store = FeatureStore(folder)
    deleted = store.clear() if clear else store.shrink(_bytes(limit)) if limit is not None else 0
    kept = store.kept()
    if as_json:
        rows = [{"kind": k.kind, "files": k.files, "bytes": k.size, "used": k.used} for k in kept]
        about = {"folder": str(store.folder), "deleted_bytes": deleted, "limit_bytes": store.limit}
        print(json.dumps({**about, "kept": rows}))
        return
    print(f"{store.folder}: {sum(k.size for k in kept) / 1e6:,.1f} MB of at most {store.limit / 1e9:,.0f} GB")
    for item in kept:
        print(f"  {item.kind:10} {item.files:6,} files {item.size / 1e6:10,.1f} MB")
    if clear or limit is not None:
        print(f"deleted {deleted / 1e6:,.1f} MB")


def _bytes(text: str) -> int:
    """`500MB`, `2GB`, `1.5 GB` or plain bytes."""
    import re

    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]?)B?", text.strip())
    if not match:
        raise UsageError(f"--limit {text!r} is no size. Write 500MB or 2GB.")
    return int(_finite("--limit", float(match[1]) * 1000 ** " kMGT".index(match[2] or " ")))


for verb in (verbs.compare, verbs.evaluate, verbs.report, verbs.runs):
    app.command()(verb)


def main() -> None:
    """Entry point: errors of ours as one clear message and their exit code, never a traceback."""
    import signal

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    streams.ready()
    with contextlib.suppress(ValueError, AttributeError):  # not in the main thread, or no such signal here
        signal.signal(
            signal.SIGTERM, interrupt
        )  # a scheduler's polite end is a Ctrl-C: the best so far is kept
    code, said = _call()
    try:
        streams.flush()
    except OSError as error:  # also where this is what ended the verb
        code, said = (
            code or 1,
            "" if isinstance(error, BrokenPipeError) else f"standard output: {error.strerror}",
        )
    if said:
        print(f"regraft: {said}", file=sys.stderr)
    sys.exit(code)


def _call() -> tuple[int, str]:
    """Call the verb that the command line names; its exit code, and the message where it failed."""
    try:
        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None), ""
    except RegraftError as error:
        return error.exit_code, str(error)
    except KeyboardInterrupt:
        return 1, "stopped"
    except BrokenPipeError:
        return 1, ""
    except OSError as error:
        return 1, _in_words(error)
    return 0, ""


def _in_words(error: OSError) -> str:
    place = (
        f": {os.fsdecode(error.filename)}" if isinstance(error.filename, (str, bytes, os.PathLike)) else ""
    )
    return f"{error.strerror or error}{place}"

"""The verbs that look at data before anything is trained: rank, audit."""

from __future__ import annotations

import sys
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from regraft.cli import completion, options, values
from regraft.cli.shown import print_json, progress
from regraft.scale import Cluster


def rank(
    data: options.Data,
    backbone: Annotated[
        list[str] | None,
        typer.Option(
            help="a reference, as often as wanted; auto: all at hand", autocompletion=completion.backbones
        ),
    ] = None,
    task: options.Task = None,
    labels: options.Labels = None,
    targets: options.Targets = None,
    budget: options.Budget = None,
    prefer: Annotated[
        str | None, typer.Option(help="accuracy: the cheapest as good as the best; speed: nearly as good")
    ] = None,
    max_params: options.MaxParams = None,
    network: options.Network = None,
    accept_licence: options.AcceptLicence = None,
    offline: options.Offline = False,
    workers: options.Workers = None,
    address: options.Address = None,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Compare pre-trained models, input sizes and depths on DATA before one is fitted. Writes nothing but
    its cache.
    """
    named: values.Settings = {
        "data": values.asked_of_data(task, labels, targets),
        "obtain": {
            "max_parameters": values.parameters(max_params),
            "network": network,
            "accept_licences": accept_licence or None,
        },
        "run": {"prefer": prefer, "budget_seconds": values.seconds(budget), "offline": offline or None},
    }
    recipe = values.settings(None, None, named)
    with progress(quiet or as_json) as screen:
        from regraft import api

        cluster = Cluster.asked(workers, address)
        ranking = api.rank(
            values.place(data), backbone or ["auto"], recipe=recipe, listeners=[screen], cluster=cluster
        )
    if as_json:
        print_json(ranking.to_dict())
    else:
        from regraft.console import ranking_table

        ranking_table(ranking.to_dict())


def audit(
    data: options.Data,
    task: options.Task = None,
    labels: options.Labels = None,
    targets: options.Targets = None,
    features: Annotated[bool, typer.Option(help="look at features too, not at files alone")] = True,
    strict: Annotated[bool, typer.Option(help="exit with 1 if there is any warning")] = False,
    export: Annotated[Path | None, typer.Option(help="a csv to be edited and given to fit --fixes")] = None,
    fixes: Annotated[Path | None, typer.Option(help="such a csv: its corrections are taken as made")] = None,
    splits: options.Splits = None,
    sets: options.Sets = None,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Look for what is wrong with DATA: copies, near-duplicates, wrong labels, outliers, leaks. Changes
    nothing.
    """
    recipe = values.settings(None, sets, {"data": values.asked_of_data(task, labels, targets)})
    with progress(quiet or as_json) as screen:
        from regraft import api

        audited = api.audit(
            values.place(data),
            recipe=recipe,
            features=features,
            splits=splits,
            fixes=fixes,
            listeners=[screen],
        )
    if as_json:
        print_json(audited.to_dict())
    else:
        from regraft.console import findings_table

        findings_table(audited.to_dict())
    if export is not None:
        from regraft.data import several

        lines = several(audited.export(export), "line")
        asked = (("--task", task), ("--labels", labels), ("--targets", targets))
        given = "".join(f" {name} {quote(value)}" for name, value in asked if value)
        print(
            f"{lines} in {export}: write drop, relabel or keep into `action`, then  "
            f"regraft fit {quote(values.place(data))}{given} --fixes {quote(str(export))}",
            file=sys.stderr,
        )
    if strict and audited.warnings:
        raise typer.Exit(1)

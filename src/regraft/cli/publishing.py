"""The verb that sends a model away: push."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli import completion, options
from regraft.cli.shown import print_json
from regraft.errors import UsageError

if TYPE_CHECKING:
    from regraft.publish import Parcel, Place


def push(
    run: Annotated[Path, typer.Argument(help="a finished run", autocompletion=completion.run_names)],
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on the hub; NAME alone is one of your own")],
    public: Annotated[bool, typer.Option("--public", help="for everybody to see; else private")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="send without asking")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Send a finished run's model and its card to a model hub. Shows what would be sent, and asks."""
    from regraft import publish

    parcel = publish.pack(run)
    place = publish.find(repo)
    publish.check_visibility(place, public)
    print("\n".join(_listing(parcel, place, public)), file=sys.stderr)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(
                "nothing was sent: there is no terminal to ask on. Add --yes to send without asking."
            )
        if not typer.confirm("send this?", default=False, err=True):
            print("nothing was sent", file=sys.stderr)
            raise typer.Exit(1)
    address = publish.send(parcel, place, public)
    if as_json:
        print_json({"address": address, "public": public, "files": parcel.sizes, "licence": parcel.licence})
    else:
        print(address)


def _listing(parcel: Parcel, place: Place, public: bool) -> list[str]:
    """What would be sent, where to, and what stays here."""
    state = (
        "a new repository"
        if place.public is None
        else "a repository that is there: files of these names are replaced"
    )
    who = "public, for everybody to see" if public else "private"
    lines = [f"to {place.address}, {state}, {who}"]
    lines += [f"  {name:24} {size:>13,} bytes" for name, size in parcel.sizes.items()]
    lines.append(f"  {'together':24} {sum(parcel.sizes.values()):>13,} bytes")
    if parcel.left_here:
        lines.append(f"stays here: {', '.join(parcel.left_here)} (what is known of the examples)")
    lines.append("never sent: examples, predictions, paths of this machine")
    lines.append(f"licence of the backbone: {parcel.licence}" + _warning(parcel.licence))
    return lines


def _warning(licence: str) -> str:
    if licence == "unknown":
        return " (find out whether you may pass it on)"
    return ""

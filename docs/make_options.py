"""Writes docs/options.md from the command line itself.

    python docs/make_options.py

tests/docs/test_docs.py fails when the page and the command line no longer agree.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import typer

from regraft.cli import app

PAGE = Path(__file__).with_name("options.md")
OPENING = """\
# The command line: every verb and option

This page is made from the command line by `docs/make_options.py`: options are changed there, not here. What they are for is told in
[using.md](using.md), every setting behind `--set` in [recipe.md](recipe.md), and what may stand in a file of your own in
[settings.md](settings.md).

Exit codes: 0 when all went well. 1 when something went wrong on the way: a file that could not be predicted, a budget too small for
anything, Ctrl-C, a full disk. 2 when the call, the settings or the data cannot be worked with; the message lists what is wrong and what
to do. `regraft --install-completion` lets the shell complete verbs, options, runs, backbones and settings; `python -m regraft` is
the same as `regraft`.
"""
UNSAID = (None, False, [], ())  # defaults that go without saying


def shown(value: Any) -> str:
    """A default as it is typed."""
    return str(getattr(value, "value", value))


def names(option: Any) -> str:
    """The names of an option; one that takes a value has dots behind it: `--out ...`."""
    known = ", ".join((*option.opts, *option.secondary_opts))
    return f"`{known}`" if option.is_flag else f"`{known} ...`"


def row(option: Any) -> str:
    """One line of a table."""
    said = html.escape(option.help or "", quote=False).replace("|", "\\\\|")
    notes = ["may be repeated"] if option.multiple else []
    default = option.default() if callable(option.default) else option.default
    if not option.is_flag and default not in UNSAID:
        notes.append(f"default `{shown(default)}`")
    more = f" ({', '.join(notes)})" if notes else ""
    return f"| {names(option)} | {said}{more} |"


def section(name: str, command: Any) -> str:
    """What a verb does, takes and can be told."""
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option"]
    typed = []
    for one in arguments:
        named = str(one.metavar or one.name).upper().removesuffix("...").strip("[]")
        word = named + (" ..." if one.nargs == -1 else "")
        typed.append(word if one.required else f"[{word}]")
    lines = [
        f"## regraft {name}\n",
        f"    regraft {' '.join([name, *typed])}\n",
        " ".join((command.help or "").split()) + "\n",
    ]
    lines += [f"- `{word}`: {one.help}" for word, one in zip(typed, arguments, strict=True)]
    if arguments:
        lines.append("")
    if options:
        lines += ["| option | what it does |", "|---|---|", *map(row, options), ""]
    return "\n".join(lines)


def page() -> str:
    """The text of docs/options.md."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return "\n".join([OPENING, *(section(name, command) for name, command in commands.items())])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8", newline="\n")

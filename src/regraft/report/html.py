"""Step outputs as one self-contained page: no script, no request to anywhere."""

from __future__ import annotations

from pathlib import Path

from regraft.artifacts import write_text
from regraft.report.view import view


def write_report(folder: Path) -> Path:
    """Write `folder/report.html` from run.json, metrics.json, events.jsonl, recipe.yaml and first_batch.png.

    Only run.json must exist; a part whose file is missing is left out or said to be missing. Every text is escaped.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    path = folder / "report.html"
    write_text(path, environment.get_template("page.html.jinja").render(view(folder)))
    return path

"""A run as one self-contained page: no request to anywhere; one script of its own, which the page is
complete without.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from regraft.artifacts import write_text
from regraft.report.templates import templates
from regraft.report.view import view

PARTS = Path(__file__).parent / "parts"


def write_report(folder: Path) -> Path:
    """Write `folder/report.html` from the run's files: run.json, metrics.json, gallery.json, events.jsonl
    and the others.

    Only run.json must exist; a part whose file is missing is left out or said to be missing. Every text is
    escaped, and the page's own policy lets no script run but the one whose hash it names.
    """
    from markupsafe import Markup

    look = PARTS.parents[1] / "look.css"
    style = "".join(part.read_text(encoding="utf-8") for part in (look, PARTS / "page.css"))
    script = (PARTS / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    page = (
        templates()
        .get_template("page.html.jinja")
        .render(view(folder), style=Markup(style), script=Markup(script), script_hash=f"sha256-{digest}")
    )
    path = folder / "report.html"
    write_text(path, page)
    return path

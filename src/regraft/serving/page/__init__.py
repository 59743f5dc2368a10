"""The page at /: put together of its parts once, complete in itself.

`page.html`, `page.css` and `page.js` are for every model. Each file of `offers/` is a piece for one
modality: it tells the page, under the modality's name, how an item is given and shown.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True)
class Page:
    """The page, and the policy that lets it do what it does and nothing else."""

    content: str
    policy: str


def _put_together() -> Page:
    folder = files(__package__)
    offers = sorted((part for part in (folder / "offers").iterdir() if part.name.endswith(".js")), key=str)
    style = "".join(part.read_text("utf-8") for part in (files("regraft") / "look.css", folder / "page.css"))
    script = "\n".join(part.read_text("utf-8") for part in (folder / "page.js", *offers, folder / "start.js"))
    content = (folder / "page.html").read_text("utf-8")
    content = content.replace("{style}", style).replace("{script}", script)
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; connect-src 'self'; "
        "img-src 'self' data: blob:; media-src data: blob:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return Page(content, policy)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode()}'"


PAGE = _put_together()

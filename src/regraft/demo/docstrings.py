"""The texts of the demo: what the parts of scikit-learn say of themselves."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path

from regraft.errors import DataError

PARTS = ("cluster", "datasets", "ensemble", "feature_extraction", "linear_model", "metrics", "preprocessing")
FEWEST_WORDS, MOST_CHARACTERS, MOST_TEXTS = 6, 400, 80


def write_docstrings(folder: Path) -> None:
    """The first paragraphs of the docstrings of some parts of scikit-learn as text files, in a folder a part;
    no code of it is run. Raises DataError where its sources are not there.
    """
    spec = find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise DataError("scikit-learn's files are not where they were installed.", [], "Install it anew.")
    for part in PARTS:
        for number, text in enumerate(_docstrings(Path(spec.origin).parent / part)):
            place = folder / part / f"{number:02}.txt"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")


def _docstrings(part: Path) -> list[str]:
    """What functions and classes say of themselves, each text once."""
    texts: dict[str, None] = {}
    for file in sorted(part.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                paragraphs = (ast.get_docstring(node) or "").split("\n\n")
                beginning = " ".join(paragraphs[: 1 + (len(paragraphs) > 2)]).split("----")[0]
                text = " ".join(beginning.split())
                if len(text.split()) >= FEWEST_WORDS:
                    texts[text[:MOST_CHARACTERS]] = None
    return list(texts)[:MOST_TEXTS]

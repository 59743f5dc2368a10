"""regraft: transfer learning as a finished tool. `import regraft` loads no torch; names are fetched when
first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from regraft._version import __version__

if TYPE_CHECKING:
    from regraft.api import (
        Cluster,
        Estimate,
        Recipe,
        Repeats,
        Run,
        audit,
        compare,
        evaluate,
        explore,
        export,
        fit,
        load,
        push,
        rank,
        repeat,
    )
    from regraft.model import Prediction
    from regraft.parts import backbone, extract, fit_head, freeze

__all__ = [
    "Cluster",
    "Estimate",
    "Prediction",
    "Recipe",
    "Repeats",
    "Run",
    "__version__",
    "audit",
    "backbone",
    "compare",
    "evaluate",
    "explore",
    "export",
    "extract",
    "fit",
    "fit_head",
    "freeze",
    "load",
    "push",
    "rank",
    "repeat",
]


# Where a name is found that is not in regraft.api
_ELSEWHERE = {"Prediction": "model", **dict.fromkeys(("backbone", "extract", "fit_head", "freeze"), "parts")}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'regraft' has no attribute {name!r}")
    return getattr(import_module(f"regraft.{_ELSEWHERE.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return list(__all__)

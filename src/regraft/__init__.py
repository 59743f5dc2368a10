"""regraft: transfer learning as a finished tool. `import regraft` loads no torch; names are fetched when
first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regraft._version import __version__

if TYPE_CHECKING:
    from regraft.api import (
        Estimate,
        Recipe,
        Repeats,
        Run,
        audit,
        backbone,
        compare,
        evaluate,
        explore,
        export,
        extract,
        fit,
        fit_head,
        freeze,
        load,
        push,
        rank,
        repeat,
    )
    from regraft.model import Prediction

__all__ = [
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


def __getattr__(name: str) -> Any:
    if name == "Prediction":
        from regraft.model import Prediction

        return Prediction
    if name in __all__:
        from regraft import api

        return getattr(api, name)
    raise AttributeError(f"module 'regraft' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)

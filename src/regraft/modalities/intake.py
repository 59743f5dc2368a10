"""How an exported graph takes items: what goes in, and what of the preprocessing is inside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Input:
    """One array that goes in. `shape` has numbers and the names of what may vary, the batch first;
    `example` is a shape to trace with, in which whatever may vary is larger than 1.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    example: tuple[int, ...]


@dataclass(frozen=True)
class Intake:
    """How a graph takes items.

    `module` makes of the `inputs`, in this order, the batch that the preprocessing's `device` takes, and
    `read` makes the inputs of one item, a batch of one. `reading` is the source of a Python function
    `read(path)` that does the same without regraft; it needs the packages `needs`, and finds the values of
    `settings` in a dictionary SETTINGS. `page` is JavaScript that defines the same for a web page: ACCEPT, the
    kinds of files, `show(file)`, an element, and `read(file)`, of each input its type, its data and its
    shape. Both are empty where there is none. `entering` says how items go in, and `inside` what is done
    in the graph beside calibration.
    """

    module: nn.Module
    inputs: tuple[Input, ...]
    read: Callable[[Any], dict[str, np.ndarray]]
    reading: str = ""
    needs: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    page: str = ""
    entering: str = "prepared, as `preprocess` in export.json says"
    inside: str = "normalising"


class _Prepares(Protocol):
    """What `prepared` asks of a preprocessing."""

    def host(self, item: Any) -> Any: ...

    def collate(self, raws: Sequence[Any]) -> dict[str, np.ndarray]: ...

    def blank(self, count: int) -> dict[str, np.ndarray]: ...


def prepared(preprocess: _Prepares) -> Intake:
    """The intake of a graph whose items are prepared outside, by `host` and `collate`: it takes the arrays
    of a batch. The second axis of those that the preprocessing calls `varying` may have any length.
    """
    from torch import nn

    varying = getattr(preprocess, "varying", ())
    blank = preprocess.blank(2)

    class Named(nn.Module):
        """The arrays of a batch by their names."""

        def forward(self, *arrays: Any) -> dict[str, Any]:
            return dict(zip(blank, arrays, strict=True))

    def about(name: str, array: np.ndarray) -> Input:
        rest: tuple[int | str, ...] = array.shape[1:]
        if name in varying:
            rest = ("length", *rest[1:])
        return Input(name, str(array.dtype), ("batch", *rest), array.shape)

    inputs = tuple(about(name, array) for name, array in blank.items())
    return Intake(Named(), inputs, lambda item: preprocess.collate([preprocess.host(item)]))

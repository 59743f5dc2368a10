"""Training that may be killed at any moment: all that the next step depends on, in one file that is renamed
into place.
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from regraft.artifacts import atomic, openable

SECONDS = 20.0  # what a kill may cost; a save of EfficientNet-Lite0, released wholly, takes about a tenth of a second
SHARE = (
    0.05  # of the time that saving may take: where a save takes longer than a second, a kill may cost more
)


class Checkpoint:
    """One file of tensors (safetensors) with the progress as JSON beside them; without a path nothing is ever
    kept.

    What was saved under another `key` (other data, other settings) is not taken up.
    """

    def __init__(self, path: Path | None = None, seconds: float = SECONDS, share: float = SHARE) -> None:
        self.path, self.seconds, self.share, self.key = path, seconds, share, ""
        self.saved, self.cost = time.monotonic(), 0.0  # when the last save ended, and the seconds it took

    def due(self, complete: bool = False) -> bool:
        """True when the last save is longer ago than what a kill may cost, and than what a save costs allows
        for.

        `complete`: an epoch has ended, whose work is worth keeping as soon as a save is cheap beside it.
        """
        wait = max(0.0 if complete else self.seconds, self.cost * (1 - self.share) / self.share)
        return self.path is not None and time.monotonic() - self.saved >= wait

    def save(self, tensors: dict[str, torch.Tensor], progress: dict[str, Any]) -> None:
        """Replace what was kept; a tensor that goes by several names is written once. A full disk costs the
        resume only.
        """
        if self.path is None:
            return
        began, held, same = time.monotonic(), dict[int, str](), dict[str, str]()
        plain = {}
        for name, tensor in tensors.items():
            first = held.setdefault(id(tensor), name)
            if first != name:
                same[name] = first
            else:
                plain[name] = tensor.detach().cpu().contiguous().clone()
        about = {"key": self.key, "progress": json.dumps(progress), "same": json.dumps(same)}
        with contextlib.suppress(OSError, SafetensorError), atomic(self.path) as temporary:
            save_file(plain, str(temporary), metadata=about)
        self.saved = time.monotonic()
        self.cost = self.saved - began

    def load(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Tensors and progress as they were saved under this key, or None."""
        if self.path is None or not self.path.is_file():
            return None
        try:
            with openable(self.path) as file, safe_open(file, framework="pt") as handle:
                about = handle.metadata() or {}
                if about.get("key") != self.key:
                    return None
                tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
            tensors |= {name: tensors[first] for name, first in json.loads(about["same"]).items()}
            return tensors, json.loads(about["progress"])
        except (OSError, SafetensorError, KeyError, ValueError):
            return None

    def clear(self) -> None:
        """Remove the file: training is over."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def pack(
    module: dict[str, torch.Tensor],
    others: dict[str, dict[str, torch.Tensor]],
    optimiser: torch.optim.Optimizer,
) -> dict[str, torch.Tensor]:
    """All tensors of a training under way: the module as it stands, other states of it by name, torch's
    random state.
    """
    tensors = {
        f"{kind}.{name}": tensor
        for kind, state in {"now": module, **others}.items()
        for name, tensor in state.items()
    }
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {
            f"optimiser.{number}.{name}": value
            for name, value in state.items()
            if isinstance(value, torch.Tensor)
        }
    return {**tensors, "random": torch.get_rng_state()}


def unpack(
    tensors: dict[str, torch.Tensor], module: nn.Module, optimiser: torch.optim.Optimizer
) -> dict[str, dict[str, torch.Tensor]]:
    """Put a packed training back, each tensor in the memory order of its parameter; gives the other states by
    name.
    """
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        parts.setdefault(kind, {})[rest] = tensor
    module.load_state_dict(parts.pop("now"), strict=False)
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    states: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in parts.pop("optimiser", {}).items():
        number, _, entry = name.partition(".")
        parameter = parameters[int(number)]
        like = (
            torch.empty_like(parameter).copy_(tensor)
            if tensor.shape == parameter.shape and tensor.ndim
            else tensor
        )
        states.setdefault(int(number), {})[entry] = like
    optimiser.load_state_dict({"state": states, "param_groups": optimiser.state_dict()["param_groups"]})
    torch.set_rng_state(parts.pop("random")[""])
    here = module.state_dict()
    return {
        kind: {name: torch.empty_like(here[name]).copy_(tensor) for name, tensor in state.items()}
        for kind, state in parts.items()
    }

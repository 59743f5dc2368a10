"""Training that may be killed at any moment: all that the next step depends on, in one file that is renamed
into place.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from regraft.artifacts import atomic, openable

# Seconds that a kill may cost; a save of EfficientNet-Lite0, released wholly, takes about a tenth of a
# second.
SECONDS = 20.0
# The share of the time that saving may take: where a save takes longer than a second, a kill may cost more.
SAVING_SHARE = 0.05
TENSOR = "is tensor"  # the one key of what stands in the JSON for a tensor


class Checkpoint:
    """One file of tensors (safetensors), with what else there is as JSON beside them; without a path
    nothing is ever kept.

    What was saved under another `key` (other data, other settings) is not taken up.
    """

    def __init__(
        self, path: Path | None = None, seconds: float = SECONDS, share: float = SAVING_SHARE
    ) -> None:
        self.path, self.seconds, self.share, self.key = path, seconds, share, ""
        self.saved, self.cost = time.monotonic(), 0.0  # when the last save ended, and the seconds it took

    def due(self, complete: bool = False) -> bool:
        """True when the last save is longer ago than what a kill may cost, and than what a save costs
        allows for.

        `complete`: an epoch has ended, whose work is worth keeping as soon as a save is cheap beside it.
        """
        wait = max(0.0 if complete else self.seconds, self.cost * (1 - self.share) / self.share)
        return self.path is not None and time.monotonic() - self.saved >= wait

    def save(self, state: dict[str, Any]) -> None:
        """Replace what was kept. `state` holds tensors, numbers and further dictionaries like itself. A
        full disk costs the resume only.
        """
        if self.path is None:
            return
        began, tensors = time.monotonic(), dict[str, torch.Tensor]()
        about = {"key": self.key, "state": json.dumps(_without_tensors(state, tensors))}
        with contextlib.suppress(OSError, SafetensorError), atomic(self.path) as temporary:
            save_file(tensors, str(temporary), metadata=about)
        self.saved = time.monotonic()
        self.cost = self.saved - began

    def load(self) -> dict[str, Any] | None:
        """The state as it was saved under this key, or None. Keys that were numbers have become text."""
        if self.path is None or not self.path.is_file():
            return None
        try:
            with openable(self.path) as file, safe_open(file, framework="pt") as handle:
                about = handle.metadata() or {}
                if about.get("key") != self.key:
                    return None
                return dict(_with_tensors(json.loads(about["state"]), handle.get_tensor))
        except (OSError, SafetensorError, KeyError, ValueError):
            return None

    def content(self) -> bytes | None:
        """The file as it is, for another process; None where there is none."""
        if self.path is None or not self.path.is_file():
            return None
        with contextlib.suppress(OSError):
            return self.path.read_bytes()
        return None

    def put(self, content: bytes) -> None:
        """Replace what was kept by the file of another process. A full disk costs the resume only."""
        if self.path is not None:
            with contextlib.suppress(OSError), atomic(self.path) as temporary:
                temporary.write_bytes(content)

    def move_to(self, other: Checkpoint) -> None:
        """Let what is kept here be what `other` keeps."""
        if self.path is not None and other.path is not None and self.path.is_file():
            self.path.replace(other.path)

    def clear(self) -> None:
        """Remove the file: training is over."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _without_tensors(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """The value as JSON takes it: each tensor is put into `tensors`, and its name there stands in its
    place.
    """
    if isinstance(value, dict):
        return {key: _without_tensors(part, tensors) for key, part in value.items()}
    if not isinstance(value, torch.Tensor):
        return value
    name = str(len(tensors))
    tensors[name] = value.detach().cpu().contiguous().clone()
    return {TENSOR: name}


def _with_tensors(value: Any, read: Callable[[str], torch.Tensor]) -> Any:
    """What `_without_tensors` was given."""
    if not isinstance(value, dict):
        return value
    if value.keys() == {TENSOR}:
        return read(value[TENSOR])
    return {key: _with_tensors(part, read) for key, part in value.items()}

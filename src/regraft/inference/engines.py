"""Engines: ways to run a frozen backbone over batches. float32 PyTorch is the reference the others must
agree with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import nn

from regraft.artifacts import fingerprint
from regraft.backbones import (
    Arithmetic,
    Backbone,
    Batch,
    Tapped,
    find_folds,
    length,
    padded,
    plain,
    split,
    tensors,
)
from regraft.inference.feed import Begun, Feed
from regraft.inference.graphs import convert, keep, kept, openvino, silence
from regraft.runtime import survive_forks

Key = TypeVar("Key")


class Engine(Protocol):
    """Anything that turns batches into features."""

    name: str  # "torch-float32", "openvino-bfloat16", ...
    numerics: str  # name, versions and batch shape: part of the store's key
    batch: (
        int  # the one batch shape: smaller batches are padded, so a feature does not depend on its neighbours
    )
    lanes: int  # batches that `run` takes at once, from as many threads
    backbone: Backbone
    making: Any  # what makes the same engine in another process (`trial.Making`), None where nothing does

    def weights(self) -> str:
        """The backbone's fingerprint as it is; what was made of other weights is made anew before the next
        batch.
        """
        ...

    def run(self, batch: Batch) -> list[np.ndarray]:
        """(B, width) float32, then whatever other depths the engine was made for."""
        ...


@runtime_checkable
class Aside(Protocol):
    """An engine on a device that computes aside: what `run` does, begun and waited for in two calls."""

    def begin(self, batch: Batch) -> Begun[list[np.ndarray]]:
        """The features of one batch, to be waited for."""
        ...


def passes(
    engine: Engine, feed: Feed, groups: Iterable[tuple[list[Key], Callable[[], Batch]]]
) -> Iterator[tuple[list[Key], list[np.ndarray]]]:
    """The keys of each group of a feed, in order, with what the engine makes of its batch."""
    if isinstance(engine, Aside):
        done = feed.ahead(groups, lambda group: engine.begin(group[1]()))
    else:
        done = feed.run(groups, lambda group: engine.run(group[1]()))
    for (keys, _), found in done:
        yield keys, found


def feature_key(engine: Engine, view: str = "plain") -> tuple[str, str, str]:
    """The key of features in the store: the weights as they are at this moment, the preprocessing, and the
    view.

    The store adds the engine's numerics and the depth. Nothing else makes such a key.
    """
    return engine.weights(), engine.backbone.preprocess.fingerprint, view


class TorchEngine:
    """Eager PyTorch, channels last, in inference mode; norms folded into convolutions: 1.5 times as fast on
    a CPU.

    It runs the backbone's own module, and folds each norm anew in every pass, so weights that change
    between two batches need no notice. What it has prepared is prepared again when a tensor was replaced by
    another.
    """

    making: Any = None

    def __init__(
        self,
        backbone: Backbone,
        device: torch.device,
        batch: int = 32,
        precision: str = "float32",
        depths: tuple[int, ...] = (),
        cut: int | None = None,
    ) -> None:
        self.backbone, self.device, self.batch, self.precision = backbone, device, batch, precision
        self.depths, self.cut, self.lanes = depths, cut, 1
        self.name = f"torch-{precision}"
        self.numerics = f"{self.name}-{torch.__version__}-{device.type}-b{batch}"
        self.module: Tapped | None = None  # made when the first batch comes
        self.arithmetic = plain(device)
        self.parts: list[object] = []
        self.places: set[torch.device] = set()

    def weights(self) -> str:
        """The backbone's fingerprint as it is."""
        return self.backbone.fingerprint()

    def run(self, batch: Batch) -> list[np.ndarray]:
        """Features of one batch of at most `self.batch` examples."""
        return [values[: length(batch)] for values in self.forward(padded(batch, self.batch))]

    def forward(self, batch: Batch) -> list[np.ndarray]:
        """Features of one batch, run in the very shape it has; of items of several windows each, fewer at a
        time, which take as much memory as the batch would without windows.
        """
        module, windows = self._current().eval(), getattr(self.backbone.preprocess, "windows", 1)
        step = length(batch) if windows == 1 else max(1, self.batch // windows)
        found = []
        with torch.inference_mode(), self.arithmetic():
            for some in split(batch, step):
                found.append([tensor.float().cpu().numpy() for tensor in module(tensors(some, self.device))])
        return [np.concatenate(parts) for parts in zip(*found, strict=True)] if len(found) > 1 else found[0]

    def _current(self) -> Tapped:
        """The network with what is prepared of it; prepared anew when the backbone holds or lies on others."""
        parts, places = self._parts()
        if self.module is None or places != self.places or not _same(parts, self.parts):
            self.module = self._ready()
            self.parts, self.places = self._parts()
        return self.module

    def _parts(self) -> tuple[list[object], set[torch.device]]:
        """All that `_ready` goes by, each of which stays the same object while its values change; and
        devices.
        """
        module = self.backbone.module
        tensors = [*module.parameters(), *module.buffers()]
        return [module, self.backbone.preprocess, *tensors], {tensor.device for tensor in tensors}

    def _ready(self) -> Tapped:
        survive_forks()
        module = Tapped(self.backbone, self.depths, self.cut).to(self.device).eval()
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        blank = tensors(self.backbone.preprocess.blank(2), self.device)
        folds = find_folds(module, blank) if self.device.type == "cpu" else {}
        self.arithmetic = Arithmetic(self.precision, self.device, folds)
        return module


class _Named(nn.Module):
    """A module that takes a batch, for a converter that knows tensors in a row only."""

    def __init__(self, module: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.module, self.names = module, names

    def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.module(dict(zip(self.names, values, strict=True)))  # type: ignore[no-any-return]


class OpenVinoEngine:
    """OpenVINO on a CPU, converted from the PyTorch module, static shapes but for the length of items that
    have one of their own; the converted model is kept in `cache`.

    With several `lanes` so many batches run at once, each on its share of the threads. That is faster by half
    beside threads that read (docs/decisions.md): a batch on all threads waits whenever one of them has to.

    Weights that change are converted anew when torch's version counters tell, or else when `weights` is
    next called. Raises ImportError where it is not installed, RuntimeError where it cannot run the network.
    """

    making: Any = None

    def __init__(
        self,
        backbone: Backbone,
        batch: int = 8,
        precision: str = "bfloat16",
        depths: tuple[int, ...] = (),
        cut: int | None = None,
        cache: Path | None = None,
        lanes: int = 1,
    ) -> None:
        self.library = openvino()
        self.batch, self.precision, self.name = batch, precision, f"openvino-{precision}"
        self.lanes, self.turn = lanes, Lock()
        share = f"-t{max(torch.get_num_threads() // lanes, 1)}" if lanes > 1 else ""
        self.numerics = f"{self.name}-{self.library.__version__}-b{batch}{share}"
        self.backbone, self.depths, self.cut, self.cache = backbone, depths, cut, cache
        self.requests: SimpleQueue[Any] | None = None  # one a lane, made when the first batch comes
        self.made_of = ""  # the weights
        self.tensors: list[torch.Tensor] = []  # these, and how often torch had seen each change
        self.versions: list[int] = []

    def weights(self) -> str:
        """The backbone's fingerprint as it is; what was converted of other weights is let go."""
        found = self.backbone.fingerprint()
        if found != self.made_of:
            self.requests, self.made_of = None, found
        return found

    def _current(self) -> SimpleQueue[Any]:
        """What runs the network of the weights as they are, as many times as there are lanes."""
        with self.turn:
            if self.requests is None or self.versions != _versions(self.tensors):
                self.weights()
                if self.requests is None:
                    self.requests = self._ready()
                self.tensors = list(self.backbone.module.state_dict(keep_vars=True).values())
                self.versions = _versions(self.tensors)
            return self.requests

    def _ready(self) -> SimpleQueue[Any]:
        core, backbone, batch = self.library.Core(), self.backbone, self.batch
        blank = backbone.preprocess.blank(batch)
        if self.precision == "bfloat16" and "BF16" not in core.get_property(
            "CPU", "OPTIMIZATION_CAPABILITIES"
        ):
            raise RuntimeError("this processor has no bfloat16 units")
        versions = self.library.__version__, torch.__version__
        key = fingerprint(
            self.made_of,
            backbone.preprocess.fingerprint,
            batch,
            list(blank),
            list(self.depths),
            self.cut,
            *versions,
        )
        place = self.cache / "openvino" / f"{key}.xml" if self.cache else None
        model = kept(core, place)
        if model is None:
            example = tuple(tensors(backbone.preprocess.blank(1)).values())
            module = _Named(Tapped(backbone, self.depths, self.cut), tuple(blank)).eval()
            with silence(), torch.no_grad():
                model = convert(self.library, module, example, [self._shape(name, blank) for name in blank])
            for port, name in zip(model.inputs, blank, strict=True):
                port.get_tensor().set_names({name})
            keep(self.library, model, place)
        hint = {"INFERENCE_PRECISION_HINT": "bf16" if self.precision == "bfloat16" else "f32"}
        threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "NUM_STREAMS": self.lanes}
        compiled = core.compile_model(model, "CPU", {**hint, **threads})
        requests: SimpleQueue[Any] = SimpleQueue()
        for _ in range(self.lanes):
            requests.put(compiled.create_infer_request())
        return requests

    def _shape(self, name: str, blank: Batch) -> Any:
        """The shape of one array of a batch: fixed, but for the length of items that have one of their own."""
        shape = list(blank[name].shape)
        if name in self.backbone.preprocess.varying:
            shape[1] = -1
        return self.library.PartialShape(shape)

    def run(self, batch: Batch) -> list[np.ndarray]:
        """Features of one batch of at most `self.batch` examples."""
        requests, examples = self._current(), length(batch)
        request = requests.get()
        try:
            request.infer(padded(batch, self.batch), share_inputs=True)
            count = 1 + len(self.depths) + (self.cut is not None)
            found = (request.get_output_tensor(number).data for number in range(count))
            return [np.array(values[:examples], dtype=np.float32) for values in found]
        finally:
            requests.put(request)


def _same(some: list[object], others: list[object]) -> bool:
    """True where two lists hold the very same objects."""
    return len(some) == len(others) and all(one is other for one, other in zip(some, others, strict=True))


def _versions(tensors: list[torch.Tensor]) -> list[int]:
    """How often torch saw each tensor change. Some changes, as by a fused optimiser, it does not see."""
    return [0 if tensor.is_inference() else tensor._version for tensor in tensors]

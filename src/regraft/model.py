"""Model: backbone, head, preprocessing, class names and temperature as one object that predicts, saves and
loads.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from torch import nn

from regraft.artifacts import atomic, fingerprint, openable, order_metadata, read_json, to_json, utf8
from regraft.backbones import Backbone, Provenance, build, cut_short, cut_stages, joined
from regraft.data.lineage import FILE as SEEN
from regraft.data.lineage import KEY
from regraft.errors import UsageError
from regraft.evaluation import Familiarity
from regraft.inference import REFERENCE, Outcome, Predictor, occlusion, recall, remember, trial_key
from regraft.inference.fastest import FEWEST_ITEMS, SHAPES, fastest, require_engine
from regraft.modalities import Unreadable, modality_of, parts_of
from regraft.prediction import Answering, Prediction, Reading, promises
from regraft.ready import BESIDE, FAMILIARITY, SCHEMA, described, familiarity_of, preprocess_of
from regraft.tasks import Calibration, Held, Task, task_of
from regraft.training import make_head

__all__ = ["Look", "Model", "Prediction"]

TRIED = 32  # items of the trial of engines, and by which their agreement is told


@dataclass(frozen=True)
class Look:
    """Where the model looked in one item: the item, and the same with what its answer `label` rested on,
    as data URIs; and its probability, as it is and with the strongest place hidden.
    """

    label: str
    probability: float
    hidden: float
    picture: str
    map: str


@dataclass(frozen=True)
class Agreement:
    """How far an engine is from float32 PyTorch: of `items` real ones, how many have the `same` answer, and
    the `largest` difference of a probability, or of an output where the task gives no probabilities; `of` says
    what of the two that is.
    """

    engine: str
    items: int
    same: int
    largest: float
    of: str = "probabilities"

    def in_words(self) -> str:
        """One sentence."""
        return (
            f"{self.engine}: of {self.items} items {self.same} have the answer of float32 PyTorch, "
            f"{self.of} differ by {self.largest:.2g} at most"
        )


@dataclass
class Model(Answering):
    """A finished model. `calibration` is what is done to its outputs before they are read; without one,
    nothing.

    `seen` is a file that says what the model has seen (`data.lineage`); where it is kept,
    its copies know it too. `device` is where it runs if a call names no other. `familiarity` tells how
    unlike the examples that it was made with an item is; None where that is not known. `engine` is what
    predictions are run by: one of `ENGINES`, or "auto", the fastest that agrees with float32 where there
    are many items. Converted networks and what trials found are kept in `cache`. `beside` takes what the
    network takes, and its logits are added to the head's (`modalities.Beside`). `note` is what to know before
    it is used; "" of the model of a finished run.
    """

    backbone: Backbone
    head: nn.Module
    head_kind: str
    task: Task
    name: str = "model"
    calibration: Calibration | None = None
    head_settings: dict[str, Any] | None = None
    seen: Path | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    familiarity: Familiarity | None = None
    engine: str = REFERENCE
    cache: Path | None = None
    beside: nn.Module | None = None
    note: str = ""

    def __post_init__(self) -> None:
        self._predictors: dict[tuple[torch.device, str], Predictor] = {}

    @property
    def modality(self) -> str:
        """The name of the modality of what it predicts: "image" and the like."""
        return str(self.backbone.preprocess.modality)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self.task.classes

    @property
    def calibrated(self) -> Calibration:
        """The calibration, or one that changes nothing."""
        nothing = Held("val", np.zeros(0, dtype=np.int64), np.zeros((0, self.task.outputs)))
        return self.calibration or self.task.calibrate(nothing)

    @property
    def temperature(self) -> float:
        """What the logits are divided by; 1 where the task knows no temperature."""
        return float(self.calibrated.saved().get("temperature", 1.0))

    @property
    def thresholds(self) -> dict[float, float]:
        """By wanted precision, the probability above which answers were so often right on held-out
        examples.
        """
        return promises(self.calibrated)

    def predictor(self, device: torch.device | None = None, engine: str = REFERENCE) -> Predictor:
        """What runs the model on a device, the model's own where none is named, by an engine; built once
        for each.
        """
        key = device or self.device, engine
        found = self._predictors.get(key)
        return found or self._predictors.setdefault(key, Predictor(self, *key, self.cache))

    def outputs(
        self, items: Iterable[Any], device: torch.device | None = None
    ) -> Iterator[np.ndarray | Unreadable]:
        """For each item, in order, its (K,) float32 logits, or the Unreadable that it is."""
        return self.predictor(device).outputs(items)

    def __getstate__(self) -> dict[str, Any]:
        """A copy builds predictors of its own."""
        return {**self.__dict__, "_predictors": {}}

    def rows(self, items: Iterable[Any]) -> Iterator[Outcome | Unreadable]:
        """For each item, in order, its outputs and features, by the engine of the model; where that is
        "auto", by the fastest that agrees with float32, if there are many.
        """
        engine = self.engine
        if engine == "auto":
            stream = iter(items)
            first = list(islice(stream, FEWEST_ITEMS))
            items = chain(first, stream)
            engine = self.fastest(first) if len(first) >= FEWEST_ITEMS else REFERENCE
        return self.predictor(engine=engine).rows(items)

    def parts(self, item: Any) -> list[tuple[str, Any]]:
        """The parts of an item that the network looks at one by one."""
        return parts_of(self.backbone.preprocess, item)

    def fastest(self, items: Sequence[Any]) -> str:
        """The name of the fastest engine that agrees with float32 on some of the items; what a trial found
        is remembered for this machine.
        """
        return fastest(self.backbone, self.device, items[:TRIED], self.cache)

    def agreement(self, items: Sequence[Any]) -> Agreement | None:
        """How far what the model's engine says of items is from float32 PyTorch; None where it is that, or
        none of them can be read. Remembered for this machine, weights and engine.
        """
        engine = self.fastest(items) if self.engine == "auto" else self.engine
        if engine == REFERENCE:
            return None
        trial = trial_key(self.backbone, self.device, SHAPES[-1])
        key = *trial, str(self.backbone.join), engine, "predictions", self._read_as
        known = recall(self.cache, *key)
        if known is not None:
            with contextlib.suppress(TypeError):  # of another version
                return Agreement(**known)
        ours, theirs = (self._calibrated(items[:TRIED], name) for name in (engine, REFERENCE))
        if not len(ours):
            return None
        decided = self.task.decided(self.calibrated)
        same = int(decided.same(decided.answers(ours), decided.answers(theirs)).sum())
        shares = self.task.probabilities(ours), self.task.probabilities(theirs)
        pair = (ours, theirs) if shares[0] is None or shares[1] is None else shares
        of = "probabilities" if pair is shares else self.task.spoken.outputs
        found = Agreement(engine, len(ours), same, float(np.abs(pair[0] - pair[1]).max()), of)  # type: ignore[operator]
        remember(self.cache, *key, found=asdict(found))
        return found

    @property
    def _read_as(self) -> str:
        """A hash of all that makes answers of features: heads of one frozen backbone are told apart by it."""
        head = b"".join(
            value.detach().float().cpu().numpy().tobytes() for value in self.head.state_dict().values()
        )
        return fingerprint(hashlib.sha256(head).hexdigest(), self.calibrated.saved(), self.task.settings())

    def _calibrated(self, items: Sequence[Any], engine: str) -> np.ndarray:
        """(N, K) calibrated outputs of those items that can be read."""
        rows = [row for row in self.predictor(engine=engine).rows(items) if isinstance(row, Outcome)]
        outputs = np.array([row.outputs for row in rows], dtype=np.float64)
        return self.calibrated.applied(outputs) if rows else outputs

    def answers(
        self, raws: Sequence[Any], top: int | None = None, precision: float | None = None
    ) -> list[Prediction]:
        """Predictions for items that the preprocessing's `host` has prepared, in one go: what a server
        gathers. Several threads may call it. Raises UsageError as `predict_each` does.
        """
        reading = Reading.of(self.task, self.calibrated, top, precision)
        if not len(raws):
            return []
        engine = REFERENCE if self.engine == "auto" else self.engine
        done = self.predictor(engine=engine).of_raws(raws)
        return self._read(reading, [Outcome(*row) for row in zip(done.outputs, done.features, strict=True)])

    def explain(self, item: Any, label: str | None = None, runs: Predictor | None = None) -> Look | None:
        """Where the model looks in an item: places are hidden one after another, and what that does to the
        probability of `label`, or else of its answer, is laid over the item. `runs` is what it is run by,
        if not as usual.

        None where the modality hides no places, or the task gives no probabilities. Raises Unreadable.
        """
        modality, preprocess = modality_of(self.modality), self.backbone.preprocess
        raw = preprocess.host(item)
        copies, runs = modality.hide(raw), runs or self.predictor()

        def shares(raws: np.ndarray) -> np.ndarray | None:
            return self.task.probabilities(self.calibrated.applied(runs.of_raws(raws).outputs))

        if copies is None or (whole := shares(raw[None])) is None:
            return None
        answer = int(whole[0].argmax()) if label is None else self.classes.index(label)
        found = occlusion(raw, copies, answer, shares)  # type: ignore[arg-type]
        picture, heated = modality.overlay(preprocess, item, found.heat())
        return Look(self.classes[answer], found.whole, float(found.hidden.min()), picture, heated)

    @property
    def library(self) -> str:
        """What loads the saved folder, as hubs call it: timm where a linear head is its network's own
        classifier and nothing stands beside it, else only regraft.
        """
        plain = self.head_kind == "linear" and self.backbone.classifier and self.beside is None
        return "timm" if plain else "regraft"

    def save(self, folder: Path, card: str = "") -> None:
        """Write model.safetensors and config.json (timm's layout), regraft.json and README.md.

        A linear head becomes the network's own classifier, so plain timm loads the folder; an MLP head is
        kept beside, and so is any head of a backbone that was truncated or joined, which is no network timm
        knows. All files are written before the first takes its place, and without regraft.json a folder is
        no model: one that cannot be written leaves the model that was there.
        """
        state = {k: v.detach().cpu().contiguous() for k, v in self.backbone.network.state_dict().items()}
        head = {k: v.detach().cpu().contiguous() for k, v in self.head.state_dict().items()}
        linear = self.library == "timm"
        if linear:
            last = self.head[-1]  # type: ignore[index]
            state[f"{self.backbone.classifier}.weight"] = last.weight.detach().cpu().contiguous()
            state[f"{self.backbone.classifier}.bias"] = last.bias.detach().cpu().contiguous()
        config, about = self._described(linear)
        with contextlib.ExitStack() as stack:
            # Entered first, it is renamed last
            last_of_all = stack.enter_context(atomic(folder / "regraft.json"))
            places = {
                name: stack.enter_context(atomic(folder / name))
                for name in ("model.safetensors", "config.json")
            }
            save_file(
                state, str(places["model.safetensors"]), metadata={"format": "pt", KEY: "see regraft.json"}
            )
            order_metadata(places["model.safetensors"])
            if not linear:
                save_file(head, str(stack.enter_context(atomic(folder / "head.safetensors"))))
            if self.familiarity is not None:
                values = {"rows": self.familiarity.rows, "distances": self.familiarity.distances}
                save_arrays(values, str(stack.enter_context(atomic(folder / FAMILIARITY))))
            else:
                (folder / FAMILIARITY).unlink(missing_ok=True)
            if self.beside is not None:
                beside = {k: v.detach().cpu().contiguous() for k, v in self.beside.state_dict().items()}
                save_file(beside, str(stack.enter_context(atomic(folder / BESIDE))))
            else:
                (folder / BESIDE).unlink(missing_ok=True)
            for name, content in self.backbone.preprocess.files.items():
                stack.enter_context(atomic(folder / name)).write_bytes(content)
            if card:
                stack.enter_context(atomic(folder / "README.md")).write_bytes(utf8(card))
            if self.seen is not None and self.seen.is_file():
                shutil.copyfile(self.seen, stack.enter_context(atomic(folder / SEEN)))
            else:
                (folder / SEEN).unlink(missing_ok=True)
            places["config.json"].write_bytes(utf8(to_json(config) + "\n"))
            last_of_all.write_bytes(utf8(to_json(about) + "\n"))
            (folder / "regraft.json").unlink(missing_ok=True)

    def _described(self, linear: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """The contents of config.json and regraft.json."""
        pre, small = self.backbone.preprocess, modality_of(self.modality).beside
        config = {
            **{
                k: v
                for k, v in self.backbone.config.items()
                if k not in ("url", "hf_hub_id", "file", "state_dict", "tokenizer")
            },
            **pre.config(),
            "num_classes": self.task.outputs if linear else 0,
            "pool_size": None,
            "label_names": list(self.classes),
        }
        return {
            "architecture": self.backbone.architecture,
            "num_classes": config["num_classes"],
            "num_features": self.backbone.width,
            "pretrained_cfg": config,
            "label_names": list(self.classes),
        }, {
            "schema": SCHEMA,
            "name": self.name,
            "task": self.task.kind,
            "classes": list(self.classes),
            "settings": self.task.settings(),
            "preprocess": pre.to_dict(),
            **self.calibrated.saved(),
            "head": {"kind": self.head_kind, "in_classifier": linear, **(self.head_settings or {})},
            "plain_timm": linear,
            "depth": self.backbone.depth,
            "join": self.backbone.join,
            **({} if small is None or self.beside is None else {"beside": small.name}),
            **({"note": self.note} if self.note else {}),
            "provenance": asdict(self.backbone.provenance),
        }

    @classmethod
    def load(
        cls,
        folder: Path,
        device: torch.device | None = None,
        engine: str = REFERENCE,
        cache: Path | None = None,
    ) -> Model:
        """Read a model folder, or a run's, to be run on a device by an engine. Raises UsageError for what
        is neither, and for an engine that there is not.
        """
        device = device or torch.device("cpu")
        folder, about = described(folder)
        config = read_json(folder / "config.json")
        module, depth = build(config["architecture"], 0, config["pretrained_cfg"]), about.get("depth")
        if depth is not None:
            cut_short(module, depth)
        with openable(folder / "model.safetensors") as weights:
            state = load_file(weights)
        settings = {k: v for k, v in about["head"].items() if k in ("hidden", "dropout")}
        task = task_of(about["task"], about["classes"], about.get("settings"))
        plain = depth is None and not about.get("join")
        classifier = str(config["pretrained_cfg"].get("classifier") or "") if plain else ""
        head = make_head(about["head"]["kind"], int(config["num_features"]), task.outputs, **settings)
        _fill(head, folder, state, classifier if about["head"]["in_classifier"] else None)
        module.load_state_dict(state, strict=True)
        module.eval()
        backbone = Backbone(
            module=module,
            stages=cut_stages(module),
            preprocess=preprocess_of(folder, about),
            provenance=Provenance(**about["provenance"]),
            width=int(config["num_features"]),
            architecture=config["architecture"],
            config=config["pretrained_cfg"],
            classifier=classifier,
            depth=depth,
        )
        if join := about.get("join"):
            backbone = joined(backbone, join)
        seen = folder / SEEN if (folder / SEEN).is_file() else None
        require_engine(engine, backbone, device)
        return cls(
            backbone,
            head.eval(),
            about["head"]["kind"],
            task,
            about["name"],
            task.calibration(about),
            settings,
            seen,
            device,
            familiarity_of(folder),
            engine,
            cache,
            _beside_of(folder, about),
            about.get("note", ""),
        )


def _fill(head: nn.Sequential, folder: Path, state: dict[str, torch.Tensor], classifier: str | None) -> None:
    """Give a head its weights: those of the network's own `classifier`, which are taken out of its `state`, or a
    file of their own where there is none.
    """
    if classifier is None:
        with openable(folder / "head.safetensors") as weights:
            head.load_state_dict(load_file(weights))
        return
    last = {leaf: state.pop(f"{classifier}.{leaf}") for leaf in ("weight", "bias")}
    head[-1].load_state_dict(last)


def _beside_of(folder: Path, about: dict[str, Any]) -> nn.Module | None:
    """What stands beside the network of a model folder. Raises UsageError where regraft.json names what is not
    there.
    """
    modality = modality_of(about["preprocess"]["modality"])
    if not about.get("beside"):
        return None
    if modality.beside is None or modality.beside.name != about["beside"]:
        raise UsageError(
            f"{folder}: the model has {about['beside']!r} beside its network, which this regraft does not know: "
            "load it with the regraft that made it, or fit it anew."
        )
    if not (folder / BESIDE).is_file():
        raise UsageError(f"{folder} lacks {BESIDE}, which its regraft.json names: the model needs this file.")
    with openable(folder / BESIDE) as weights:
        return modality.beside.restored(load_file(weights)).eval()

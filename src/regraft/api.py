"""What Python users hold: fit, load, Run, and the parts for those with their own loop."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from regraft.artifacts import Events, Listener, RunFolder, next_free, read_json
from regraft.backbones import Backbone, make_base, obtain_weights
from regraft.data import Examples, assign_splits, audit_files, make_examples, read_assignment, read_source
from regraft.data.examples import Task
from regraft.errors import UsageError
from regraft.evaluation import Estimate
from regraft.features import FeatureStore, TorchEngine
from regraft.modalities import UnreadableImage, inspect_image
from regraft.model import Model, Prediction
from regraft.pipeline import Run as Walk
from regraft.recipe import Recipe, read_recipe
from regraft.runtime import cache_folder, pick_device, quiet_libraries
from regraft.training import FreezePlan, class_weighted, fit_logistic, fit_path, make_head, plan_freeze

__all__ = [
    "Estimate", "Prediction", "Recipe", "Run", "Task", "assign_splits", "backbone", "extract", "fit", "fit_head", "freeze",
    "load",
]  # fmt: skip


class Run:
    """A run's folder, read: `path`, `state`, `metrics` with Estimates, `model`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not (self.path / "run.json").is_file():
            raise UsageError(f"{self.path} is no run (no run.json in it).")
        self.state: dict[str, Any] = RunFolder(self.path).read_state()
        raw = read_json(self.path / "metrics.json") if (self.path / "metrics.json").is_file() else {}
        self.metrics: dict[str, Any] = {
            **raw, **{s: {n: Estimate(**e) for n, e in raw[s].items()} for s in ("val", "test", "cv") if s in raw}
        }  # fmt: skip

    @property
    def model(self) -> Model:
        """The finished model."""
        return Model.load(self.path)

    def headline(self) -> str:
        """One line: what came out, and with which certainty."""
        for split, word in (("test", "test"), ("cv", "cross-validated"), ("val", "val")):
            if split in self.metrics:
                e = self.metrics[split]["accuracy"]
                return f"{word} accuracy {e.value:.1%} [{e.low:.1%}, {e.high:.1%}] on {e.n} examples"
        return f"{self.state['state']}, not evaluated"

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}: {self.headline()})"

    def _repr_html_(self) -> str:
        import html

        rows = "".join(
            f"<tr><td>{split}</td><td>{html.escape(name)}</td><td>{e.value:.4f}</td><td>{e.low:.4f} to {e.high:.4f}</td></tr>"
            for split in ("val", "test", "cv") for name, e in self.metrics.get(split, {}).items()
        )  # fmt: skip
        return f"<table><caption>{html.escape(repr(self))}</caption>{rows}</table>"


def fit(
    data: str | Path | None = None, out: str | Path | None = None, *, recipe: dict[str, Any] | None = None,
    resume: bool = False, overwrite: bool = False, splits: str | Path | None = None, cache: str | Path | None = "auto",
    listeners: Sequence[Listener] = (), dry_run: bool = False,
) -> Run | dict[str, Any]:  # fmt: skip
    """Walk the seven steps on `data` and give back the finished Run.

    `out` defaults to `runs/<data name>`, next free number. `recipe` holds nested settings. With `dry_run` nothing is
    trained or written and the plan is given back as a dictionary. Raises DataError, RecipeError, UsageError.
    """
    settings = Recipe.build(recipe or {})
    quiet_libraries(settings.run.offline)
    place = (cache_folder() if cache == "auto" else Path(cache)) if cache is not None else None
    if resume:
        return _resume(out, data, place, listeners, recipe)
    if data is None:
        raise UsageError("name the data: a folder of class folders, or a table.")
    source = read_source(data)
    target = Path(out) if out is not None else next_free(Path("runs"), source.name)
    folder = RunFolder(target)
    if not dry_run and folder.is_run() and not overwrite:
        raise UsageError(f"{target} holds a run already. Use --resume to go on with it, --overwrite to start anew.")
    if not dry_run and target.exists() and not folder.is_run() and any(target.iterdir()):
        raise UsageError(f"{target} is not empty and no run. Choose another folder with --out.")
    ears = Events(None, tuple(listeners))
    audited = audit_files(source, inspect_image, UnreadableImage, ears.tick)
    examples = make_examples(
        source, audited, seed=settings.data.seed, test_share=settings.data.test_share,
        val_share=settings.data.val_share, known=read_assignment(Path(splits)) if splits else None,
    )  # fmt: skip
    about = {
        "name": source.name, "source": str(source.root), "modality": "image",
        "quarantined": [{"source": q.source, "split": q.split, "reason": q.reason} for q in audited.quarantined],
        "findings": [{"kind": f.kind, "severity": f.severity, "message": f.message, "examples": list(f.examples)}
                     for f in audited.findings],
    }  # fmt: skip
    if dry_run:
        return _plan(examples, settings, about, target)
    folder.lock()
    try:
        folder.clear()
        examples.save(folder.examples)
        return _walk(folder, examples, settings, place, listeners, about)
    finally:
        folder.release()


def _walk(
    folder: RunFolder, examples: Examples, recipe: Recipe, cache: Path | None, listeners: Sequence[Listener], about: Any
) -> Run:
    events = Events(folder.events, tuple(listeners))
    events.emit("begin", out=str(folder.path), counts=examples.counts(), classes=len(examples.task.classes),
                findings=about["findings"], name=about["name"])  # fmt: skip
    walk = Walk(examples, recipe, folder, cache, events, about)
    walk.write()
    try:
        walk.walk()
    except KeyboardInterrupt:
        walk.state["state"] = "interrupted"
        walk.write()
        raise
    return Run(folder.path)


def _resume(
    out: str | Path | None, data: Any, cache: Path | None, listeners: Sequence[Listener], given: dict[str, Any] | None
) -> Run:
    if out is None:
        raise UsageError("--resume needs --out RUN, the folder of the run to go on with.")
    folder = RunFolder(Path(out))
    if not folder.is_run() or not folder.examples.is_file():
        raise UsageError(f"{out} holds no run that was begun. Leave out --resume.")
    if any(section for section in (given or {}).values()):
        raise UsageError("--resume goes on with the run's own recipe.yaml; settings cannot change. Start a new run instead.")
    state = folder.read_state()
    if state["state"] == "finished":
        return Run(folder.path)
    folder.lock()
    try:
        examples = Examples.load(folder.examples)
        changed = examples.changed()
        if changed:
            raise UsageError(
                f"{len(changed)} file(s) changed since the run began ({', '.join(changed[:3])}). Use --overwrite."
            )
        recipe = Recipe.build(read_recipe(folder.recipe))
        about = {k: v for k, v in state["data"].items() if k not in ("classes", "counts", "class_counts")}
        return _walk(folder, examples, recipe, cache, listeners, about)
    finally:
        folder.release()


def _plan(examples: Examples, recipe: Recipe, about: dict[str, Any], target: Path) -> dict[str, Any]:
    """What a run would do, with a measured estimate of its time."""
    import time

    import torch

    from regraft.runtime import keep_large_blocks
    from regraft.steps.base import base
    from regraft.steps.context import Context
    from regraft.steps.finetune import length, seconds_a_step
    from regraft.steps.freeze import freeze
    from regraft.steps.obtain import obtain
    from regraft.training import Network

    keep_large_blocks()
    context = Context(recipe, FeatureStore(None), pick_device(recipe.run.device), Events(None))
    base_model = base(obtain(context), examples.image_sizes(), context)
    plan = freeze(base_model, context)
    counts = examples.counts()
    epochs = recipe.finetune.epochs
    if epochs == "auto":
        epochs = 0 if plan.strategy == "head" or not counts["val"] else length(counts["train"])
    size, batch = base_model.preprocess.size, min(recipe.finetune.batch_size, counts["train"])
    images = torch.zeros((batch, size, size, 3), dtype=torch.uint8, device=context.device)
    engine = TorchEngine(base_model, context.device, batch)
    engine.run(images.cpu().numpy())
    began = time.perf_counter()
    engine.run(images.cpu().numpy())
    forward = (time.perf_counter() - began) / batch
    network = Network(base_model, make_head("linear", base_model.width, len(examples.task.classes))).to(context.device)
    plan.apply(network.backbone)
    step = seconds_a_step(network, (images, torch.zeros(batch, dtype=torch.long, device=context.device), images)) / batch
    total = sum(counts.values()) * forward * 1.2 + epochs * (counts["train"] * step + counts["val"] * forward)
    return {"out": str(target), "name": about["name"], "counts": counts, "classes": list(examples.task.classes),
            "findings": about["findings"], "steps": context.said, "epochs": epochs, "estimated_seconds": total}  # fmt: skip


def load(path: str | Path) -> Model:
    """The model of a run's folder or of a model folder. Raises UsageError for what is neither."""
    return Model.load(Path(path))


def backbone(reference: str = "auto", size: int | None = None, offline: bool = False) -> Backbone:
    """A base model: pre-trained weights without their classifier, with their own preprocessing."""
    obtained = obtain_weights(reference, offline)
    return make_base(obtained, size or obtained.provenance.input_size)


def extract(base: Backbone, items: Sequence[Any], cache: str | Path | None = None, device: str = "auto") -> np.ndarray:
    """(N, width) float32 pooled features, in the order given. `items` are paths, bytes, PIL images or arrays.

    With `cache` (a folder) the features of paths are kept. Raises UnreadableImage for an item that is none.
    """
    from regraft.artifacts import file_sha256

    engine = TorchEngine(base, pick_device(device))
    if cache is None:
        parts = [
            engine.run(base.preprocess.collate([base.preprocess.host(item) for item in items[i : i + 32]]))
            for i in range(0, len(items), 32)
        ]
        return np.concatenate(parts) if parts else np.empty((0, base.width), np.float32)
    ids = [file_sha256(Path(item))[:32] for item in items]
    key = (base.provenance.sha256, base.preprocess.fingerprint, "plain")
    quiet: Callable[..., None] = lambda **_: None  # noqa: E731
    return FeatureStore(Path(cache)).features(ids, list(items), key, base.preprocess, engine, base.width, quiet)


def freeze(module: Any, strategy: str | Sequence[str] = "head", norm_statistics: str = "frozen") -> FreezePlan:
    """Freeze parts of any nn.Module in place, so that it stays frozen whatever calls `.train()`; the plan it applied."""
    from regraft.backbones import cut_stages

    plan = plan_freeze(module, cut_stages(module), strategy, norm_statistics)
    plan.apply(module)
    return plan


def fit_head(features: np.ndarray, labels: Sequence[int] | np.ndarray, l2: float | None = None, seed: int = 0) -> Any:
    """A linear head (nn.Module, (B, D) to (B, K)) on (N, D) features and (N,) integer labels; L2 by out-of-fold log loss."""
    import torch

    values, targets = np.ascontiguousarray(features, dtype=np.float32), np.asarray(labels, dtype=np.int64)
    classes = int(targets.max()) + 1
    weights = class_weighted(targets, np.ones(len(targets)), False, classes)
    if l2 is None:
        path = fit_path(values, targets, weights, classes, seed=seed)
        l2 = path.l2[path.chosen]
    weight, bias, _ = fit_logistic(values, targets, weights, classes, l2)
    head = make_head("linear", values.shape[1], classes)
    head[-1].weight.data.copy_(torch.from_numpy(weight))  # type: ignore[index]
    head[-1].bias.data.copy_(torch.from_numpy(bias))  # type: ignore[index]
    return head.eval()


def demo_data(folder: Path | None = None) -> Path:
    """scikit-learn's 1,797 scans of handwritten digits as a folder of class folders; written once."""
    from PIL import Image
    from sklearn.datasets import load_digits

    folder = folder or cache_folder() / "demo" / "digits"
    if (folder / "9").is_dir():
        return folder
    digits = load_digits()
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    for number, (picture, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        place = temporary / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(picture * 255 / 16).astype(np.uint8)).save(place / f"{number:04d}.png")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)
    return folder


def nearest_neighbours(run: Run, k: int = 3) -> float:
    """Test accuracy of k nearest neighbours on the raw pixels of a run's data: the demo's yardstick."""
    from sklearn.neighbors import KNeighborsClassifier

    from regraft.modalities.image import load_rgb

    examples = Examples.load(run.path / "examples.parquet")
    silent: Callable[..., None] = lambda *_, **__: None  # noqa: E731
    train, val = examples.part("train"), examples.part("val")
    test = examples.unseal("raw-pixel neighbours, after the run", silent)

    def pixels(paths: Sequence[str]) -> np.ndarray:
        return np.stack([np.asarray(load_rgb(path).convert("L")).ravel() for path in paths]).astype(np.float32)

    known = KNeighborsClassifier(k).fit(pixels(train.paths + val.paths), np.concatenate([train.labels, val.labels]))
    return float(known.score(pixels(test.paths), test.labels))



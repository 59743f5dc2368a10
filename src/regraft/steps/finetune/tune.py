"""Step 6: fine-tune the released layers, gently, from the trained head (LP-FT, Kumar et al. 2022)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from regraft.artifacts import fingerprint
from regraft.backbones import PRECISIONS, Arithmetic, Backbone, pick_arithmetic, plain, seconds_a_step
from regraft.errors import RegraftError
from regraft.evaluation import per_block, refined_log_losses, standard_error
from regraft.inference import batched, prefetch, recall, remember
from regraft.steps.context import Context
from regraft.steps.finetune.prefix import Data, Prefix, cache_prefix
from regraft.training import (
    Batch,
    Batches,
    Checkpoint,
    FreezePlan,
    Judge,
    Learner,
    Listeners,
    Loop,
    Loss,
    Network,
    Schedule,
    State,
    Trained,
    add_adapters,
    class_offset,
    merge_adapters,
    shuffled,
)

MIXTURES = (
    0.25,
    0.5,
    0.75,
    1.0,
)  # shares of the fine-tuned weights; 0, head only, is what the result is compared with
DECODED = 512  # held-out images that are decoded at once and kept while each mixture looks at them
FASTER = {"bias": 5.0, "norm": 5.0, "lora": 5.0}  # times the rate: few parameters have to move further


@dataclass
class Finetuned:
    """The fine-tuned copy of the base, its head, how training went, and (V, K) logits of val where there is
    one.

    `parameters` is how many were trained, those of the head included.
    """

    backbone: Backbone
    head: nn.Module
    trained: Trained
    parameters: int
    logits: np.ndarray | None


def _groups(network: Network, context: Context) -> list[dict[str, Any]]:
    """Parameter groups with layer-wise decay by timm's fine groups; no weight decay on norms and biases."""
    recipe = context.recipe.finetune
    rate = float(recipe.lr) * FASTER.get(str(context.recipe.freeze.strategy), 1.0)
    groups: list[dict[str, Any]] = []
    if any(p.requires_grad for p in network.backbone.parameters()):
        from timm.optim import param_groups_layer_decay

        for group in param_groups_layer_decay(
            network.backbone, recipe.weight_decay, layer_decay=float(recipe.layer_decay)
        ):
            scale = float(group.get("lr_scale", 1.0))
            groups.append(
                {"params": group["params"], "lr": rate * scale, "weight_decay": group["weight_decay"]}
            )
    groups.append({"params": list(network.head.parameters()), "lr": float(recipe.lr), "weight_decay": 0.0})
    return groups


def _batches(data: Data, backbone: Backbone, augment: Any, context: Context) -> Batches:
    """Augmented batches of an epoch; the draw for an example depends on (seed, epoch, example) only, not on
    threads.
    """
    seed, size, device = context.recipe.run.seed, int(context.recipe.finetune.batch_size), context.device

    def epoch_of(epoch: int, skip: int = 0, /) -> Iterator[Batch]:
        def read(index: int) -> np.ndarray:
            rng = np.random.default_rng([seed, epoch, index])
            raw: np.ndarray = backbone.preprocess.host(data.items[index], rng, augment)
            return raw

        for some, raws in prefetch(
            [order.tolist() for order in shuffled(len(data.items), seed, epoch, size)[skip:]], read
        ):
            images = torch.from_numpy(backbone.preprocess.collate(raws)).to(device)
            labels = torch.from_numpy(data.labels[some]).to(device)
            yield images, labels, torch.from_numpy(data.weights[some]).float().to(device)

    return epoch_of


def _val_inputs(
    backbone: Backbone, val: Data, prefix: Prefix | None, context: Context
) -> Iterator[torch.Tensor]:
    """What the network is given of val, a batch at a time: images, or their cached activations."""
    size = context.recipe.run.feature_batch
    if prefix is not None:
        for start in range(0, len(prefix.val), size):
            yield prefix.tensor(prefix.val[start : start + size], context)
        return
    for _, raws in prefetch(batched(val.items, size), backbone.preprocess.host):
        yield torch.from_numpy(backbone.preprocess.collate(raws)).to(context.device)


def _val_logits(network: Network, inputs: Iterator[torch.Tensor], arithmetic: Arithmetic) -> np.ndarray:
    """(V, K) float32 logits as the network stands."""
    network.eval()
    rows = []
    for given in inputs:
        with torch.no_grad(), arithmetic():
            rows.append(network(given).float().cpu().numpy())
    return np.concatenate(rows)


def _arithmetic(
    network: Network,
    plan: FreezePlan,
    backbone: Backbone,
    first: tuple[Any, torch.Tensor, torch.Tensor],
    context: Context,
) -> Arithmetic:
    """The recipe's precision, else the faster by a trial; remembered, so that a resumed run takes the same."""
    recipe, memory = context.recipe.finetune, context.store.folder
    key = ("training", backbone.fingerprint(), str(tuple(first[0].shape)), plan.strategy, str(context.device))
    known = recall(memory, *key) if recipe.precision == "auto" else None
    wanted = str(known["precision"]) if known and known.get("precision") in PRECISIONS else recipe.precision
    arithmetic, speed = pick_arithmetic(network.train(), first[0], wanted)
    if speed:
        remember(memory, *key, found={"precision": arithmetic.precision})
        said = " against ".join(
            f"{rate:.0f} images/s in {name}" for name, rate in sorted(speed.items(), key=lambda i: -i[1])
        )
        context.events.emit("note", text=f"trained in {arithmetic.precision}: {said}")
    recipe.precision = arithmetic.precision  # type: ignore[assignment]
    return arithmetic


def _epochs_in_budget(
    network: Network,
    first: tuple[Any, torch.Tensor, torch.Tensor],
    steps: int,
    val: int,
    epochs: int,
    context: Context,
    arithmetic: Arithmetic,
) -> tuple[int, str]:
    """The epochs that fit the time left, a fifth of which is kept for the last step; and why fewer, if so."""
    left = context.seconds_left
    if left == float("inf"):
        return epochs, ""
    step = seconds_a_step(network, first[0], arithmetic)
    epoch = 1.1 * steps * step + 0.3 * step * val / len(first[1])
    return max(
        0, min(epochs, int(0.8 * left / epoch))
    ), f"an epoch takes about {epoch:.0f} s and the budget leaves {left:.0f} s"


def _between(start: State, end: State, share: float) -> State:
    """The weights a share of the way from one state to another; counters are those of the end."""
    return {
        name: torch.lerp(start[name].to(value), value, share)
        if value.is_floating_point() and share != 1
        else value
        for name, value in end.items()
    }


def _interpolate(network: Network, start: State, trained: Trained, judge: Judge, context: Context) -> None:
    """Leave the network between `start` and what training reached, where val log loss is least.

    WiSE-FT (Wortsman et al. 2022): such a mixture often holds better on new images than either end.
    """
    recipe = context.recipe.finetune
    losses = {1.0: trained.log_loss} if recipe.interpolation == "auto" else {}
    for share in MIXTURES[:-1] if recipe.interpolation == "auto" else (float(recipe.interpolation),):
        network.load_state_dict(_between(start, trained.best, share), strict=False)
        each, said = judge()
        losses[share] = float(each.mean())
        context.events.emit(
            "mixture", step="finetune", share=share, log_loss=losses[share], accuracy=said["val_accuracy"]
        )
    best = min(losses, key=lambda share: losses[share])
    trained.best, trained.log_loss, recipe.interpolation = (
        _between(start, trained.best, best),
        losses[best],
        best,
    )
    network.load_state_dict(trained.best, strict=False)


def _loss(data: Data, classes: int, context: Context) -> Loss:
    """Cross-entropy of (B, K) logits, which are shifted by the classes' shares where the recipe says so."""
    shares = class_offset(data.labels, context.recipe.train.class_weights, classes)
    offset = None if shares is None else torch.from_numpy(shares).to(context.device)

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits if offset is None else logits + offset, labels, reduction="none")

    return loss


def _merged(tuned: Backbone, network: Network) -> State:
    """Merge the adapters into the weights; the state of all that may then differ from the start."""
    merge_adapters(tuned.module)
    return {name: value.clone() for name, value in network.state_dict().items()}


def finetune(
    backbone: Backbone,
    plan: FreezePlan,
    head: nn.Module,
    data: Data,
    val: Data | None,
    context: Context,
    show: Callable[[np.ndarray], None] = lambda _: None,
    checkpoint: Checkpoint | None = None,
) -> Finetuned | None:
    """The fine-tuned model, or None where the budget says so. The given backbone and head stay as they are.

    Every setting of the recipe but precision and interpolation is decided already. Examples of weight 0 are
    not trained on. Without `val` training goes its whole length. Where `checkpoint` holds a training of the
    same data, weights and settings, it goes on from there. `show` receives the first augmented batch, (B,
    size, size, 3) uint8. Raises RegraftError should anything frozen have moved.
    """
    recipe, seed = context.recipe.finetune, context.recipe.run.seed
    epochs, classes = int(recipe.epochs), int(head[-1].out_features)  # type: ignore[index]
    data = data.taught()
    torch.manual_seed(seed)
    tuned = copy.deepcopy(backbone)
    if plan.strategy == "lora":
        add_adapters(tuned.module)
    tuned.module.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    plan.apply(tuned.module)
    before = plan.digest(tuned.module)
    augment = context.modality.views(recipe)
    batches = _batches(data, tuned, augment, context)
    first = next(iter(batches(1)))
    show(first[0].cpu().numpy())  # type: ignore[union-attr]
    nothing = Data((), (), np.zeros(0, np.int64), np.zeros(0))
    prefix = cache_prefix(tuned, plan.boundary, data, val or nothing, augment, epochs, context)
    network = Network(tuned, copy.deepcopy(head), prefix.suffix if prefix else None)
    network.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if prefix is not None:
        batches = prefix.batches(data, context)
        first = next(iter(batches(1)))
    arithmetic = _arithmetic(network, plan, backbone, first, context)
    steps = len(shuffled(len(data.items), 0, 1, int(recipe.batch_size)))
    checkpoint = checkpoint or Checkpoint()
    settings = recipe.model_dump(exclude={"epochs", "interpolation", "refit", "folds"})
    checkpoint.key = fingerprint(
        settings,
        seed,
        plan.strategy,
        before,
        backbone.fingerprint(),
        *data.ids,
        "val",
        *(val.ids if val else ()),
    )
    going, shortage = checkpoint.load(), ""
    if going is not None:
        epochs = int(going["epochs"])
    elif val is not None:
        epochs, shortage = _epochs_in_budget(
            network, first, steps, len(val.items), epochs, context, arithmetic
        )
    recipe.epochs = epochs
    if not epochs:
        recipe.interpolation = 1.0
        context.decide("finetune", "not done", shortage)
        return None
    torch.manual_seed(seed)  # whatever the trials before drew
    origin = Network(backbone, head).state_dict()

    def logits() -> np.ndarray:
        return _val_logits(network, _val_inputs(tuned, val or nothing, prefix, context), arithmetic)

    def judge() -> tuple[np.ndarray, dict[str, float]]:
        held, found = val or nothing, logits()
        each = per_block(refined_log_losses(held.labels, found), held.blocks)
        return each, {"val_accuracy": float((found.argmax(1) == held.labels).mean())}

    moving = sum(p.numel() for p in network.parameters() if p.requires_grad)
    loop = Loop(
        Learner(
            network,
            torch.optim.AdamW(_groups(network, context), fused=context.device.type in ("cpu", "cuda")),
            _loss(data, classes, context),
            math.log(max(2, classes)),
            arithmetic,
        ),
        Schedule(steps, epochs, int(recipe.patience), context.out_of_time),
        batches,
        judge if val else None,
        Listeners(
            tick=lambda **f: context.events.tick(label="fine-tuning", **f),
            epoch=lambda **f: context.events.emit("epoch", step="finetune", **f),
            note=lambda text: context.events.emit("note", text=text),
        ),
        checkpoint,
    )
    trained = loop.run()
    if plan.digest(tuned.module) != before:
        raise RegraftError("something frozen moved during fine-tuning: a fault of regraft, please report it")
    reached, goes_on = (
        trained.log_loss,
        bool(trained.epoch) and trained.stopped != "interrupted" and not context.out_of_time(),
    )
    if plan.strategy == "lora":
        trained.best = _merged(tuned, network)
    if val and goes_on and recipe.interpolation != 1:
        _interpolate(network, origin, trained, judge, context)
    else:
        share = 1.0 if recipe.interpolation == "auto" else float(recipe.interpolation)
        network.load_state_dict(_between(origin, trained.best, share), strict=False)
        if trained.stopped != "interrupted":  # else it is still to be decided, by the run that goes on
            recipe.interpolation = share
    found = logits() if val else None
    network.suffix = None
    _decide(trained, reached, epochs, before, context)
    network.to("cpu")
    return Finetuned(tuned, network.head.eval(), trained, moving, found)


def _decide(trained: Trained, reached: float, epochs: int, digest: str, context: Context) -> None:
    recipe = context.recipe.finetune
    best = f", kept as of epoch {trained.epoch} (val log loss {reached:.3f})" if np.isfinite(reached) else ""
    share, val = recipe.interpolation, f" {trained.log_loss:.3f}" if np.isfinite(trained.log_loss) else ""
    mixed = f", {share:g} of the way there{val}" if share not in (1, "auto") else ""
    why = {
        "length": "went its whole length",
        "patience": f"val log loss clearly worse for {recipe.patience} epochs",
        "budget": "the time was up",
        "interrupted": "stopped by the user",
        "diverged": "the loss fell apart again at an eighth of the rate; the best before is kept",
    }
    text = f"{trained.epochs_run} of {epochs} epochs{best}{mixed}"
    context.decide("finetune", text, why[trained.stopped], frozen_digest=digest)


def worth(
    labels: np.ndarray, before: np.ndarray, after: np.ndarray, blocks: np.ndarray | None = None
) -> tuple[bool, str]:
    """Whether (V, K) val logits after fine-tuning beat those before by more than their noise, and that in
    words.

    Indicative: val also chose the epoch and the mixture. A gain counts above 1.64 standard errors of the
    paired difference in log loss, each at its best temperature: fine-tuning makes a model surer of itself,
    which the temperature mends.
    """
    gains = refined_log_losses(labels, before) - refined_log_losses(labels, after)
    gain, error = float(gains.mean()), standard_error(gains, blocks)
    points = 100 * float((after.argmax(1) == labels).mean() - (before.argmax(1) == labels).mean())
    clear = gain > 1.64 * error
    said = "is worth it here" if clear else "shows no gain outside the noise here"
    return (
        clear,
        f"fine-tuning {said}: log loss on val falls by {gain:.3f} (standard error {error:.3f}), {points:+.1f} points",
    )


def mixtures(
    backbone: Backbone,
    head: nn.Module,
    tuned: Finetuned,
    held: Data,
    context: Context,
    shares: tuple[float, ...] = (0.0, *MIXTURES),
) -> dict[float, np.ndarray]:
    """(N, K) logits of held-out examples by share of the fine-tuned weights, from 0 (head only) to 1; each is
    decoded once.
    """
    start = {name: value.clone() for name, value in Network(backbone, head).state_dict().items()}
    network = Network(tuned.backbone, tuned.head)
    network.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    end = {name: value.clone() for name, value in network.state_dict().items()}
    found: dict[float, list[np.ndarray]] = {share: [] for share in shares}
    for some in _some(held, DECODED):
        inputs = list(_val_inputs(tuned.backbone, some, None, context))
        for share, rows in found.items():
            network.load_state_dict(_between(start, end, share))
            rows.append(_val_logits(network, iter(inputs), plain(context.device)))
    network.to("cpu")
    return {share: np.concatenate(rows) for share, rows in found.items()}


def _some(data: Data, count: int) -> Iterator[Data]:
    """The examples, a bounded number at a time."""
    for start in range(0, len(data.items), count):
        yield data.some(np.arange(start, min(start + count, len(data.items))))

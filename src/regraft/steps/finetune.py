"""Step 6: fine-tune the released layers, gently, from the trained head (LP-FT, Kumar et al. 2022)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from regraft.artifacts import fingerprint
from regraft.backbones import PRECISIONS, Arithmetic, Backbone, pick_arithmetic, seconds_a_step
from regraft.errors import RegraftError
from regraft.evaluation import refined_log_loss
from regraft.features import batched, prefetch, recall, remember
from regraft.modalities.image import Augment
from regraft.steps.context import Context
from regraft.steps.prefix import Data, Prefix, cache_prefix
from regraft.training import Batch, Batches, Checkpoint, FreezePlan, Network, Trained, shuffled, train


@dataclass
class Finetuned:
    """The fine-tuned copy of the base, its head, and how training went."""

    backbone: Backbone
    head: nn.Module
    trained: Trained


CHEAP = 96  # pixels
MIXTURES = (0.25, 0.5, 0.75, 1.0)
CHIRAL = 0.75  # share of pairs whose mirror image is found out


def length(examples: int, size: int) -> int:
    """Epochs by the number of training examples, in the spirit of BiT-HyperRule (Kolesnikov et al. 2020).

    Half as many again of inputs up to 96 pixels, which cost a fifth of native ones.
    """
    found = next((epochs for most, epochs in ((500, 12), (2_000, 8), (10_000, 6), (50_000, 4)) if examples <= most), 2)
    return found * 3 // 2 if size <= CHEAP else found


def batch_size(examples: int) -> int:
    """Small data get more steps an epoch: on handwritten digits 16 reached a val log loss of 0.020, 32 of 0.033."""
    return 16 if examples <= 2_000 else 32


def crop_scale(short_sides: np.ndarray, size: int) -> float:
    """The smallest share a random crop keeps: half of a photograph, more of images smaller than the input.

    Those are framed closely, as scans and icons are: on handwritten digits 0.8 reached a val log loss of 0.033, 0.5 of 0.039.
    """
    return 0.8 if float(np.median(short_sides)) < size else 0.5


def rates(short_sides: np.ndarray, size: int) -> tuple[float, float]:
    """AdamW's peak rate, and its decay a layer towards the input: gentle with photographs, as they were in pre-training.

    Smaller, enlarged images look unlike anything the first layers have learnt, so these move as far as the last ones. On
    held-out parts of training sets (5e-4, 1) ended at a mean log loss of 0.08 on handwritten digits and (1e-3, 0.8) at 0.11,
    at 0.14 and 0.17 on sign digits, 0.86 and 0.92 on CIFAR-10; on flowers (2e-4, 0.8) at 0.22 and (5e-4, 0.7) at 0.27.
    """
    return (5e-4, 1.0) if float(np.median(short_sides)) < size else (2e-4, 0.8)


def mirror_allowed(plain: np.ndarray, mirrored: np.ndarray) -> tuple[bool, str]:
    """Whether mirror images look like the data, by (N, D) features of images and of their mirror images.

    A linear map is asked which of each pair was mirrored (ridge regression on the differences, leave one out): visual chirality
    (Lin et al. 2020). Where it knows in three cases of four, as with writing and signs, mirror images do not occur. It was
    right in 0.47 to 0.56 of flowers, insects, textures, leaves and CIFAR-10, 0.68 of photographed packages, 0.81 of
    handwritten digits, 0.94 of hand signs.
    """
    difference = plain.astype(np.float64) - mirrored
    difference /= np.sqrt((difference**2).mean(axis=0)) + 1e-6
    kernel = difference @ difference.T
    inverse = np.linalg.inv(kernel + (np.trace(kernel) / len(kernel) + 1e-9) * np.eye(len(kernel)))
    known = float((1 - inverse.sum(axis=1) / np.diag(inverse) > 0).mean())
    verb = "as good as those of the data" if known < CHIRAL else "unlike the data"
    return known < CHIRAL, f"{verb}; which of two is mirrored shows in {known:.0%} of pairs, by chance in 50%"


def _groups(network: Network, context: Context) -> list[dict[str, Any]]:
    """Parameter groups with layer-wise decay by timm's fine groups; no weight decay on norms and biases."""
    recipe = context.recipe.finetune
    groups: list[dict[str, Any]] = []
    if any(p.requires_grad for p in network.backbone.parameters()):
        from timm.optim import param_groups_layer_decay

        for group in param_groups_layer_decay(network.backbone, recipe.weight_decay, layer_decay=float(recipe.layer_decay)):
            scale = float(group.get("lr_scale", 1.0))
            groups.append({"params": group["params"], "lr": float(recipe.lr) * scale, "weight_decay": group["weight_decay"]})
    groups.append({"params": list(network.head.parameters()), "lr": float(recipe.lr), "weight_decay": 0.0})
    return groups


def _batches(data: Data, backbone: Backbone, augment: Augment, context: Context) -> Batches:
    """Augmented batches of an epoch; the draw for an example depends on (seed, epoch, example) only, not on threads."""
    seed, size, device = context.recipe.run.seed, int(context.recipe.finetune.batch_size), context.device

    def epoch_of(epoch: int, skip: int = 0, /) -> Iterator[Batch]:
        def read(index: int) -> np.ndarray:
            return backbone.preprocess.host(data.items[index], np.random.default_rng([seed, epoch, index]), augment)

        for some, raws in prefetch([order.tolist() for order in shuffled(len(data.items), seed, epoch, size)[skip:]], read):
            images = torch.from_numpy(backbone.preprocess.collate(raws)).to(device)
            labels = torch.from_numpy(data.labels[some]).to(device)
            yield images, labels, torch.from_numpy(data.weights[some]).float().to(device)

    return epoch_of


def _val_inputs(backbone: Backbone, val: Data, prefix: Prefix | None, context: Context) -> Iterator[torch.Tensor]:
    """What the network is given of val, a batch at a time: images, or their cached activations."""
    size = context.recipe.run.feature_batch
    if prefix is not None:
        for start in range(0, len(prefix.val), size):
            yield prefix.tensor(prefix.val[start : start + size], context)
        return
    for _, raws in prefetch(batched(val.items, size), backbone.preprocess.host):
        yield torch.from_numpy(backbone.preprocess.collate(raws)).to(context.device)


def _val_loss(
    network: Network, inputs: Iterator[torch.Tensor], labels: np.ndarray, arithmetic: Arithmetic
) -> tuple[float, float]:
    """(refined log loss, accuracy) on val as the network stands."""
    network.eval()
    rows = []
    for given in inputs:
        with torch.no_grad(), arithmetic():
            rows.append(network(given).float().cpu().numpy())
    logits = np.concatenate(rows)
    return refined_log_loss(labels, logits), float((logits.argmax(1) == labels).mean())


def _arithmetic(network: Network, plan: FreezePlan, backbone: Backbone, first: Batch, context: Context) -> Arithmetic:
    """The recipe's precision, else the faster by a trial; remembered, so that a resumed run takes the same."""
    recipe, memory = context.recipe.finetune, context.store.folder
    key = ("training", backbone.provenance.sha256, str(tuple(first[0].shape)), plan.strategy, context.device.type)
    known = recall(memory, *key) if recipe.precision == "auto" else None
    wanted = str(known["precision"]) if known and known.get("precision") in PRECISIONS else recipe.precision
    arithmetic, speed = pick_arithmetic(network.train(), first[0], first[1], wanted)
    if speed:
        remember(memory, *key, found={"precision": arithmetic.precision})
        said = " against ".join(f"{rate:.0f} images/s in {name}" for name, rate in sorted(speed.items(), key=lambda i: -i[1]))
        context.events.emit("note", text=f"trained in {arithmetic.precision}: {said}")
    recipe.precision = arithmetic.precision  # type: ignore[assignment]
    return arithmetic


def _epochs_in_budget(
    network: Network, first: Batch, steps: int, val: int, epochs: int, context: Context, arithmetic: Arithmetic
) -> tuple[int, str]:
    """The epochs that fit the time left, a fifth of which is kept for the last step; and why fewer, if so."""
    left = context.seconds_left
    if left == float("inf"):
        return epochs, ""
    step = seconds_a_step(network, first[0], first[1], arithmetic)
    epoch = 1.1 * steps * step + 0.3 * step * val / len(first[1])
    return max(0, min(epochs, int(0.8 * left / epoch))), f"an epoch takes about {epoch:.0f} s and the budget leaves {left:.0f} s"


def _interpolate(
    network: Network, start: dict[str, torch.Tensor], trained: Trained, val_loss: Callable[[], tuple[float, float]],
    context: Context,
) -> float:  # fmt: skip
    """Leave the network between `start` and what training reached, where val log loss is least; gives the share of the latter.

    WiSE-FT (Wortsman et al. 2022): such a mixture often holds better on new images than either end. The head-only end is not
    tried here: it is what the fine-tuned model is compared with.
    """
    recipe = context.recipe.finetune
    shares = MIXTURES if recipe.interpolation == "auto" else (float(recipe.interpolation),)

    def put(share: float) -> None:
        mixed = {
            name: torch.lerp(start[name].to(end), end, share) if end.is_floating_point() else end
            for name, end in trained.best.items()
        }
        network.load_state_dict(trained.best if share == 1 else mixed, strict=False)

    losses: dict[float, float] = {}
    for share in shares:
        if share == 1:
            losses[share] = trained.log_loss
            continue
        put(share)
        losses[share], accuracy = val_loss()
        context.events.emit("mixture", step="finetune", share=share, log_loss=losses[share], accuracy=accuracy)
    best = min(losses, key=lambda share: losses[share])
    put(best)
    recipe.interpolation, trained.log_loss = best, losses[best]
    return best


def finetune(
    backbone: Backbone, plan: FreezePlan, head: nn.Module, data: Data, val: Data, context: Context,
    show: Callable[[np.ndarray], None], checkpoint: Checkpoint | None = None,
) -> Finetuned | None:  # fmt: skip
    """The fine-tuned model, or None where the recipe or the budget says so. The given backbone and head stay as they are.

    Where `checkpoint` holds a training of the same data, weights and settings, it goes on from there. `show` receives the
    first augmented batch, (B, size, size, 3) uint8. Raises RegraftError should anything frozen have moved.
    """
    recipe = context.recipe.finetune
    if recipe.epochs == "auto":
        recipe.epochs = 0 if plan.strategy == "head" else length(len(data.items), backbone.preprocess.size)
    if recipe.patience == "auto":  # a cosine gains the most at its end: stopping early stops short of that
        recipe.patience = max(4, -(-int(recipe.epochs) // 2))
    if recipe.batch_size == "auto":
        recipe.batch_size = batch_size(len(data.items))
    if not recipe.epochs:
        context.decide("finetune", "not done", "the head alone was asked for")
        return None
    torch.manual_seed(context.recipe.run.seed)
    tuned = copy.deepcopy(backbone)
    tuned.module.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    plan.apply(tuned.module)
    before = plan.digest(tuned.module)
    augment = Augment(float(recipe.crop_scale), recipe.mirror is True, recipe.colour)
    batches = _batches(data, tuned, augment, context)
    first = next(iter(batches(1)))
    show(first[0].cpu().numpy())
    prefix = cache_prefix(tuned, plan.boundary, data, val, augment, int(recipe.epochs), context)
    network = Network(tuned, copy.deepcopy(head), prefix.suffix if prefix else None)
    network.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if prefix is not None:
        batches = prefix.batches(data, context)
        first = next(iter(batches(1)))
    arithmetic = _arithmetic(network, plan, tuned, first, context)
    steps = len(shuffled(len(data.items), 0, 1, int(recipe.batch_size)))
    checkpoint = checkpoint or Checkpoint()
    checkpoint.key = fingerprint(recipe.model_dump(exclude={"epochs", "interpolation"}), context.recipe.run.seed, plan.strategy,
                                 before, backbone.provenance.sha256, *data.ids, *val.ids)  # fmt: skip
    going = checkpoint.load()
    if going is not None:
        recipe.epochs, shortage = int(going[1]["epochs"]), ""
    else:
        recipe.epochs, shortage = _epochs_in_budget(network, first, steps, len(val.items), recipe.epochs, context, arithmetic)
    if not recipe.epochs:
        recipe.interpolation = 1.0
        context.decide("finetune", "not done", shortage)
        return None
    fused = context.device.type in ("cpu", "cuda")
    torch.manual_seed(context.recipe.run.seed)  # whatever the trials before drew
    origin = Network(backbone, head).state_dict()

    def val_loss() -> tuple[float, float]:
        return _val_loss(network, _val_inputs(tuned, val, prefix, context), val.labels, arithmetic)

    trained = train(
        network, torch.optim.AdamW(_groups(network, context), fused=fused), batches, steps, recipe.epochs,
        val_loss, warmup=recipe.warmup, patience=int(recipe.patience), smoothing=recipe.label_smoothing,
        tick=lambda **f: context.events.tick(label="fine-tuning", **f),
        on_epoch=lambda **f: context.events.emit("epoch", step="finetune", **f), out_of_time=context.out_of_time,
        numbers=arithmetic, checkpoint=checkpoint,
    )  # fmt: skip
    reached = trained.log_loss
    share = 1.0
    if trained.epoch and trained.stopped != "interrupted" and not context.out_of_time():
        share = _interpolate(network, origin, trained, val_loss, context)
    recipe.interpolation = share
    if plan.digest(tuned.module) != before:
        raise RegraftError("something frozen moved during fine-tuning: a fault of regraft, please report it")
    network.suffix = None
    context.decide(
        "finetune", f"{trained.epochs_run} of {recipe.epochs} epochs, best after {trained.epoch} (val log loss {reached:.3f})"
        + (f", {share:g} of the way there {trained.log_loss:.3f}" if share != 1 else ""),
        {"length": "went its whole length", "patience": f"no better val log loss in {recipe.patience} epochs",
         "budget": "the time was up", "interrupted": "stopped by the user",
         "diverged": "the loss was no number any more; the best before is kept"}[trained.stopped],
        frozen_digest=before,
    )  # fmt: skip
    network.to("cpu")
    return Finetuned(tuned, network.head.eval(), trained)

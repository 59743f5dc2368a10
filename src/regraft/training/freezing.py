"""Freezing: which parameters may move, and how the rest is kept still, buffers too."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from regraft.backbones import Stage
from regraft.errors import UsageError

STRATEGIES = "head, last-K, half, full, norm, bias, lora, or a list of stage names"
ADAPTER = ".lora_"  # in the names of the parameters that training.adapters adds


def _stay_in_eval(module: nn.Module, args: object) -> None:
    module.training = False


@dataclass(frozen=True)
class FreezePlan:
    """What a strategy means for one module. `boundary` is the first stage with anything released."""

    strategy: str
    trainable: frozenset[str]
    eval_modules: frozenset[str]
    boundary: int

    def apply(self, module: nn.Module) -> None:
        """Set requires_grad, and keep `eval_modules` in eval mode whatever calls `.train()`: a hook before
        each forward.
        """
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in self.trainable)
        for name, child in module.named_modules():
            for handle, hook in list(child._forward_pre_hooks.items()):
                if hook is _stay_in_eval:
                    del child._forward_pre_hooks[handle]
            if name in self.eval_modules:
                child.eval()
                child.register_forward_pre_hook(_stay_in_eval)

    def digest(self, module: nn.Module) -> str:
        """SHA-256 over every frozen parameter and every buffer of `eval_modules`."""
        frozen: dict[str, torch.Tensor] = {
            name: p for name, p in module.named_parameters() if name not in self.trainable
        }
        for name, buffer in module.named_buffers():
            if name.rpartition(".")[0] in self.eval_modules:
                frozen[name] = buffer
        digest = hashlib.sha256()
        for name, tensor in sorted(frozen.items()):
            digest.update(name.encode())
            raw = tensor.detach().cpu().contiguous().view(-1)
            digest.update(raw.view(torch.uint8).numpy().tobytes() if raw.numel() else b"")
        return digest.hexdigest()


def is_norm(module: nn.Module) -> bool:
    """True for a normalisation layer of torch or timm, by its kind."""
    return (
        bool(re.search(r"(norm|rms)", type(module).__name__.lower()))
        and not any(True for _ in module.children())
    ) or (isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)))


def plan_freeze(
    module: nn.Module, stages: Sequence[Stage], strategy: str | Sequence[str], norm_statistics: str = "frozen"
) -> FreezePlan:
    """The plan of a strategy. Raises UsageError for one that is unknown, with the stages there are.

    "lora" releases adapters that are there already.
    """
    text = strategy if isinstance(strategy, str) else ",".join(strategy)
    norms = {name for name, child in module.named_modules() if is_norm(child)}
    trainable = _trainable(module, stages, text, _released(stages, strategy), norms)
    with_statistics = {n for n, m in module.named_modules() if getattr(m, "running_mean", None) is not None}
    frozen_stages = [s for s in stages if not trainable.intersection(s.parameters)]
    resting = {name for stage in frozen_stages for name in stage.modules}
    resting |= {n for n in norms if not any(p.startswith(f"{n}.") for p in trainable)}
    if norm_statistics == "frozen":
        resting |= with_statistics
    resting |= {n for n in with_statistics if not any(p.startswith(f"{n}.") for p in trainable)}
    if not trainable:
        resting |= {name for name, _ in module.named_modules()}
    moving = [i for i, stage in enumerate(stages) if trainable.intersection(stage.parameters)]
    if text == "lora" and trainable:  # adapters are everywhere, and no stage's own
        moving = [0]
    return FreezePlan(text, frozenset(trainable), frozenset(resting), moving[0] if moving else len(stages))


def _released(stages: Sequence[Stage], strategy: str | Sequence[str]) -> set[int]:
    """The stages that a strategy releases as a whole, by their number. Raises UsageError for an unknown
    one.
    """
    count, names = len(stages), [stage.name for stage in stages]
    if not isinstance(strategy, str):
        unknown = [name for name in strategy if name not in names]
        if unknown or not strategy:
            raise UsageError(
                f"no stage is called {', '.join(unknown) or 'nothing'}; there are {', '.join(names)}."
            )
        return {number for number, name in enumerate(names) if name in set(strategy)}
    if strategy in names:
        return {names.index(strategy)}
    later = {"head": 0, "norm": 0, "bias": 0, "lora": 0, "full": count, "half": count // 2}
    if strategy in later:
        return set(range(count - later[strategy], count))
    last = re.fullmatch(r"last-(\d+)", strategy)
    if last is None:
        raise UsageError(f"the freezing strategy {strategy!r} is none of {STRATEGIES} ({', '.join(names)}).")
    if not 1 <= int(last[1]) <= count:
        raise UsageError(f"{strategy}: the backbone has {count} stages ({', '.join(names)}).")
    return set(range(count - int(last[1]), count))


def _trainable(
    module: nn.Module, stages: Sequence[Stage], strategy: str, released: set[int], norms: set[str]
) -> set[str]:
    """The names of the parameters that may move: those of the released stages, or of one kind anywhere."""
    everything = [name for name, _ in module.named_parameters()]
    if strategy == "norm":
        names = {name for name in everything if name.rpartition(".")[0] in norms}
    elif strategy == "bias":
        names = {name for name in everything if name.rpartition(".")[2] == "bias"}
    elif strategy == "lora":
        names = {name for name in everything if ADAPTER in name}
    elif strategy == "full":
        names = set(everything)
    else:
        names = {name for number in released for name in stages[number].parameters}
    if not names and strategy not in ("head", "lora"):
        raise UsageError(
            f"{strategy} releases nothing: the backbone has no such parameters. "
            "Freeze it with head, or name another."
        )
    return names

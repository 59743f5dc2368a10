"""Low-rank adapters (LoRA, Hu et al. 2021) through peft: injected before training, merged into the weights
after it.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from regraft.errors import UsageError

RANK = 8
ALPHA = 16.0  # the update is scaled by ALPHA / RANK


def add_adapters(module: nn.Module) -> int:
    """Wrap every linear layer and every convolution that is not grouped; gives how many.

    Raises UsageError where peft is not installed or no layer takes an adapter.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UsageError(
            "LoRA needs peft: pip install 'regraft[lora]', or choose another freezing strategy."
        ) from None
    targets = [
        name
        for name, child in module.named_modules()
        if isinstance(child, nn.Linear) or (isinstance(child, nn.Conv2d) and child.groups == 1)
    ]
    if not targets:
        raise UsageError(
            "LoRA finds no linear layer or ungrouped convolution in this backbone; choose another strategy."
        )
    inject_adapter_in_model(LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets), module)
    return len(targets)


def merge_adapters(module: nn.Module) -> None:
    """Add what the adapters learnt to the weights they adapt, and take them off again."""
    wrapped = [(name, child) for name, child in module.named_modules() if _is_wrapper(child)]
    for name, child in wrapped:
        child.merge()
        parent, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(parent), leaf, child.get_base_layer())


def _is_wrapper(module: Any) -> bool:
    return hasattr(module, "get_base_layer") and hasattr(module, "merge")

"""Weights between those of the head alone and those that fine-tuning reached (WiSE-FT, Wortsman et al.
2022).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from regraft.backbones import Arithmetic, Backbone, one_ahead, plain, tensors
from regraft.data.part import Part
from regraft.inference import Feed
from regraft.steps.context import Context
from regraft.training import Inputs, Network, State

if TYPE_CHECKING:
    from regraft.steps.finetune.tune import Finetuned

DECODED = 512  # held-out examples that are decoded at once and kept while each mixture looks at them
Placed = tuple[np.ndarray, Inputs]  # (B,) positions of examples, and what the network is given of them
SHARES = (0.25, 0.5, 0.75, 1.0)  # of the way to the fine-tuned weights; 0 is the head alone


def between(start: State, end: State, share: float) -> State:
    """The weights a share of the way from one state to another; counters are those of the end.

    Such a mixture often holds better on new examples than either end.
    """
    return {
        name: torch.lerp(start[name].to(value), value, share)
        if value.is_floating_point() and share != 1
        else value
        for name, value in end.items()
    }


def prepared(backbone: Backbone, held: Part, context: Context) -> Iterator[Placed]:
    """Examples held out as the network is given them, with their positions, in batches of one shape."""
    with Feed(device=context.device, reads=len(held)) as feed:
        groups = feed.groups(enumerate(held.items), backbone.preprocess, context.feature_batch)
        yield from one_ahead(((np.array(rows), tensors(batch())) for rows, batch in groups), context.device)


def logits_of(network: Network, inputs: Iterable[Placed], arithmetic: Arithmetic) -> np.ndarray:
    """(N, K) float32 logits of N examples, in the order of their positions, as the network stands; of none,
    no rows.
    """
    network.eval()
    rows, logits = [], []
    for places, given in inputs:
        with torch.no_grad(), arithmetic():
            logits.append(network(given).float().cpu().numpy())
        rows.append(places)
    if not rows:
        return np.zeros((0, 0), dtype=np.float32)
    return np.concatenate(logits)[np.argsort(np.concatenate(rows))]


def mixtures(
    backbone: Backbone, head: nn.Module, tuned: Finetuned, held: Part, context: Context
) -> dict[float, np.ndarray]:
    """(N, K) logits of held-out examples by the share of the fine-tuned weights, from 0 (head only) to 1.

    Each example is decoded once.
    """
    start = {name: value.clone() for name, value in Network(backbone, head).state_dict().items()}
    network = Network(tuned.backbone, tuned.head)
    network.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    end = {name: value.clone() for name, value in network.state_dict().items()}
    outputs: dict[float, list[np.ndarray]] = {share: [] for share in (0.0, *SHARES)}
    for begin in range(0, len(held.items), DECODED):
        decoded = held.some(np.arange(begin, min(begin + DECODED, len(held.items))))
        inputs = list(prepared(tuned.backbone, decoded, context))
        for share, rows in outputs.items():
            network.load_state_dict(between(start, end, share))
            rows.append(logits_of(network, inputs, plain(context.device)))
        done = min(begin + DECODED, len(held.items))
        told = {"done": done, "total": len(held.items), "passes": len(outputs) * (done - begin)}
        context.events.tick(label="mixtures of weights", **told)
    network.to("cpu")
    return {share: np.concatenate(rows) for share, rows in outputs.items()}

"""The words of a text beside the network: a linear model of the tokens that the network sees, of pairs and of
threes of these.

It takes the very batch that the network takes, and is a module of few plain operations, so it is run, traced
and exported with the network, and its outputs are added to the network's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from regraft.modalities.text.preprocess import PADDING
from regraft.modalities.text.sparse import solved

if TYPE_CHECKING:
    from scipy import sparse

    from regraft.tasks import Task

LONGEST = 3  # tokens of a piece
# A piece is known by two hashes: the first is its place in a table, the second tells it from others of that
# place. SLOTS * FACTOR + a token's number stays below 2^31: engines hold whole numbers in 32 bits
SLOTS, FACTORS = 1 << 18, (7_919, 6_151)
COMMONEST, MOST = 30_000, 1_000_000  # pieces that are known, and their weights for all answers, at most
FEWEST = 2  # texts that a piece must be in
AT_ONCE = 256  # texts whose pieces are taken at once
STRENGTH = 10.0  # the inverse of the L2 penalty, as scikit-learn has it (docs/decisions.md)
LEAST = 1e-6  # of a squared length, so that it divides


def pieces(batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Places in the table and second hashes, both (B, LONGEST x L) int64, of the pieces of a batch's texts,
    and whether a piece holds tokens only.
    """
    # Windows of a long text, (B, W, n), follow one another
    ids, there = batch["ids"].flatten(1), batch["mask"].flatten(1)
    found: list[tuple[torch.Tensor, ...]] = [(ids & (SLOTS - 1), ids & (SLOTS - 1), there != 0)]
    for ahead in range(1, LONGEST):
        following = nn.functional.pad(ids, (0, ahead))[:, ahead:]
        whole = found[-1][2] & (nn.functional.pad(there, (0, ahead))[:, ahead:] != 0)
        hashes = (
            (before * factor + following) & (SLOTS - 1)
            for before, factor in zip(found[-1], FACTORS, strict=False)
        )
        found.append((*hashes, whole))
    slots, checks, known = (torch.cat(each, dim=1) for each in zip(*found, strict=True))
    return slots, checks, known


class Grams(nn.Module):
    """A batch's `ids` and `mask` to (B, K) logits: TF-IDF of the pieces that are known, and a linear model.

    Each occurrence of a piece counts its IDF; the length of a text's vector is taken as if all its pieces
    were different, which spares counting them.
    """

    rows: torch.Tensor
    checks: torch.Tensor
    hashes: torch.Tensor
    idf: torch.Tensor
    weights: torch.Tensor
    bias: torch.Tensor
    table: torch.Tensor

    def __init__(self, hashes: np.ndarray, idf: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> None:
        """`hashes` (R, 2) of the pieces, their `idf` (R,), `weights` (R, K) of TF-IDF and `bias` (K,)."""
        super().__init__()
        rows, checks = np.zeros(SLOTS, dtype=np.int64), np.full(SLOTS, -1, dtype=np.int64)
        rows[hashes[:, 0]] = 1 + np.arange(len(hashes))
        checks[hashes[:, 0]] = hashes[:, 1]
        self.register_buffer("rows", torch.from_numpy(rows), persistent=False)
        self.register_buffer("checks", torch.from_numpy(checks), persistent=False)
        self.register_buffer("hashes", torch.from_numpy(hashes.astype(np.int32)))
        self.register_buffer("idf", torch.from_numpy(np.ascontiguousarray(idf, dtype=np.float32)))
        self.register_buffer("weights", torch.from_numpy(np.ascontiguousarray(weights, dtype=np.float32)))
        self.register_buffer("bias", torch.from_numpy(np.ascontiguousarray(bias, dtype=np.float32)))
        # Row 0 is that of pieces that are not known
        table = torch.cat([self.idf[:, None] * self.weights, self.idf[:, None] ** 2], dim=1)
        self.register_buffer("table", nn.functional.pad(table, (0, 0, 1, 0)), persistent=False)

    def forward(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(B, K) float32."""
        slots, checks, whole = pieces(batch)
        known = whole & (self.checks[slots] == checks)
        sums = self.table[torch.where(known, self.rows[slots], 0)].sum(dim=1)
        return sums[:, :-1] / sums[:, -1:].clamp(min=LEAST).sqrt() + self.bias

    def scaled(self, factor: float, offset: np.ndarray | None = None) -> Grams:
        """One whose logits are those less an `offset` (K,), times a factor."""
        hashes, idf, weights, bias = (
            values.numpy() for values in (self.hashes, self.idf, self.weights, self.bias)
        )
        return Grams(hashes, idf, factor * weights, factor * (bias if offset is None else bias - offset))


def learnt(raws: Sequence[np.ndarray], targets: np.ndarray, weights: np.ndarray, task: Task) -> Grams:
    """TF-IDF of the commonest pieces of N prepared texts, and a linear model of it."""
    from scipy import sparse

    counts, hashes = _counted(raws)
    texts = np.bincount(counts.indices, minlength=len(hashes))
    order = np.argsort(-texts, kind="stable")
    order = order[: max(1, int((texts >= FEWEST).sum()))]
    # Of pieces with the same place in the table the commonest is known
    first = np.sort(np.unique(hashes[order, 0], return_index=True)[1])
    kept = order[first[: min(COMMONEST, MOST // task.outputs)]]
    idf = (np.log((1 + len(raws)) / (1 + texts[kept])) + 1).astype(np.float32)
    lengths = np.sqrt(np.maximum(counts[:, kept] @ idf**2, LEAST)).astype(np.float32)
    vectors = sparse.csr_matrix(sparse.diags(1 / lengths) @ counts[:, kept] @ sparse.diags(idf))
    l2 = 1 / (STRENGTH * len(raws))
    return Grams(hashes[kept], idf, *solved(vectors, targets, weights, task.link, task.outputs, l2))


def restored(state: Mapping[str, torch.Tensor]) -> Grams:
    """The module whose state was kept."""
    return Grams(*(state[name].numpy() for name in ("hashes", "idf", "weights", "bias")))


def _counted(raws: Sequence[np.ndarray]) -> tuple[sparse.csr_matrix, np.ndarray]:
    """(N, M) how often N prepared texts have each of M pieces, and (M, 2) the hashes of these."""
    from scipy import sparse

    texts, keys = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for start in range(0, len(raws), AT_ONCE):
        some = [raw.ravel() for raw in raws[start : start + AT_ONCE]]
        ids = np.full((len(some), max(map(len, some))), PADDING, dtype=np.int64)
        for row, raw in zip(ids, some, strict=True):
            row[: len(raw)] = raw
        mask = ids != PADDING
        batch = {"ids": torch.from_numpy(ids * mask), "mask": torch.from_numpy(mask.astype(np.int64))}
        slots, checks, whole = (each.numpy() for each in pieces(batch))
        texts.append(start + np.nonzero(whole)[0])
        keys.append((slots * SLOTS + checks)[whole])
    found, columns = np.unique(np.concatenate(keys), return_inverse=True)
    cells = np.ones(len(columns), dtype=np.float32), (np.concatenate(texts), columns.reshape(-1))
    counts = sparse.csr_matrix(cells, shape=(len(raws), len(found)))
    return counts, np.stack([found // SLOTS, found % SLOTS], axis=1)

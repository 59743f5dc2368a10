"""How far the answer for a JPEG's path is from that for its pixels, as docs/performance.md says.

    python benchmarks/drafts.py DATA        # a folder of image sets, such as $REGRAFT_DATA

A head on the packaged backbone is fitted on features of paths; then each picture is answered by its path
and by its decoded pixels. The pictures of these sets are small: the input is small too, so that files are
decoded smaller.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression

import regraft
from regraft.evaluation import softmax
from regraft.modalities import read_source

SETS = (("dtd10", 48), ("dtd10", 32), ("flowers5", 24))


def main(data: Path) -> None:
    print(
        "| set, input | pictures | grey levels, mean | probability, mean | 99 % | largest | other answers |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, size in SETS:
        rows = [
            row for row in read_source(data / name).rows if row.source.lower().endswith((".jpg", ".jpeg"))
        ]
        rows = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
        base = regraft.backbone("packaged:efficientnet_lite0", size=size)
        paths = [str(data / name / row.source) for row in rows]
        pixels = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
        raws = [
            (base.preprocess.host(path).astype(int), base.preprocess.host(p))
            for path, p in zip(paths, pixels, strict=True)
        ]
        drafted = np.array([(a != b).any() for a, b in raws])
        grey = np.mean([np.abs(a - b).mean() for (a, b), used in zip(raws, drafted, strict=True) if used])
        one, other = regraft.extract(base, paths), regraft.extract(base, pixels)
        head = LogisticRegression(C=0.1, max_iter=2000).fit(one, [row.label for row in rows])
        shares = [
            softmax(
                head.decision_function(f)
                if len(head.classes_) > 2
                else head.decision_function(f)[:, None] * [[0, 1]]
            )
            for f in (one, other)
        ]
        gap = np.abs(shares[0] - shares[1]).max(axis=1)[drafted]
        changed = (shares[0].argmax(1) != shares[1].argmax(1))[drafted].sum()
        print(
            f"| {name}, {size} | {drafted.sum()} | {grey:.2f} | {gap.mean():.4f} "
            f"| {np.quantile(gap, 0.99):.4f} | {gap.max():.4f} | {changed} |"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""The others, each as its own documentation has it, on the same images and weights; one process a call, one
JSON line out.

    python benchmarks/peers.py extract FOLDER            the plain timm loop: DataLoader, float32, NCHW
    python benchmarks/peers.py probe FOLDER              the same features, then a linear probe
    python benchmarks/peers.py steps FOLDER RELEASED     steps of a plain PyTorch loop, from stage RELEASED on
    python benchmarks/peers.py fastai FOLDER             fastai's vision_learner and fine_tune(5)
    python benchmarks/peers.py trainer FOLDER            transformers' Trainer, its example's settings

FOLDER holds train/ and test/. None of them touches the allocator, threads or memory formats: that is how
they are used.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

STARTED = time.perf_counter()

import numpy as np  # noqa: E402

import regraft.backbones  # noqa: E402, F401  (lets torchvision be imported beside a CPU torch)

SIZE = 224


def weights(classes: int = 0):
    """timm's tf_efficientnet_lite0 with the packaged weights."""
    from regraft.backbones import obtain_weights

    module = obtain_weights("packaged:efficientnet_lite0").module
    module.reset_classifier(classes)
    return module


def loader(folder: Path, split: str, training: bool = False, batch: int = 32):
    """timm's own transform and torch's DataLoader."""
    import timm
    import torch
    from torchvision.datasets import ImageFolder

    config = timm.data.resolve_data_config({}, model=weights())
    transform = timm.data.create_transform(**config, is_training=training)
    return torch.utils.data.DataLoader(
        ImageFolder(str(folder / split), transform), batch, shuffle=training, num_workers=2
    )


def features(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """(N, 1280) float32 and (N,) labels."""
    import torch

    model, rows, labels = weights().eval(), [], []
    with torch.no_grad():
        for images, targets in loader(folder, split):
            rows.append(model(images).numpy())
            labels.append(targets.numpy())
    return np.concatenate(rows), np.concatenate(labels)


def extract(folder: Path) -> dict:
    """Seconds of features of train alone, imports and weights not counted."""
    weights()
    began = time.perf_counter()
    found, _ = features(folder, "train")
    seconds = time.perf_counter() - began
    return {"images": len(found), "seconds": seconds}


def probe(folder: Path) -> dict:
    """C chosen on a stratified fifth, refitted on all, scored on test."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split

    (x, y), (unseen, truth) = features(folder, "train"), features(folder, "test")
    a, b, c, d = train_test_split(x, y, test_size=0.2, stratify=y, random_state=0)
    options = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    best = max(options, key=lambda value: LogisticRegression(C=value, max_iter=2000).fit(a, c).score(b, d))
    return {"accuracy": float(LogisticRegression(C=best, max_iter=2000).fit(x, y).score(unseen, truth))}


def steps(folder: Path, released: str) -> dict:
    """images/s of training steps with everything from the stage `released` on ("all": the whole) given
    gradients.
    """
    import torch

    model = weights(classes=10)
    names = [name for name, _ in model.named_children()]
    seen = released == "all"
    for name, parameter in model.named_parameters():
        seen = (
            seen
            or name.startswith(released)
            or (released.startswith("blocks") and name.split(".")[0] in names[3:])
        )
        parameter.requires_grad_(seen)
    model.train()
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    images, labels = torch.randn(32, 3, SIZE, SIZE), torch.randint(0, 10, (32,))
    times = []
    for _ in range(6):
        began = time.perf_counter()
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        times.append(time.perf_counter() - began)
    return {"examples_per_second": 32 / float(np.median(times[1:]))}


def fastai(folder: Path) -> dict:
    """Its defaults: a fifth of train held back for validation, Resize and aug_transforms, fine_tune(5)."""
    from fastai.metrics import accuracy
    from fastai.vision.all import (
        CategoryBlock,
        DataBlock,
        ImageBlock,
        Normalize,
        RandomSplitter,
        Resize,
        aug_transforms,
        get_image_files,
        parent_label,
        vision_learner,
    )

    block = DataBlock(
        (ImageBlock, CategoryBlock),
        get_items=get_image_files,
        get_y=parent_label,
        splitter=RandomSplitter(0.2, seed=0),
        item_tfms=Resize(SIZE),
        batch_tfms=[*aug_transforms(), Normalize.from_stats([0.5] * 3, [0.5] * 3)],
    )
    loaders = block.dataloaders(folder / "train", bs=64, num_workers=2)
    learner = vision_learner(
        loaders, "tf_efficientnet_lite0", metrics=accuracy, pretrained=False, normalize=False
    )
    learner.model[0].model.load_state_dict(weights().state_dict(), strict=False)
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(5)
    seconds = time.perf_counter() - STARTED
    files = get_image_files(folder / "test")
    shares, _ = learner.get_preds(dl=loaders.test_dl(files))
    right = [
        loaders.vocab[int(row.argmax())] == parent_label(file)
        for row, file in zip(shares, files, strict=True)
    ]
    return {"accuracy": float(np.mean(right)), "seconds": seconds}


def trainer(folder: Path) -> dict:
    """run_image_classification.py's defaults: AdamW 5e-5 falling linearly, batch 8, 5 epochs here as for
    fastai.
    """
    import torch
    from transformers import Trainer, TrainingArguments

    train, test = (loader(folder, split, split == "train").dataset for split in ("train", "test"))

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = weights(len(train.classes))

        def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            logits = self.network(pixel_values)
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    def collate(rows: list) -> dict[str, torch.Tensor]:
        return {
            "pixel_values": torch.stack([x for x, _ in rows]),
            "labels": torch.tensor([y for _, y in rows]),
        }

    arguments = TrainingArguments(
        "/tmp/regraft-bench-trainer",
        num_train_epochs=5,
        per_device_train_batch_size=8,
        dataloader_num_workers=2,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    run = Trainer(Wrapped(), arguments, data_collator=collate, train_dataset=train)
    run.train()
    seconds = time.perf_counter() - STARTED
    found = run.predict(test)
    return {"accuracy": float((found.predictions.argmax(1) == found.label_ids).mean()), "seconds": seconds}


def main() -> None:
    """Run one and print its line."""
    verb, folder, *rest = sys.argv[1:]
    found = {"extract": extract, "probe": probe, "steps": steps, "fastai": fastai, "trainer": trainer}[verb](
        Path(folder), *rest
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print("\n" + json.dumps({"seconds": time.perf_counter() - STARTED, "peak_bytes": peak, **found}))


if __name__ == "__main__":
    main()

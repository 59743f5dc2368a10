"""Extraction and full fine-tuning on a GPU, beside what the card and the processors can give at most and beside a
plain PyTorch loop.

    python benchmarks/gpu.py PHOTOS [--images 20000] [--batch 256] [--rounds 3] [--write FILE]
    python benchmarks/gpu.py PHOTOS --small          tiny networks and few photos, on any machine: does it run?

PHOTOS is a folder of pictures, which are taken again and again until there are so many. The networks are
EfficientNet-Lite0, ResNet-50 and ViT-S with random weights. All is measured in one run, in rounds by turns; what is
told are medians, in images a second, and their ratios:

forward    passes of a batch that lies on the device, the fastest of eager and compiled: no reading, no copies
decode     reading alone, as extraction reads
plain      a DataLoader with all cores, timm's transforms, page-locked memory, copies that are not waited for, channels
           last, bfloat16 by autocast and, in training, fused AdamW
step       training steps on a batch that lies on the device, as regraft takes them
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

import regraft
from page import between_marks
from regraft.artifacts import Events
from regraft.backbones import Backbone, seconds_a_step
from regraft.data.part import Part
from regraft.inference import FeatureStore, Feed, feature_key, makers, pick_engine
from regraft.modalities import modality_of
from regraft.recipe import Recipe
from regraft.runtime import keep_large_blocks, pick_device, processors
from regraft.steps.context import Context
from regraft.steps.finetune.rules import Tuning
from regraft.steps.finetune.tune import Tuner
from regraft.steps.finetune.work import Work
from regraft.tasks import Single
from regraft.training import Checkpoint, make_head, plan_freeze

NETWORKS = {"tf_efficientnet_lite0": 224, "resnet50": 224, "vit_small_patch16_224": 224}  # and input pixels
SMALL = {"test_efficientnet": 160, "test_resnet": 160, "test_vit": 160}
CLASSES, STEPS = 5, 50
WANTED = {"extraction / limit": 0.8, "training / step": 0.8, "training / plain": 1.5}


@dataclass(frozen=True)
class Asked:
    """What all measurements of a run share: so many `files`, the device, the images of a batch, the passes
    that a limit is measured by.
    """

    files: list[Path]
    device: torch.device
    batch: int
    steps: int

    def rate(self, work: Callable[[], int]) -> float:
        """Images a second of what gives the number of its images."""
        self.wait()
        began = time.perf_counter()
        images = work()
        self.wait()
        return images / (time.perf_counter() - began)

    def wait(self) -> None:
        """Until the device has done all that it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def autocast(self) -> torch.autocast:
        """bfloat16 on a GPU; a processor computes as it is."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")


class Pictures(Dataset[Any]):
    """What a plain loop reads: files by timm's transform."""

    def __init__(self, files: list[Path], transform: Callable[[Any], torch.Tensor]) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.files[number]) as image:
            return self.transform(image.convert("RGB")), number % CLASSES


class Plain:
    """The loop that is held against: no regraft in it."""

    def __init__(self, name: str, size: int, asked: Asked) -> None:
        import timm  # by now regraft has made it importable beside a torchvision for another torch

        self.asked = asked
        self.network = timm.create_model(name, num_classes=CLASSES)
        config = timm.data.resolve_data_config({"input_size": (3, size, size)}, model=self.network)
        self.network.to(asked.device, memory_format=torch.channels_last)
        self.loaders = {training: self._loader(training, config) for training in (False, True)}
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=1e-4, fused=True)

    def _loader(self, training: bool, config: dict[str, Any]) -> DataLoader[Any]:
        import timm

        cores, transform = processors(), timm.data.create_transform(**config, is_training=training)
        return DataLoader(
            Pictures(self.asked.files, transform),
            batch_size=self.asked.batch,
            shuffle=training,
            num_workers=cores if self.asked.device.type == "cuda" else 0,
            pin_memory=self.asked.device.type == "cuda",
            persistent_workers=self.asked.device.type == "cuda",
        )

    def batches(self, training: bool) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Pictures and labels on the device."""
        for pixels, labels in self.loaders[training]:
            there = pixels.to(self.asked.device, non_blocking=True, memory_format=torch.channels_last)
            yield there, labels.to(self.asked.device, non_blocking=True)

    def extract(self) -> int:
        """The features of all pictures, on the processors; gives how many there were."""
        self.network.eval()
        found = []
        with torch.inference_mode(), self.asked.autocast():
            for pixels, _ in self.batches(False):
                features = self.network.forward_head(self.network.forward_features(pixels), pre_logits=True)
                found.append(features.float().to("cpu", non_blocking=True))
        return sum(map(len, found))

    def train(self) -> int:
        """An epoch of all parameters; gives how many pictures it had."""
        self.network.train()
        count = 0
        for pixels, labels in self.batches(True):
            with self.asked.autocast():
                loss = cross_entropy(self.network(pixels), labels)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()
            count += len(labels)
        return count


class Ours:
    """The same by regraft, and its limits."""

    def __init__(self, base: Backbone, asked: Asked) -> None:
        self.base, self.asked, pre = base, asked, base.preprocess
        made = makers(base, asked.device, asked.batch)
        sample = pre.collate([pre.host(file) for file in asked.files[: min(asked.batch, 32)]])
        name, _ = pick_engine(made, lambda: sample, len(asked.files), ("benchmark",), None)
        self.engine = made[name]()
        self.ids = [f"{number:032x}" for number in range(len(asked.files))]
        self.work = self._work()

    def _work(self) -> Work:
        """A fine-tuning of all parameters, its precision and way of passing chosen by its own trial."""
        asked, count = self.asked, len(self.asked.files)
        finetune = {"epochs": 1, "batch_size": asked.batch, "lr": 1e-4, "layer_decay": 0.8, "patience": 9}
        recipe = Recipe.build({"finetune": finetune, "augment": {"crop_scale": 0.5, "mirror": True}})
        events, kind = Events(None, ()), modality_of("image")
        context = Context(recipe, FeatureStore(None), asked.device, events, kind)
        plan = plan_freeze(self.base.module, self.base.stages, "full")
        task = Single(tuple(f"class {number}" for number in range(CLASSES)))
        tuner = Tuner(self.base, plan, Tuning.of(recipe.finetune, context.augmentation), task)
        labels = np.arange(count, dtype=np.int64) % CLASSES
        data = Part(items=tuple(asked.files), ids=tuple(self.ids), labels=labels, weights=np.ones(count))
        return Work(tuner, make_head("linear", self.base.width, CLASSES), data, None, context)

    def extract(self) -> int:
        """The features of all pictures; gives how many there were."""
        store, key, pre = FeatureStore(None), feature_key(self.engine), self.base.preprocess
        found = store.features(self.ids, self.asked.files, key, pre, self.engine, lambda **_: None)
        return len(found[0])

    def train(self) -> int:
        """An epoch; gives how many pictures it had."""
        self.work.train(1, Checkpoint())
        return len(self.asked.files)

    def decode(self) -> int:
        """Read all pictures as extraction does, and do nothing with them."""
        files = self.asked.files
        with Feed(self.engine.lanes, self.asked.device, len(files)) as feed:
            groups = feed.groups(enumerate(files), self.base.preprocess, self.asked.batch)
            return sum(len(next(iter(batch().values()))) for _, batch in groups)

    def step(self) -> float:
        """Images a second of training steps on one batch that lies on the device."""
        first = self.work.first
        return len(first[1]) / seconds_a_step(self.work.network, first[0], self.work.arithmetic)


def forward(name: str, size: int, asked: Asked) -> float:
    """Images a second of passes of a batch that lies on the device, eager or compiled: the faster."""
    import timm

    network = (
        timm.create_model(name, num_classes=0).eval().to(asked.device, memory_format=torch.channels_last)
    )
    pixels = torch.randn(asked.batch, 3, size, size, device=asked.device)
    pixels = pixels.to(memory_format=torch.channels_last)

    def passes(module: Callable[[torch.Tensor], Any]) -> int:
        with torch.inference_mode(), asked.autocast():
            for _ in range(asked.steps):
                module(pixels)
        return asked.steps * asked.batch

    ways = [network, torch.compile(network)] if asked.device.type == "cuda" else [network]
    for way in ways:  # warm, and compiled
        passes(way)
    return max(asked.rate(lambda way=way: passes(way)) for way in ways)  # type: ignore[misc]


def measured(name: str, size: int, asked: Asked, rounds: int) -> dict[str, float]:
    """The medians of one network's rounds, in images a second."""
    import timm

    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "random.safetensors"
        save_file(timm.create_model(name).state_dict(), str(weights))
        ours = Ours(regraft.backbone(f"path:{weights}@{name}", size), asked)
    plain = Plain(name, size, asked)
    works = {
        "decode": lambda: asked.rate(ours.decode),
        "forward": lambda: forward(name, size, asked),
        "extraction": lambda: asked.rate(ours.extract),
        "plain extraction": lambda: asked.rate(plain.extract),
        "step": ours.step,
        "training": lambda: asked.rate(ours.train),
        "plain training": lambda: asked.rate(plain.train),
    }
    if asked.device.type == "cuda":  # processes begin, kernels are chosen
        for work in works.values():
            work()
    found = [{what: work() for what, work in works.items()} for _ in range(rounds)]
    return {what: statistics.median(one[what] for one in found) for what in works}


def ratios(found: dict[str, float]) -> dict[str, float]:
    """What is held against what was wanted."""
    return {
        "extraction / limit": found["extraction"] / min(found["forward"], found["decode"]),
        "training / step": found["training"] / found["step"],
        "training / plain": found["training"] / found["plain training"],
    }


def many(photos: Path, count: int) -> list[Path]:
    """So many files, the folder's in turn. Raises SystemExit where it holds none."""
    endings = modality_of("image").endings
    files = sorted(path for path in photos.rglob("*") if path.suffix.lower() in endings)
    if not files:
        raise SystemExit(f"{photos} holds no picture")
    return list(itertools.islice(itertools.cycle(files), count))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--small", action="store_true", help="tiny networks, 32 photos, one round, on any device"
    )
    parser.add_argument("--write", type=Path, help="the page whose marks 'gpu' get what was found")
    given = parser.parse_args()
    keep_large_blocks()
    device = pick_device("auto")
    if device.type != "cuda" and not given.small:
        raise SystemExit("this machine has no CUDA GPU; --small tells whether the script runs")
    count, batch, rounds, steps = (
        (32, 8, 1, 2) if given.small else (given.images, given.batch, given.rounds, STEPS)
    )
    asked = Asked(many(given.photos, count), device, batch, steps)
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
    rows = []
    for name, size in (SMALL if given.small else NETWORKS).items():
        found = measured(name, size, asked, rounds)
        shares = ratios(found)
        rows.append(f"| {name} | {' | '.join(f'{found[what]:.0f}' for what in found)} |")
        rows[-1] += f" {' | '.join(f'{share:.2f}' for share in shares.values())} |"
        print(rows[-1], flush=True)
    wanted = [f"{what} (wanted {least})" for what, least in WANTED.items()]
    head = f"| {card}, {processors()} cores, {count:,} images | {' | '.join([*found, *wanted])} |"
    table = "\n".join([head, f"|{'---|' * head.count(' | ')}---|", *rows])
    print(table)
    if given.write:
        between_marks(given.write, "gpu", table)


if __name__ == "__main__":
    main()

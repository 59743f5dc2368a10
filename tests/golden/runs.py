"""Three fixed tiny runs of the whole walk, and what must not change about them.

`python tests/golden/runs.py` prints what the runs decided and reached, the content of values.json; with
`--hashes` it prints a SHA-256 of each thing a run leaves: every section of metrics.json without seconds,
every column of predictions.parquet, every file of model/ and the recipe as it was settled, all without the
folder of the run. Two commits whose hashes agree on one machine give the same model and the same evidence
bit for bit. `--save FOLDER` keeps the texts that were hashed, so that two commits can be compared with
`diff -r`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml
from PIL import Image

import regraft
from regraft.runtime import ready_torchvision

SIDE = 40  # pixels of a picture's side
# What a run settles, by section of the recipe
DECIDED = {
    "base": ("size", "depth", "join"),
    "freeze": ("strategy",),
    "head": ("kind",),
    "train": ("l2", "class_weights"),
    "finetune": ("batch_size", "layer_decay", "patience", "interpolation", "refit"),
    "augment": ("mirror", "crop_scale", "colour"),
}
FIXED = {
    "obtain": {"backbone": "path:tiny.safetensors@test_efficientnet"},
    "base": {"size": 32},
    "run": {"engine": "torch-float32", "threads": 1, "device": "cpu", "seed": 0},
    "finetune": {"precision": "float32"},
}


@dataclass(frozen=True)
class Golden:
    """One run: what its data are and which settings it has beside those of FIXED."""

    draw: Callable[[Path], Path]
    settings: dict[str, dict[str, Any]]


def picture(rng: np.random.Generator, label: int, noise: float) -> np.ndarray:
    """A (SIDE, SIDE, 3) uint8 picture of stripes: their direction and colour tell the class, their phase,
    the light and the noise differ from picture to picture.
    """
    angle, phase, width = np.pi * label / 5 + rng.normal(0, 0.15), rng.uniform(0, 6.28), rng.uniform(6, 9)
    y, x = np.mgrid[:SIDE, :SIDE]
    stripes = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 6.28 / width + phase)
    tint = np.array([60.0, 45.0, 30.0])[(np.arange(3) + label) % 3]
    light = 90 + tint + rng.normal(0, 0.2 * noise, 3)
    values = light + stripes[:, :, None] * tint + rng.normal(0, noise, (SIDE, SIDE, 3))
    return np.clip(values, 0, 255).astype(np.uint8)


def keep(place: Path, pixels: np.ndarray) -> Path:
    """Write the pixels as a PNG at `place` and return `place`."""
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(place)
    return place


def three_splits(root: Path) -> Path:
    """A folder with train, val and test of three classes: 24, 12 and 12 pictures of each."""
    rng = np.random.default_rng(1)
    for split, count in (("train", 24), ("val", 12), ("test", 12)):
        for label, name in enumerate(("acorn", "beech", "cedar")):
            for number in range(count):
                keep(root / split / name / f"{number}.png", picture(rng, label, 40))
    return root


def grouped(root: Path) -> Path:
    """A table of four classes: 9 training pictures of each in groups of three, too few for a val set, and 6
    for the test. One training picture of each class is nearly a copy of one in another group, and one test
    picture of the first two classes is nearly a copy of a training picture.
    """
    rng = np.random.default_rng(2)
    lines = ["path,label,split,group"]
    for label, name in enumerate(("fir", "gum", "hazel", "ivy")):
        kept = [picture(rng, label, 30) for _ in range(15)]
        kept[3] = lighter(kept[0])
        if label < 2:
            kept[9] = lighter(kept[4])
        for number, pixels in enumerate(kept):
            split, group = ("train", f"{name}-{number // 3}") if number < 9 else ("test", "")
            place = keep(root / name / f"{number}.png", pixels)
            lines.append(f"{place.relative_to(root)},{name},{split},{group}")
    (root / "table.csv").write_text("\n".join(lines), encoding="utf-8")
    return root / "table.csv"


def lighter(pixels: np.ndarray) -> np.ndarray:
    """The same picture, a little brighter: nearly a copy."""
    return np.clip(pixels.astype(np.int64) + 6, 0, 255).astype(np.uint8)


def imbalanced(root: Path) -> Path:
    """A folder of three classes of 40, 12 and 8 pictures without any split."""
    rng = np.random.default_rng(3)
    for label, (name, count) in enumerate((("juniper", 40), ("larch", 12), ("maple", 8))):
        for number in range(count):
            keep(root / name / f"{number}.png", picture(rng, label, 40))
    return root


RUNS = {
    "val": Golden(three_splits, {"finetune": {"epochs": 8, "folds": 0, "lr": 0.001}}),
    "folds": Golden(grouped, {"finetune": {"epochs": 20, "folds": 3, "lr": 0.002, "batch_size": 6}}),
    "head": Golden(imbalanced, {"freeze": {"strategy": "head"}, "data": {"folds": 3}}),
}


def network(place: Path) -> None:
    """Write an untrained network of 100,000 parameters, the same at every call."""
    ready_torchvision()
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(1)
    save_file(timm.create_model("test_efficientnet", num_classes=10).state_dict(), str(place))


def run(name: str, place: Path) -> Path:
    """Draw the data of the run called `name` in the folder `place`, walk it and return the run's folder."""
    place.mkdir(parents=True, exist_ok=True)
    network(place / "tiny.safetensors")
    golden = RUNS[name]
    settings = {section: dict(values) for section, values in FIXED.items()}
    settings["obtain"]["backbone"] = f"path:{place / 'tiny.safetensors'}@test_efficientnet"
    for section, values in golden.settings.items():
        settings.setdefault(section, {}).update(values)
    return regraft.fit(golden.draw(place / "data"), place / "run", recipe=settings, cache=None).path


def left_by(run: Path) -> Iterator[tuple[str, bytes]]:
    """What must not change of a finished run: the name of each thing and its bytes."""
    place = str(run.parent)
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    for section, values in metrics.items():
        yield f"metrics.json {section}", _text(timeless(values, place))
    if (run / "predictions.parquet").is_file():
        table = pq.read_table(run / "predictions.parquet")
        for column in table.column_names:
            values = table[column].to_pylist()
            exact = [value.hex() if isinstance(value, float) else value for value in values]
            yield f"predictions.parquet {column}", _text(timeless(exact, place))
    yield "recipe.yaml", (run / "recipe.yaml").read_text(encoding="utf-8").replace(place, "").encode()
    for file in sorted((run / "model").iterdir()):
        if file.suffix == ".json":
            yield f"model/{file.name}", _text(timeless(json.loads(file.read_text(encoding="utf-8")), place))
        elif file.suffix == ".parquet":
            table = pq.read_table(file)
            yield f"model/{file.name}", _text({"columns": table.schema.names, "rows": table.to_pylist()})
        elif file.suffix == ".md":
            yield f"model/{file.name}", file.read_text(encoding="utf-8").replace(place, "").encode()
        else:
            yield f"model/{file.name}", file.read_bytes()


def timeless(values: Any, place: str) -> Any:
    """The same values without seconds and without the folder that the run lies in."""
    if isinstance(values, dict):
        return {name: timeless(value, place) for name, value in values.items() if name != "seconds"}
    if isinstance(values, list):
        return [timeless(value, place) for value in values]
    return values.replace(place, "") if isinstance(values, str) else values


def _text(values: Any) -> bytes:
    return json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False).encode()


def reached(run: Path) -> dict[str, Any]:
    """What test_golden.py holds of a finished run: what was decided; value, low and high of every estimate;
    the comparisons with the baselines; label and logits of every predicted example.
    """
    settled = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    table = pq.read_table(run / "predictions.parquet")
    return {
        "decisions": {f"{part}.{name}": settled[part][name] for part in DECIDED for name in DECIDED[part]},
        "estimates": {
            f"{section} {name}": [estimate["value"], estimate["low"], estimate["high"]]
            for section in ("val", "test", "cv")
            for name, estimate in metrics.get(section, {}).items()
        },
        "versus": {
            versus["against"]: [versus["difference"], versus["low"], versus["high"], versus["p_adjusted"]]
            for versus in metrics.get("versus", ())
        },
        "predicted": table["predicted"].to_pylist(),
        "logits": {
            name.removeprefix("logit:"): [round(value, 5) for value in table[name].to_pylist()]
            for name in table.column_names
            if name.startswith("logit:")
        },
    }


def main() -> None:
    """Walk the runs and print, or keep, what they left."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("--hashes", action="store_true", help="print a SHA-256 of each thing a run leaves")
    words.add_argument("--save", type=Path, help="keep the texts and files that were hashed in this folder")
    words.add_argument("--only", choices=RUNS, help="this run alone")
    asked = words.parse_args()
    values = {}
    with tempfile.TemporaryDirectory() as place:
        for name in [asked.only] if asked.only else RUNS:
            made = run(name, Path(place) / name)
            values[name] = reached(made)
            for what, content in left_by(made):
                if asked.save:
                    file = asked.save / name / what.replace("/", "-").replace(" ", "-")
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(content)
                if asked.hashes:
                    print(f"{hashlib.sha256(content).hexdigest()[:16]}  {name}: {what}", flush=True)
    if not asked.hashes:
        print(json.dumps(values))


if __name__ == "__main__":
    main()

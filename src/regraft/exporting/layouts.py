"""Folders that timm and transformers load themselves: their own network, the head as its classifier.

They prepare images by their own code, and give logits: probabilities are the softmax of these, divided by the
model's temperature, which no such folder knows. export.json tells it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from regraft.artifacts import write_json
from regraft.errors import UsageError
from regraft.exporting.proof import RefusedError
from regraft.modalities import Input, Intake
from regraft.model import Model

WEIGHTS, CONFIG, PROCESSOR = "model.safetensors", "config.json", "preprocessor_config.json"
FILTERS = {
    "nearest": 0,
    "lanczos": 1,
    "bilinear": 2,
    "bicubic": 3,
    "box": 4,
    "hamming": 5,
}  # Pillow's numbers


class Layout:
    """A model in another library's layout. What goes in is `pixels` (B, size, size, 3) uint8, prepared by the
    library's own code; that normalises them too.
    """

    library = ""

    def __init__(self, model: Model) -> None:
        self.model, self.size = model, int(model.backbone.preprocess.size)
        if why := self.refused(model):
            raise UsageError(f"this model is nothing that plain {self.library} can load: {why}")
        self.files: dict[str, bytes] = {}
        self.answer = model.task.in_graph(model.calibrated)
        shape = (2, self.size, self.size, 3)
        pixels = Input("pixels", "uint8", ("batch", *shape[1:]), shape)
        self.plain = model.backbone.preprocess.intake().read
        self.intake = Intake(nn.Identity(), (pixels,), self.read)

    def refused(self, model: Model) -> str:
        """Why a model cannot be exported so; "" where it can."""
        raise NotImplementedError

    def read(self, item: Any) -> dict[str, np.ndarray]:
        """What the library makes of an item, before it normalises."""
        raise NotImplementedError

    def prepared(self, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The same: nothing is prepared inside."""
        return dict(given)

    def normalised(self, given: Mapping[str, np.ndarray], mean: Any, std: Any) -> torch.Tensor:
        """(B, 3, size, size) float32, by the library's own mean and deviation."""
        pixels = torch.tensor(given["pixels"]).permute(0, 3, 1, 2).float() / 255
        return (pixels - torch.tensor(mean).view(1, -1, 1, 1)) / torch.tensor(std).view(1, -1, 1, 1)

    def picture(self, item: Any) -> Any:
        """An item as the image object that both libraries take."""
        from torchvision.transforms.functional import to_pil_image

        (pixels,) = self.plain(item).values()
        return to_pil_image(pixels[0])


def _no_classifier(model: Model) -> str:
    if model.beside is not None:
        return (
            "something stands beside its network, which their layout has no place for. "
            "Fit it with --set head.beside=false, or export to onnx, openvino or torch."
        )
    if model.head_kind != "linear":
        return (
            f"its head is an {model.head_kind.upper()}, where their networks end in one linear layer. "
            "Fit it with --set head.kind=linear, or export to onnx, openvino or torch."
        )
    if model.backbone.depth is not None or model.backbone.join:
        return "its backbone is cut short, or joins features of several depths. Export to onnx, openvino or torch."
    return ""


class Timm(Layout):
    """config.json and model.safetensors, for `timm.create_model("local-dir:FOLDER", pretrained=True)`."""

    library = name = "timm"

    def refused(self, model: Model) -> str:
        """Only what is a network of timm's, with a linear head."""
        if not model.backbone.classifier:
            return "its backbone is none of timm's networks. Export to onnx, openvino or torch."
        return _no_classifier(model)

    def write(self, folder: Path) -> Path:
        """Write both files, and load them."""
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            self.model.save(Path(temporary))
            for name in (WEIGHTS, CONFIG):
                os.replace(Path(temporary) / name, folder / name)
        import timm
        from timm.data import create_transform, resolve_model_data_config

        self.loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        self.config = resolve_model_data_config(self.loaded)
        self.transform = create_transform(**self.config, is_training=False)
        return folder

    def read(self, item: Any) -> dict[str, np.ndarray]:
        """timm's own resizing and cropping."""
        picture = self.picture(item)
        for step in self.transform.transforms[:-2]:  # the last two make a tensor and normalise
            picture = step(picture)
        return {"pixels": np.array(picture)[None]}

    def run(self, given: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """(B, M) answers and (B, width) features of one batch."""
        with torch.inference_mode():
            images = self.normalised(given, self.config["mean"], self.config["std"])
            features = self.loaded.forward_head(self.loaded.forward_features(images), pre_logits=True)
            numbers = self.answer.module(self.loaded.get_classifier()(features))
        return numbers.numpy(), features.numpy()


class Transformers(Layout):
    """What `AutoModelForImageClassification.from_pretrained(FOLDER)` and `pipeline` load."""

    library = name = "transformers"

    def refused(self, model: Model) -> str:
        """Only what is a network of transformers', with a linear head."""
        if not model.backbone.architecture.startswith("transformers:"):
            return (
                "its backbone is none of transformers' networks of images; --to timm is for those of timm. "
                "Export to onnx, openvino or torch."
            )
        return _no_classifier(model)

    def write(self, folder: Path) -> Path:
        """Write config.json, model.safetensors and preprocessor_config.json, and load them."""
        import transformers

        inner, last = self.model.backbone.module.model, self.model.head[-1]  # type: ignore[index]
        names = dict(enumerate(self.answer.names))
        settings = {"num_labels": len(names), "id2label": names, "label2id": {v: k for k, v in names.items()}}
        config = type(inner.config).from_dict({**inner.config.to_dict(), **settings})  # type: ignore[union-attr, operator]
        try:
            network = transformers.AutoModelForImageClassification.from_config(config)
        except ValueError as error:
            raise UsageError(
                f"transformers has no classifier on this network: {str(error).splitlines()[0][:200]}"
            ) from None
        base = getattr(network, network.base_model_prefix)
        lacking, _ = base.load_state_dict(inner.state_dict(), strict=False)  # type: ignore[union-attr, operator]
        layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
        if lacking or layers[-1].weight.shape != last.weight.shape:  # type: ignore[union-attr]
            raise RefusedError(
                "transformers' classifier on this network takes other features than the model's head: "
                "export to onnx, openvino or torch."
            )
        layers[-1].load_state_dict(last.state_dict())  # type: ignore[union-attr, operator]
        network.save_pretrained(str(folder), safe_serialization=True)
        write_json(folder / PROCESSOR, self._processor())
        self.loaded = transformers.AutoModelForImageClassification.from_pretrained(
            str(folder), local_files_only=True
        ).eval()
        self.classifier = [layer for layer in self.loaded.modules() if isinstance(layer, nn.Linear)][-1]
        self.processor = transformers.AutoImageProcessor.from_pretrained(str(folder), local_files_only=True)
        return folder

    def _processor(self) -> dict[str, Any]:
        """The preprocessing in transformers' terms."""
        config = self.model.backbone.preprocess.config()
        return {
            "image_processor_type": "CLIPImageProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"shortest_edge": round(self.size / config["crop_pct"])},
            "resample": FILTERS[config["interpolation"]],
            "do_center_crop": True,
            "crop_size": {"height": self.size, "width": self.size},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": config["mean"],
            "image_std": config["std"],
        }

    def read(self, item: Any) -> dict[str, np.ndarray]:
        """transformers' own resizing and cropping."""
        made = self.processor(self.picture(item), do_rescale=False, do_normalize=False, return_tensors="np")
        return {"pixels": np.rint(made["pixel_values"]).astype(np.uint8).transpose(0, 2, 3, 1)}

    def run(self, given: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """(B, M) answers and (B, width) features of one batch."""
        config, seen = self.model.backbone.preprocess.config(), []
        handle = self.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            with torch.inference_mode():
                images = self.normalised(given, config["mean"], config["std"])
                numbers = self.answer.module(self.loaded(pixel_values=images).logits)
        finally:
            handle.remove()
        return numbers.numpy(), seen[0].flatten(1).numpy()


def versions(library: str) -> dict[str, Any]:
    """The versions of what loads the folder. Raises UsageError where it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return {library: version(library), "torch": torch.__version__}
    except PackageNotFoundError:
        raise UsageError(
            f"exporting for {library} needs it, and it is not installed: pip install {library}"
        ) from None

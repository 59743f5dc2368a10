"""Images: reading, preprocessing, augmentation, and what an audit and a report know of them."""

from regraft.modalities.image.augment import Augment
from regraft.modalities.image.inspect import inspect_image, pixel_digest, small_image_or_none, thumbnail
from regraft.modalities.image.preprocess import ImagePreprocess, Mirrored
from regraft.modalities.image.reading import UnreadableImage, load_rgb

__all__ = [
    "Augment",
    "ImagePreprocess",
    "Mirrored",
    "UnreadableImage",
    "inspect_image",
    "load_rgb",
    "pixel_digest",
    "small_image_or_none",
    "thumbnail",
]

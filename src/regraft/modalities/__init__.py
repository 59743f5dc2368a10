"""What an example looks like to a model. One module a modality."""

from regraft.modalities.image import (
    ImagePreprocess,
    UnreadableImage,
    inspect_image,
    pixel_digest,
    small_image_or_none,
    thumbnail,
)

__all__ = [
    "ImagePreprocess",
    "UnreadableImage",
    "inspect_image",
    "pixel_digest",
    "small_image_or_none",
    "thumbnail",
]

"""From images to the pixel values of the image encoder.

The published image processors resize with Pillow, then map each of the 256 levels of a channel to one float32 value. So an
image is kept as levels until the image encoder runs: they are a quarter of the size of pixel values, and a table of 3 x 256
values, computed as the processor does, gives the same pixel values to the last bit, on any device.

Pillow's `draft` is not used: it scales a JPEG file while decoding, which gives other pixels than resizing afterwards.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil
from transformers.image_transforms import normalize, rescale

from ..images import load_image

_LEVELS = 256


class _Settings(NamedTuple):
    """What an image processor does to an RGB image; the size is (width, height)."""

    size: tuple[int, int]
    resample: int
    rescale_factor: float | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None


@dataclass(frozen=True, eq=False)
class PreprocessedImage:
    """An image, read and resized for the image encoder.

    Attributes:
        image: upright RGB, at its original size.
        pixels: H x W x 3 uint8 levels at the model's input size; or 3 x H x W float32 pixel values, if the image processor has
            other steps than the published ones.
        table: 3 x 256 float32, the pixel value of each level in each channel; None if `pixels` are pixel values.
    """

    image: Image.Image
    pixels: torch.Tensor = field(repr=False)
    table: torch.Tensor | None = field(default=None, repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the image in pixels."""
        return self.image.size

    @property
    def num_bytes(self) -> int:
        """Memory of the image, which Pillow stores with 4 bytes a pixel, and of its pixels."""
        return 4 * self.image.width * self.image.height + self.pixels.nbytes


def preprocess(image_processor: Any, images: Sequence[Image.Image]) -> torch.Tensor:
    """Return the pixel values of images, equal to those of the image processor to the last bit.

    Args:
        image_processor: transformers' image processor, or any other with the same interface.
        images: B images. The fast path is for RGB.

    Returns:
        B x 3 x H x W float32 on the CPU.
    """
    settings = _read_settings(image_processor)
    if settings is None or any(image.mode != "RGB" for image in images):
        return _run_processor(image_processor, images)
    return to_pixel_values([_resize(image, settings) for image in images])


def preprocess_source(image_processor: Any, source: Any, pin_memory: bool = False) -> PreprocessedImage:
    """Read an image and resize it for the image encoder.

    Args:
        image_processor: as in `preprocess`.
        source: a path, URL, PIL image, array …, see `load_image`.
        pin_memory: keep the pixels in page-locked memory, from which they are copied to a CUDA device without waiting.

    Raises:
        ImageError: if the image cannot be read.
    """
    image = load_image(source)
    settings = _read_settings(image_processor)
    if settings is None:
        preprocessed = PreprocessedImage(image, _run_processor(image_processor, [image])[0])
    else:
        preprocessed = _resize(image, settings)
    if pin_memory:
        return PreprocessedImage(image, preprocessed.pixels.pin_memory(), preprocessed.table)
    return preprocessed


def group_by_input_size(images: Iterable[PreprocessedImage]) -> Iterator[list[PreprocessedImage]]:
    """Yield neighbouring images that `to_pixel_values` takes together: of one input size, with one table."""
    for _, group in groupby(images, key=lambda image: (image.pixels.shape, id(image.table))):
        yield list(group)


def to_pixel_values(
    images: Sequence[PreprocessedImage],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Return the pixel values of images of one input size, B x 3 x H x W.

    Args:
        images: B images, see `group_by_input_size`.
        device: where the pixel values are computed.
        dtype: to which the float32 pixel values are rounded.
    """
    table = images[0].table
    if table is None:
        return torch.stack([image.pixels.to(device, dtype, non_blocking=True) for image in images])
    if torch.device(device).type == "cpu":
        return _look_up(table.to(dtype), [image.pixels for image in images])
    pixels = torch.stack([image.pixels.to(device, non_blocking=True) for image in images])
    return look_up_on_device(table.to(device, dtype), pixels)


def look_up_on_device(table: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """Return the values of levels, B x 3 x H x W, computed by the device of the arguments.

    Args:
        table: 3 x 256.
        pixels: B x H x W x 3 uint8.
    """
    offsets = torch.arange(0, table.numel(), _LEVELS, dtype=torch.int32, device=pixels.device)
    indices = pixels.permute(0, 3, 1, 2).int() + offsets.view(-1, 1, 1)
    return table.flatten()[indices].contiguous()


def _look_up(table: torch.Tensor, images: Sequence[torch.Tensor]) -> torch.Tensor:
    """The same on the CPU, where NumPy reads each level and writes each value once. It has no bfloat16, only its bits."""
    height, width, channels = images[0].shape
    values = torch.empty(len(images), channels, height, width, dtype=table.dtype)
    bits = torch.int16 if table.dtype is torch.bfloat16 else table.dtype
    values_of_level, out = table.view(bits).numpy(), values.view(bits).numpy()
    for row, image in enumerate(images):
        levels = image.numpy()
        for channel in range(channels):
            # "clip" writes into `out` directly, unlike the default; no level is out of range
            np.take(values_of_level[channel], levels[..., channel], out=out[row, channel], mode="clip")
    return values


def _run_processor(image_processor: Any, images: Sequence[Image.Image]) -> torch.Tensor:
    pixel_values: torch.Tensor = image_processor(list(images), return_tensors="pt")["pixel_values"]
    return pixel_values


def _resize(image: Image.Image, settings: _Settings) -> PreprocessedImage:
    resized = image.resize(settings.size, Image.Resampling(settings.resample))
    table = _level_table(settings.rescale_factor, settings.mean, settings.std)
    return PreprocessedImage(image, torch.from_numpy(np.array(resized)), table)


def _read_settings(image_processor: Any) -> _Settings | None:
    """The steps of an image processor if they are those of the fast path: resizing to one size, and a value a level.

    They are read for each image, as a processor's attributes may be changed at any time.
    """
    if type(image_processor) is not CLIPImageProcessorPil:  # a subclass may do anything
        return None
    steps: Any = image_processor  # transformers' annotations leave out what a file may hold
    size = {name: value for name, value in dict(steps.size or {}).items() if value is not None}
    has_other_steps = steps.do_center_crop or getattr(steps, "do_pad", None) or not steps.do_resize
    if has_other_steps or set(size) != {"height", "width"} or not isinstance(steps.resample, int):
        return None
    mean, std = _per_channel(steps.image_mean), _per_channel(steps.image_std)
    if not (steps.do_rescale or steps.do_normalize) or (steps.do_normalize and (mean is None or std is None)):
        return None
    return _Settings(
        (size["width"], size["height"]),
        int(steps.resample),
        steps.rescale_factor if steps.do_rescale else None,
        mean if steps.do_normalize else None,
        std if steps.do_normalize else None,
    )


def _per_channel(value: Any) -> tuple[float, ...] | None:
    """The value of each of three channels; None if it is not one number for each, or one for all."""
    values: tuple[Any, ...] = tuple(value) if isinstance(value, Collection) else (value,) * 3
    is_complete = len(values) == 3 and all(isinstance(item, (int, float)) for item in values)
    return values if is_complete else None


@lru_cache(maxsize=16)
def _level_table(
    rescale_factor: float | None, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> torch.Tensor:
    """The pixel value of each level in each channel, 3 x 256, by the functions of transformers' image processor."""
    levels = np.broadcast_to(np.arange(_LEVELS, dtype=np.uint8), (3, 1, _LEVELS))
    values = levels if rescale_factor is None else rescale(levels, rescale_factor, input_data_format="channels_first")
    if mean is not None and std is not None:
        values = normalize(values, mean, std, input_data_format="channels_first")
    return torch.from_numpy(np.array(values[:, 0], dtype=np.float32))

"""Cache of image features on disk: the image tokens of a frozen image encoder are computed once.

The cache key covers everything that the features depend on: the weights of the image encoder and projector, the settings of
the preprocessing, the number format, and the pixels. Entries never become stale.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import Florence2ForConditionalGeneration, Florence2Processor

from ..data.examples import ImageSource, load_image_source
from ..exceptions import TrainingError, summarize_error
from ..inference.davit import image_encoder_fingerprint
from ..inference.preprocessing import preprocess
from ..loading.files import cache_dir
from ..output_files import replace_file

_TENSOR = "tokens"
_BATCH_SIZES = {"cpu": 4}  # larger batches are no faster on a CPU and take more memory
_GPU_BATCH_SIZE = 16


def bytes_per_image(model: Florence2ForConditionalGeneration, processor: Florence2Processor) -> int:
    """Return the size of the image features of one image in float32, the largest number format that they have."""
    config: Any = model.config
    return int(processor.num_image_tokens) * int(config.text_config.d_model) * 4


@dataclass(frozen=True)
class _ImageLoader:
    """Loads and preprocesses images, in processes of a `DataLoader`.

    Attributes:
        sources: the images.
        image_processor: transformers' image processor.
        directory: the folder of the features.
        shape: of the features of an image.
    """

    sources: Sequence[ImageSource]
    image_processor: Any
    directory: Path
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> tuple[Path, torch.Tensor | None]:
        """Return the file of an image, and its pixel values (3 x H x W) unless the file has its features."""
        image = load_image_source(self.sources[index])
        path = _path_for(self.directory, image)
        if _is_valid(path, self.shape):
            return path, None
        return path, preprocess(self.image_processor, [image])[0]


class FeatureCache:
    """Computes and caches the image features of one image encoder.

    Attributes:
        directory: the folder of the features of this encoder, preprocessing and number format.
    """

    def __init__(
        self,
        model: Florence2ForConditionalGeneration,
        processor: Florence2Processor,
        dtype: torch.dtype = torch.float32,
        root: str | Path | None = None,
    ) -> None:
        """Prepare the cache of a model.

        Args:
            model: its image encoder and projector compute the features, on the model's device.
            processor: preprocesses the images.
            dtype: number format of computation; other than float32 under autocast, as in training.
            root: folder with the caches of all encoders; by default `~/.cache/florence_lab/features`.
        """
        self.model, self.processor, self.dtype = model, processor, dtype
        settings = json.dumps(processor.image_processor.to_dict(), sort_keys=True, default=str)
        self.directory = Path(root or cache_dir("features")).expanduser() / image_encoder_fingerprint(
            model, dtype, settings
        )

    def path_for(self, image: Image.Image) -> Path:
        """Return the file of an image, which need not exist."""
        return _path_for(self.directory, image)

    def encode_images(self, images: Iterable[ImageSource], num_workers: int = 0) -> list[Path]:
        """Compute the missing features of images and return N files. Files that are damaged are replaced.

        Args:
            images: N images.
            num_workers: processes that load and preprocess them.

        Raises:
            TrainingError: if the features cannot be written, as on a full disk.
        """
        config: Any = self.model.config
        shape = (self.processor.num_image_tokens, config.text_config.d_model)
        loader = _ImageLoader(list(images), self.processor.image_processor, self.directory, shape)
        batch_size = _BATCH_SIZES.get(self.model.device.type, _GPU_BATCH_SIZE)
        paths: list[Path] = []
        missing: dict[Path, torch.Tensor] = {}
        loaded: Any = DataLoader(loader, batch_size=None, num_workers=num_workers, collate_fn=_identity)  # type: ignore[arg-type]  # has the methods of a Dataset
        for path, pixels in tqdm(loaded, desc="encoding images", unit="image"):
            paths.append(path)
            if pixels is not None and path not in missing:
                missing[path] = pixels
            if len(missing) == batch_size:
                self._write(missing)
                missing = {}
        self._write(missing)
        return paths

    @torch.no_grad()
    def _write(self, images: dict[Path, torch.Tensor]) -> None:
        if not images:
            return
        pixels = torch.stack(list(images.values()))
        device = self.model.device
        with torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
            features = self.model.get_image_features(pixels.to(device)).pooler_output
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            for path, image_features in zip(images, features.cpu(), strict=True):
                with replace_file(path) as temporary:  # another process reads a complete file or none
                    save_file({_TENSOR: image_features.contiguous()}, temporary)
        except Exception as error:  # on a full disk, OSError or a SafetensorError
            raise TrainingError(self._describe_failed_write(error)) from error

    def _describe_failed_write(self, error: Exception) -> str:
        existing = next(folder for folder in (self.directory, *self.directory.parents) if folder.is_dir())
        free = shutil.disk_usage(existing).free / 1e6
        return (
            f"the image features cannot be written to {self.directory}: {summarize_error(error)} ({free:,.0f} MB of disk space "
            "are free). Choose another folder with --feature_dir, or train with --cache_image_features false"
        )


def _identity(item: Any) -> Any:
    return item


def _path_for(directory: Path, image: Image.Image) -> Path:
    digest = hashlib.sha256(f"{image.size}".encode())
    digest.update(image.tobytes())
    return directory / f"{digest.hexdigest()[:32]}.safetensors"


def _is_valid(path: Path, shape: tuple[int, int]) -> bool:
    """Whether a file contains image features of a shape. Only its header is read."""
    try:
        with safe_open(path, framework="pt") as file:
            return tuple(file.get_slice(_TENSOR).get_shape()) == shape
    except Exception:  # missing, cut off, or foreign; safetensors raises types of its own
        return False


def load_image_features(paths: Sequence[Path]) -> torch.Tensor:
    """Return the features of B images, B x n x d_model.

    Raises:
        TrainingError: for a file that was removed or damaged since the run started.
    """
    return torch.stack([_load_tensor(path) for path in paths])


def _load_tensor(path: Path) -> torch.Tensor:
    try:
        return load_file(path)[_TENSOR]
    except Exception as error:  # safetensors raises types of its own
        raise TrainingError(
            f"the image features {path} were removed or damaged ({summarize_error(error)}); "
            "--resume_from_checkpoint true computes them again"
        ) from error

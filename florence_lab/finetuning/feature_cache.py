"""Cache of image features on disk: the image tokens of a frozen image encoder are computed once.

The cache key covers everything that the features depend on: the weights of the image encoder and projector, the settings of
the preprocessing, the number format, and the pixels. Entries never become stale.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm
from transformers import Florence2ForConditionalGeneration, Florence2Processor

from ..data.examples import ImageSource, load_image_source
from ..exceptions import TrainingError, summarize_error
from ..inference.davit import image_encoder_fingerprint
from ..loading.files import cache_dir
from ..output_files import replace_file

_TENSOR = "tokens"
_BATCH_SIZE = 4  # larger batches are no faster on a CPU and take more memory


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
        digest = hashlib.sha256(f"{image.size}".encode())
        digest.update(image.tobytes())
        return self.directory / f"{digest.hexdigest()[:32]}.safetensors"

    def encode_images(self, images: Iterable[ImageSource]) -> list[Path]:
        """Compute the missing features of images and return N files. Files that are damaged are replaced.

        Args:
            images: N images.

        Raises:
            TrainingError: if the features cannot be written, as on a full disk.
        """
        paths: list[Path] = []
        missing: dict[Path, Image.Image] = {}
        for source in tqdm(images, desc="encoding images", unit="image"):
            image = load_image_source(source)
            paths.append(self.path_for(image))
            if paths[-1] not in missing and not self._is_valid(paths[-1]):
                missing[paths[-1]] = image
            if len(missing) == _BATCH_SIZE:
                self._write(missing)
                missing = {}
        self._write(missing)
        return paths

    @torch.no_grad()
    def _write(self, images: dict[Path, Image.Image]) -> None:
        if not images:
            return
        pixels = self.processor.image_processor(list(images.values()), return_tensors="pt")["pixel_values"]
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

    def _is_valid(self, path: Path) -> bool:
        """Whether a file contains the features of an image. Only its header is read."""
        try:
            with safe_open(path, framework="pt") as file:
                shape = tuple(file.get_slice(_TENSOR).get_shape())
        except Exception:  # missing, cut off, or foreign; safetensors raises types of its own
            return False
        config: Any = self.model.config
        return shape == (self.processor.num_image_tokens, config.text_config.d_model)

    def _describe_failed_write(self, error: Exception) -> str:
        existing = next(folder for folder in (self.directory, *self.directory.parents) if folder.is_dir())
        free = shutil.disk_usage(existing).free / 1e6
        return (
            f"the image features cannot be written to {self.directory}: {summarize_error(error)} ({free:,.0f} MB of disk space "
            "are free). Choose another folder with --feature_dir, or train without --cache_image_features"
        )


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

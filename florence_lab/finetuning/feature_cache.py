"""Cache of image features on disk: the image tokens of a frozen image encoder are computed once.

The cache key covers everything that the features depend on: the weights of the image encoder and projector, the settings of
the preprocessing, the number format, and the pixels. Entries never become stale.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm
from transformers import Florence2ForConditionalGeneration, Florence2Processor

from ..data.examples import ImageSource, load_image_source
from ..inference.davit import image_encoder_fingerprint
from ..loading.files import cache_dir

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
        self.directory = Path(root or cache_dir("features")) / image_encoder_fingerprint(model, dtype, settings)

    def path_for(self, image: Image.Image) -> Path:
        """Return the file of an image, which need not exist."""
        digest = hashlib.sha256(f"{image.size}".encode())
        digest.update(image.tobytes())
        return self.directory / f"{digest.hexdigest()[:32]}.safetensors"

    def encode_images(self, images: Iterable[ImageSource]) -> list[Path]:
        """Compute the missing features of images and return N files.

        Args:
            images: N images.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        paths: list[Path] = []
        missing: dict[Path, Image.Image] = {}
        for source in tqdm(images, desc="encoding images", unit="image"):
            image = load_image_source(source)
            paths.append(self.path_for(image))
            if not paths[-1].exists():
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
        for path, image_features in zip(images, features.cpu(), strict=True):
            # another process reads a complete file or none
            temporary = path.with_suffix(f".{os.getpid()}.tmp")
            save_file({"tokens": image_features.contiguous()}, temporary)
            os.replace(temporary, path)


def load_image_features(paths: Sequence[Path]) -> torch.Tensor:
    """Return the features of B images, B x n x d_model."""
    return torch.stack([load_file(path)["tokens"] for path in paths])

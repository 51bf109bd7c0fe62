"""The image tokens of a frozen vision tower, kept on disk: computed once, whatever is trained on them and how often.

What makes the tokens names the file: the weights of tower and projector, the settings of the preprocessing, the number format,
and the pixels. So a file is never out of date; other weights or another picture have files of their own.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm
from transformers import Florence2ForConditionalGeneration, Florence2Processor

from ..data.examples import open_picture
from ..inference.davit import image_encoder_fingerprint

_AT_ONCE = 4  # pictures; more are no faster on a CPU, and want memory


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/florence_lab/features`, or the same in `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "florence_lab", "features")


class FeatureCache:
    """Pictures -> files with their image tokens.

    Attributes:
        folder: of these weights, this preprocessing and this number format.
    """

    def __init__(
        self,
        model: Florence2ForConditionalGeneration,
        processor: Florence2Processor,
        dtype: torch.dtype = torch.float32,
        root: str | Path | None = None,
    ):
        """
        Args:
            model: its tower and projector make the tokens, where it is.
            processor: makes pixels of pictures.
            dtype: what is computed in, `torch.bfloat16` under autocast, as in training.
            root: where all folders of tokens are; by default `default_folder()`.
        """
        self.model, self.processor, self.dtype = model, processor, dtype
        self.folder = Path(root or default_folder()) / self._fingerprint()

    def _fingerprint(self) -> str:
        settings = json.dumps(self.processor.image_processor.to_dict(), sort_keys=True, default=str)
        return image_encoder_fingerprint(self.model, self.dtype, settings)

    def path(self, picture: Image.Image) -> Path:
        """The file of a picture, be it there or not."""
        digest = hashlib.sha256(f"{picture.size}".encode())
        digest.update(picture.tobytes())
        return self.folder / f"{digest.hexdigest()[:32]}.safetensors"

    def compute(self, images: Iterable[Any]) -> list[Path]:
        """The files of pictures, N of them; those that are missing are made.

        Args:
            images: what `open_picture` takes.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        paths, missing = [], {}
        for image in tqdm(images, desc="image tokens", unit="picture"):
            picture = open_picture(image)
            paths.append(self.path(picture))
            if not paths[-1].exists():
                missing[paths[-1]] = picture
            if len(missing) == _AT_ONCE:
                self._write(missing)
                missing = {}
        self._write(missing)
        return paths

    @torch.no_grad()
    def _write(self, pictures: dict[Path, Image.Image]) -> None:
        if not pictures:
            return
        pixels = self.processor.image_processor(list(pictures.values()), return_tensors="pt")["pixel_values"]
        device = self.model.device
        with torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
            tokens = self.model.get_image_features(pixels.to(device)).pooler_output
        for path, one in zip(pictures, tokens.cpu(), strict=True):
            temporary = path.with_suffix(f".{os.getpid()}.tmp")  # whoever reads finds a whole file or none
            save_file({"tokens": one.contiguous()}, temporary)
            os.replace(temporary, path)


def read_features(paths: Sequence[Path]) -> torch.Tensor:
    """B x n x d_model, the image tokens of B pictures."""
    return torch.stack([load_file(path)["tokens"] for path in paths])

"""The images that a panel has opened."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from ..scenes import SAMPLES
from .images import SourceImage, load_sample, open_source, save_upload


class ImageLibrary:
    """Opens images, and recognizes those that are in use by their pixels, so that none is encoded twice.

    Threads may use it at the same time.
    """

    def __init__(self) -> None:
        """Create a library of the sample images."""
        # for images that have no path; a job that was stopped may still write one while it is deleted
        self._folder = tempfile.TemporaryDirectory(prefix="florence_lab-", ignore_cleanup_errors=True)
        self._known: WeakValueDictionary[str, SourceImage] = WeakValueDictionary()

    def load(self, source: Any, name: str = "the given image") -> SourceImage:
        """Return the image of a source.

        Args:
            source: a path or URL, or anything else that `florence_lab.load_image` reads.
            name: the name of a source that is neither.

        Raises:
            ImageError: if it is not an image.
        """
        if isinstance(source, (str, Path)):
            return open_source(str(source))
        return save_upload(source, name, Path(self._folder.name))

    def find_equal(self, image: SourceImage) -> SourceImage:
        """Return a sample, or an image that was passed before and is still in use, of equal pixels; else the image itself."""
        for sample in map(load_sample, SAMPLES):
            self._known.setdefault(sample.digest, sample)
        return self._known.setdefault(image.digest, image)

    def close(self) -> None:
        """Delete the files of images that had no path."""
        self._folder.cleanup()

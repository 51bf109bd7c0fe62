"""What the explorer may open when its page is served to other machines.

A visitor of the page acts with the rights of the user who started it. On this machine that is the same person. On other
machines it may be anybody who has the link, so paths would show files of this machine, and URLs would reach its network.
"""

from __future__ import annotations

import os

from ..exceptions import ArgumentError, ImageError, shorten
from ..loading.registry import available_models

PUBLIC_PAGE = "FLORENCE_LAB_PUBLIC_PAGE"
"""Environment variable that `florence-lab explore --ip` sets for its kernels: the model that the page was started with."""


def is_public_page() -> bool:
    """Return whether this process serves a visitor of another machine."""
    return PUBLIC_PAGE in os.environ


def check_source(source: str) -> None:
    """Check that a path or URL may be opened.

    Raises:
        ImageError: on a page that is served to other machines, for every path and URL.
    """
    if is_public_page():
        raise ImageError(
            f"{shorten(source)} is not opened, as this page is served to other machines; upload the image, or choose a sample"
        )


def check_model(model_type: str) -> None:
    """Check that a model may be loaded.

    Raises:
        ArgumentError: on a page that is served to other machines, for a model that is neither registered nor the one that the
            page was started with.
    """
    allowed = [*available_models(), os.environ.get(PUBLIC_PAGE, "")]
    if is_public_page() and model_type not in allowed:
        raise ArgumentError(
            f"{shorten(model_type)} is not loaded, as this page is served to other machines; choose a model of the list"
        )

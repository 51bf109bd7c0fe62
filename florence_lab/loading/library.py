"""Access to the process-wide state of transformers: one lock around loading and saving, and its output."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

from transformers.utils import logging

LIBRARY_LOCK = RLock()
"""Held while a model is loaded or saved.

transformers replaces process-wide state meanwhile (torch's default dtype, `PreTrainedModel.tie_weights`, the level of its logs) and
restores what it found. Two threads at once would restore the replacement of the other, and break all later loading.
"""


@contextmanager
def suppress_library_output() -> Iterator[None]:
    """Suppress the reports, progress bars and FutureWarnings of transformers; errors of this package state the same.

    `LIBRARY_LOCK` is held meanwhile.
    """
    with LIBRARY_LOCK:
        verbosity, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                yield
        finally:
            logging.set_verbosity(verbosity)
            if has_bars:
                logging.enable_progress_bar()

"""Results in the browser: an image with everything that was found on it, as one interactive widget."""

from .result_view import ResultView, view
from .widget import Viewer

__all__ = ["ResultView", "Viewer", "view"]

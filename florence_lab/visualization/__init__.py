"""Overlays of results on images, galleries, and training curves, drawn with matplotlib."""

from .curves import LiveLossPlot, plot_loss, plot_run, read_training_log, shipped_training_log
from .figures import NotebookFigure
from .gallery import gallery
from .overlay import draw_boxes, draw_polygons, draw_quads, draw_text, show, to_pdf, to_png, to_svg

__all__ = [
    "LiveLossPlot",
    "NotebookFigure",
    "draw_boxes",
    "draw_polygons",
    "draw_quads",
    "draw_text",
    "gallery",
    "plot_loss",
    "plot_run",
    "read_training_log",
    "shipped_training_log",
    "show",
    "to_pdf",
    "to_png",
    "to_svg",
]

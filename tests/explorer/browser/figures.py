"""What a page and its kernel hold: DOM nodes, listeners, memory, widgets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from explorer.browser.harness import Notebook

LIVE_WIDGETS = "len(_widgets)"
KERNEL_SETUP = """
import gc as _gc, sys as _sys
_gc.collect()
from ipywidgets.widgets.widget import _instances as _widgets
"""


@dataclass
class Figures:
    """What a page and its kernel hold at a moment, after garbage collection.

    Attributes:
        nodes: DOM nodes, also those outside the document.
        listeners: listeners of events.
        heap: bytes of the JavaScript heap.
        elements: elements in the document.
        widgets: live ipywidgets, Layouts and Styles included.
        figures: live matplotlib figures.
        rss: resident memory of the kernel in bytes.
    """

    nodes: int
    listeners: int
    heap: int
    elements: int
    widgets: int = 0
    figures: int = 0
    rss: int = 0

    def __str__(self) -> str:
        page = f"{self.nodes:,} DOM nodes, {self.listeners:,} listeners, {self.elements:,} elements, "
        page += f"JS heap {self.heap / 1e6:.1f} MB"
        kernel = f"{self.widgets} widgets, {self.figures} figures, kernel {self.rss / 1e6:,.0f} MB"
        return f"{page}, {kernel}"


def measure(page: Any, notebook: Notebook | None = None) -> Figures:
    """Measure a page, and the kernel of its notebook if that is given."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    session.send("HeapProfiler.enable")
    for _ in range(3):  # what a finalizer has let go is collected by the next one
        session.send("HeapProfiler.collectGarbage")
        page.wait_for_timeout(100)
    metrics = {entry["name"]: entry["value"] for entry in session.send("Performance.getMetrics")["metrics"]}
    session.detach()
    figures = Figures(
        nodes=int(metrics["Nodes"]),
        listeners=int(metrics["JSEventListeners"]),
        heap=int(metrics["JSHeapUsedSize"]),
        elements=page.evaluate("document.querySelectorAll('*').length"),
    )
    if notebook is not None:
        figures.widgets = notebook.evaluate(LIVE_WIDGETS, KERNEL_SETUP)
        count = "sum(type(o).__name__ == 'Figure' for o in _gc.get_objects()) if 'matplotlib' in _sys.modules else 0"
        figures.figures = notebook.evaluate(count, KERNEL_SETUP)
        figures.rss = notebook.evaluate("__import__('psutil').Process().memory_info().rss")
    return figures

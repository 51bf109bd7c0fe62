"""The view of one answer: the overlay, and beside it the instances, the raw text, the code and the downloads."""

from __future__ import annotations

from collections.abc import Callable

from ipywidgets import HTML, Box, FloatSlider, Layout, Tab, VBox
from ipywidgets import Image as ImageWidget

from . import markup
from .answer import Answer

PAGES = ("Answer", "Raw text", "Code", "Download")

Rendered = dict[str, str | bytes]
"""Name of a part of the view -> its HTML or PNG."""


class AnswerView(VBox):
    """Shows an answer while it grows, and files and code once it is complete.

    Attributes:
        answer: the answer that is shown; None if there is none.
        overlay: the image with the result drawn on it.
        threshold: the slider; instances with a lower score are hidden.
        pages: page name -> its HTML.
    """

    def __init__(self, on_error: Callable[[BaseException], None]) -> None:
        """Create an empty view. `on_error` is called if an answer cannot be drawn again after the slider has moved."""
        self.answer: Answer | None = None
        self._on_error = on_error
        self.title = HTML()
        self.overlay = ImageWidget(format="png")
        self.overlay.add_class("fl-picture")
        self.threshold = FloatSlider(
            0,
            min=0,
            max=1,
            step=0.01,
            description="score ≥",
            continuous_update=False,
            readout_format=".2f",
            layout=Layout(width="100%"),
            style={"description_width": "64px"},
        )
        self.threshold.observe(lambda change: self._refresh(), "value")
        self.hidden = HTML()
        self.pages = {name: HTML(layout=Layout(width="100%")) for name in PAGES}
        self._parts = self.pages | {"title": self.title, "hidden": self.hidden, "overlay": self.overlay}
        first_page = VBox([self.threshold, self.hidden, self.pages["Answer"]])
        self.tabs = Tab([first_page, *list(self.pages.values())[1:]], titles=PAGES)
        left = VBox([self.overlay], layout=Layout(flex="0 1 auto", min_width="0"))
        right = VBox([self.tabs], layout=Layout(flex="1 1 340px", min_width="0"))
        body = Box([left, right], layout=Layout(display="flex", flex_flow="row wrap", grid_gap="12px", width="100%"))
        super().__init__([self.title, body], layout=Layout(flex="1 1 220px", min_width="0"))

    def render(self, answer: Answer, draw_overlay: bool = True) -> Rendered:
        """Render an answer for `show`. This takes a while; any thread may call it.

        Args:
            answer: the answer.
            draw_overlay: draw the overlay of an answer that is not complete.
        """
        threshold = round(self.threshold.value, 2)  # its step is 0.01
        num_hidden = answer.num_hidden(threshold)
        rendered: Rendered = {
            "title": markup.render_title(answer),
            "hidden": markup.hint(f"{num_hidden} of {answer.count} hidden" if num_hidden else ""),
            "Answer": markup.render_answer(answer, threshold),
            "Raw text": markup.render_raw(answer),
        }
        if answer.is_complete:
            files = answer.files(threshold)
            rendered |= {"Code": markup.render_code(answer, threshold), "Download": markup.render_downloads(files)}
            rendered["overlay"] = files[f"{answer.stem}.png"][1]
            return rendered
        rendered |= dict.fromkeys(("Code", "Download"), markup.hint("Available once the answer is complete."))
        if draw_overlay and answer.results:
            rendered["overlay"] = answer.overlay(threshold)
        return rendered

    def show(self, answer: Answer, rendered: Rendered) -> None:
        """Show an answer as `render` returned it. Without an overlay the present one stays."""
        self.answer = answer
        for name, value in rendered.items():
            self._parts[name].value = value
        # a gallery takes the height that its width requires
        self.overlay.layout.max_height = "none" if answer.is_complete and answer.is_combined else None
        self.threshold.layout.display = "none" if answer.scores is None else None

    def clear(self, model_name: str, preview: bytes) -> None:
        """Show the image alone, before the model has answered."""
        self.answer = None
        self.title.value = markup.render_pending_title(model_name)
        self.overlay.value = preview
        self.overlay.layout.max_height = None
        for part in (self.hidden, *self.pages.values()):
            part.value = ""
        self.threshold.layout.display = "none"

    def _refresh(self) -> None:
        if self.answer is None:
            return
        try:
            self.show(self.answer, self.render(self.answer))
        except Exception as error:  # a widget must not end in a traceback
            self._on_error(error)

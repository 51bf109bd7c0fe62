"""The view of one answer: the overlay, and beside it the instances, the raw text, the code and the downloads."""

from __future__ import annotations

from ipywidgets import HTML, Box, FloatSlider, Layout, Tab, VBox
from ipywidgets import Image as ImageWidget

from . import markup
from .answers import Answer, Answers

PAGES = ("Answer", "Raw text", "Code", "Download")
WRITERS = {Answer: (markup.said, markup.raw), Answers: (markup.all_said, markup.all_raw)}
"""Kind of answer -> what writes the first two pages about what it shows."""


class AnswerView(VBox):
    """Shows growing answers, and the last one whole.

    Attributes:
        answer: what is shown; None if nothing is.
        threshold: the slider below which instances are hidden.
        pages: HTML of the answer, the raw text, the code and the downloads.
    """

    def __init__(self) -> None:
        self.answer: Answer | Answers | None = None
        self.title = HTML()
        self.overlay = ImageWidget(format="png")
        self.overlay.add_class("fl-picture")
        self.threshold = FloatSlider(
            0,
            min=0,
            max=1,
            step=0.01,
            description="confidence ≥",
            continuous_update=False,
            readout_format=".2f",
            layout=Layout(width="100%"),
            style={"description_width": "104px"},
        )
        self.threshold.observe(lambda change: self._refresh(), "value")
        self.count = HTML()
        self.pages = {name: HTML(layout=Layout(width="100%")) for name in PAGES}
        self._places = self.pages | {"title": self.title, "count": self.count, "overlay": self.overlay}
        first = VBox([self.threshold, self.count, self.pages["Answer"]])
        self.tabs = Tab([first, *list(self.pages.values())[1:]], titles=PAGES)
        left = VBox([self.overlay], layout=Layout(flex="0 1 auto", min_width="0"))
        right = VBox([self.tabs], layout=Layout(flex="1 1 340px", min_width="0"))
        body = Box([left, right], layout=Layout(display="flex", flex_flow="row wrap", grid_gap="12px", width="100%"))
        super().__init__([self.title, body], layout=Layout(flex="1 1 220px", min_width="0"))

    @property
    def shown(self) -> bytes:
        """The PNG on show."""
        return self.overlay.value

    def render(self, answer: Answer | Answers, draws: bool = True) -> dict[str, str | bytes]:
        """What `show` puts where; takes a while, and may be called from any thread. The overlay only if it `draws`."""
        threshold = self.threshold.value
        said, raw = WRITERS[type(answer)]
        rendered: dict[str, str | bytes] = {
            "title": markup.title(answer),
            "count": markup.hint(answer.hidden(threshold)),
            "Answer": said(answer.shown(threshold)),
            "Raw text": raw(answer.shown()),
        }
        if answer.whole:
            files = answer.files(threshold)
            rendered |= {"Code": markup.code(answer, threshold), "Download": markup.links(files)}
            rendered["overlay"] = files[f"{answer.stem}.png"][1]
        else:
            rendered |= dict.fromkeys(("Code", "Download"), markup.hint("Comes with the whole answer."))
            rendered |= {"overlay": answer.overlay(threshold)} if draws else {}
        return rendered

    def show(self, answer: Answer | Answers, rendered: dict[str, str | bytes]) -> None:
        """Shows an answer as `render` gave it; without an overlay the one that is there stays."""
        self.answer = answer
        for name, value in rendered.items():
            self._places[name].value = value
        # a gallery is as high as its width makes it
        self.overlay.layout.max_height = "none" if answer.whole and isinstance(answer, Answers) else None
        self.threshold.layout.display = None if answer.has_scores else "none"

    def clear(self, model: str, picture: bytes) -> None:
        """The bare picture, before the first word."""
        self.answer = None
        self.title.value = markup.waiting(model)
        self.overlay.value = picture
        self.overlay.layout.max_height = None
        for page in (self.count, *self.pages.values()):
            page.value = ""
        self.threshold.layout.display = "none"

    def _refresh(self) -> None:
        if self.answer is not None:
            self.show(self.answer, self.render(self.answer))

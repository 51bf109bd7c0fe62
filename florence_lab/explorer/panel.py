"""The panel: a picture, a question and a model on the left; what comes back on the right."""

from __future__ import annotations

import random
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ipywidgets import (
    HTML,
    BoundedIntText,
    Box,
    Button,
    Checkbox,
    Dropdown,
    FileUpload,
    GridBox,
    HBox,
    Layout,
    Text,
    ToggleButtons,
    VBox,
    Widget,
)
from ipywidgets import Image as ImageWidget

from ..loading.registry import available_models
from ..predictor import Predictor
from ..scenes import HELD_OUT_SEEDS, SAMPLES
from ..tasks import FREE_QUESTION, TASKS, Task, get_task
from . import markup
from .answer import AnswerView
from .answers import Answer, Answers
from .images import Picture, kept_picture, opened_picture, sample_picture, scene_picture
from .messages import explain, what_it_knows
from .predictor_cache import SHELF
from .region import RegionPicker
from .session import ALL_TASKS, Question, Stopped, ask

SIDE_WIDTH = 330  # pixels of the left column
HISTORY = 8
DRAWN_ONE_BY_ONE = 20  # instances; more of them, and drawing would take longer than answering
GROUPS = {"none": "takes the picture alone", "phrase": "takes a phrase", "region": "takes a region"}
LABELS = {FREE_QUESTION.token: "a question in your own words", ALL_TASKS.token: "all of these at once"}
ELSEWHERE = "a folder or hub id …"
SOURCES = ("Samples", "Upload", "Path or URL", "Scene")

STILL_BUSY = "Still busy with what was asked before; Stop ends that."
WIDE = {"width": "100%"}


def _task_options() -> list[tuple[str, str]]:
    """The tasks under headings by what they take; choosing a heading leads to the first task under it."""
    options = []
    for kind, heading in GROUPS.items():
        tasks = [task for task in [*TASKS.values(), FREE_QUESTION, ALL_TASKS] if task.input == kind]
        options.append((f"── {heading}", f"heading {tasks[0].token}"))
        options += [(f"\u2003{LABELS.get(task.token, task.token)}", task.token) for task in tasks]
    return options


class ModelChooser(VBox):
    """A model of the catalogue, or a folder or hub id in a field of its own.

    Attributes:
        name: what `florence_lab.load` is to be given.
    """

    def __init__(self, name: str, changed: Callable[[], None]) -> None:
        self.choice = Dropdown(options=[*available_models(), ELSEWHERE], layout=Layout(**WIDE))
        self.field = Text(placeholder="a checkpoint folder, or organisation/name", layout=Layout(**WIDE))
        self._changed = changed
        super().__init__([self.choice, self.field], layout=Layout(**WIDE))
        self.name = name
        self.choice.observe(lambda change: self._chosen(), "value")
        self.field.observe(lambda change: self._chosen(), "value")
        self._show_field()

    @property
    def name(self) -> str:
        return self.field.value.strip().strip("\"'") if self.choice.value == ELSEWHERE else self.choice.value

    @name.setter
    def name(self, name: str) -> None:
        known = name in available_models()
        self.field.value = "" if known else name
        self.choice.value = name if known else ELSEWHERE

    def _chosen(self) -> None:
        self._show_field()
        self._changed()

    def _show_field(self) -> None:
        self.field.layout.display = None if self.choice.value == ELSEWHERE else "none"


class Explorer(VBox):
    """The panel that `florence_lab.explore` gives.

    One thing is done at a time, in a thread; what it still has to say after Stop is not shown.

    Attributes:
        picture: what is asked about.
        busy: whether something is being done.
        views: the answers on show, the second one for comparisons.
        history: the last answers, newest first, each with those of the models that it was put to.
    """

    def __init__(self, model: str, image: Any, task: str) -> None:
        self.picture = sample_picture(next(iter(SAMPLES)))
        self.history: list[list[Answer | Answers]] = []
        self._lock = threading.RLock()
        self._stop: threading.Event | None = None  # of what is being done
        self._folder = tempfile.TemporaryDirectory(prefix="florence_lab-")  # goes when the panel does
        self.views = [AnswerView(), AnswerView()]
        super().__init__(layout=Layout(**WIDE))
        self.add_class("fl-panel")
        main = VBox(self._build_main(), layout=Layout(flex="1 1 380px", min_width="0", grid_gap="6px"))
        side = VBox(
            [*self._build_picture(), *self._build_question(), *self._build_models(model), *self._build_buttons()],
            layout=Layout(flex=f"0 0 {SIDE_WIDTH}px", grid_gap="4px"),
        )
        columns = Box([side, main], layout=Layout(display="flex", flex_flow="row wrap", grid_gap="18px", **WIDE))
        self.children = [HTML(markup.style(), layout=Layout(display="none")), columns]
        self._start_with(image, task)

    # ------------------------------------------------------------------ what it is made of

    def _build_picture(self) -> list[Widget]:
        self.samples = {name: Button(description=name, tooltip=f"sample: {name}") for name in SAMPLES}
        for name, button in self.samples.items():
            button.add_class("fl-sample").add_class(f"fl-sample-{name}")
            button.on_click(lambda _, name=name: self._take(lambda: sample_picture(name)))
        self.upload = FileUpload(accept="image/*", description="Choose a file", layout=Layout(**WIDE))
        self.upload.observe(lambda change: self._take_upload(change["new"]), "value")
        self.source = Text(placeholder="path or https://…", layout=Layout(flex="1 1 0", min_width="0"))
        self.source.on_msg(lambda _, content, __: content.get("event") == "submit" and self.open.click())
        self.open = Button(description="Open", layout=Layout(width="64px"))
        self.open.on_click(lambda _: self._open(self.source.value))
        self.seed = BoundedIntText(0, 0, HELD_OUT_SEEDS[-1], description="seed", style={"description_width": "36px"})
        self.seed.layout = Layout(flex="1 1 0", min_width="0")
        self.seed.observe(lambda change: self._take(lambda: scene_picture(change["new"])), "value")
        self.dice = Button(description="Another", icon="random", layout=Layout(width="110px"))
        self.dice.on_click(lambda _: setattr(self.seed, "value", random.choice(HELD_OUT_SEEDS)))
        parts = {
            "Samples": HBox([*self.samples.values()], layout=Layout(justify_content="space-between", **WIDE)),
            "Upload": self.upload,
            "Path or URL": HBox([self.source, self.open], layout=Layout(**WIDE)),
            "Scene": HBox([self.seed, self.dice], layout=Layout(**WIDE)),
        }
        self.sources = ToggleButtons(options=SOURCES, style={"button_width": "auto"}, layout=Layout(**WIDE))
        where = VBox([parts["Samples"]], layout=Layout(min_height="60px", justify_content="center", **WIDE))
        self.sources.observe(lambda change: self._choose_source(where, parts[change["new"]]), "value")
        self.preview = ImageWidget(format="png")
        self.preview.add_class("fl-preview")
        self.about = HTML()
        self.stage = VBox([self.preview], layout=Layout(**WIDE))
        self.region = RegionPicker(SIDE_WIDTH - 10)
        return [HTML(markup.heading("Picture")), self.sources, where, self.stage, self.about]

    def _build_question(self) -> list[Widget]:
        self.task = Dropdown(options=_task_options(), value="<OD>", layout=Layout(**WIDE))
        self.task.observe(lambda change: self._choose_task(), "value")
        self.task_line = HTML()
        self.phrase = Text(layout=Layout(**WIDE))
        self.phrase.on_msg(lambda _, content, __: content.get("event") == "submit" and self.run.click())
        return [HTML(markup.heading("Question")), self.task, self.task_line, self.phrase]

    def _build_models(self, model: str) -> list[Widget]:
        self.model = ModelChooser(model, self._note)
        self.compiled = Checkbox(
            False, description="compile: slower to load, faster to answer", indent=False, layout=Layout(**WIDE)
        )
        self.compare = Checkbox(False, description="compare with another", indent=False, layout=Layout(**WIDE))
        self.compare.observe(lambda change: self._choose_task(), "value")
        others = [name for name in available_models() if name != self.model.name]
        self.other = ModelChooser(others[0], self._note)
        return [HTML(markup.heading("Model")), self.model, self.compiled, self.compare, self.other]

    def _build_buttons(self) -> list[Widget]:
        self.run = Button(description="Run", button_style="primary", icon="play", layout=Layout(flex="2 1 0"))
        self.run.on_click(lambda _: self._run())
        self.stop = Button(description="Stop", icon="stop", disabled=True, layout=Layout(flex="1 1 0"))
        self.stop.on_click(lambda _: self._halt())
        return [HBox([self.run, self.stop], layout=Layout(margin="6px 0 0 0", **WIDE))]

    def _build_main(self) -> list[Widget]:
        self.status, self.note = HTML(), HTML()
        self.answers = Box(layout=Layout(display="flex", flex_flow="row wrap", grid_gap="18px", **WIDE))
        self.answers.children = [HTML(markup.EMPTY, layout=Layout(**WIDE))]
        self.past = GridBox(
            layout=Layout(grid_template_columns="repeat(auto-fill, minmax(230px, 1fr))", grid_gap="4px", **WIDE)
        )
        self.past_heading = HTML(markup.heading("History"), layout=Layout(display="none"))
        return [self.status, self.note, self.answers, self.past_heading, self.past]

    def _start_with(self, image: Any, task: str) -> None:
        """What `explore` was called with; a mistake in it becomes the panel's first line."""
        self._set_picture(self.picture)
        if isinstance(image, (str, Path)):
            self.sources.value, self.source.value = "Path or URL", str(image)
            self._open(str(image))
        elif image is not None:
            self._take(lambda: kept_picture(image, "the image given", Path(self._folder.name)))
        try:
            self.task.value = get_task(task).token
        except (ValueError, AttributeError) as error:  # the latter for what is no string
            self._say("error", explain(error))
        self._choose_task()

    # ------------------------------------------------------------------ choosing

    def _choose_source(self, where: VBox, part: Widget) -> None:
        where.children = [part]
        if self.sources.value == "Scene":
            self._take(lambda: scene_picture(self.seed.value))

    def _take(self, get: Callable[[], Picture]) -> None:
        """Asks about another picture from now on, if it can be had."""
        try:
            picture = get()
        except Exception as error:  # nothing a person gives may end in a dead panel
            self._say("error", explain(error))
            return
        self._set_picture(picture)
        self._say("", "")

    def _set_picture(self, picture: Picture) -> None:
        self.picture = picture
        self.preview.value = picture.preview
        width, height = picture.image.size
        self.about.value = markup.hint(f"{picture.name}, {width} × {height} pixels")
        for name, button in self.samples.items():
            (button.add_class if picture is sample_picture(name) else button.remove_class)("fl-chosen")
        self._show_stage()
        self._note()

    def _show_stage(self) -> None:
        """The picture as the question needs it; what a region is dragged on is built only for those who drag."""
        picks = self.chosen_task.input == "region"
        if picks:
            self.region.show(self.picture.image)
        self.stage.children = [self.region if picks else self.preview]

    def _take_upload(self, files: tuple[dict, ...]) -> None:
        if files:
            content, name = bytes(files[0]["content"]), files[0]["name"]
            self._take(lambda: kept_picture(content, name, Path(self._folder.name)))
            self.upload.value = ()  # or the same file could not be chosen again

    def _open(self, source: str) -> None:
        def work(stop: threading.Event) -> None:
            picture = opened_picture(source)
            self._update(stop, lambda: self._set_picture(picture))
            self._update(stop, lambda: self._say("", ""))

        self._start(work, f"opening {source}")

    @property
    def chosen_task(self) -> Task:
        return ALL_TASKS if self.task.value == ALL_TASKS.token else get_task(self.task.value)

    def _choose_task(self) -> None:
        if self.task.value.startswith("heading "):
            self.task.value = self.task.value.removeprefix("heading ")
            return
        task = self.chosen_task
        self.task_line.value = markup.hint(task.description)
        self.phrase.layout.display = None if task.input == "phrase" else "none"
        self.phrase.placeholder = "a sheep" if task.token else "What is in the picture?"
        self._show_stage()
        self.other.layout.display = None if self.compare.value else "none"
        self._note()

    def _note(self, warning: str = "") -> None:
        """Says where a model that ships will be lost, and what else there is to know."""
        lines = (what_it_knows(self._models(), self.picture), warning)
        self.note.value = "".join(markup.line("note", text) for text in lines)

    def _models(self) -> tuple[str, ...]:
        return (self.model.name, self.other.name) if self.compare.value else (self.model.name,)

    def _question(self) -> Question:
        """What the panel is set to; `ValueError` with what is missing."""
        if "" in self._models():
            raise ValueError(
                "No model is named: give a checkpoint folder, or a hub id such as microsoft/Florence-2-base."
            )
        task = self.chosen_task
        name = task.token or "A question in your own words"
        text = {"none": None, "phrase": self.phrase.value.strip(), "region": self.region.region}[task.input]
        if task.input == "phrase" and not text:
            raise ValueError(f"{name} needs a phrase: write one into the field, such as {self.phrase.placeholder!r}.")
        if task.input == "region" and text is None:
            raise ValueError(f"{name} needs a region: drag one on the picture, or give its four numbers.")
        return Question(self.picture, task.token, text, self._models(), self.compiled.value)

    # ------------------------------------------------------------------ doing one thing at a time

    @property
    def busy(self) -> bool:
        return self._stop is not None

    def _start(self, work: Callable[[threading.Event], None], line: str) -> None:
        """Does something in a thread, with its own event to stop it."""
        with self._lock:
            if self.busy:
                self._say("busy", STILL_BUSY)
                return
            stop = self._stop = threading.Event()
            self._say("busy", line)
            self._show_busy()
        threading.Thread(target=self._work, args=(work, stop), daemon=True).start()

    def _work(self, work: Callable[[threading.Event], None], stop: threading.Event) -> None:
        try:
            work(stop)
        except Stopped:
            pass
        except BaseException as error:  # whatever it is, the panel stays alive and says it
            self._update(stop, lambda error=error: self._say("error", explain(error)))
        self._update(stop, self._rest)

    def _update(self, stop: threading.Event, change: Callable[[], None]) -> None:
        """Changes what is shown, unless the thread that wants to was stopped."""
        with self._lock:
            if self._stop is stop:
                change()

    def _halt(self) -> None:
        with self._lock:
            if self._stop is not None:
                self._stop.set()
                self._rest()
                self._say("done", "Stopped.")

    def _rest(self) -> None:
        self._stop = None
        self._show_busy()

    def _show_busy(self) -> None:
        self.run.disabled, self.stop.disabled = self.busy, not self.busy
        for control in (*self.past.children, *(view.threshold for view in self.views)):
            control.disabled = self.busy  # they would be overwritten by what is being done

    def _say(self, kind: str, text: str) -> None:
        self.status.value = markup.line(kind, text)

    # ------------------------------------------------------------------ asking

    def _run(self) -> None:
        if self.busy:
            self._say("busy", STILL_BUSY)
            return
        try:
            question = self._question()
            warning = question.check()
        except Exception as error:  # nothing a person asks may end in a dead panel
            self._say("error", explain(error))
            return
        self._note(warning)
        self._start(lambda stop: self._ask(question, stop), f"loading {question.models[0]}")

    def _ask(self, question: Question, stop: threading.Event) -> None:
        self._update(stop, lambda: self._clear(question))
        answers: list[Answer | Answers] = []
        try:
            for model, view in zip(question.models, self.views, strict=False):
                answers.append(self._ask_one(question, model, view, stop))
        finally:  # what one model has answered stays, also where the other can't be had
            if answers:
                self._update(stop, lambda: self._remember(answers))
        self._update(stop, lambda: self._say("done", "Done."))

    def _ask_one(self, question: Question, model: str, view: AnswerView, stop: threading.Event) -> Answer | Answers:
        predictor = self._predictor(model, question.compiled, stop)
        self._update(stop, lambda: self._say("busy", f"{model} looks at the picture"))
        drawn = 0
        for answer in ask(question, model, predictor, stop):
            count = answer.count
            draws = drawn < count <= DRAWN_ONE_BY_ONE
            drawn = count
            rendered = view.render(answer, draws)
            self._update(stop, lambda answer=answer, rendered=rendered: view.show(answer, rendered))
            self._update(
                stop, lambda count=count: self._say("busy", f"{model} answers{f': {count}' if count else ''} …")
            )
        return answer

    def _predictor(self, model: str, compiled: bool, stop: threading.Event) -> Predictor:
        if not SHELF.holds(model, compiled):
            minute = ", and compiling takes a minute" if compiled else ""
            line = f"loading {model}; the first time it may have to be fetched{minute}"
            self._update(stop, lambda: self._say("busy", line))
        predictor = SHELF.get(model, compiled)
        warning = SHELF.warning(predictor)
        if warning:
            self._update(stop, lambda: self._add_note(f"{model}: {warning}"))
        return predictor

    def _add_note(self, text: str) -> None:
        self.note.value += markup.line("note", text)

    def _clear(self, question: Question) -> None:
        self.answers.children = self.views[: len(question.models)]
        for model, view in zip(question.models, self.views, strict=False):
            view.clear(model, question.picture.preview)

    # ------------------------------------------------------------------ history

    def _remember(self, answers: list[Answer | Answers]) -> None:
        self.answers.children = self.views[: len(answers)]
        self.history = [answers, *self.history][:HISTORY]
        self.past_heading.layout.display = None
        self.past.children = [self._past_button(answers) for answers in self.history]

    def _past_button(self, answers: list[Answer | Answers]) -> Button:
        question = answers[0].question
        text = "" if question.text is None else f" {question.text}"
        models = " / ".join(Path(answer.model).name for answer in answers)
        compiled = ", compiled" if question.compiled else ""
        label = f"{question.task.strip('<>') or 'question'}{text} · {question.picture.name} · {models}{compiled}"
        button = Button(description=label, tooltip=label, disabled=self.busy, layout=Layout(width="auto"))
        button.add_class("fl-past")
        button.on_click(lambda _: self._return_to(answers))
        return button

    def _return_to(self, answers: list[Answer | Answers]) -> None:
        """Shows old answers, and sets the panel to what was asked."""
        if self.busy:
            return
        question = answers[0].question
        self._set_picture(question.picture)
        self.task.value = question.task
        kind = self.chosen_task.input
        self.phrase.value = question.text if kind == "phrase" else self.phrase.value
        self.region.region = question.text if kind == "region" else None
        self.model.name = question.models[0]
        self.compiled.value = question.compiled
        self.compare.value = len(question.models) > 1
        self.other.name = question.models[1] if self.compare.value else self.other.name
        self.answers.children = self.views[: len(answers)]
        for answer, view in zip(answers, self.views, strict=False):
            view.show(answer, view.render(answer))
        self._say("done", "From the history.")

"""The HTML of the panel. Text of models, files and users is escaped here, and nowhere else."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib import resources
from typing import Literal

from PIL import Image

from ..results import Instances, Result, Text
from ..scenes import SAMPLES, sample_path
from .answer import Answer

EMPTY = '<div class="fl-empty">Select an image and a task, then press Run.</div>'

_THUMBNAIL_SIDE = 100  # pixels; displayed at half the size, for displays of high resolution
_MARKUP_RE = re.compile(r"(<loc_\d+>|<sep>|<and>|<poly>|</poly>)")
_NO_LABEL = "–"
_INSTANCE_HEADER = (
    "<tr><th>#</th><th class='name'>label</th><th>score</th><th>x0</th><th>y0</th><th>x1</th><th>y1</th></tr>"
)
_TASK_HEADER = "<tr><th class='task'>task</th><th class='name'>answer</th></tr>"

_TRUNCATED = "The answer is truncated: it reached the limit of its length. What follows is missing."

StatusKind = Literal["busy", "done", "note", "error"]


@cache
def style_sheet() -> str:
    """Return the style sheet, with the thumbnails of the samples: a Button can show an image only as its background."""
    css = (resources.files("florence_lab") / "assets" / "explorer.css").read_text(encoding="utf-8")
    thumbnails = "".join(
        f".fl-sample-{name} {{ background-image: url({data_uri('image/jpeg', _thumbnail(name))}); }}"
        for name in SAMPLES
    )
    return f"<style>{css}{thumbnails}</style>"


def _thumbnail(name: str) -> bytes:
    with Image.open(sample_path(name)) as source:
        image = source.convert("RGB")
    image.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()


def data_uri(mime_type: str, content: bytes) -> str:
    """Return a `data:` URI with the content."""
    return f"data:{mime_type};base64,{base64.b64encode(content).decode()}"


def heading(text: str) -> str:
    """Return the heading of a section."""
    return f'<div class="fl-head">{escape(text)}</div>'


def hint(text: str) -> str:
    """Return a pale line; "" for an empty text."""
    return f'<div class="fl-hint">{escape(text)}</div>' if text else ""


def status_line(kind: StatusKind, text: str) -> str:
    """Return a highlighted line; "" for an empty text."""
    return f'<div class="fl-line fl-{kind}">{escape(text)}</div>' if text else ""


def truncation_notice(results: Sequence[Result]) -> str:
    """Return a line that names the truncated answers; "" if there are none."""
    tasks = [result.task for result in results if result.truncated]
    names = f" ({', '.join(tasks)})" if len(results) > 1 else ""
    return status_line("note", f"{_TRUNCATED}{names}") if tasks else ""


def render_title(answer: Answer) -> str:
    """Return the name of the model, and the time of the image encoder and the decoder in seconds."""
    image = "cached" if answer.image_seconds is None else f"{answer.image_seconds:.2f} s"
    times = f"image encoder: {image} · decoder: {answer.text_seconds:.2f} s"
    return f'<div class="fl-title"><b>{escape(answer.model_name)}</b><span>{times}</span></div>'


def render_pending_title(model_name: str) -> str:
    """Return the name of a model that has not answered yet."""
    return f'<div class="fl-title"><b>{escape(model_name)}</b></div>'


def render_answer(answer: Answer, threshold: float = 0.0) -> str:
    """Return the answer for reading: a text, a table of instances, or a table of tasks."""
    results = answer.filtered(threshold)
    if answer.is_combined:
        return render_tasks(results)
    return "".join(map(render_result, results))


def render_result(result: Result) -> str:
    """Return a text, or a table with a row for each instance: label, score and bounding box in pixels.

    A notice follows if the answer is truncated.
    """
    return _render_content(result) + truncation_notice([result])


def _render_content(result: Result) -> str:
    if isinstance(result, Text):
        return f'<div class="fl-text">{escape(result.text)}</div>' if result.text else hint("The answer is empty.")
    assert isinstance(result, Instances)
    if not len(result):
        return hint("No instances.")
    scores = [None] * len(result) if result.scores is None else result.scores.tolist()
    rows = zip(result.class_names.tolist(), scores, result.xyxy.tolist(), strict=True)
    return _table(_INSTANCE_HEADER, "".join(_instance_row(number, *row) for number, row in enumerate(rows, start=1)))


def render_tasks(results: Sequence[Result]) -> str:
    """Return a table with a row for each task: its text, or the labels with their scores."""
    if not results:
        return hint("All answers appear together.")
    rows = (
        f'<tr><td class="task">{escape(result.task)}</td><td class="name">{_summary(result)}</td></tr>'
        for result in results
    )
    return _table(_TASK_HEADER, "".join(rows)) + truncation_notice(results)


def _table(header: str, body: str) -> str:
    return f'<div class="fl-scroll"><table class="fl-table">{header}{body}</table></div>'


def _instance_row(number: int, label: str, score: float | None, box: Sequence[float]) -> str:
    bar = "" if score is None else f'<span class="fl-bar"><i style="width:{100 * score:.0f}%"></i></span>{score:.2f}'
    coordinates = "".join(f"<td>{value:.0f}</td>" for value in box)
    name = escape(label) or _NO_LABEL
    return f"<tr><td>{number}</td><td class='name'>{name}</td><td>{bar}</td>{coordinates}</tr>"


def _summary(result: Result) -> str:
    if not isinstance(result, Instances):
        return escape(getattr(result, "text", "")) or _NO_LABEL
    if not len(result):
        return _NO_LABEL
    scores = [""] * len(result) if result.scores is None else [f"{score:.2f}" for score in result.scores]
    pairs = zip(result.class_names.tolist(), scores, strict=True)
    return "".join(
        f'<span class="fl-label">{escape(name) or _NO_LABEL} <i>{score}</i></span> ' for name, score in pairs
    )


def render_raw(answer: Answer) -> str:
    """Return the prompt that the model read and the text that it generated, for each result."""
    parts = []
    for result in answer.results:
        parts += [heading(result.task)] if answer.is_combined else []
        parts += [hint("Prompt"), f'<div class="fl-raw">{escape(result.prompt)}</div>']
        parts += [hint("Generated text"), f'<div class="fl-raw">{color_tokens(result.raw)}</div>']
    return "".join(parts)


def color_tokens(text: str) -> str:
    """Return a generated text with its location tokens in two colors, one for x and one for y.

    After each word or separator the first location token is an x coordinate.
    """
    parts, is_y = [], False
    for part in filter(None, _MARKUP_RE.split(text)):
        if part.startswith("<loc_"):
            parts.append(f'<span class="{"y" if is_y else "x"}">{escape(part)}</span>')
            is_y = not is_y
        else:
            is_separator = _MARKUP_RE.fullmatch(part)
            parts.append(f'<span class="mark">{escape(part)}</span>' if is_separator else escape(part))
            is_y = False
    return "".join(parts)


def render_code(answer: Answer, threshold: float) -> str:
    """Return the code for the answer. A click selects all of it."""
    note = "Click to select the code, then paste it into a cell."
    if answer.question.image.is_temporary:
        note += " The file of the image is deleted when this kernel ends."
    return hint(note) + f'<pre class="fl-code">{escape(answer.code(threshold))}</pre>'


def render_downloads(files: dict[str, tuple[str, bytes]]) -> str:
    """Return links that contain the files. `files`: file name -> (MIME type, content)."""
    links = (
        f'<a download="{escape(name)}" href="{data_uri(mime_type, content)}">{escape(name)}</a>'
        for name, (mime_type, content) in files.items()
    )
    return f'<div class="fl-links">{"".join(links)}</div>'

"""The panel's HTML. Whatever a model, a file or a person said goes through `escape` on its way."""

from __future__ import annotations

import base64
import io
import re
from functools import cache
from html import escape
from pathlib import Path

from PIL import Image

from ..results import Result, Text
from ..scenes import SAMPLES, sample_path
from .answers import Answer, Answers

CSS = Path(__file__).parents[1] / "assets" / "explorer.css"
EMPTY = '<div class="fl-empty">Choose a picture and a question, then Run.</div>'
THUMBNAIL_SIDE = 100  # pixels; drawn at half of that, for sharp screens

_MARKUP = re.compile(r"(<loc_\d+>|<sep>|<and>|<poly>|</poly>)")


@cache
def style() -> str:
    """The looks of the panel, and the thumbnails of the samples: a Button can show a picture only as its background."""
    thumbnails = "".join(
        f".fl-sample-{name} {{ background-image: url({data_uri('image/jpeg', _thumbnail(name))}); }}"
        for name in SAMPLES
    )
    return f"<style>{CSS.read_text(encoding='utf-8')}{thumbnails}</style>"


def _thumbnail(name: str) -> bytes:
    with Image.open(sample_path(name)) as image:
        image = image.convert("RGB")
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()


def data_uri(mime: str, content: bytes) -> str:
    """Content as a link that needs no server."""
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def heading(text: str) -> str:
    return f'<div class="fl-head">{escape(text)}</div>'


def hint(text: str) -> str:
    """A pale line; nothing for an empty text."""
    return f'<div class="fl-hint">{escape(text)}</div>' if text else ""


def line(kind: str, text: str) -> str:
    """One line of kind busy, done, note or error; nothing for an empty text."""
    return f'<div class="fl-line fl-{kind}">{escape(text)}</div>' if text else ""


def title(answer: Answer | Answers) -> str:
    """Which model, and the seconds it took."""
    seen = "encoded before, 0.00 s" if answer.image_seconds is None else f"{answer.image_seconds:.2f} s"
    times = f"picture: {seen} · text: {answer.text_seconds:.2f} s"
    return f'<div class="fl-title"><b>{escape(answer.model)}</b><span>{times}</span></div>'


def waiting(model: str) -> str:
    return f'<div class="fl-title"><b>{escape(model)}</b></div>'


def said(result: Result) -> str:
    """The answer for people: a text, or a table of the instances."""
    if isinstance(result, Text):
        return f'<div class="fl-said">{escape(result.text)}</div>' if result.text else hint("The answer is empty.")
    if not len(result.labels):
        return hint("No instance.")
    head = (
        "<tr><th>#</th><th class='name'>label</th><th>confidence</th><th>x0</th><th>y0</th><th>x1</th><th>y1</th></tr>"
    )
    table = result.to_dataframe()
    scores = [None] * len(table) if result.scores is None else result.scores.tolist()
    boxes = table[["x0", "y0", "x1", "y1"]].to_numpy()
    rows = zip(result.labels, scores, boxes, strict=True)
    body = "".join(_row(number, *row) for number, row in enumerate(rows, start=1))
    return _table(head, body)


def _table(head: str, body: str) -> str:
    return f'<div class="fl-scroll"><table class="fl-table">{head}{body}</table></div>'


def _row(number: int, label: str, score: float | None, box: list[float]) -> str:
    bar = "" if score is None else f'<span class="fl-bar"><i style="width:{100 * score:.0f}%"></i></span>{score:.2f}'
    places = "".join(f"<td>{side:.0f}</td>" for side in box)
    return f"<tr><td>{number}</td><td class='name'>{escape(label) or '–'}</td><td>{bar}</td>{places}</tr>"


def all_said(results: list[Result]) -> str:
    """A table of tasks, each with its text or its labels with their confidences."""
    if not results:
        return hint("All answers come at once.")
    rows = (
        f'<tr><td class="task">{escape(result.task)}</td><td class="name">{_in_short(result)}</td></tr>'
        for result in results
    )
    return _table("<tr><th class='task'>task</th><th class='name'>answer</th></tr>", "".join(rows))


def _in_short(result: Result) -> str:
    if isinstance(result, Text) or not len(result.labels):
        return escape(getattr(result, "text", "")) or "–"
    scores = [""] * len(result) if result.scores is None else [f"{score:.2f}" for score in result.scores]
    labels = zip(result.labels, scores, strict=True)
    return "".join(f'<span class="fl-label">{escape(label) or "–"} <i>{score}</i></span> ' for label, score in labels)


def all_raw(results: list[Result]) -> str:
    """`raw` of each task, under its token."""
    return "".join(heading(result.task) + raw(result) for result in results)


def raw(result: Result) -> str:
    """The prompt that the model saw and the text it gave, the location tokens in two colours: across and down."""
    return (
        f'{hint("The model read")}<div class="fl-raw">{escape(result.prompt)}</div>'
        f'{hint("and wrote")}<div class="fl-raw">{coloured(result.raw)}</div>'
    )


def coloured(text: str) -> str:
    """Text with its location tokens in colour, x and y by turns from the first one after words or marks."""
    parts, down = [], False
    for part in filter(None, _MARKUP.split(text)):
        if part.startswith("<loc_"):
            parts.append(f'<span class="{"y" if down else "x"}">{escape(part)}</span>')
            down = not down
        else:
            parts.append(f'<span class="mark">{escape(part)}</span>' if _MARKUP.fullmatch(part) else escape(part))
            down = False
    return "".join(parts)


def code(answer: Answer | Answers, threshold: float) -> str:
    """Code that one click selects as a whole."""
    goes = " The picture's file goes when this kernel ends." if answer.question.picture.is_kept else ""
    text = f'<pre class="fl-code">{escape(answer.code(threshold))}</pre>'
    return hint(f"One click selects it, for a cell of yours.{goes}") + text


def links(files: dict[str, tuple[str, bytes]]) -> str:
    """Files as links that hold them."""
    anchors = (
        f'<a download="{escape(name)}" href="{data_uri(mime, content)}">{escape(name)}</a>'
        for name, (mime, content) in files.items()
    )
    return f'<div class="fl-links">{"".join(anchors)}</div>'

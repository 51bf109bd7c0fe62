"""The widget: an image with everything that was found on it, drawn in the browser."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import traitlets
from PIL import Image

from ..exceptions import shorten, summarize_error
from .files import DownloadFile
from .picture import Picture
from .uploads import UploadReceiver

ARRANGEMENTS = ("single", "compare", "tasks")
"""One answer; two answers of two models about one image; several answers about one image, one of them shown at a time."""

PHASES = ("empty", "loading", "answering", "done", "stopped", "error")

MAX_UPLOAD_BYTES = 64 * 2**20
"""Largest file that can be uploaded, as the largest that `load_image` reads from a URL."""


_PICTURE_FIELDS = ("id", "name", "width", "height")


def _trait(trait: traitlets.TraitType) -> Any:
    return trait.tag(sync=True)


class Viewer(anywidget.AnyWidget):
    """An image, and the answers about it: drawn, as a list of instances, as raw text and as code.

    Python sets the traits, the front end (`viewer.js`) draws them. The front end sets `region`, `threshold`, `active` and
    `selected` as well. Zoom, hover, hidden instances and the open tab are known to the front end only.

    Attributes:
        picture: `{}`, or `{"id": str, "name": str, "width": int, "height": int}` in pixels of the full image.
        pixels: the image as a JPEG or PNG file of at most 1,600 pixels a side. Set both with `show_picture`.
        answers: records, see `records.answer_record`. They may grow while the model generates.
        arrangement: one of `ARRANGEMENTS`. (`layout` is the CSS of ipywidgets.)
        is_stale: whether the controls ask something else than what the answers answer.
        phase: one of `PHASES`.
        hint: what the empty viewer says.
        code: Python code that gives the answer shown.
        code_note: a remark on the code.
        history: at most 20 dicts `{"id": int, "title": str, "time": "14:05", "thumbnail": data URI}`, newest first.
        files: dicts `{"id": "png", "label": "PNG"}` of the files that can be downloaded.
        upload_limit: largest file that can be uploaded, 0..`MAX_UPLOAD_BYTES` bytes; 0 without uploads.
        takes_region: whether a region can be drawn.
        has_tools: whether there are uploads, a history and a check that the kernel is alive.
        region: `[]`, or (x0, y0, x1, y1) as four integers in pixels of the full image.
        threshold: instances with a lower score are hidden, 0..1.
        active: index of the answer shown in the arrangement "tasks".
        selected: indices of the instances of the active answer that were clicked.
    """

    _esm = Path(__file__).with_name("viewer.js")
    _css = Path(__file__).with_name("viewer.css")

    picture = _trait(traitlets.Dict())
    pixels = _trait(traitlets.Bytes())
    answers = _trait(traitlets.List(traitlets.Dict()))
    arrangement = _trait(traitlets.Enum(ARRANGEMENTS, "single"))
    is_stale = _trait(traitlets.Bool(False))
    phase = _trait(traitlets.Enum(PHASES, "empty"))
    hint = _trait(traitlets.Unicode())
    code = _trait(traitlets.Unicode())
    code_note = _trait(traitlets.Unicode())
    history = _trait(traitlets.List(traitlets.Dict()))
    files = _trait(traitlets.List(traitlets.Dict()))
    upload_limit = _trait(traitlets.Int(0, min=0, max=MAX_UPLOAD_BYTES))  # the front end could set it, too
    takes_region = _trait(traitlets.Bool(False))
    has_tools = _trait(traitlets.Bool(False))
    region = _trait(traitlets.List(traitlets.CInt()))
    threshold = _trait(traitlets.Float(0.0, min=0.0, max=1.0))
    active = _trait(traitlets.Int(0, min=0))
    selected = _trait(traitlets.List(traitlets.CInt()))

    def __init__(
        self,
        *,
        on_upload: Callable[[str, Image.Image], object] | None = None,
        on_open: Callable[[int], object] | None = None,
        make_file: Callable[[str], DownloadFile] | None = None,
        **traits: Any,
    ) -> None:
        """Create a viewer.

        Args:
            on_upload: called in a thread with the name of an uploaded file, without folders, and the image in it. A
                `FlorenceLabError` that it raises is shown beside the upload.
            on_open: called with the id of a history entry that was clicked.
            make_file: called in a thread with the id of an entry of `files`; returns the file.
            traits: initial values.
        """
        super().__init__(**traits)
        self.on_upload = on_upload
        self.on_open = on_open
        self.make_file = make_file
        self._receiver = UploadReceiver(0, self._open_upload, self.send, run=_start_thread)
        self._handlers: dict[str, Callable[[dict[str, Any], list], None]] = {
            "upload": self._receive,
            "cancel": self._cancel,
            "ping": lambda content, buffers: self.send({"kind": "pong", "id": content.get("id")}),
            "open": self._open,
            "file": self._start_file,
        }
        self.on_msg(self._handle)

    @traitlets.validate("region")
    def _check_region(self, proposal: Any) -> list[int]:
        if len(proposal["value"]) not in (0, 4):
            raise traitlets.TraitError(f"region must be empty or four integers, got {shorten(proposal['value'])}")
        return list(proposal["value"])

    def show_picture(self, picture: Picture | None) -> None:
        """Show another image, or none. Region, threshold and selection belong to the last one and are reset."""
        with self.hold_sync():
            self.region = []
            self.threshold = 0.0
            self.selected = []
            self.picture = {name: getattr(picture, name) for name in _PICTURE_FIELDS} if picture else {}
            self.pixels = picture.pixels if picture else b""

    def close(self) -> None:
        """Close the widget, and free what was received of a file."""
        self._receiver.cancel()
        super().close()

    def _handle(self, _widget: Any, content: Any, buffers: Any) -> None:
        """Handle a message of the front end. Malformed ones are ignored, as nobody could read an error."""
        kind = content.get("kind") if isinstance(content, dict) else None
        handler = self._handlers.get(kind) if isinstance(kind, str) else None
        if handler is not None:
            handler(content, list(buffers or ()))

    def _open_upload(self, name: str, image: Image.Image) -> None:
        if self.on_upload is not None:
            self.on_upload(name, image)

    def _receive(self, content: dict[str, Any], buffers: list) -> None:
        self._receiver.limit = self.upload_limit if self.on_upload is not None else 0
        self._receiver.receive(content, buffers)

    def _cancel(self, content: dict[str, Any], buffers: list) -> None:
        if content.get("id") is not None:
            self._receiver.cancel(content["id"])

    def _open(self, content: dict[str, Any], buffers: list) -> None:
        entry = content.get("id")
        if self.on_open is not None and isinstance(entry, int) and entry in [known.get("id") for known in self.history]:
            self.on_open(entry)

    def _start_file(self, content: dict[str, Any], buffers: list) -> None:
        # drawing takes a while, in which other messages must be answered, such as those that ask if the kernel is alive
        _start_thread(lambda: self._send_file(content.get("id")))

    def _send_file(self, file_id: Any) -> None:
        if self.make_file is None or file_id not in [known.get("id") for known in self.files]:
            self.send({"kind": "failed", "text": f"There is no file {shorten(file_id)}."})
            return
        try:
            file = self.make_file(file_id)
        except Exception as error:  # a widget must not end in a traceback
            self.send({"kind": "failed", "text": f"The file could not be made: {summarize_error(error)}"})
            return
        self.send({"kind": "file", "name": file.name, "mime": file.mime_type}, [file.content])


def _start_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, daemon=True).start()

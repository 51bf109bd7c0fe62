"""Files from the browser, which arrive in chunks that are acknowledged one by one.

A large file in one message would exceed the limit of the server, 10 MiB by default, which then closes the connection without
an error.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from ..exceptions import FlorenceLabError, shorten, summarize_error
from ..images import load_image

MAX_CHUNK_BYTES = 2 * 2**20
"""Largest chunk. The front end sends chunks of this size."""

MIN_CHUNK_BYTES = 64 * 2**10
"""Smallest chunk but the last one: each costs a message and an answer."""

_MAX_NAME_LENGTH = 200


class _Refused(Exception):
    """A chunk is refused; the message is for the user."""


@dataclass
class _Upload:
    """A file that is arriving."""

    id: str | int
    name: str
    size: int
    content: bytearray = field(default_factory=bytearray)


class UploadReceiver:
    """Puts the chunks of one file at a time together, and reads the image in it.

    A chunk is a message `{"id", "name", "at", "size"}` with one buffer: the id and the name of the file, the position of the
    chunk and the size of the file in bytes. Each is answered by `{"kind": "received", "id", "at"}` or by
    `{"kind": "refused", "id", "text"}`, which ends the upload. A chunk at position 0 begins a file and replaces one that was
    arriving.
    """

    def __init__(
        self,
        limit: int,
        on_image: Callable[[str, Image.Image], object],
        send: Callable[[dict[str, Any]], object],
        run: Callable[[Callable[[], None]], object] = lambda work: work(),
        timeout: float = 60.0,
    ) -> None:
        """Create a receiver.

        Args:
            limit: largest file in bytes; 0 refuses every file.
            on_image: called with the name of a file, without folders, and the image in it. A `FlorenceLabError` that it raises
                refuses the file.
            send: sends an answer to the front end.
            run: runs the decoding of a file that is complete and `on_image`, by default at once; it may start a thread.
            timeout: seconds without a chunk after which the memory of an upload is freed.
        """
        self.limit = limit
        self._on_image = on_image
        self._send = send
        self._run = run
        self._timeout = timeout
        self._upload: _Upload | None = None
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes of the file that is arriving; 0 if there is none."""
        upload = self._upload
        return len(upload.content) if upload is not None else 0

    def receive(self, message: dict[str, Any], buffers: list) -> None:
        """Handle a chunk. Errors are sent to the front end and not raised."""
        identity = message.get("id")
        if isinstance(identity, bool) or not isinstance(identity, (str, int)):
            return  # nobody would recognize the answer
        with self._refusal(identity):
            with self._lock:
                finished = self._add(identity, message, buffers)
            if finished is None:
                self._acknowledge(identity, message["at"])
            else:
                self._run(lambda: self._finish(finished, message["at"]))

    def cancel(self, identity: Any = None) -> None:
        """Forget the upload with an id, or any upload."""
        with self._lock:
            if self._upload is not None and (identity is None or self._upload.id == identity):
                self._forget()

    def _add(self, identity: str | int, message: dict[str, Any], buffers: list) -> _Upload | None:
        """Add a chunk, and return the upload if it is complete."""
        at, size = (_to_count(message, name) for name in ("at", "size"))
        chunk = _only_buffer(buffers)
        if at == 0:
            self._forget()
            self._upload = _Upload(identity, _to_file_name(message.get("name")), self._check_size(size))
        upload = self._upload
        if upload is None or upload.id != identity:
            raise _Refused("This upload has ended, or another one has taken its place. Choose the file again.")
        self._check_chunk(upload, at, size, len(chunk))
        upload.content += chunk
        is_complete = len(upload.content) == upload.size
        if is_complete:
            self._forget()
        else:
            self._restart_timer()
        return upload if is_complete else None

    def _check_size(self, size: int) -> int:
        if not self.limit:
            raise _Refused("Files cannot be uploaded here.")
        if not size:
            raise _Refused("The file is empty.")
        if size > self.limit:
            raise _Refused(f"The file has {_in_mib(size)}, and the limit is {_in_mib(self.limit)}.")
        return size

    def _check_chunk(self, upload: _Upload, at: int, size: int, length: int) -> None:
        received = len(upload.content)
        is_last = received + length == upload.size
        if size != upload.size:
            raise _Refused(f"The file was said to have {upload.size:,} bytes, and then {size:,}. Choose it again.")
        if at != received:
            raise _Refused(f"The part at byte {at:,} came, and {received:,} was next. Choose the file again.")
        if received + length > upload.size:
            raise _Refused(f"More than the {upload.size:,} bytes of the file came. Choose it again.")
        if length > MAX_CHUNK_BYTES or (length < MIN_CHUNK_BYTES and not is_last):
            raise _Refused(
                f"A part of {length:,} bytes came; parts have {MIN_CHUNK_BYTES:,} to {MAX_CHUNK_BYTES:,} bytes."
            )

    def _finish(self, upload: _Upload, at: int) -> None:
        with self._refusal(upload.id):
            file = io.BytesIO(upload.content)
            upload.content = bytearray()
            file.name = upload.name  # messages of `load_image` begin with it
            self._on_image(upload.name, load_image(file))
            self._acknowledge(upload.id, at)

    def _acknowledge(self, identity: str | int, at: int) -> None:
        self._send({"kind": "received", "id": identity, "at": at})

    @contextmanager
    def _refusal(self, identity: str | int) -> Iterator[None]:
        """End an upload with a message if the block raises an exception."""
        try:
            yield
        except Exception as error:  # a widget must not end in a traceback
            self.cancel(identity)
            is_told = isinstance(error, (_Refused, FlorenceLabError))
            text = str(error) if is_told else f"The file could not be opened: {summarize_error(error)}"
            self._send({"kind": "refused", "id": identity, "text": text})

    def _forget(self) -> None:
        self._upload = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _restart_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        assert self._upload is not None
        self._timer = threading.Timer(self._timeout, self.cancel, (self._upload.id,))
        self._timer.daemon = True
        self._timer.start()


def _to_count(message: dict[str, Any], name: str) -> int:
    value = message.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _Refused(f"The part of a file came with {name} = {shorten(value, 40)}, which is not a number of bytes.")
    return value


def _only_buffer(buffers: list) -> bytes:
    if len(buffers) != 1 or not isinstance(buffers[0], (bytes, bytearray, memoryview)):
        raise _Refused("The part of a file came without its content. Choose the file again.")
    return bytes(buffers[0])


def _to_file_name(name: Any) -> str:
    """Return the last part of a name without what cannot be printed; browsers may give a path."""
    last = re.split(r"[/\\]", name)[-1] if isinstance(name, str) else ""
    return "".join(c for c in last if c.isprintable())[-_MAX_NAME_LENGTH:].strip() or "the file"


def _in_mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB" if size >= 2**20 else f"{size:,} bytes"

"""The widget: a grid of the least certain objects of a labelled folder, to accept, reject, rename and redraw."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from ...argument_validation import validate_arguments
from ...exceptions import FlorenceLabError, summarize_error
from ...viewer.picture import make_picture
from ..assembly import Counts
from .pictures import ImageCache, draw_thumbnail
from .session import SHOWS, ReviewItem, ReviewSession

logger = logging.getLogger(__name__)

PAGE_SIZE = 24
"""Cards on a page, which fill rows of 1, 2, 3, 4, 6 and 8."""

IMAGES = "images"
"""The value of `Review.show` for whole images, in which missed objects are found."""

_WRITE_SECONDS, _MAX_WRITE_SECONDS = 2.0, 30.0
_WRITE_SHARE = 10  # of the time between two writings, writing takes at most this part, up to half a minute

_ITEM_FIELDS = (
    "id", "image", "label", "box", "polygons", "score", "found_by", "verdict", "original_label", "is_uncertain",
)  # fmt: skip


def _trait(trait: traitlets.TraitType) -> Any:
    return trait.tag(sync=True)


@validate_arguments
def review(folder: str | Path) -> Review:
    """Return a grid of the labels of a folder, the least certain first, which Jupyter displays as the last expression of a cell.

    Each label is accepted, rejected, renamed or redrawn by mouse or keys, and missed objects are added. Each verdict is saved at
    once in `FOLDER/.corrections`, and a second `review` goes on where the first one ended. The files of the dataset follow within
    seconds, or at once by `apply`. A further run of `label` into the folder keeps the corrections.

    The same can be done without a browser, by the methods of `Review`.

    Args:
        folder: a folder that `label` has written, in any format.

    Raises:
        ArgumentError: if there is no such folder.
        DatasetError: if `label` has not written it, or if it is damaged.

    Example:
        >>> florence_lab.label("farm", ["sheep", "dog"], "data", split="0.8/0.2", review=(0.3, 0.8))
        >>> florence_lab.review("data")
    """
    return Review(folder)


class Review(anywidget.AnyWidget):
    """A review of a labelled folder. Python sets the traits, the front end (`grid.js`) draws them; `review` makes one.

    The front end sets `show`, `class_name` and `page` as well. Thumbnails and images are sent as messages, when it asks for them.

    Attributes:
        classes: the names of the classes.
        show: which objects are listed: one of `SHOWS`, or `IMAGES`.
        class_name: the class that is listed; "" for all.
        page: number of the page, from 0.
        num_pages: pages of the list.
        num_cards: cards of the list.
        cards: what is on the page, see `_to_card`. Its objects stay in the list when they have got a verdict.
        counts: verdict -> number of objects; "undecided" and "uncertain" as well.
        has_bounds: whether uncertain objects were marked by `label(review=…)`.
        can_undo: whether there is a change to take back.
        state: of the files of the dataset: "written", "waiting", "writing" or "failed".
        note: what the user should know, as why the files cannot be written; "" for nothing.
    """

    _esm = Path(__file__).with_name("grid.js")
    _css = Path(__file__).with_name("grid.css")

    classes = _trait(traitlets.List(traitlets.Unicode()))
    show = _trait(traitlets.Enum((*SHOWS, IMAGES), "undecided"))
    class_name = _trait(traitlets.Unicode())
    page = _trait(traitlets.Int(0, min=0))
    num_pages = _trait(traitlets.Int(0))
    num_cards = _trait(traitlets.Int(0))
    cards = _trait(traitlets.List(traitlets.Dict()))
    counts = _trait(traitlets.Dict())
    has_bounds = _trait(traitlets.Bool(False))
    can_undo = _trait(traitlets.Bool(False))
    state = _trait(traitlets.Enum(("written", "waiting", "writing", "failed"), "written"))
    note = _trait(traitlets.Unicode())

    def __init__(self, folder: str | Path) -> None:
        """Open a folder; see `review`."""
        self._session = session = ReviewSession(folder)
        self._cache = ImageCache()
        self._pictures = ThreadPoolExecutor(1, thread_name_prefix="review")
        self._timer: threading.Timer | None = None
        self._timer_lock = threading.Lock()
        self._seconds = 0.0  # of the last writing
        first = "uncertain" if session.has_bounds and session.count()["uncertain"] else "undecided"
        self._queue = self._choose(first, "")
        # all of it in one message: updates that follow at once can be lost while the page makes the widget
        super().__init__(
            classes=list(session.classes),
            has_bounds=session.has_bounds,
            show=first,
            num_cards=len(self._queue),
            num_pages=-(-len(self._queue) // PAGE_SIZE),
            **self._describe_page(first, 0),
        )
        self._handlers: dict[str, Callable[[dict[str, Any]], object]] = {
            "accept": lambda content: self.accept(content["id"]),
            "reject": lambda content: self.reject(content["id"]),
            "rename": lambda content: self.rename(content["id"], content["label"]),
            "redraw": lambda content: self.redraw(content["id"], content["box"]),
            "add": lambda content: self.add(content["number"], content["label"], content["box"]),
            "undo": lambda content: self._undo_and_focus(),
            "list": lambda content: self._list(),
            "thumbnails": self._send_thumbnails,
            "image": self._send_image,
        }
        self.on_msg(self._handle)
        self.observe(self._list, ["show", "class_name"])
        self.observe(self._fill_page, ["page"])
        if not session.is_written:  # an earlier review was cut off
            self._write_soon()

    @property
    def folder(self) -> Path:
        """The folder that is reviewed."""
        return self._session.folder.path

    @validate_arguments
    def items(self, show: str = "undecided", class_name: str | None = None) -> list[ReviewItem]:
        """Return objects, the least certain first.

        Args:
            show: "uncertain", "undecided", "decided" or "all".
            class_name: a class; None for all.

        Raises:
            ArgumentError: for other values.
        """
        return self._session.list_items(show, class_name)

    @validate_arguments
    def accept(self, item: ReviewItem | str) -> ReviewItem:
        """State that class and box of an object are right, and return the object. A rejected object comes back.

        Args:
            item: the object, or its id.

        Raises:
            ArgumentError: if there is no such object.
        """
        return self._decided(self._session.accept(item))

    @validate_arguments
    def reject(self, item: ReviewItem | str) -> ReviewItem:
        """State that an object is not there: it leaves the dataset. Arguments and errors as for `accept`."""
        return self._decided(self._session.reject(item))

    @validate_arguments
    def rename(self, item: ReviewItem | str, label: str) -> ReviewItem:
        """Give an object another class, and return it. Its own class accepts it.

        Args:
            item: the object, or its id.
            label: one of `classes`.

        Raises:
            ArgumentError: if there is no such object or class.
        """
        return self._decided(self._session.rename(item, label))

    @validate_arguments
    def redraw(self, item: ReviewItem | str, box: Sequence[float]) -> ReviewItem:
        """Give an object another box, and return it. Its outline, if it has one, is dropped.

        Args:
            item: the object, or its id.
            box: (x0, y0, x1, y1) in pixels, which is clipped to the image.

        Raises:
            ArgumentError: if there is no such object, and for a box that has no area in the image.
        """
        return self._decided(self._session.redraw(item, box))

    @validate_arguments
    def add(self, image: int | str, label: str, box: Sequence[float]) -> ReviewItem:
        """Add an object that the model has missed, and return it.

        Args:
            image: the name of an image, as of `ReviewItem.image`, or its number from 0.
            label: one of `classes`.
            box: as for `redraw`.

        Raises:
            ArgumentError: if there is no such image or class, and for a box that has no area in the image.
        """
        number = self._session.find_image(image)
        return self._decided(self._session.add(number, label, box))

    def undo(self) -> ReviewItem | None:
        """Take back the last change, and return its object; None if it is no more, or if there is nothing to take back."""
        item = self._session.undo()
        self._decided(item)
        return item

    def apply(self) -> Counts:
        """Write the files of the dataset with all verdicts, and return what they contain.

        Raises:
            DatasetError: if they cannot be written. The verdicts are saved in any case.
        """
        with self._timer_lock:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None
        self.state = "writing"
        try:
            counts = self._session.write_files()
        except Exception as error:
            self.note = f"The verdicts are saved, but the files of the dataset could not be written: {_reason(error)}"
            self.state = "failed"
            raise
        self.state = "written" if self._session.is_written else "waiting"
        self.note = ""
        return counts

    def close(self) -> None:
        """Close the widget, and write the files of the dataset if they are out of date."""
        if "_queue" not in self.__dict__:  # ipywidgets also closes a widget whose folder could not be opened
            return
        self._pictures.shutdown(wait=False, cancel_futures=True)
        if not self._session.is_written:
            self._write()
        super().close()

    def _decided(self, item: ReviewItem | None) -> Any:
        """Show a change, and let the files follow."""
        self._fill_page()
        if not self._session.is_written:
            self._write_soon()
        return item

    def _choose(self, show: str, class_name: str) -> list[str]:
        """The ids of the cards that are listed."""
        name = class_name if class_name in self._session.classes else None
        if show == IMAGES:
            return [str(number) for number in self._session.list_images(name)]
        return [item.id for item in self._session.list_items(show, name)]

    def _list(self, _change: Any = None) -> None:
        """Make the list anew, from its first page."""
        self._queue = self._choose(self.show, self.class_name)
        with self.hold_sync():
            self.num_cards = len(self._queue)
            self.num_pages = -(-len(self._queue) // PAGE_SIZE)
            self.page = 0
            self._fill_page()

    def _fill_page(self, _change: Any = None) -> None:
        """Show the page, its objects as they are now."""
        page = min(self.page, max(self.num_pages - 1, 0))
        with self.hold_sync():
            self.page = page
            for name, value in self._describe_page(self.show, page).items():
                setattr(self, name, value)

    def _describe_page(self, show: str, page: int) -> dict[str, Any]:
        """The traits that change with the page and with each verdict."""
        listed = self._queue[page * PAGE_SIZE : (page + 1) * PAGE_SIZE]
        counts = self._session.count()
        undecided = counts.pop("", 0)
        return {
            "cards": [self._to_card(show, card_id) for card_id in listed],
            "counts": {**counts, "undecided": undecided},
            "can_undo": self._session.can_undo,
        }

    def _to_card(self, show: str, card_id: str) -> dict[str, Any]:
        """The fields of an object and the number of its image, or `id`, `number`, `image` and `objects` of an image."""
        if show == IMAGES:
            number = int(card_id)
            objects = [_to_record(item) for item in self._session.items_of(number)]
            return {"id": card_id, "number": number, "image": self._session.name_of(number), "objects": objects}
        return _to_record(self._session.get(card_id)) | {"number": self._session.number_of(card_id)}

    def _undo_and_focus(self) -> None:
        item = self.undo()
        self.send({"kind": "undone", "id": item.id if item else "", "image": item.image if item else ""})

    def _handle(self, _widget: Any, content: Any, buffers: Any) -> None:
        """Handle a message of the front end. What cannot be done is said there."""
        kind = content.get("kind") if isinstance(content, dict) else None
        handler = self._handlers.get(kind) if isinstance(kind, str) else None
        if handler is None:
            return
        try:
            handler(content)
        except Exception as error:  # malformed messages, a full disk: a widget must not end in a traceback
            self.send({"kind": "failed", "text": f"This could not be done: {_reason(error)}"})

    def _send_thumbnails(self, content: dict[str, Any]) -> None:
        for card_id in content["ids"][: 2 * PAGE_SIZE]:
            self._pictures.submit(self._send_thumbnail, str(card_id))

    def _send_thumbnail(self, card_id: str) -> None:
        message: dict[str, Any] = {"kind": "thumbnail", "id": card_id}
        try:
            is_object = "." in card_id
            item = self._session.get(card_id) if is_object else None
            number = self._session.number_of(card_id) if is_object else self._session.find_image(int(card_id))
            image = self._cache.read(self._session.path_of(number))
            drawn = draw_thumbnail(image, item.box if item else None)
        except Exception as error:  # a missing or broken image is told on its card
            self.send(message | {"error": _reason(error)})
            return
        self.send(message | {"region": drawn.region, "shown": drawn.shown}, [drawn.pixels])

    def _send_image(self, content: dict[str, Any]) -> None:
        number = self._session.find_image(int(content["number"]))
        objects = [_to_record(item) for item in self._session.items_of(number)]
        message = {"kind": "image", "number": number, "name": self._session.name_of(number), "objects": objects}
        message["size"] = list(self._session.size_of(number))
        if not content.get("pixels"):
            self.send(message)
            return
        self._pictures.submit(self._send_pixels, message)

    def _send_pixels(self, message: dict[str, Any]) -> None:
        try:
            picture = make_picture(self._cache.read(self._session.path_of(message["number"])))
        except Exception as error:
            self.send(message | {"error": _reason(error)})
            return
        self.send(message, [picture.pixels])

    def _write_soon(self) -> None:
        """Write the files of the dataset after a pause. Not a daemon: a script that ends waits for it."""
        with self._timer_lock:
            if self._timer is not None:
                self._timer.cancel()
            pause = min(max(_WRITE_SECONDS, _WRITE_SHARE * self._seconds), _MAX_WRITE_SECONDS)
            self._timer = threading.Timer(pause, self._write)
            self._timer.start()
        self.state = "waiting"

    def _write(self) -> None:
        start = time.perf_counter()
        try:
            self.apply()
        except Exception as error:
            logger.debug("writing the files of %s failed", self.folder, exc_info=error)  # the note tells of it
        self._seconds = time.perf_counter() - start


def _to_record(item: ReviewItem) -> dict[str, Any]:
    return {name: getattr(item, name) for name in _ITEM_FIELDS}


def _reason(error: Exception) -> str:
    """The message of an error of this package, which says all; of another one, that of its cause."""
    return str(error) if isinstance(error, FlorenceLabError) else summarize_error(error)

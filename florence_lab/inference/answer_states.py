"""The grammar of answers as a state machine over tokens, one for each kind of result.

It accepts what `template.grammar.validate_target` accepts, in the form in which `template.targets.format_target` writes it. Two forms
that the parser also reads are left out: polygons of open-vocabulary detection without `<poly>`, whose beginnings could not be told
from boxes, and location tokens in the answer to a free-form question.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import torch

from .answer_texts import END, LOCATION, TextState, TokenTable

Exits = dict[int, "State"]
"""Token id, or kind of tokens, that may follow -> the state after it."""


class State:
    """A state of an answer: which tokens may follow.

    Attributes:
        exits: markup that may follow.
        text: text that may begin or go on here; None if there is none.
        after_text: the exits once that text may end.
        is_far_corner: whether a coordinate x1 or y1 of a box follows, which is at least the second last token.
    """

    def __init__(
        self,
        exits: Mapping[int, State] | None = None,
        text: TextState | None = None,
        after_text: Exits | None = None,
        is_far_corner: bool = False,
    ) -> None:
        self.exits: Exits = dict(exits or {})
        self.text, self.is_far_corner = text, is_far_corner
        self.after_text: Exits = {} if after_text is None else after_text  # shared; it may be filled later
        self._in_text: dict[int, State] = {}
        self._forbidden: torch.Tensor | None = None

    def advance(self, token_id: int, table: TokenTable) -> State:
        """Return the state after one more token. After one that cannot follow, nothing can."""
        kind = table.kinds[token_id]
        if self.text is not None and (text := self.text.advance(token_id, kind)) is not None:
            if id(text) not in self._in_text:
                exits = self.after_text if text.is_end else None
                self._in_text[id(text)] = self if text is self.text else State(exits, text, self.after_text)
            return self._in_text[id(text)]
        return self.exits.get(token_id) or self.exits.get(kind) or FINISHED

    def behind(self, begin_ids: Collection[int], table: TokenTable) -> State:
        """Return this state with one optional token before it, which is no part of the answer.

        Args:
            begin_ids: the optional tokens: `<s>`, or whatever a checkpoint forces to be the first. One that can begin the answer
                is a part of it.
            table: the tokens.
        """
        before = {token_id: self for token_id in begin_ids if self.advance(token_id, table) is FINISHED}
        return State(self.exits | before, self.text, self.after_text)

    def forbidden(self, table: TokenTable) -> torch.Tensor:
        """Return the mask of the tokens that cannot follow, V bool."""
        if not self.exits and self.text is None:
            return table.all_tokens
        if self._forbidden is None:
            self._forbidden = ~table.mask([*self.exits, *(self.text.keys if self.text else ())])
        return self._forbidden


FINISHED = State()
"""Nothing follows."""


def first_state(
    result: str,
    label: TextState,
    is_label_required: bool,
    separators: Mapping[str, int],
    region_ids: Sequence[int] = (),
) -> State:
    """Return the state in which an answer begins. The empty answer is always possible.

    Args:
        result: the kind of result, see `Task.result`.
        label: the labels of instances, or the text of an answer of text.
        is_label_required: whether instances must have labels. Otherwise either all have one or none.
        separators: `<sep>`, `<and>`, `<poly>` and `</poly>` -> token id.
        region_ids: the location tokens that may follow a text.
    """
    end: Exits = {END: FINISHED}
    if result == "text":
        repeated = end
        for token_id in reversed(region_ids):
            repeated = {token_id: State(repeated)}
        return State(end, label, {**end, **repeated})
    labelled = _instances(result, label, separators)
    unlabelled = {} if is_label_required else _instances(result, None, separators)
    return State({**end, **unlabelled}, label, labelled)


def _instances(result: str, label: TextState | None, separators: Mapping[str, int]) -> Exits:
    """How instances begin, behind a label if there are labels."""
    begin: Exits = {}

    def between() -> State:
        return State({END: FINISHED}, label, begin)

    _INSTANCES[result](begin, between, separators)
    return begin


def _add_boxes(begin: Exits, between: Callable[[], State], separators: Mapping[str, int]) -> None:
    after = between()
    begin[LOCATION] = _locations(4, after, far_corners=(2, 3))
    after.exits |= begin


def _add_quads(begin: Exits, between: Callable[[], State], separators: Mapping[str, int]) -> None:
    after = between()
    begin[LOCATION] = _locations(8, after)
    after.exits |= begin


def _add_boxes_or_polygons(begin: Exits, between: Callable[[], State], separators: Mapping[str, int]) -> None:
    after = between()
    begin[LOCATION] = _locations(4, after, far_corners=(2, 3))
    begin[separators["<poly>"]] = _enclosed_polygons(after, separators)
    after.exits |= begin


def _add_polygons(begin: Exits, between: Callable[[], State], separators: Mapping[str, int]) -> None:
    after_enclosed, vertex = between(), between()
    begin[LOCATION] = contour = _contour(vertex)
    begin[separators["<poly>"]] = enclosed = _enclosed_polygons(after_enclosed, separators)
    after_enclosed.exits |= begin
    vertex.exits |= {
        separators["<sep>"]: State({LOCATION: contour}),
        separators["<and>"]: State({LOCATION: contour}),
        separators["<poly>"]: enclosed,
    }


def _enclosed_polygons(after: State, separators: Mapping[str, int]) -> State:
    """The state behind `<poly>`."""
    vertex = State({separators["</poly>"]: after})
    contour = _contour(vertex)
    vertex.exits[separators["<sep>"]] = State({LOCATION: contour})
    return State({LOCATION: contour})


def _contour(vertex: State) -> State:
    """The state after the first coordinate of a polygon, whose third vertex and those behind it lead to `vertex`."""
    vertex.exits[LOCATION] = State({LOCATION: vertex})
    return _locations(6, vertex)


def _locations(count: int, after: State, far_corners: Collection[int] = ()) -> State:
    """The state after the first of a number of location tokens.

    Args:
        count: the number.
        after: the state after the last one.
        far_corners: indices of the coordinates that cannot be less than the second last.
    """
    state = after
    for index in range(count - 1, 0, -1):
        state = State({LOCATION: state}, is_far_corner=index in far_corners)
    return state


_INSTANCES: dict[str, Callable[[Exits, Callable[[], State], Mapping[str, int]], None]] = {
    "boxes": _add_boxes,
    "grounding": _add_boxes,
    "boxes_or_polygons": _add_boxes_or_polygons,
    "quads": _add_quads,
    "polygons": _add_polygons,
}
"""`Task.result` -> the function that adds the states of instances, given how they begin, and what makes a state behind one."""

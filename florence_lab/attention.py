"""Inside Florence-2: what the decoder looked at, token by token, and what else it could have said.

    trace = florence_lab.trace(predictor, "sheep.png", "<OD>")
    trace.to_dataframe()                                  # every token: how sure, and where it looked
    florence_lab.attention.show_heat(trace, "sheep")      # a word over the picture

Attention is where information was fetched from, not a proof of why a word was chosen (Jain and Wallace, "Attention is not
Explanation", arXiv 1902.10186): what stands at a place of the picture has already been mixed with its neighbours and with
the prompt, by the vision tower and by the encoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Polygon
from PIL import Image, ImageOps

from .draw import DARK, LIGHT, PALETTE, Sheet, _font, _tidy
from .images import load_image
from .predictor import EncodedImage, size_of
from .results import Result
from .tasks import get_task
from .template import BINS, Piece, Region, from_bins
from .vision import stage_grids

if TYPE_CHECKING:
    import pandas as pd

    from .predictor import Predictor

HEAT = "inferno"
"""matplotlib's name of the colours of attention: dark is little, yellow is most."""

_NEAR_BINS = 40  # location bins shown on either side of a coordinate's likely ones
_SENTENCE_MARKS = ".,;:!?"


class Choice(NamedTuple):
    """One token that could stand at a place, and its probability there, 0..1."""

    token: str
    probability: float


class Part(NamedTuple):
    """A piece of an answer that means something to people: a word, or a box, quad box or outline.

    Attributes:
        name: the word; or `"box 1"`, `"quad 1"`, `"outline 1"` … in the order of the answer.
        positions: the places of its tokens in the answer.
        outline: K x 2 float64 pixels for a box (its four corners) or an outline, and for a token of one; None for a word.
    """

    name: str
    positions: tuple[int, ...]
    outline: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Trace:
    """An answer of T tokens, with what happened inside while it was written.

    P below is the number of encoder positions: 1 token for the picture's mean, rows x columns tokens of the picture, then
    the tokens of the prompt.

    Attributes:
        result: the answer, as `predict` gives it.
        tokens: T strings, from the first generated token to `</s>`, as they are in the vocabulary but with plain spaces.
        probabilities: T float64 in 0..1, the model's own for the token that stands there.
        choices: per token the k most probable ones, the most probable first.
        locations: T x 1000 float32, the probability of each location token at that place.
        attention: layers x heads x T x P float32, the decoder's cross-attention; every row of P sums to 1.
        grid: (rows, columns) of the picture's tokens: (24, 24) in the published models.
        prompt_tokens: the P - 1 - rows * columns tokens of the prompt.
        parts: the answer's words and boxes, for people to point at.
    """

    result: Result
    tokens: tuple[str, ...]
    probabilities: np.ndarray = field(repr=False)
    choices: tuple[tuple[Choice, ...], ...] = field(repr=False)
    locations: np.ndarray = field(repr=False)
    attention: np.ndarray = field(repr=False)
    grid: tuple[int, int]
    prompt_tokens: tuple[str, ...]
    parts: tuple[Part, ...] = field(repr=False)

    def find(self, of: str | int | Part) -> Part:
        """The part of the answer that is meant.

        Args:
            of: words of the answer (`"sheep"`, `"four sheep"`; the first place where they stand), a box (`"box 1"`), the
                position of one token, 0..T-1, or a `Part`, which comes back as it is.

        Raises:
            ValueError: if the answer has no such words, with the ones it has; or no such position.
        """
        if isinstance(of, Part):
            return of
        if isinstance(of, int):
            if not 0 <= of < len(self.tokens):
                raise ValueError(f"no token {of}: this answer has the tokens 0 … {len(self.tokens) - 1}")
            outlines = [part.outline for part in self.parts if of in part.positions]
            return Part(self.tokens[of].strip(), (of,), outlines[0] if outlines else None)
        words = [(word, part) for part in self.parts for word in _words(part.name)]
        wanted = _words(of)
        for start in range(len(words) - len(wanted) + 1):
            run = words[start : start + len(wanted)]
            if wanted and [word for word, _ in run] == wanted:
                found = list({id(part): part for _, part in run}.values())
                positions = tuple(position for part in found for position in part.positions)
                return Part(of, positions, found[0].outline if len(found) == 1 else None)
        names = ", ".join(repr(part.name) for part in self.parts)
        raise ValueError(f"no {of!r} in the answer, which has {names or 'no words'}")

    def heat(self, of: str | int | Part, layer: int | None = None, head: int | None = None) -> np.ndarray:
        """Where the decoder looked while it wrote something: rows x columns float32, parts of its attention.

        The sum over the grid is the share of attention that went to the picture; the rest went to the picture's mean token
        and to the prompt.

        Args:
            of: as in `find`; of several tokens the mean is taken.
            layer, head: one of them, counted from 0; None is the mean over all.

        Raises:
            ValueError: as `find`; or if there is no such layer or head.
        """
        layers, heads = self.attention.shape[:2]
        chosen = self.attention[_one_or_all("layer", layer, layers)][:, _one_or_all("head", head, heads)]
        at = chosen[:, :, list(self.find(of).positions)].mean(axis=(0, 1, 2))
        return at[1 : 1 + self.grid[0] * self.grid[1]].reshape(self.grid)

    def to_dataframe(self) -> pd.DataFrame:
        """One row per token: `token`, `probability`, and how its attention was shared out, in parts of 1.

        `on_mean`: on the token that is the picture's mean; `on_picture`: on its grid; `on_prompt`: on the prompt's tokens.
        """
        import pandas as pd

        per_token = self.attention.mean(axis=(0, 1))
        cells = self.grid[0] * self.grid[1]
        return pd.DataFrame(
            {
                "token": pd.Series(self.tokens, dtype=str),
                "probability": self.probabilities,
                "on_mean": per_token[:, 0],
                "on_picture": per_token[:, 1 : 1 + cells].sum(axis=1),
                "on_prompt": per_token[:, 1 + cells :].sum(axis=1),
            }
        )


def _words(text: str) -> list[str]:
    return [word for word in (w.strip(_SENTENCE_MARKS) for w in text.casefold().split()) if word]


def _one_or_all(what: str, index: int | None, count: int) -> slice:
    if index is None:
        return slice(None)
    if not 0 <= index < count:
        raise ValueError(f"no {what} {index}: this decoder has the {what}s 0 … {count - 1}")
    return slice(index, index + 1)


# ---------------------------------------------------------------------- tracing


@torch.inference_mode()
def trace(
    predictor: Predictor, image: Any, task: str, text: str | Region | None = None, top: int = 5, **generation: Any
) -> Trace:
    """Answers a question as `predictor.predict` does, and keeps what happened inside.

    The answer is generated first. One parallel pass of the decoder over the whole of it then gives the attention and the
    probabilities of every step: the decoder sees only what stands before a token, so they are those of generation. For
    that pass the decoder computes its attention step by step (transformers' `eager`), because faster ways never hold the
    weights in memory; afterwards it is as it was. The weights take layers * heads * T * P * 4 bytes: some 70 MB for
    100 tokens of a large model.

    Args:
        predictor, image, task, text: as in `Predictor.predict`.
        top: how many alternatives to keep for every token, at least 1.
        generation: as in `Predictor.predict`. With beams or sampling the token that stands there may not be the most
            probable one.

    Raises:
        ValueError, ImageError: as in `Predictor.predict`; ValueError also for `top` below 1.
    """
    if top < 1:
        raise ValueError(f"top={top}: keep at least 1 choice for every token")
    settings = predictor._settings(generation)
    picture = image if isinstance(image, EncodedImage) else load_image(image)
    question = predictor._question(size_of(picture), task, text)
    encoded = predictor.encode_image(picture)
    read = predictor._read([encoded], [question[2]])
    states, mask = read["encoder_outputs"].last_hidden_state, read["attention_mask"]

    sequence = predictor._up_to_its_end(predictor._generate(states, mask, settings)[0])
    with _eager_attention(predictor.model.model.language_model) as language_model:
        decoded = language_model.decoder(
            input_ids=sequence[None, :-1],
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            use_cache=False,
            output_attentions=True,
        )
    ids = sequence[1:]
    result = predictor._result(sequence, encoded, question, states, mask)
    probabilities, locations, choices = _probabilities(predictor, decoded.last_hidden_state[0], ids, top)
    prompt = predictor.processor.tokenizer(question[2]).input_ids
    return Trace(
        result=result,
        tokens=tuple(_token_texts(predictor, ids)),
        probabilities=probabilities,
        choices=choices,
        locations=locations,
        attention=np.stack([layer[0].float().cpu().numpy() for layer in decoded.cross_attentions]),
        grid=_token_grid(predictor, encoded),
        prompt_tokens=tuple(_token_texts(predictor, prompt)),
        parts=tuple(_parts(predictor, ids.tolist(), result)),
    )


@contextmanager
def _eager_attention(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield model
    finally:
        model.set_attn_implementation(before)


def _probabilities(
    predictor: Predictor, hidden: torch.Tensor, ids: torch.Tensor, top: int
) -> tuple[np.ndarray, np.ndarray, tuple[tuple[Choice, ...], ...]]:
    """The probabilities of the T tokens that stand there, of all location tokens, and of the `top` best ones."""
    first = predictor.template.first_location_id
    chosen, locations, choices = [], [], []
    for some in predictor._over_the_vocabulary(hidden):
        here = ids[len(choices) : len(choices) + len(some)]
        chosen.append(some.gather(1, here[:, None])[:, 0].cpu().double().numpy())
        locations.append(some[:, first : first + BINS].cpu().numpy())
        for best, best_ids in zip(*some.topk(top), strict=True):
            names = _token_texts(predictor, best_ids)
            choices.append(tuple(map(Choice, names, best.tolist())))
    return np.concatenate(chosen), np.concatenate(locations), tuple(choices)


def _token_texts(predictor: Predictor, ids: Iterable[int]) -> list[str]:
    tokenizer = predictor.processor.tokenizer
    return [tokenizer.decode([int(i)], clean_up_tokenization_spaces=False) for i in ids]


def _token_grid(predictor: Predictor, encoded: EncodedImage) -> tuple[int, int]:
    """(rows, columns) of an encoded picture's tokens."""
    size = predictor.processor.image_processor.size
    rows, columns = stage_grids(predictor.model, (size["height"], size["width"]))[-1]
    if 1 + rows * columns != encoded.tokens.shape[1]:
        raise ValueError(
            f"{predictor.name} makes 1 + {rows} x {columns} tokens of a picture, but this one has "
            f"{encoded.tokens.shape[1]}: was it encoded by another model?"
        )
    return rows, columns


# ---------------------------------------------------------------------- words and boxes

_COORDINATES = {"quads": ("quad", 8), "polygons": ("outline", None)}
"""What a run of location tokens is in the answers of a kind, and how many make one; in all others four are a box."""


def _parts(predictor: Predictor, ids: list[int], result: Result) -> Iterator[Part]:
    """The words of an answer, and its boxes, numbered; start and end tokens are no part of either."""

    kind = get_task(result.task).result
    outlined = kind == "boxes_or_polygons" and ("<poly>" in result.raw or "<sep>" in result.raw)
    name, length = _COORDINATES.get("polygons" if outlined else kind, ("box", 4))
    number = 0
    for run in _runs(predictor.template._pieces(ids)):
        if run[0].location is None:
            yield from _split_into_words(predictor, ids, run[0].tokens)
            continue
        for some in _in_lots(run, length or len(run)):
            number += 1
            positions = tuple(position for piece in some for position in piece.tokens)
            yield Part(f"{name} {number}", positions, _outline([p.location for p in some], result.image_size, name))


def _runs(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Location tokens that follow each other are one run, words are one each; separators only part them."""
    run: list[Piece] = []
    for piece in pieces:
        if piece.location is not None:
            run.append(piece)
            continue
        if run:
            yield run
            run = []
        if not piece.text.startswith("<"):
            yield [piece]
    if run:
        yield run


def _in_lots(run: list[Piece], length: int) -> Iterator[list[Piece]]:
    return (run[start : start + length] for start in range(0, len(run), length))


def _outline(bins: list[int], image_size: tuple[int, int], name: str) -> np.ndarray:
    points = from_bins(bins[: len(bins) // 2 * 2], image_size).reshape(-1, 2)
    if name == "box" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    return points


def _split_into_words(predictor: Predictor, ids: list[int], positions: Sequence[int]) -> Iterator[Part]:
    """BPE tokens -> words: a token that begins with a space begins a word."""
    words: list[list[int]] = []
    texts = dict(zip(positions, _token_texts(predictor, [ids[i] for i in positions]), strict=True))
    for position, text in texts.items():
        if text.startswith(" ") or not words:
            words.append([])
        words[-1].append(position)
    for word in words:
        while word and texts[word[-1]] in _SENTENCE_MARKS:
            word.pop()  # a comma looks elsewhere than the word that it follows
        text = predictor.processor.tokenizer.decode([ids[i] for i in word], clean_up_tokenization_spaces=False)
        if text.strip():
            yield Part(text.strip(), tuple(word))


# ---------------------------------------------------------------------- drawing: attention


def draw_heat(ax: Axes, trace: Trace, of: str | int | Part, layer: int | None = None, head: int | None = None) -> Axes:
    """The attention of a word, a box or a token over the picture, one square per image token; a box with its outline.

    Colours run from nothing to the most attended token; how much of the attention went to the picture at all stands
    above. Parameters and errors as in `Trace.heat`.

    Returns:
        The Axes: x 0..width and y height..0 in pixels of the picture, its frame switched off.
    """
    part, heat = trace.find(of), trace.heat(of, layer, head)
    _draw_heat(ax, trace, heat)
    if part.outline is not None and len(part.outline) > 1:
        for colour, line_width in ((DARK, 3.0), (LIGHT, 1.4)):
            ax.add_patch(Polygon(part.outline, fill=False, edgecolor=colour, linewidth=line_width))
    ax.set_title(_title(part.name, f"{heat.sum():.0%}"), **_font(8.5))
    return ax


def _draw_heat(ax: Axes, trace: Trace, heat: np.ndarray) -> None:
    width, height = trace.result.image_size
    extent = (0, width, height, 0)
    if trace.result.image is not None:
        ax.imshow(_pale(trace.result.image), extent=extent)
    share = heat / max(float(heat.max()), 1e-12)
    # little attention hides little of the picture
    ax.imshow(share, extent=extent, cmap=HEAT, vmin=0, vmax=1, alpha=0.12 + 0.73 * share**0.5, interpolation="nearest")
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.set_axis_off()


def _pale(image: Image.Image) -> np.ndarray:
    """Grey, so that all colour is attention; and no larger than figures show."""
    image = ImageOps.grayscale(image)
    image.thumbnail((800, 800))
    return np.asarray(image.convert("RGB"))


def _title(name: str, more: str) -> str:
    name = _tidy(name)
    return f"{name if len(name) <= 18 else name[:17] + '…'}  {more}"


def show_heat(
    trace: Trace, *of: str | int | Part, layer: int | None = None, head: int | None = None, columns: int = 5
) -> Sheet:
    """The attention of words, boxes or tokens over the picture, a panel each; without any, of the whole answer.

    Above each stands how much of the attention went to the picture (the rest: its mean token and the prompt).

    Args:
        of: as in `Trace.find`.
        layer, head: as in `Trace.heat`.
        columns: panels a row.

    Raises:
        ValueError: as `Trace.heat`; or if the answer is empty.
    """
    parts = [trace.find(one) for one in of] or list(trace.parts)
    if not parts:
        raise ValueError("the answer is empty: there is no word or box to show")
    columns = min(columns, len(parts))
    sheet, axes = _panels(-(-len(parts) // columns), columns, trace.result.image_size, large=len(parts) == 1)
    for ax, part in zip(axes.flat, parts, strict=False):
        draw_heat(ax, trace, part, layer, head)
    for ax in axes.flat[len(parts) :]:
        ax.set_axis_off()
    return sheet


def show_heads(trace: Trace, of: str | int | Part) -> Sheet:
    """The attention of a word, a box or a token in every layer (rows, the first at the top) and every head (columns).

    Raises:
        ValueError: as `Trace.find`.
    """
    layers, heads = trace.attention.shape[:2]
    sheet, axes = _panels(layers, heads, trace.result.image_size)
    for (layer, head), ax in np.ndenumerate(axes):
        heat = trace.heat(of, layer, head)
        _draw_heat(ax, trace, heat)
        ax.set_title(f"layer {layer}, head {head}  {heat.sum():.0%}", **_font(7))
    return sheet


def _panels(rows: int, columns: int, image_size: tuple[int, int], large: bool = False) -> tuple[Sheet, np.ndarray]:
    """A sheet of panels in the shape of the picture: rows x columns Axes."""
    side = 4.5 if large else max(1.1, min(2.2, 11 / columns))  # inches
    width, height = side * np.array(image_size) / max(image_size)
    sheet = Sheet(max(columns * width, 2.2), rows * (height + 0.28), layout="compressed")
    sheet.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.01, hspace=0.01)
    return sheet, sheet.subplots(rows, columns, squeeze=False)


# ---------------------------------------------------------------------- drawing: choices


def show_choices(trace: Trace, start: int = 0, stop: int | None = 30) -> Sheet:
    """The decoder's choices, a row for each token: what it wrote in colour, its most probable rivals in grey.

    A row is as long as the probabilities of its `top` choices together; all the others fill it up to 1. Of location tokens
    the bars name the bin only. A row without colour is a token outside the `top`, which beams and sampling may bring.

    Args:
        start, stop: which tokens, as in a slice; the first 30 by default, since a long answer makes a long figure.

    Raises:
        ValueError: if there is no token among them.
    """
    rows = range(len(trace.tokens))[start:stop]
    if not rows:
        raise ValueError(f"no token in {start}:{stop}; this answer has the tokens 0 … {len(trace.tokens) - 1}")
    sheet = Sheet(8, 0.27 * len(rows) + 0.6, layout="constrained")
    ax = sheet.subplots()
    for y, row in enumerate(rows):
        left = 0.0
        for choice in trace.choices[row]:
            chosen = choice.token == trace.tokens[row]
            colour = PALETTE[1] if chosen else "#dcdcdc"
            ax.barh(y, choice.probability, left=left, height=0.82, color=colour, edgecolor="white", linewidth=0.8)
            label = _tidy(
                choice.token.removeprefix("<loc_").removesuffix(">") if "<loc_" in choice.token else choice.token
            )
            if choice.probability > 0.011 * len(label) + 0.008:
                ax.text(left + choice.probability / 2, y, label, ha="center", va="center", **_font(7.5))
            left += choice.probability
    ax.set_yticks(range(len(rows)))
    labels = [f"{_tidy(trace.tokens[row])}  {trace.probabilities[row]:.2f}" for row in rows]
    ax.set_yticklabels(labels, **_font(8))
    ax.set(xlim=(0, 1), ylim=(len(rows) - 0.4, -0.6))
    ax.set_xlabel("probability", **_font(8))
    ax.tick_params(axis="both", length=0, labelsize=8)
    ax.spines[:].set_visible(False)
    return sheet


def show_locations(trace: Trace, of: str | int | Part) -> Sheet:
    """The probabilities of all location tokens at each coordinate of a box, along the picture's sides.

    Above the picture those of its x, beside it those of its y; the box is drawn in the colours of its coordinates.

    Args:
        of: a box, quad box or outline (`"box 1"`), or the position of one location token.

    Raises:
        ValueError: if it is a word, with the boxes there are; and as `Trace.find`.
    """
    part = trace.find(of)
    if part.outline is None:
        boxes = ", ".join(repr(p.name) for p in trace.parts if p.outline is not None)
        raise ValueError(f"{of!r} has no location tokens; this answer's boxes: {boxes or 'none'}")
    size = trace.result.image_size
    width, height = 4.6 * np.array(size) / max(size)
    sheet = Sheet(width + 1.1, height + 1.1, layout="constrained")
    axes = sheet.subplots(2, 2, width_ratios=(width, 0.9), height_ratios=(0.9, height), sharex="col", sharey="row")
    (above, corner), (ax, beside) = axes
    corner.set_axis_off()
    if trace.result.image is not None:
        ax.imshow(trace.result.image, extent=(0, size[0], size[1], 0), aspect="auto")
    ax.add_patch(Polygon(part.outline, fill=False, edgecolor=LIGHT, linewidth=1.5))
    order = {position: i for p in trace.parts if p.outline is not None for i, position in enumerate(p.positions)}
    for position in part.positions:
        i = order[position]
        along = i % 2  # x, y, x, y …
        pixels = from_bins(np.arange(BINS), (size[along],))
        colour = PALETTE[i % len(PALETTE)]
        curve = trace.locations[position]
        (above.fill_between if along == 0 else beside.fill_betweenx)(pixels, curve, step="mid", color=colour, alpha=0.8)
        line = ax.axvline if along == 0 else ax.axhline
        line(pixels[int(curve.argmax())], color=colour, linewidth=1.8, linestyle=(0, (3, 2)))
    ax.set(xlim=(0, size[0]), ylim=(size[1], 0))
    for side in (above, beside, ax):
        side.tick_params(labelsize=7)
    above.set_ylim(bottom=0)
    beside.set_xlim(left=0)
    above.set_title(f"{_tidy(part.name)}: the probability of every location token", **_font(8.5))
    return sheet


# ---------------------------------------------------------------------- drawing: the vision tower


@torch.inference_mode()
def feature_maps(predictor: Predictor, image: Any) -> list[np.ndarray]:
    """What the vision tower makes of a picture: its feature map after each stage, channels x rows x columns float32.

    In florence-2-large 256 x 192 x 192, 512 x 96 x 96, 1024 x 48 x 48 and 2048 x 24 x 24.

    Args:
        image: as `Predictor.encode_image` takes it; an `EncodedImage` is run again, for it keeps only the tokens.

    Raises:
        ImageError: if the image can't be read.
    """
    picture = image.image if isinstance(image, EncodedImage) else load_image(image)
    maps: list[np.ndarray] = []
    tower = predictor.model.model.vision_tower
    hooks = [
        stage[-1].register_forward_hook(lambda module, given, out: maps.append(out[0].float().cpu().numpy()))
        for stage in tower.blocks
    ]
    try:
        predictor.encode_image(picture)
    finally:
        for hook in hooks:
            hook.remove()
    return maps


def show_features(predictor: Predictor, image: Any) -> Sheet:
    """The picture as the model gets it, and its feature map after each stage of the vision tower, in false colours.

    The three directions in which a map's features differ most (principal components) become red, green and blue: what
    has one colour is alike to the model. Thin lines part the windows of window attention; channel attention sees all.

    Args, raises: as in `feature_maps`.
    """
    picture = image.image if isinstance(image, EncodedImage) else load_image(image)
    maps = feature_maps(predictor, picture)
    size = predictor.processor.image_processor.size
    seen = picture.resize((size["width"], size["height"]))
    sheet, ((first, *others),) = _panels(1, 1 + len(maps), seen.size)
    first.imshow(seen)
    first.set_title(f"3 x {seen.height} x {seen.width}", **_font(8))
    first.set_axis_off()
    window = predictor.model.config.vision_config.window_size
    for ax, features in zip(others, maps, strict=True):
        ax.imshow(_false_colours(features), interpolation="nearest")
        channels, rows, columns = features.shape
        ax.set_title(f"{channels} x {rows} x {columns}", **_font(8))
        ax.vlines(np.arange(window, columns, window) - 0.5, -0.5, rows - 0.5, color=LIGHT, linewidth=0.7)
        ax.hlines(np.arange(window, rows, window) - 0.5, -0.5, columns - 0.5, color=LIGHT, linewidth=0.7)
        ax.set_axis_off()
    return sheet


def _false_colours(features: np.ndarray) -> np.ndarray:
    """C x H x W -> H x W x 3 in 0..1: the first three principal components, each from its 2nd to its 98th percentile."""
    values = features.reshape(len(features), -1).T.astype(np.float64)
    values -= values.mean(axis=0)
    _, directions = np.linalg.eigh(values.T @ values)  # by rising variance
    best = directions[:, ::-1][:, :3]
    best = best * np.sign(best[np.abs(best).argmax(axis=0), range(best.shape[1])])  # else the sign is any
    shown = values @ best
    low, high = np.percentile(shown, (2, 98), axis=0)
    shown = np.clip((shown - low) / np.maximum(high - low, 1e-12), 0, 1)
    return shown.reshape(*features.shape[1:], -1)

"""Inputs that name something that a scene does not show. Their ground truth is empty, or lacks the absent phrases."""

from __future__ import annotations

from collections.abc import Callable

from . import captions, phrases
from .answers import SupportsRandom, choose
from .layout import CATEGORIES
from .paint import PALETTE
from .sprites import SIGN_WORDS
from .types import SceneData

ABSENT_NOUNS = tuple(
    """
    elephant zebra monkey tiger horse pig goat fox wolf rabbit mouse whale shark penguin owl eagle chicken spider
    butterfly bee snake turtle kangaroo panda camel dragon robot ghost king nurse clown statue truck van tractor train
    tram motorcycle scooter helicopter submarine canoe wagon skateboard bridge castle church windmill barn tent igloo
    pyramid temple fence gate bench chair table sofa bed clock mirror vase bottle cup fork spoon knife plate bowl pizza
    burger cake cookie apple banana grape lemon corn bread cheese egg guitar piano drum violin trumpet laptop keyboard
    phone television camera book pencil scissors hammer ladder kite drone swing slide shoe glove crown backpack suitcase
    candle volcano waterfall rainbow comet planet hydrant mailbox fountain stove oven toaster fridge sink toothbrush
    wallet ring
    """.split()
)
"""Nouns that no scene shows, not even in part or in its background. A model that has seen questions about them learns that a noun can be unknown."""

_SYLLABLES = ("ba", "dro", "fi", "gla", "ko", "lu", "mer", "no", "pli", "ra", "sko", "tu", "ve", "wim", "zo")

_NUMBER_OF_TRIALS = 20

_ListSeparator = Callable[[list[str]], str]

_LIST_FORMATS: tuple[_ListSeparator, ...] = (", ".join, ". ".join, captions.join_with_and)


def sample_absent_phrase(scene: SceneData, rng: SupportsRandom) -> str:
    """Return a noun phrase that refers to nothing in a scene.

    It names another category, an object of the scene in a color that it does not have, a word that is not written on any
    sign, a noun that scenes do not know, or a made-up word. It takes the articles and numbers of phrases that refer to something.
    """
    name = _sample_absent_name(scene, rng)
    kind = rng.random()
    if kind < 0.2:
        return f"the {name}"
    return captions.with_article(name) if kind < 0.3 else name


def sample_absent_expression(scene: SceneData, rng: SupportsRandom) -> str:
    """Return an expression such as `"the largest red car"` or `"the dog on the left"` that refers to nothing in a scene."""
    name = _sample_absent_name(scene, rng)
    kind = rng.random()
    if kind < 0.4:
        return f"the {name} {choose(phrases.POSITIONS, rng).phrase}"
    if kind < 0.6 and "that says" not in name:
        return f"the {choose(tuple(phrases.SUPERLATIVES), rng)} {name}"
    return f"the {name}"


def sample_caption_with_absent_phrase(scene: SceneData, rng: SupportsRandom) -> str:
    """Return a caption of a scene in which one phrase is replaced by one that refers to nothing in it."""
    task = choose(("<CAPTION>", "<CAPTION>", "<DETAILED_CAPTION>"), rng)
    caption = captions.caption(scene, task, int(rng.random() * 4))
    replaced = choose(phrases.phrases(caption), rng).text
    name = _sample_absent_name(scene, rng)
    number = choose(phrases.NUMBERS[2:6], rng)
    return caption.replace(replaced, f"{number} {name}s" if rng.random() < 0.25 else captions.with_article(name), 1)


def sample_name_list(scene: SceneData, rng: SupportsRandom) -> str:
    """Return a list of up to eight names of categories, of which some are in the scene: `"dog, car, sheep"`."""
    present = list(phrases.object_counts(scene))
    absent = [_sample_absent_name(scene, rng) for _ in range(int(rng.random() * 5))]
    names = [*present[: 1 + int(rng.random() * len(present))], *absent]
    order = [rng.random() for _ in names]
    return choose(_LIST_FORMATS, rng)([names[i] for i in sorted(range(len(names)), key=order.__getitem__)])


def is_absent(scene: SceneData, text: str) -> bool:
    """Return whether no phrase of a text refers to an object of a scene."""
    return not any(phrase.matches(scene.objects) for phrase in phrases.phrases(text))


def _sample_absent_name(scene: SceneData, rng: SupportsRandom) -> str:
    for _ in range(_NUMBER_OF_TRIALS):
        name = choose(_ABSENT_NAMES, rng)(scene, rng)
        if is_absent(scene, name):
            return name
    return choose(ABSENT_NOUNS, rng)


def _other_category(scene: SceneData, rng: SupportsRandom) -> str:
    label = choose([label for label in CATEGORIES if label not in phrases.object_counts(scene)], rng)
    color = choose(tuple(PALETTE), rng) if rng.random() < 0.25 else None
    if rng.random() < 0.15:
        return captions.counted_phrase(2 + int(rng.random() * 3), label, color)
    return phrases.noun_phrase(label, color, is_plural=rng.random() < 0.15)


def _other_color(scene: SceneData, rng: SupportsRandom) -> str:
    return phrases.noun_phrase(choose(scene.objects, rng).label, choose(tuple(PALETTE), rng))


def _other_word(scene: SceneData, rng: SupportsRandom) -> str:
    return phrases.noun_phrase("sign", None, choose(SIGN_WORDS, rng).upper())


def _unknown_noun(scene: SceneData, rng: SupportsRandom) -> str:
    color = f"{choose(tuple(PALETTE), rng)} " if rng.random() < 0.25 else ""
    return color + choose(ABSENT_NOUNS, rng)


def _made_up_word(scene: SceneData, rng: SupportsRandom) -> str:
    return "".join(choose(_SYLLABLES, rng) for _ in range(2 + int(rng.random() * 2)))


_ABSENT_NAMES: tuple[Callable[[SceneData, SupportsRandom], str], ...] = (
    *(_other_category,) * 4,
    *(_other_color,) * 2,
    _other_word,
    _unknown_noun,
    _made_up_word,
)
"""Kinds of absent phrases, as often as they are sampled."""

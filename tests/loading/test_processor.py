"""Tokenizer and image settings: of the folder, of a named model, or of the published model that was fine-tuned."""

import json
import shutil

import pytest
from huggingface_hub import constants
from support import TINY, copy_of_tiny, edit_json

from florence_lab.exceptions import CheckpointError, HubError
from florence_lab.loading.adapters import load_model
from florence_lab.loading.checkpoint import load_checkpoint
from florence_lab.loading.registry import MODELS

NANO = MODELS["florence-2-nano"].path
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")
IMAGE_FILES = ("preprocessor_config.json", "processor_config.json")

pytestmark = pytest.mark.usefixtures("unreachable_hubs")  # nothing is downloaded


def without(folder, names):
    for name in names:
        (folder / name).unlink(missing_ok=True)
    return folder


@pytest.fixture
def published(tmp_path):
    return copy_of_tiny(tmp_path / "published")


@pytest.fixture
def nano(tmp_path):
    """A copy of florence-2-nano, as if it had been fine-tuned."""
    return shutil.copytree(NANO, tmp_path / "nano")


PARTS = {"tokenizer": TOKENIZER_FILES, "image settings": IMAGE_FILES, "both": TOKENIZER_FILES + IMAGE_FILES}


@pytest.mark.parametrize("names", PARTS.values(), ids=PARTS)
def test_what_a_folder_lacks_is_that_of_the_shipped_model_of_the_same_sizes(nano, names):
    _, processor = load_checkpoint(without(nano, names))
    _, expected = load_checkpoint(NANO)
    assert processor.tokenizer("a red<loc_7>").input_ids == expected.tokenizer("a red<loc_7>").input_ids
    assert processor.image_processor.size == expected.image_processor.size


@pytest.mark.parametrize("names", PARTS.values(), ids=PARTS)
def test_what_a_folder_lacks_is_that_of_the_published_model_in_a_cache(published, names):
    cached = f"{constants.HF_HUB_CACHE}/models--microsoft--Florence-2-base/snapshots/abc"
    shutil.copytree(TINY, cached)
    _, processor = load_checkpoint(without(published, names))
    assert processor.image_token_id == 1411


@pytest.mark.parametrize("names", PARTS.values(), ids=PARTS)
def test_otherwise_both_ways_to_give_it_are_named(published, names):
    with pytest.raises(
        CheckpointError, match=r"has no (tokenizer|image settings).*processor='florence-2-base'.*in the cache"
    ):
        load_checkpoint(without(published, names))


@pytest.mark.parametrize("names", PARTS.values(), ids=PARTS)
def test_processor_names_the_model_whose_own_are_used(published, names):
    _, processor = load_model(without(published, names), processor=TINY)
    assert processor.image_token_id == 1411


def test_processor_takes_precedence_over_the_files_of_the_folder(published, tmp_path):
    other = copy_of_tiny(tmp_path / "other")
    edit_json(other / "preprocessor_config.json", size={"height": 192, "width": 192}, image_seq_length=37)
    assert load_checkpoint(published, processor=str(other))[1].num_image_tokens == 37


def test_a_processor_of_another_model_is_refused(published):
    with pytest.raises(CheckpointError, match=r"has 1,815 tokens .* the model has 1,411 embeddings"):
        load_checkpoint(published, processor="florence-2-nano")


def test_a_processor_that_would_have_to_be_downloaded_is_not_found_without_a_network(published):
    with pytest.raises(HubError, match="Florence-2-base"):
        load_checkpoint(published, processor="florence-2-base")


def test_processor_must_have_both(published, tmp_path):
    source = without(copy_of_tiny(tmp_path / "source"), IMAGE_FILES)
    with pytest.raises(CheckpointError, match="source has no image settings"):
        load_checkpoint(published, processor=source)


def vocabulary(edit):
    """Change the vocabulary and merges of the tokenizer."""

    def change(folder):
        path = folder / "tokenizer.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        edit(content)
        path.write_text(json.dumps(content), encoding="utf-8")
        for name in ("vocab.json", "merges.txt"):
            (folder / name).unlink()

    return change


def drop_words(content):
    for word in [word for word, token_id in content["model"]["vocab"].items() if token_id >= 380]:
        del content["model"]["vocab"][word]
    content["model"]["merges"] = content["model"]["merges"][:50]


def add_words(content):
    first = max(content["model"]["vocab"].values()) + 1
    content["model"]["vocab"] |= {f"word{n}": first + n for n in range(30)}


def drop_merges(content):
    content["model"]["merges"] = []


def add_location(content):
    content["added_tokens"].append(dict(content["added_tokens"][-1], content="<loc_5>", id=387))


def settings(**changes):
    def change(folder):
        content = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        (folder / "tokenizer_config.json").write_text(json.dumps(content | changes), encoding="utf-8")

    return change


DAMAGED = {
    "fewer words": (vocabulary(drop_words), "tokens .* embeddings"),
    "more words": (vocabulary(add_words), "tokens .* embeddings"),
    "locations in another order": (vocabulary(add_location), "consecutive ids"),
    "no merges": (vocabulary(drop_merges), "merges"),
    "length of a word": (settings(model_max_length="x"), "tokenizer_config.json is invalid: model_max_length .*'x'"),
    "length of an object": (settings(model_max_length={}), "model_max_length must be"),
    "length of 0": (settings(model_max_length=0), "model_max_length must be at least 1"),
    "no end": (settings(eos_token=None), "eos_token must be .*None"),
    "no padding": (settings(pad_token=5), "pad_token must be .*5"),
    "another end": (settings(eos_token="<pad>"), "eos_token|<s> and </s>"),
}


@pytest.mark.parametrize(("change", "message"), DAMAGED.values(), ids=DAMAGED)
def test_a_tokenizer_that_does_not_fit_is_refused(published, change, message):
    change(published)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(published)
    assert str(published) in str(caught.value)

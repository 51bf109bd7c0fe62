"""`tokenizer`: the structure of Florence-2's tokenizer, with the words of the scenes."""

import random
from itertools import pairwise

import pytest

from florence_lab.pretraining.config import MAX_TOKENS
from florence_lab.pretraining.tokenizer import load_or_build_tokenizer, tokenizer_corpus
from florence_lab.scenes import draw_scene
from florence_lab.scenes.answers import SCENE_ANSWERS
from florence_lab.template.template import FlorenceTemplate
from florence_lab.template.vocabulary import ADDED_TOKENS


def test_ids_have_the_order_of_the_published_tokenizer(tokenizer):
    assert tokenizer.convert_tokens_to_ids(["<s>", "<pad>", "</s>", "<unk>"]) == [0, 1, 2, 3]
    ids = tokenizer.convert_tokens_to_ids(["<mask>", *ADDED_TOKENS, "<image>"])
    assert all(b == a + 1 for a, b in pairwise(ids))
    assert ids[-1] == len(tokenizer) - 1
    assert tokenizer.image_token == "<image>"


@pytest.mark.parametrize(
    "text",
    [
        "two sheep<loc_0><loc_999>house<and><loc_7>",
        "A sign that says STOP.",
        "naïve 日本 🐑 text",
        " leading, trailing ",
    ],
)
def test_any_text_is_decoded_as_it_was_encoded(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert (ids[0], ids[-1]) == (0, 2)
    assert 3 not in ids
    assert tokenizer.decode(ids[1:-1], clean_up_tokenization_spaces=False) == text


def test_words_of_the_prompts_are_single_tokens(tokenizer):
    assert len(tokenizer("What does the image describe?", add_special_tokens=False)["input_ids"]) == 6


def test_words_on_signs_are_not_in_the_corpus():
    corpus = set(tokenizer_corpus(scenes=3))
    assert any("What is the text in the image" in text for text in corpus)
    assert not any("loc_" in text or "<sep>" in text for text in corpus)


@pytest.mark.parametrize("task", SCENE_ANSWERS)
def test_target_strings_survive_the_tokenizer(tokenizer, task):
    scene = draw_scene(1_000_011, 96)
    template = FlorenceTemplate(tokenizer)
    for text in scene.sample_inputs(task, random.Random(0))[:2]:
        truth = scene.answer(task, text)
        ids = tokenizer(truth.raw)["input_ids"]
        assert len(ids) <= MAX_TOKENS
        prompt = template.build_prompt(task, text, scene.size)
        assert template.parse(ids, prompt, scene.size).to_dict() == truth.to_dict()


def test_a_resumed_run_reads_its_tokenizer_from_its_folder(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    texts = [*tokenizer_corpus(scenes=5), "two sheep<loc_0><loc_999>house<and><sep>", " Two  Words"]
    assert load_or_build_tokenizer(tmp_path)(texts)["input_ids"] == tokenizer(texts)["input_ids"]

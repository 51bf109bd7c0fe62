"""The tokens of Florence-2."""

import re

import pytest

from florence_lab.template import FlorenceTemplate
from florence_lab.template.vocabulary import ADDED_TOKENS, NOT_GROUNDABLE, SEPARATORS, TokenSpan, split_text


@pytest.fixture(scope="module")
def vocabulary(tiny):
    return tiny.template.vocabulary


def test_the_added_tokens_are_those_of_the_published_processor(tiny):
    first = tiny.processor.tokenizer.convert_tokens_to_ids("<od>")
    assert tiny.processor.tokenizer.convert_tokens_to_ids(ADDED_TOKENS) == list(range(first, first + len(ADDED_TOKENS)))
    assert len(ADDED_TOKENS) == 1024


def test_pronouns_and_the_image_itself_cannot_be_grounded(tiny):
    published = tiny.processor.post_processor_config["phrase_grounding"]["banned_grounding_tokens"]
    assert sorted(NOT_GROUNDABLE) == sorted(published)


def test_ids_are_known_by_their_role(vocabulary, tiny):
    tokenizer = tiny.processor.tokenizer
    assert vocabulary.special_ids == {0, 1, 2}
    assert vocabulary.skipped_ids > vocabulary.special_ids
    assert tokenizer.convert_tokens_to_ids("<mask>") in vocabulary.skipped_ids
    assert tokenizer.convert_tokens_to_ids("<ocr>") in vocabulary.skipped_ids
    assert len(vocabulary.markup) == 1004
    assert vocabulary.markup[vocabulary.location_ids[7]] == ("<loc_7>", 7)
    for separator in SEPARATORS:
        assert vocabulary.markup[tokenizer.convert_tokens_to_ids(separator)] == (separator, None)


def test_generated_ids_are_split_into_spans(vocabulary, tiny):
    ids = tiny.processor.tokenizer("</s>cat hat<loc_5><sep>.<pad>", add_special_tokens=False).input_ids
    spans = vocabulary.split(ids)
    assert [(s.text, s.bin) for s in spans] == [("cat hat", None), ("<loc_5>", 5), ("<sep>", None), (".", None)]
    assert [position for span in spans for position in span.positions] == list(range(1, len(ids) - 1))
    assert [span.is_text for span in spans] == [True, False, False, True]


def test_decoding_removes_special_tokens_only(vocabulary, tiny):
    ids = tiny.processor.tokenizer("<s>a  cat .<loc_5><ocr></s><pad>", add_special_tokens=False).input_ids
    assert vocabulary.decode(ids) == "a  cat .<loc_5><ocr>"


def test_a_text_is_split_like_tokens():
    raw, spans = split_text("<s>cat<ocr> hat<loc_5></s><and>")
    assert raw == "cat<ocr> hat<loc_5><and>"
    assert spans == [TokenSpan("cat hat", None, (0,)), TokenSpan("<loc_5>", 5, (1,)), TokenSpan("<and>", None, (2,))]


@pytest.mark.parametrize("ids", [[3] * 1000, [5, *range(7, 1006)]], ids=["none", "not consecutive"])
def test_a_tokenizer_without_location_tokens_is_refused(ids):
    class Other:
        def convert_tokens_to_ids(self, names):
            return ids

    with pytest.raises(ValueError, match="not a Florence-2 tokenizer"):
        FlorenceTemplate(Other()).parse([5], "<OD>", (100, 100))


def test_a_template_without_a_tokenizer_parses_text_only():
    with pytest.raises(ValueError, match=re.escape("has no tokenizer; only build_prompt and parse_text work")):
        FlorenceTemplate().parse([5], "<OD>", (100, 100))


def test_the_template_exposes_its_vocabulary(tiny, vocabulary):
    ids = tiny.processor.tokenizer("cat<loc_5>", add_special_tokens=False).input_ids
    assert tiny.template.split_tokens(ids) == vocabulary.split(ids)
    assert tiny.template.decode(ids) == "cat<loc_5>"
    assert tiny.template.location_ids == vocabulary.location_ids

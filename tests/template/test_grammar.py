"""Which target texts are whole answers."""

import contextlib
import random
import time

import pytest

from florence_lab.exceptions import ArgumentError
from florence_lab.tasks import TASKS, Task
from florence_lab.template import FlorenceTemplate
from florence_lab.template.grammar import requires_label, validate_target
from florence_lab.template.locations import LOCATION_RE
from florence_lab.template.prompts import Prompt
from florence_lab.template.targets import format_target, to_instances

B = "<loc_10><loc_20><loc_300><loc_400>"
C = "<loc_0><loc_0><loc_999><loc_999>"
QUAD = B + C
TRIANGLE = "<loc_1><loc_2><loc_3><loc_40><loc_50><loc_6>"
DETECTION = (
    "shelf<loc_264><loc_173><loc_572><loc_748><loc_755><loc_274><loc_966><loc_737><loc_46><loc_335><loc_261><loc_763>"
    "<loc_555><loc_360><loc_760><loc_756>"
)
GROUNDING = (
    "thethe sheeps<loc_45><loc_175><loc_967><loc_764><loc_266><loc_176><loc_572><loc_749><loc_756><loc_275><loc_965>"
    "<loc_739><loc_46><loc_335><loc_261><loc_765><loc_557><loc_361><loc_760><loc_758>"
)
OD, DENSE, PROPOSAL, OCR = "<OD>", "<DENSE_REGION_CAPTION>", "<REGION_PROPOSAL>", "<OCR_WITH_REGION>"
GROUND, REFER, OPEN = (
    "<CAPTION_TO_PHRASE_GROUNDING>",
    "<REFERRING_EXPRESSION_SEGMENTATION>",
    "<OPEN_VOCABULARY_DETECTION>",
)
CATEGORY, SEGMENT = "<REGION_TO_CATEGORY>", "<REGION_TO_SEGMENTATION>"

VALID = [
    (OD, DETECTION),
    (OD, f"sheep{B}"),
    (OD, f"sheep{B}{C}"),
    (OD, f"sheep{B}dog{C}sheep{C}"),
    (OD, f"sheep{B}sheep{B}"),
    (OD, "dot<loc_5><loc_5><loc_5><loc_5>"),
    (OD, f"route 66{B}"),
    (OD, f"a < b, 50%{B}"),
    (OD, f"Ünïcode 犬{B}"),
    (DENSE, f"cartoon sheep illustration{B}cartoon ram illustration{C}"),
    (DENSE, f"a sheep{B}{C}"),
    (PROPOSAL, B),
    (PROPOSAL, B + C + B),
    (OCR, f"stop{QUAD}"),
    (OCR, f"stop{QUAD}go{C}{B}"),
    (OCR, f"12 34 56 78{QUAD}"),
    (GROUND, GROUNDING),
    (GROUND, f"the sheep{B}a hill{C}{B}"),
    (OPEN, f"a sheep{B}"),
    (OPEN, f"a sheep{B}{C}a dog{B}"),
    (OPEN, f"a sheep<poly>{TRIANGLE}</poly>"),
    (OPEN, f"a sheep<poly>{TRIANGLE}<sep>{QUAD}</poly><poly>{QUAD}</poly>"),
    (OPEN, f"a sheep{B}<poly>{TRIANGLE}</poly>{B}a dog<poly>{QUAD}</poly>"),
    (OPEN, f"a sheep{TRIANGLE}<sep>{TRIANGLE}"),
    (REFER, TRIANGLE),
    (REFER, f"{TRIANGLE}<sep>{QUAD}"),
    (REFER, f"{TRIANGLE}<and>{QUAD}<sep>{TRIANGLE}"),
    (REFER, f"a sheep{TRIANGLE}<sep>{QUAD}"),
    (REFER, f"<poly>{TRIANGLE}</poly>"),
    (SEGMENT, f"{TRIANGLE}{B}"),
    (CATEGORY, "cat"),
    (CATEGORY, "cat" + B),
    ("<REGION_TO_OCR>", "5 < 6" + B),
    ("<CAPTION>", "A cat, with 2 < 3 legs <b>bold</b> at <location>.\nAnd more."),
    ("<CAPTION>", " two  spaces stay "),
    ("<OCR>", "10 20 30 40"),
    ("", "anything at <loc_1> and <sep>"),
    ("", "5"),
]


def prompt_of(token):
    task = TASKS.get(token, token)
    text = {"none": "", "phrase": "the sheep on a hill", "region": B}[task.input] if token else "what is this?"
    return Prompt.from_task(task, text)


@pytest.mark.parametrize(("token", "target"), VALID)
def test_a_whole_answer_is_valid_as_it_is(token, target):
    assert validate_target(target, prompt_of(token)) == target


@pytest.mark.parametrize(("token", "target"), [(t, x) for t, x in VALID if t and TASKS[t].result != "text"])
def test_a_whole_answer_is_parsed_without_loss_and_written_again(token, target):
    prompt, size = prompt_of(token), (1000, 1000)
    again = format_target(prompt.task, to_instances(FlorenceTemplate().parse_text(target, prompt, size)), size)
    assert sorted(LOCATION_RE.findall(again)) == sorted(LOCATION_RE.findall(target))
    assert validate_target(again, prompt) == again


@pytest.mark.parametrize("token", ["", *TASKS])
@pytest.mark.parametrize("target", ["", " \n"])
def test_an_empty_answer_is_valid_for_every_task(token, target):
    assert validate_target(target, prompt_of(token)) == ""


@pytest.mark.parametrize(
    ("token", "target", "expected"),
    [
        (OD, f" sheep {B}\ndog {C} ", f"sheep{B}dog{C}"),
        (OD, "sheep <loc_1> <loc_2> <loc_3> <loc_4>", "sheep<loc_1><loc_2><loc_3><loc_4>"),
        (CATEGORY, f"cat {B} ", f"cat{B}"),
    ],
)
def test_blanks_beside_labels_and_locations_are_removed(token, target, expected):
    assert validate_target(target, prompt_of(token)) == expected


INVALID = [
    # what is no location token
    (OD, "sheep<loc_0010><loc_2><loc_3><loc_4>", "<loc_0010>' is no location token"),
    (OD, "sheep<loc_10><loc_20><loc_30><loc_1000>", "<loc_1000>' is no location token; .*<loc_999>"),
    (OD, "sheep<loc_-1><loc_2><loc_3><loc_4>", "<loc_-1>"),
    (OD, "sheep<loc_1.5><loc_2><loc_3><loc_4>", "<loc_1.5>"),
    (OD, f"sheep{B}<loc_1", "<loc_1'"),
    (OD, "sheep<LOC_1><LOC_2><LOC_3><LOC_4>", "<LOC_1>"),
    (OD, "sheep<loc 1><loc 2><loc 3><loc 4>", "<loc 1"),
    (OD, "sheep<loc_><loc_2><loc_3><loc_4>", "<loc_>"),
    (OD, "sheep<loc><loc><loc><loc>", "<loc>"),
    ("", "at <loc_1000>", "<loc_1000>"),
    ("<CAPTION>", "at <loc_0010>", "<loc_0010>"),
    # pixels
    (OD, "sheep 10 20 30 40", "no location follows 'sheep 10 20 30 40'.*x / width"),
    (OD, "10, 20, 30, 40", "x / width"),
    (OD, "sheep", "no location follows 'sheep'"),
    (REFER, "10,20 30,40 50,60", "x / width"),
    (OCR, "stop (1,2), (3,4), (5,6), (7,8)", "x / width"),
    # incomplete instances
    (OD, "sheep<loc_1><loc_2><loc_3>", "3 locations behind 'sheep'.*4 for each box"),
    (OD, f"sheep{B}<loc_7>", "5 locations"),
    (OD, f"sheep<loc_1>dog{B}", "1 locations behind 'sheep'"),
    (PROPOSAL, f"{B}<loc_1><loc_2>", "6 locations behind an instance without a label"),
    (GROUND, "the sheep<loc_1>", "1 locations"),
    (OCR, "stop<loc_1><loc_2><loc_3><loc_4><loc_5><loc_6><loc_7>", "7 locations.*8 for each quad box"),
    (OCR, f"stop{B}", "4 locations"),
    (OCR, f"stop{QUAD}{B}", "12 locations"),
    (OPEN, "a sheep<loc_1><loc_2>", "2 locations"),
    (OPEN, f"a sheep{B}<loc_1><poly>{TRIANGLE}</poly>", "5 locations"),
    (REFER, TRIANGLE + "<loc_1>", "7 locations of a polygon.*pairs"),
    (REFER, B, "4 locations of a polygon.*three or more"),
    (REFER, f"{TRIANGLE}<sep>{B}", "4 locations of a polygon"),
    (SEGMENT, f"{TRIANGLE}<and>{B}", "4 locations of a polygon"),
    (OPEN, f"a sheep<poly>{B}</poly>", "4 locations of a polygon"),
    (OPEN, f"a sheep<poly>{TRIANGLE}<loc_1></poly>", "7 locations of a polygon"),
    # corners
    (OD, "sheep<loc_300><loc_20><loc_10><loc_400>", "<loc_300>.*swapped"),
    (OD, f"sheep{B}<loc_10><loc_400><loc_300><loc_20>", "<loc_10><loc_400>.*swapped"),
    (PROPOSAL, "<loc_300><loc_20><loc_10><loc_400>", "swapped"),
    (GROUND, "the sheep<loc_300><loc_20><loc_10><loc_400>", "swapped"),
    (OPEN, "a sheep<loc_300><loc_20><loc_10><loc_400>", "swapped"),
    # labels
    (OD, B, "<OD> needs a label in front of <loc_10>"),
    (OD, f" {B}sheep{C}", "<OD> needs a label"),
    (DENSE, B, "needs a label"),
    (GROUND, B, "needs a label"),
    (OPEN, B, "needs a label"),
    (OPEN, f"<poly>{TRIANGLE}</poly>", "needs a label"),
    (OCR, QUAD, "needs a label"),
    (PROPOSAL, f"{B}sheep{B}", "either all instances have a label or none"),
    (REFER, f"{TRIANGLE}sheep{TRIANGLE}", "either all"),
    (OD, f"sheep{B}dog", "no location follows 'dog'"),
    (REFER, f"{TRIANGLE} done.", "no location follows 'done.'"),
    (GROUND, f"it{B}", "pronouns"),
    (GROUND, f"the sheep{B}The image{B}", "pronouns"),
    # separators
    (OD, f"sheep{B}<sep>{B}", "<sep> behind 'sheep' has no place"),
    (OD, f"sheep{B}<and>", "<and> behind 'sheep'"),
    (OD, f"sheep<poly>{B}</poly>", "<poly> behind 'sheep'"),
    (OCR, f"stop<sep>{QUAD}", "<sep>"),
    (OPEN, f"a sheep{B}<and>{B}", "<and> behind 'a sheep' has no place"),
    (OPEN, f"a sheep<poly>{TRIANGLE}", "</poly> is missing"),
    (OPEN, f"a sheep{TRIANGLE}</poly>", "out of place"),
    (OPEN, f"a sheep<poly>{TRIANGLE}<poly>{TRIANGLE}</poly></poly>", "out of place"),
    (OPEN, f"a sheep<poly></poly>{B}", "0 locations of a polygon"),
    (OPEN, f"a sheep<sep>{TRIANGLE}", "0 locations of a polygon"),
    (REFER, f"{TRIANGLE}<sep>", "0 locations of a polygon"),
    (REFER, f"<and>{TRIANGLE}", "0 locations of a polygon"),
    (REFER, f"{TRIANGLE}<and>", "0 locations of a polygon"),
    (REFER, "<sep>", "no location"),
    (OD, "sheep<sep>", "no location"),
    # tokens of the tokenizer
    *[
        (OD, f"sheep{token}{B}", f"{token} is a token")
        for token in ("<s>", "</s>", "<pad>", "<unk>", "<mask>", "<image>", "<od>", "</cap>")
    ],
    ("<CAPTION>", "</s><s>a cat</s>", "</s> is a token"),
    ("", "a cat<pad>", "<pad> is a token"),
    ("<REGION_TO_OCR>", "<image>", "<image> is a token"),
    # text
    ("<CAPTION>", f"a cat{B}", "answers with text only, but got '<loc_10>"),
    ("<CAPTION>", "a<sep>cat", "'<sep>'"),
    ("<OCR>", B, "answers with text only"),
    (CATEGORY, B, "answers with text, but got"),
    (CATEGORY, "cat" + C, "<loc_0>"),
    (CATEGORY, f"cat{B}{B}", "<loc_10>"),
    (CATEGORY, f"cat{B}dog", "behind it <loc_10>"),
    (CATEGORY, f"{B}cat", "behind it <loc_10>"),
    (CATEGORY, "cat<loc_10><loc_20><loc_300>", "<loc_300>"),
]


@pytest.mark.parametrize(("token", "target", "message"), INVALID)
def test_what_is_no_whole_answer_is_refused_with_the_part_that_is_wrong(token, target, message):
    with pytest.raises(ArgumentError, match=message):
        validate_target(target, prompt_of(token))


def test_what_is_accepted_at_random_is_parsed_without_loss():
    rng, accepted = random.Random(5), 0
    pieces = ["cat", "a dog", "<sep>", "<and>", "<poly>", "</poly>", "<loc_1>", B, B, C, TRIANGLE, TRIANGLE, "</s>"]
    tokens = [token for token, task in TASKS.items() if task.result != "text"]
    for _ in range(6000):
        prompt, target = prompt_of(rng.choice(tokens)), "".join(rng.choices(pieces, k=rng.randint(1, 5)))
        try:
            target = validate_target(target, prompt)
        except ArgumentError:
            continue
        accepted += 1
        result = FlorenceTemplate().parse_text(target, prompt, (1000, 1000))
        again = format_target(prompt.task, to_instances(result), (1000, 1000))
        assert sorted(LOCATION_RE.findall(again)) == sorted(LOCATION_RE.findall(target)), target
    assert accepted > 200


@pytest.mark.parametrize("token", list(TASKS))
def test_what_the_published_parser_reads_is_accepted_where_scenes_answer(token):
    from florence_lab.scenes import draw_scene
    from florence_lab.scenes.export import scene_rows

    for seed in range(12):
        for row in scene_rows(draw_scene(seed, 64), "", [token]):
            prompt = FlorenceTemplate().build_prompt(row["query"])
            assert validate_target(row["response"], prompt) == row["response"]


def test_labels_of_a_registered_task_are_optional_but_equal_in_kind():
    prompt = Prompt.from_task(Task("<LOCATE>", "Locate.", "none", "boxes", "boxes"))
    assert not requires_label(prompt.task)
    assert validate_target(B, prompt) == B
    assert validate_target(f"cat{B}", prompt) == f"cat{B}"
    with pytest.raises(ArgumentError, match="either all"):
        validate_target(f"{B}cat{B}", prompt)


@pytest.mark.parametrize("piece", ["1", "<", ".", " ", "a ", "1.", "<loc"])
@pytest.mark.parametrize("token", [OD, GROUND])
def test_a_very_long_label_is_checked_in_no_time(piece, token):
    start, label = time.perf_counter(), f"1<{piece * 50_000}"
    with contextlib.suppress(ArgumentError):
        validate_target(f"{label}x{B}", prompt_of(token))
    with contextlib.suppress(ArgumentError):
        validate_target(f"{label}x", prompt_of(token))
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("target", ["three", "this <loc_1><loc_2><loc_3><loc_4> ", "<and>", "a<sep>b"])
def test_the_target_of_an_own_token_is_any_text(target):
    prompt = Prompt.from_task("<DocVQA>", "How many?")
    assert validate_target(target, prompt) == target
    result = FlorenceTemplate().parse_text(target, prompt, (100, 100))
    assert (result.raw, result.task) == (target, "<DocVQA>")
    assert "loc" not in result.text


def test_the_target_of_a_registered_token_has_the_grammar_of_its_result():
    prompt = Prompt.from_task(Task("<MyOD>", result="boxes"))
    with pytest.raises(ArgumentError, match="<MyOD> has 4 for each box"):
        validate_target("sheep<loc_1>", prompt)
    assert validate_target("sheep <loc_1><loc_2><loc_3><loc_4>", prompt) == "sheep<loc_1><loc_2><loc_3><loc_4>"

"""A transcript of ms-swift's documentation, reproduced with the published weights: `pytest -m hub` (3 GB, unless cached).

It was made with florence-2-large-ft in float32. Its page does not tell whether decoding was greedy or used the 3 beams of
the checkpoint, so the results of either are accepted, and a failure shows both.
"""

import pytest

from florence_lab.cli import main

pytestmark = pytest.mark.hub

MODEL = "florence-2-large-ft"
IMAGES = "http://modelscope-open.oss-cn-hangzhou.aliyuncs.com/images/"

# Query, image and printed line, unchanged; some end with a space.
TRANSCRIPT = [
    (
        "Describe the image",
        "cat.png",
        "{'Describe the image': 'A grey and white kitten with blue eyes.'}",
    ),
    (
        "<OD>",
        "animal.png",
        "{'Locate the objects with category name in the image.': 'shelf<loc_264><loc_173><loc_572><loc_748><loc_755><loc_274><loc_966><loc_737><loc_46><loc_335><loc_261><loc_763><loc_555><loc_360><loc_760><loc_756>'}",
    ),
    (
        "<CAPTION>",
        "animal.png",
        "{'What does the image describe?': 'A cartoon picture of four sheep standing in a field.'}",
    ),
    (
        "<DETAILED_CAPTION>",
        "animal.png",
        "{'Describe in detail what is shown in the image.': 'In the image is animated. In the image there are sheeps. At the bottom of the image on the ground there is grass. In background there are hills. At top of the images there are clouds.'}",
    ),
    (
        "<MORE_DETAILED_CAPTION>",
        "animal.png",
        "{'Describe with a paragraph what is shown in the image.': 'Four sheep are standing in a field. They are all white and fluffy. They have horns on their heads. There are mountains behind them. There is grass and weeds on the ground in front of them. '}",
    ),
    (
        "<DENSE_REGION_CAPTION>",
        "animal.png",
        "{'Locate the objects in the image, with their descriptions.': 'cartoon sheep illustration<loc_265><loc_175><loc_572><loc_748>cartoon ram illustration<loc_755><loc_275><loc_966><loc_737>cartoon white sheep illustration<loc_44><loc_335><loc_262><loc_764>cartoon goat illustration<loc_555><loc_361><loc_762><loc_756>'}",
    ),
    (
        "<REGION_PROPOSAL>",
        "animal.png",
        "{'Locate the region proposals in the image.': '<loc_45><loc_176><loc_967><loc_761><loc_266><loc_175><loc_570><loc_749><loc_757><loc_274><loc_966><loc_738><loc_46><loc_334><loc_261><loc_763><loc_556><loc_361><loc_760><loc_756>'}",
    ),
    (
        "<CAPTION_TO_PHRASE_GROUNDING>the sheeps",
        "animal.png",
        "{'Locate the phrases in the caption: the sheeps': 'thethe sheeps<loc_45><loc_175><loc_967><loc_764><loc_266><loc_176><loc_572><loc_749><loc_756><loc_275><loc_965><loc_739><loc_46><loc_335><loc_261><loc_765><loc_557><loc_361><loc_760><loc_758>'}",
    ),
]


@pytest.fixture(scope="module")
def large():
    from florence_lab.predictor import load

    return load(MODEL, dtype="fp32")


@pytest.mark.parametrize(("query", "image", "line"), TRANSCRIPT, ids=[query for query, _, _ in TRANSCRIPT])
def test_the_transcript_is_reproduced(large, query, image, line):
    lines = {}
    for name, kwargs in (("beams", {}), ("greedy", {"num_beams": 1})):
        result = large.predict(IMAGES + image, query, max_new_tokens=1024, **kwargs)
        lines[name] = str({result.prompt: result.raw})
    assert line in lines.values(), "\n".join(f"{name:9}{found}" for name, found in {"expected": line, **lines}.items())


def test_the_session_prints_as_in_the_transcript(large, monkeypatch, capsys):
    query, image, _ = TRANSCRIPT[0]
    typed = iter([query, IMAGES + image, "exit"])
    monkeypatch.setattr("builtins.input", lambda prompt: print(prompt, end="") or next(typed))
    monkeypatch.setattr("florence_lab.predictor.load", lambda *_: large)
    arguments = ["--model_type", MODEL, "--dtype", "fp32", "--max_new_tokens", "1024", "--stream", "False"]
    assert main(["infer", *arguments]) == 0
    result = large.predict(IMAGES + image, query, max_new_tokens=1024)
    answer = f"{{'Describe the image': {result.raw!r}}}"
    assert capsys.readouterr().out == f"<<< Input a media path or URL <<< {answer}\n{'-' * 50}\n<<< "


def test_the_listing_of_the_documentation_gives_its_result():
    from florence_lab import get_default_template_type, get_model_tokenizer, get_template, inference, seed_everything

    model, tokenizer = get_model_tokenizer(MODEL, "fp32", model_kwargs={"device_map": None})
    model.generation_config.max_new_tokens = 1024
    template = get_template(get_default_template_type(MODEL), tokenizer)
    seed_everything(42)
    expected = {"Describe the image": "Four sheep standing in a field with mountains in the background."}
    beams, greedy = (
        inference(model, template, "Describe the image", images=[f"{IMAGES}animal.png"], **kwargs)[0]
        for kwargs in ({}, {"num_beams": 1})
    )
    assert expected in (beams, greedy), f"expected: {expected}\nbeams: {beams}\ngreedy: {greedy}"

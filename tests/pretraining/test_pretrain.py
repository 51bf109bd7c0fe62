"""florence-2-nano: its shape, its tokenizer, and a training run that can be interrupted anywhere."""

import json
import random
from copy import deepcopy
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, Florence2ForConditionalGeneration

from florence_lab import load
from florence_lab.loading.checkpoint import build_processor
from florence_lab.pretraining import curriculum as curriculum_module
from florence_lab.pretraining import loop
from florence_lab.pretraining.arguments import PretrainArguments
from florence_lab.pretraining.auxiliary_heads import AuxiliaryHeads
from florence_lab.pretraining.config import MAX_TOKENS
from florence_lab.pretraining.curriculum import Stage
from florence_lab.pretraining.dataset import _DRAWN_SIZES, Steps, draw_example
from florence_lab.pretraining.dense_targets import LETTERS, TARGET_MAP_SIZE, build_dense_targets, split_dense_targets
from florence_lab.pretraining.loop import _log, _Run, pretrain
from florence_lab.pretraining.losses import answer_losses, token_weights
from florence_lab.pretraining.model import _start_from, build_nano, forward, resize
from florence_lab.pretraining.tokenizer import _tokenizer, build_tokenizer, world_texts
from florence_lab.scenes import CATEGORIES, HELD_OUT_SEEDS, TRAIN_SEEDS, draw_scene
from florence_lab.scenes.answers import referenced_objects
from florence_lab.scenes.paint import PALETTE
from florence_lab.scenes.phrases import COLUMNS, column
from florence_lab.tasks import TASKS
from florence_lab.template.locations import format_location_tokens
from florence_lab.template.template import FlorenceTemplate
from florence_lab.template.vocabulary import ADDED_TOKENS

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(world_texts(scenes=40))


@pytest.fixture(scope="module")
def model(tokenizer):
    return build_nano(tokenizer)


@pytest.fixture
def small_run(tokenizer, tmp_path, monkeypatch):
    """Arguments of a run of four steps on small pictures, which grow after the third; no time goes into measuring."""
    tasks = {"<OD>": 1, "<CAPTION>": 1, "<REGION_TO_CATEGORY>": 1}
    stages = Stage(3, 48, 2, tasks), Stage(9, 64, 3, tasks)
    monkeypatch.setattr(curriculum_module, "CURRICULUM", stages)

    def arguments(name: str, **changes) -> PretrainArguments:
        tokenizer.save_pretrained(tmp_path / name / "tokenizer")
        chosen = {
            "steps": 4,
            "batch_size": 4,
            "new_scenes": 2,
            "tasks_per_image": 2,
            "warmup": 2,
            "workers": 0,
        }
        return PretrainArguments(
            out=str(tmp_path / name), **(chosen | {"measure_every": 100, "save_every": 2} | changes)
        )

    return arguments


def test_the_tokenizer_has_the_shape_of_the_published_one(tokenizer):
    assert tokenizer.convert_tokens_to_ids(["<s>", "<pad>", "</s>", "<unk>"]) == [0, 1, 2, 3]
    ids = tokenizer.convert_tokens_to_ids(["<mask>", *ADDED_TOKENS, "<image>"])
    assert all(b == a + 1 for a, b in pairwise(ids)), "the added tokens follow the base vocabulary, in order"
    assert ids[-1] == len(tokenizer) - 1
    assert len(ADDED_TOKENS) == 1024
    assert ADDED_TOKENS[:5] == ["<od>", "</od>", "<ocr>", "</ocr>", "<loc_0>"]
    assert ADDED_TOKENS[1003:1005] == ["<loc_999>", "<cap>"]
    assert ADDED_TOKENS[-4:] == ["</proposal>", "<poly>", "</poly>", "<and>"]
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
def test_any_text_survives_the_tokenizer(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert (ids[0], ids[-1]) == (0, 2)
    assert 3 not in ids
    assert tokenizer.decode(ids[1:-1], clean_up_tokenization_spaces=False) == text


def test_words_of_the_world_are_single_tokens(tokenizer):
    assert len(tokenizer("What does the image describe?", add_special_tokens=False)["input_ids"]) == 6


def test_nano_is_small(model, tokenizer, tmp_path):
    assert sum(p.numel() for p in model.parameters()) <= 12e6
    deepcopy(model).half().save_pretrained(tmp_path)  # as `export` does
    build_processor(tokenizer).save_pretrained(tmp_path)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 25e6


def test_neighbouring_places_start_alike(model, tokenizer):
    first = tokenizer.convert_tokens_to_ids("<loc_0>")
    places = torch.nn.functional.normalize(model.get_input_embeddings().weight[first : first + 1000], dim=1)
    assert places[500] @ places[501] > 0.9
    assert places[500] @ places[501] > places[500] @ places[510] > places[500] @ places[900]


@pytest.mark.parametrize("task", TASKS)
def test_targets_can_be_read_back(tokenizer, task):
    scene = draw_scene(1_000_011, 128)
    template = FlorenceTemplate(tokenizer)
    for text in scene.queries(task, random.Random(0))[:2]:
        truth = scene.answer(task, text)
        ids = tokenizer(truth.raw)["input_ids"]
        assert len(ids) <= MAX_TOKENS
        assert template.parse(ids, task, scene.size, truth.phrase).to_dict() == truth.to_dict()


def test_the_batch_of_a_step_depends_on_the_step_alone(small_run, tokenizer):
    once, again = (Steps(small_run(name), tokenizer) for name in ("once", "again"))
    first = [once[step] for step in (0, 1, 2, 3)]
    for step in (3, 1):  # neither what was drawn before nor the order matters
        _assert_same(first[step], again[step])
    assert first[0].pixels.shape == (4, 3, 48, 48)
    assert first[3].pixels.shape == (4, 3, 64, 64)
    assert not torch.equal(first[0].pixels, first[1].pixels)


def _assert_same(a, b):
    if torch.is_tensor(a):
        assert torch.equal(a, b)
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            _assert_same(x, y)
    else:
        assert a == b


def test_another_seed_draws_other_scenes(small_run, tokenizer):
    one, other = (Steps(small_run(f"seed-{seed}", seed=seed), tokenizer)[3] for seed in (0, 1))
    assert not torch.equal(one.pixels, other.pixels)


def test_every_other_scene_is_the_fullest_of_three():
    plain = [len(draw_scene(TRAIN_SEEDS[8 * number], 64).objects) for number in range(0, 40, 2)]
    full = [len(draw_example(number, 6).things) for number in range(0, 40, 2)]
    assert all(a <= b for a, b in zip(plain, full, strict=True))
    assert sum(full) > 1.2 * sum(plain)


def test_a_run_can_start_from_weights(small_run, tokenizer, monkeypatch):
    """It begins in the last stage with weights that know something, stretched to the size of its pictures."""
    first = pretrain(small_run("first", steps=2))
    seen = []
    monkeypatch.setattr(_Run, "learn", lambda run, batch, size: seen.append((run, size)) or _done(run))
    again = small_run("again", steps=1, init_from=str(first))
    pretrain(again)
    [(run, size)] = seen
    assert size == run.image_size == 64
    start = load(first, device="cpu").model
    tower = start.model.vision_tower.state_dict()
    for name, weight in run.model.model.vision_tower.state_dict().items():
        assert torch.equal(weight, tower[name])
    before, after = (m.model.language_model.encoder.embed_positions.weight for m in (start, run.model))
    assert torch.allclose(after[3 + 15], before[3 + 8], atol=1e-5), "the last place of 4 x 4 is that of 3 x 3"


def test_encoder_layers_that_are_missing_add_nothing_at_first(tokenizer, tmp_path):
    """Weights of fewer layers are a start: what the deeper model makes of a picture is nearly what they made of it."""
    shallow = build_nano(tokenizer, 64)
    layers = shallow.model.language_model.encoder.layers
    del layers[2:]
    shallow.config.text_config.encoder_layers = len(layers)
    norm = layers[-1].final_layer_norm  # as training leaves it, not ones and zeros
    torch.nn.init.uniform_(norm.weight, 0.5, 2.0)
    torch.nn.init.normal_(norm.bias, 0.1, 0.5)
    shallow.save_pretrained(tmp_path)
    build_processor(tokenizer, 64).save_pretrained(tmp_path)
    deep = build_nano(tokenizer, 64, seed=1)
    _start_from(deep, str(tmp_path), 64)
    assert len(deep.model.language_model.encoder.layers) > 2
    prompt = torch.tensor([tokenizer("What does the image describe?")["input_ids"]])
    said, before = (
        m.eval().model.language_model.encoder(inputs_embeds=m.get_input_embeddings()(prompt)).last_hidden_state
        for m in (deep, shallow)
    )
    # not exactly: the norms give each token the mean and the deviation of the average one
    assert (said - before).abs().mean() < 0.1 * before.std()


def test_a_run_that_goes_on_reads_and_writes_as_it_began(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    texts = [*world_texts(scenes=5), "two sheep<loc_0><loc_999>house<and><sep>", " Two  Words"]
    assert _tokenizer(tmp_path)(texts)["input_ids"] == tokenizer(texts)["input_ids"]


def test_what_a_run_cannot_start_from_leaves_nothing_behind(tmp_path):
    other = str(Path(__file__).parent / "data/tiny-original")
    with pytest.raises(ValueError, match="tiny-original: its layers are not those of florence-2-nano"):
        pretrain(PretrainArguments(out=str(tmp_path / "wrong"), init_from=other))
    assert not (tmp_path / "wrong").exists()


def _done(run):
    run.step += 1
    return {"step": run.step, "loss": 1.0}


def test_only_the_scenes_drawn_last_are_kept(small_run, tokenizer):
    steps = Steps(small_run("kept", steps=8, remembered=6), tokenizer)
    for step in range(3, 9):
        steps[step]
    kept = {int(path.stem) for path in Path(steps.arguments.out, "drawn", "3").iterdir()}
    assert {16, 17} <= kept <= set(range(12, 18))


def test_answers_of_like_length_are_decoded_together(small_run, tokenizer):
    """Each question is asked of its own picture, whichever group it falls into."""
    arguments = small_run("groups", batch_size=12, tasks_per_image=3)
    batch = Steps(arguments, tokenizer)[3]
    assert [len(group.tasks) for group in batch.groups] == [16, 16, 4]
    lengths = [int((row != 1).sum()) for group in batch.groups for row in group.targets]
    assert lengths == sorted(lengths)
    assert torch.cat([group.picture for group in batch.groups]).bincount().tolist() == [3] * 12
    for group in batch.groups:
        assert group.picture.shape == (len(group.tasks),)
        for row, task in zip(group.prompts, group.tasks, strict=True):
            words = tokenizer.decode(row, skip_special_tokens=True)
            assert words.startswith(TASKS[task].prompt.split("{")[0].strip())


def test_a_question_is_answered_from_its_own_picture(small_run, tokenizer):
    model = build_nano(tokenizer, 64).eval()
    batch = Steps(small_run("own"), tokenizer)[3]
    changed = batch._replace(pixels=batch.pixels.clone())
    changed.pixels[1] = 255 - changed.pixels[1]
    with torch.no_grad():
        before, after = forward(model, batch), forward(model, changed)
    for group, a, b in zip(batch.groups, before.hidden, after.hidden, strict=True):
        moved = (a - b).abs().amax((1, 2)) > 1e-4
        assert moved.tolist() == (group.picture == 1).tolist()


def test_training_and_held_out_scenes_never_meet():
    assert not set(HELD_OUT_SEEDS[:1]) & set(TRAIN_SEEDS[:10])
    assert HELD_OUT_SEEDS[-1] < TRAIN_SEEDS[0]


def test_the_loss_falls(tokenizer, small_run):
    model = build_nano(tokenizer, 48)
    batch = Steps(small_run("falls"), tokenizer)[0]
    first = tokenizer.convert_tokens_to_ids("<loc_0>")
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    losses = []
    for _ in range(12):
        said = zip(forward(model, batch).hidden, batch.groups, strict=True)
        parts = [
            answer_losses(hidden[group.targets != 1], group.targets[group.targets != 1], model.lm_head, first, 3.0)
            for hidden, group in said
        ]
        loss = torch.cat(parts).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_an_answer_that_is_right_has_no_loss(tokenizer):
    """The loss of the very distribution that is asked for is 0, at the edges of the picture too."""
    first, bins = tokenizer.convert_tokens_to_ids("<loc_0>"), torch.arange(1000)
    targets = torch.tensor([0, first, first + 500, first + 999, 2])
    logits = torch.full((5, len(tokenizer)), -1e4)
    for row, target in enumerate(targets.tolist()):
        logits[row, target] = 0
        if first <= target < first + 1000:
            off = bins - (target - first)
            logits[row, first : first + 1000] = torch.where(off.abs() <= 9, -0.5 * (off / 3.0) ** 2, -1e4)
    losses = answer_losses(torch.zeros(5, 4), targets, lambda hidden: logits, first, sigma=3.0)
    assert losses.abs().max() < 1e-4
    wrong = torch.tensor([0, first + 30, first + 500, first + 999, 2])
    losses = answer_losses(torch.zeros(5, 4), wrong, lambda hidden: logits, first, sigma=3.0)
    assert (losses > 1).tolist() == [False, True, False, False, False]


def test_the_first_corner_of_an_outline_counts_as_an_answer():
    tasks = ["<CAPTION>", "<REGION_TO_SEGMENTATION>", "<REFERRING_EXPRESSION_SEGMENTATION>"]
    weights = token_weights(torch.tensor([4, 9, 16]), tasks)
    assert weights.tolist() == pytest.approx([0.5] * 4 + [1 / 3, 1, 1] + [1 / 3] * 6 + [0.25, 1, 1] + [0.25] * 13)


@pytest.mark.parametrize("side", [8, 12, 16])
def test_cells_say_what_is_where(side):
    example = draw_example(9, 6)
    seeds = range(1_000_072, 1_000_080)
    scene = next(s for s in (draw_scene(seed, 192) for seed in seeds) if any(thing.text for thing in s.objects))
    cells = build_dense_targets(example.seen, example.things, example.letters, side).reshape(side, side, 39)
    told = {name: part.numpy() for name, part in split_dense_targets(torch.from_numpy(cells)).items()}
    for number, thing in enumerate(scene.objects, 1):
        x0, y0, x1, y1 = (round(v * side / 192) for v in thing.box)
        kind = told["kind"][y0:y1, x0:x1, 0] == 1 + CATEGORIES.index(thing.label)
        assert kind.mean() > 0.4
        color = 1 + list(PALETTE).index(thing.color) if thing.color else 0
        assert (told["color"][y0:y1, x0:x1][kind] == color).any()
        here = told["number"][..., 0] == number
        of_kind = [t for t in scene.objects if t.label == thing.label]
        of_look = [t for t in of_kind if t.color == thing.color]
        alike = [of_kind, of_look, [t for t in of_look if column(t) == column(thing)]]
        assert (told["alike"][here] == [len(same) for same in alike]).all()
        leftmost = [min(same, key=lambda t: t.box) for same in alike]
        assert (told["first"][here] == [thing is first for first in leftmost]).all()
        assert (told["column"][here] == [place.words for place in COLUMNS].index(column(thing))).all()
        assert told["middle"][here].sum() == here.any(), "one token stands for each thing"
        if here.any():
            places = np.argwhere(here)
            [stands] = np.argwhere(here & (told["middle"][..., 0] > 0))
            away = np.linalg.norm(places - places.mean(0), axis=1)
            assert np.linalg.norm(stands - places.mean(0)) == pytest.approx(away.min())
    something = told["kind"][..., 0] > 0
    for part in ("kind", "color", "box", "number", "alike", "first", "column", "middle"):
        assert not told[part][~something].any()
    filled = told["filled"][something]
    assert (filled.mean(-1) >= 0.1).all()
    assert 0.5 < filled.mean() < 1, "at the edges a thing fills a part of the square"
    assert 0.5 < (told["kinds"][something] == told["kind"][something]).mean() < 1
    inside = told["box"][something]
    assert (inside[:, 2:] > inside[:, :2]).all()
    assert inside.max() <= 1


@pytest.mark.parametrize("task", [task.token for task in TASKS.values() if task.input != "none"])
def test_what_a_question_means_is_what_is_answered(task):
    """Each thing that is meant is in the answer, and where boxes or outlines are the answer, nothing else is."""
    scenes = (draw_scene(seed, 256) for seed in range(1_000_000, 1_000_100))
    scene = next(scene for scene in scenes if sum(bool(thing.text) for thing in scene.objects) > 1)
    told = {
        "grounding": lambda thing: format_location_tokens(thing.box, scene.size),
        "boxes_or_polygons": lambda thing: format_location_tokens(thing.box, scene.size),
        "polygons": lambda thing: format_location_tokens(thing.polygons[0], scene.size),
        "text": lambda thing: thing.text if "OCR" in task else thing.label,
    }
    for text in scene.queries(task, random.Random(0)):
        answer, things = scene.answer(task, text).raw, referenced_objects(scene, task, text)
        shown = told[TASKS[task].result]
        if TASKS[task].input == "region":
            [thing] = things
            assert shown(thing) in answer
        else:
            assert [shown(thing) in answer for thing in scene.objects] == [thing in things for thing in scene.objects]


def test_tokens_are_told_whether_they_are_meant(small_run, tokenizer, monkeypatch):
    tasks = {"<REGION_TO_CATEGORY>": 1, "<OD>": 1}
    monkeypatch.setattr(curriculum_module, "CURRICULUM", (Stage(9, 128, 6, tasks),))
    batch = Steps(small_run("referenced_objects", batch_size=8), tokenizer)[0]
    for group in batch.groups:
        for picture, target, told, task in zip(
            *group[:1], group.targets, group.referenced_objects, group.tasks, strict=True
        ):
            kind = batch.cells[picture][:, 0]
            if task == "<OD>":
                assert (told == -1).all()
                continue
            assert ((told >= 0) == (kind > 0)).all()
            label = tokenizer.decode(target, skip_special_tokens=True).split("<")[0].strip()
            here = kind[told == 1]
            assert (here == 1 + CATEGORIES.index(label)).all()


def test_letters_are_where_the_word_is():
    """Followed along the middle of a sign's word, the letters of the map spell it."""
    for number in (3, 11, 19, 27, 35):
        example = draw_example(number, 6)
        size = random.Random(number).choice(_DRAWN_SIZES)
        scene = draw_scene(TRAIN_SEEDS[8 * number], size, 6, ["sign"])
        assert scene.objects
        for thing in scene.objects:
            left, right = (thing.quad[ends].mean(0) / scene.size for ends in ([0, 3], [1, 2]))
            line = left + (right - left) * np.linspace(0.02, 0.98, 200)[:, None]
            met = [int(v) for v, _ in groupby(example.letters[y, x] for x, y in (line * TARGET_MAP_SIZE).astype(int))]
            spelled = "".join(LETTERS[letter - 1] for letter in met if letter)
            assert spelled == "".join(letter for letter, _ in groupby(thing.text))


@pytest.mark.parametrize("side", [8, 12, 16])
def test_tokens_and_the_finer_map_are_told_the_same_letters(side):
    """What the helper's two readers are asked for is what is written there, each at its own place."""
    whole = TARGET_MAP_SIZE
    fine = np.arange(4 * side * side).reshape(2 * side, 2 * side) % 60
    letters = fine.repeat(whole // side // 2, 0).repeat(whole // side // 2, 1).astype(np.uint8)
    cells = build_dense_targets(np.zeros((whole, whole), np.uint8), np.zeros((1, 6), np.float32), letters, side)
    assert cells[1, 6:10].tolist() == fine[:2, 2:4].flatten().tolist()
    helper = AuxiliaryHeads(8, 63)
    helper.fine.weight.data = 50 * torch.eye(*helper.fine.weight.shape)
    helper.fine.bias.data.zero_()
    helper.fine.bias.data[63] = 50  # no thing anywhere
    maps = torch.nn.functional.one_hot(torch.tensor(fine), 63).float().permute(2, 0, 1)[None]
    cells = torch.from_numpy(cells)[None]
    assert helper.fine_loss(maps, cells) < 1e-3
    assert helper.fine_loss(maps.transpose(2, 3), cells) > 10


def test_the_sense_of_place_is_stretched_with_the_picture(tokenizer):
    """Grown, a model's first and last row stay near where they were, and the prompt's positions move behind the image."""
    small, large = build_nano(tokenizer, 64), build_nano(tokenizer, 64)
    resize(large, 64, 128)
    before, after = (m.model.language_model.encoder.embed_positions.weight for m in (small, large))
    assert torch.equal(before[:3], after[:3])
    assert torch.equal(before[3 + 16 : 100], after[3 + 64 : 148])
    assert torch.allclose(after[3], before[3], atol=1e-5)
    assert torch.allclose(after[3 + 63], before[3 + 15], atol=1e-5)
    assert large.config.vision_config.window_size == 8
    assert all(m.window_size == 8 for m in large.modules() if hasattr(m, "window_size"))


def _losses(folder) -> list[float]:
    return [json.loads(line)["loss"] for line in open(f"{folder}/log.jsonl")]


def test_a_killed_run_goes_on_as_if_nothing_had_happened(small_run, monkeypatch):
    straight = small_run("straight")
    exported = pretrain(straight)

    broken = small_run("broken")
    log = _log

    def die_in_step_3(path, line):
        if line["step"] == 3:
            raise KeyboardInterrupt
        log(path, line)

    monkeypatch.setattr(loop, "_log", die_in_step_3)
    with pytest.raises(KeyboardInterrupt):
        pretrain(broken)
    monkeypatch.setattr(loop, "_log", log)
    assert len(_losses(broken.out)) == 2
    resumed = pretrain(broken)

    assert _losses(broken.out) == _losses(straight.out)
    weights = [Florence2ForConditionalGeneration.from_pretrained(f).state_dict() for f in (exported, resumed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_what_is_exported_is_an_ordinary_checkpoint(small_run, tokenizer):
    arguments = small_run("exported")
    folder = pretrain(arguments)
    model = Florence2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    assert len(processor.tokenizer) == len(tokenizer) == model.config.text_config.vocab_size
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert (model.generation_config.num_beams, model.generation_config.no_repeat_ngram_size) == (1, 0)

    scene = draw_scene(5, 128)
    inputs = processor(text="<OD>", images=scene.image, return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 64, 64)
    ids = model.generate(**inputs, max_length=30)
    ours = load(folder).predict(scene.image, "<OD>", max_length=30)
    assert FlorenceTemplate(processor.tokenizer).decode(ids[0].tolist()) == ours.raw
    state = torch.load(f"{arguments.out}/last.pt", weights_only=True)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"
    assert all(torch.equal(state["ema"][name].half(), value.half()) for name, value in model.state_dict().items())


def test_every_so_often_held_out_scenes_are_asked(small_run):
    """Every task is measured and drawn, and the run goes on as if nobody had asked."""
    plain, watched = small_run("plain"), small_run("watched", measure_every=2, measured=2)
    pretrain(plain)
    lines = []
    pretrain(watched, watch=lines.append)
    assert [(line["step"], "picture" in line) for line in lines] == [(1, False), (2, True), (3, False), (4, True)]
    assert _losses(watched.out) == _losses(plain.out)
    rows = [json.loads(line) for line in Path(watched.out, "measures.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]
    assert set(rows[0]) - {"step", "<REGION_TO_OCR>"} == set(TASKS) - {"<REGION_TO_OCR>"}
    for step in (2, 4):
        with Image.open(f"{watched.out}/answers-{step}.png") as picture:
            assert picture.width > 1000


def test_halfway_the_middle_of_every_thing_is_told():
    """Who tells them all, and the categories, has no loss; who tells the tokens beside them has."""
    example = draw_example(2, 6)
    cells = torch.from_numpy(build_dense_targets(example.seen, example.things, example.letters, 16))[None]
    true = split_dense_targets(cells)
    kind = torch.nn.functional.one_hot(true["kind"][..., 0].long(), 1 + len(CATEGORIES)).float()
    helper = AuxiliaryHeads(1 + len(CATEGORIES) + 1, 8)
    helper.halfway.weight.data = 50 * torch.eye(*helper.halfway.weight.shape)
    right = torch.cat([kind, 2 * true["middle"] - 1], dim=-1)
    assert helper.halfway_loss(right, cells) < 1e-3
    beside = torch.cat([kind, 2 * true["middle"].roll(1, dims=1) - 1], dim=-1)
    assert helper.halfway_loss(beside, cells) > 10
    assert helper.halfway_loss(right.roll(1, dims=1), cells) > 10

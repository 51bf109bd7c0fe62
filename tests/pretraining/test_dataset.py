"""`dataset`: training samples and the batch of each step."""

from pathlib import Path

import numpy as np
import pytest
import torch

from florence_lab.exceptions import ArgumentError
from florence_lab.pretraining import curriculum
from florence_lab.pretraining.arguments import PretrainArguments
from florence_lab.pretraining.curriculum import Stage
from florence_lab.pretraining.dataset import (
    DECODE_GROUP_SIZE,
    SceneSample,
    StepDataset,
    check_scene_supply,
    render_sample,
    sample_absent_pairs,
    sample_qa_pairs,
)
from florence_lab.pretraining.dense_targets import split_dense_targets
from florence_lab.scenes import CATEGORIES, HELD_OUT_SEEDS, TRAIN_SEEDS, draw_scene
from florence_lab.tasks import TASKS, Task, register_task


def assert_same(a, b):
    if torch.is_tensor(a):
        assert torch.equal(a, b)
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


def test_the_batch_of_a_step_depends_on_the_step_alone(short_run, tokenizer):
    """Neither the cached samples nor the order of the steps matter."""
    first, second = (StepDataset(short_run(name), tokenizer) for name in ("first", "second"))
    in_order = [first[step] for step in range(4)]
    for step in (3, 1):
        assert_same(in_order[step], second[step])
    assert not torch.equal(in_order[0].pixels, in_order[1].pixels)


def test_images_have_the_size_of_the_stage(short_run, tokenizer):
    steps = StepDataset(short_run("sizes"), tokenizer)
    assert steps[0].pixels.shape == (4, 3, 48, 48)
    assert steps[3].pixels.shape == (4, 3, 64, 64)
    assert steps[3].dense_targets.shape == (4, 16, 39)


def test_runs_with_different_seeds_use_different_scenes(short_run, tokenizer):
    one, other = (StepDataset(short_run(f"seed-{seed}", seed=seed), tokenizer)[3] for seed in (0, 1))
    assert not torch.equal(one.pixels, other.pixels)


def test_every_other_sample_is_the_most_crowded_of_three_seeds():
    plain = [len(draw_scene(TRAIN_SEEDS[8 * index], 32).objects) for index in range(0, 24, 2)]
    crowded = [len(render_sample(index, 6).instances) for index in range(0, 24, 2)]
    assert all(a <= b for a, b in zip(plain, crowded, strict=True))
    assert sum(crowded) > 1.2 * sum(plain)


def test_every_eighth_sample_shows_signs_only():
    sign = CATEGORIES.index("sign")
    assert (render_sample(3, 6).instances[:, 0] == sign).all()
    assert (render_sample(11, 6).instances[:, 0] == sign).all()


def test_a_sample_is_read_as_it_was_written(tmp_path):
    sample = render_sample(5, 3)
    sample.save(tmp_path / "5.npz")
    read = SceneSample.load(tmp_path / "5.npz")
    for name in ("pixels", "instance_map", "instances", "letter_map"):
        assert (getattr(read, name) == getattr(sample, name)).all(), name
    assert {t: [(q.prompt, q.target) for q in pairs] for t, pairs in read.qa_pairs.items()} == {
        t: [(q.prompt, q.target) for q in pairs] for t, pairs in sample.qa_pairs.items()
    }


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:1000]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"text"),
        lambda path: np.savez(path, pixels=np.zeros(3)),
        lambda path: np.savez(path, **{**np.load(path), "asked": np.frombuffer(b"[1]", np.uint8)}),
        lambda path: np.savez(path, pixels=np.array([{}], dtype=object)),
    ],
)
def test_a_damaged_sample_is_drawn_again(short_run, tokenizer, damage):
    steps = StepDataset(short_run("damaged"), tokenizer)
    sample = steps.load_sample(0, 2)
    (path,) = Path(steps.arguments.out, "drawn", "2").iterdir()
    content = path.read_bytes()
    damage(path)
    assert steps.load_sample(0, 2).qa_pairs == sample.qa_pairs
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("changes", "message"), [({"seed": 269}, "--seed 269"), ({"steps": 10**8}, "--steps 100000000")]
)
def test_there_must_be_enough_scenes(changes, message):
    check_scene_supply(PretrainArguments(seed=268, steps=50_000))
    with pytest.raises(ArgumentError, match=message):
        check_scene_supply(PretrainArguments(**changes))


def test_only_the_samples_of_the_replay_buffer_stay_on_disk(short_run, tokenizer):
    steps = StepDataset(short_run("buffer", steps=8, remembered=6), tokenizer)
    for step in range(3, 9):
        steps[step]
    kept = {int(path.stem) for path in Path(steps.arguments.out, "drawn", "3").iterdir()}
    assert {16, 17} <= kept <= set(range(12, 18))


def test_prompts_with_answers_of_similar_length_form_groups(short_run, tokenizer):
    batch = StepDataset(short_run("groups", batch_size=12, tasks_per_image=3), tokenizer)[3]
    assert [len(group.tasks) for group in batch.groups] == [DECODE_GROUP_SIZE, DECODE_GROUP_SIZE, 4]
    lengths = [int((row != 1).sum()) for group in batch.groups for row in group.target_ids]
    assert lengths == sorted(lengths)
    assert torch.cat([group.image_index for group in batch.groups]).bincount().tolist() == [3] * 12


def test_each_prompt_is_that_of_its_task(short_run, tokenizer):
    for group in StepDataset(short_run("prompts"), tokenizer)[3].groups:
        for row, task in zip(group.prompt_ids, group.tasks, strict=True):
            prompt = tokenizer.decode(row, skip_special_tokens=True)
            assert prompt.startswith(TASKS[task].prompt.split("{")[0].strip())


def test_reference_targets_mark_the_object_that_the_prompt_refers_to(short_run, tokenizer, monkeypatch):
    stage = Stage(9, 128, 6, {"<REGION_TO_CATEGORY>": 1, "<OD>": 1})
    monkeypatch.setattr(curriculum, "CURRICULUM", (stage,))
    batch = StepDataset(short_run("references", batch_size=8), tokenizer)[0]
    for group in batch.groups:
        rows = zip(group.image_index, group.target_ids, group.reference_targets, group.tasks, strict=True)
        for image_index, target_ids, reference, task in rows:
            category = split_dense_targets(batch.dense_targets[image_index])["category"][:, 0]
            if task == "<OD>":
                assert (reference == -1).all()
                continue
            assert ((reference >= 0) == (category > 0)).all()
            label = tokenizer.decode(target_ids, skip_special_tokens=True).split("<")[0].strip()
            assert (category[reference == 1] == 1 + CATEGORIES.index(label)).all()


def test_qa_pairs_are_distinct_and_reproducible():
    scene = draw_scene(1_000_011, 96)
    for task in TASKS:
        pairs = sample_qa_pairs(scene, task, seed=4)
        assert pairs == sample_qa_pairs(scene, task, seed=4), task
        assert len(pairs) == len(set(pairs)) <= 4, task


@pytest.fixture
def count_task():
    """A registered task of which scenes have no ground truth."""
    task = register_task(Task("<COUNT>", "How many objects are there?", "none", "text", "the number of objects"))
    yield task
    del TASKS[task.token]


def test_a_task_without_ground_truth_is_not_trained(count_task, short_run, tokenizer, monkeypatch):
    stage = Stage(9, 48, 2, {"<OD>": 1, "<COUNT>": 5})
    monkeypatch.setattr(curriculum, "CURRICULUM", (stage,))
    assert sample_qa_pairs(draw_scene(0, 48), "<COUNT>", seed=0) == []
    batch = StepDataset(short_run("count"), tokenizer)[0]
    assert {task for group in batch.groups for task in group.tasks} == {"<OD>"}


def test_samples_of_a_task_that_was_registered_later_have_no_prompts(short_run, tokenizer, request, monkeypatch):
    StepDataset(short_run("later"), tokenizer)[0]
    request.getfixturevalue("count_task")
    monkeypatch.setattr(curriculum, "CURRICULUM", (Stage(9, 48, 2, {"<OD>": 1, "<COUNT>": 5}),))
    StepDataset(short_run("later"), tokenizer)[0]


def test_absent_pairs_have_empty_answers_or_refer_to_a_part():
    scene = draw_scene(HELD_OUT_SEEDS[0], 48)
    pairs = {task: [pair for seed in range(6) for pair in sample_absent_pairs(scene, task, seed)] for task in TASKS}
    assert pairs["<OPEN_VOCABULARY_DETECTION>"][:2] == sample_absent_pairs(scene, "<OPEN_VOCABULARY_DETECTION>", 0)[:2]
    assert {task for task, of_task in pairs.items() if of_task} == {
        "<CAPTION_TO_PHRASE_GROUNDING>",
        "<OPEN_VOCABULARY_DETECTION>",
        "<REFERRING_EXPRESSION_SEGMENTATION>",
        "<REGION_TO_OCR>",
    }
    for of_task in pairs.values():
        assert all(bool(pair.target) == bool(pair.referenced_objects) for pair in of_task)
        assert not of_task or any(not pair.target for pair in of_task)

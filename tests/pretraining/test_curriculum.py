"""`curriculum`: stages and the choice of tasks."""

import random

from florence_lab.pretraining.arguments import PretrainArguments
from florence_lab.pretraining.curriculum import CURRICULUM, sample_tasks, stage_at
from florence_lab.scenes.answers import SCENE_ANSWERS


def test_images_and_scenes_grow_from_stage_to_stage():
    sizes = [(stage.image_size, stage.max_objects) for stage in CURRICULUM]
    assert sizes == sorted(sizes)
    assert [stage.last_step for stage in CURRICULUM] == sorted(stage.last_step for stage in CURRICULUM)


def test_the_last_stage_trains_every_task():
    assert set(CURRICULUM[-1].task_weights) == set(SCENE_ANSWERS)


def test_a_stage_ends_before_its_last_step():
    arguments = PretrainArguments()
    end = CURRICULUM[0].last_step
    assert stage_at(end - 1, arguments) is CURRICULUM[0]
    assert stage_at(end, arguments) is CURRICULUM[1]


def test_a_run_with_initial_weights_is_in_the_last_stage():
    assert stage_at(0, PretrainArguments(init_from="florence-2-nano")) is CURRICULUM[-1]


def test_tasks_of_an_image_are_distinct_while_there_are_enough():
    rng = random.Random(0)
    assert len(set(sample_tasks(dict.fromkeys("abcdef", 1), 4, rng))) == 4
    assert sorted(sample_tasks({"a": 1, "b": 5}, 4, rng)) == ["a", "a", "b", "b"]


def test_tasks_are_sampled_by_weight():
    rng = random.Random(0)
    first = [sample_tasks({"a": 9, "b": 1}, 1, rng)[0] for _ in range(1000)]
    assert 0.87 < first.count("a") / 1000 < 0.93

"""A damaged checkpoint is refused while it is loaded, or it answers: none loads and then fails."""

import functools
import random
import shutil
from pathlib import Path

import pytest
from robustness.damaged import ANSWERED, REFUSED, Case, checkpoint_cases, load_and_ask, run_cases, summarize
from support import copy_of_tiny, edit_json

from florence_lab.loading.registry import MODELS

LABELS = ("published", "transformers", "adapter of published", "adapter of transformers")
NUM_FIELDS = {"published": 130, "transformers": 130, "adapter of published": 25, "adapter of transformers": 25}
"""Label of a checkpoint -> the number of damages of single fields."""

NUM_SAMPLED = 20


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Return the whole checkpoint or adapter of a label, whose answers are short."""
    folder = tmp_path_factory.mktemp("whole")

    @functools.cache
    def make(label):
        if label == "transformers":
            return Path(shutil.copytree(MODELS["florence-2-nano"].path, folder / label))
        if label == "published":
            published = copy_of_tiny(folder / label)
            edit_json(published / "preprocessor_config.json", size={"height": 192, "width": 192}, image_seq_length=37)
            return published
        return write_adapter(make(label.removeprefix("adapter of ")), folder / label)

    return make


def write_adapter(base, folder):
    from peft import LoraConfig, get_peft_model

    from florence_lab.loading.checkpoint import load_checkpoint

    model, _ = load_checkpoint(base)
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(folder)
    edit_json(folder / "adapter_config.json", base_model_name_or_path=str(base))
    return folder


def failures(outcomes):
    return [f"{name} -> {outcome}" for name, outcome in outcomes.items() if outcome not in (ANSWERED, REFUSED)]


@pytest.mark.parametrize("label", [LABELS[0], *(pytest.param(label, marks=pytest.mark.slow) for label in LABELS[1:])])
def test_a_whole_checkpoint_answers(label, source):
    assert load_and_ask(source(label)) == ANSWERED


@pytest.mark.slow
def test_at_least_five_hundred_checkpoints_are_damaged(source):
    cases = [case for label in LABELS for case in checkpoint_cases(label, source(label), num_fields=NUM_FIELDS[label])]
    assert len({case.name for case in cases}) == len(cases) >= 500


@pytest.mark.slow
@pytest.mark.parametrize("label", LABELS)
def test_a_damaged_checkpoint_answers_or_is_refused(label, source, tmp_path_factory):
    cases = checkpoint_cases(label, source(label), num_fields=NUM_FIELDS[label])
    folder = tmp_path_factory.mktemp("damaged")
    whole = Case("whole", source(label), lambda copy: None)
    assert run_cases([whole], folder) == {"whole": ANSWERED}
    outcomes = run_cases(cases, folder)
    print(len(cases), label, summarize(outcomes))
    assert failures(outcomes) == []
    assert not Path("code-was-run").exists()


def test_a_sample_of_damaged_checkpoints_answers_or_is_refused(source, tmp_path):
    cases = checkpoint_cases("published", source("published"), num_fields=0)
    chosen = [case for case in cases if "nested" not in case.name]  # those run in a process of their own
    outcomes = {}
    for number, case in enumerate(random.Random(18).sample(chosen, NUM_SAMPLED)):
        folder = Path(shutil.copytree(case.source, tmp_path / str(number)))
        case.damage(folder)
        outcomes[case.name] = load_and_ask(folder)
    assert failures(outcomes) == []

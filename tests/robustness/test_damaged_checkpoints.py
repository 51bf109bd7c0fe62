"""A damaged checkpoint is refused while it is loaded, or it answers: none loads and then fails."""

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
def sources(tmp_path_factory):
    """Label -> a whole checkpoint or adapter whose answers are short."""
    from peft import LoraConfig, get_peft_model

    from florence_lab.loading.checkpoint import load_checkpoint

    folder = tmp_path_factory.mktemp("whole")
    published = copy_of_tiny(folder / "published")
    edit_json(published / "preprocessor_config.json", size={"height": 192, "width": 192}, image_seq_length=37)
    transformers = Path(shutil.copytree(MODELS["florence-2-nano"].path, folder / "transformers"))
    found = {"published": published, "transformers": transformers}
    for label, base in list(found.items()):
        model, _ = load_checkpoint(base)
        adapter = folder / f"adapter of {label}"
        get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(adapter)
        edit_json(adapter / "adapter_config.json", base_model_name_or_path=str(base))
        found[adapter.name] = adapter
    return found


def failures(outcomes):
    return [f"{name} -> {outcome}" for name, outcome in outcomes.items() if outcome not in (ANSWERED, REFUSED)]


@pytest.mark.parametrize("label", LABELS)
def test_a_whole_checkpoint_answers(label, sources):
    assert load_and_ask(sources[label]) == ANSWERED


@pytest.mark.slow
def test_at_least_five_hundred_checkpoints_are_damaged(sources):
    cases = [case for label in LABELS for case in checkpoint_cases(label, sources[label], num_fields=NUM_FIELDS[label])]
    assert len({case.name for case in cases}) == len(cases) >= 500


@pytest.mark.slow
@pytest.mark.parametrize("label", LABELS)
def test_a_damaged_checkpoint_answers_or_is_refused(label, sources, tmp_path_factory):
    cases = checkpoint_cases(label, sources[label], num_fields=NUM_FIELDS[label])
    folder = tmp_path_factory.mktemp("damaged")
    whole = Case("whole", sources[label], lambda copy: None)
    assert run_cases([whole], folder) == {"whole": ANSWERED}
    outcomes = run_cases(cases, folder)
    print(len(cases), label, summarize(outcomes))
    assert failures(outcomes) == []
    assert not Path("code-was-run").exists()


def test_a_sample_of_damaged_checkpoints_answers_or_is_refused(sources, tmp_path):
    cases = checkpoint_cases("published", sources["published"], num_fields=0)
    chosen = [case for case in cases if "nested" not in case.name]  # those run in a process of their own
    outcomes = {}
    for number, case in enumerate(random.Random(18).sample(chosen, NUM_SAMPLED)):
        folder = Path(shutil.copytree(case.source, tmp_path / str(number)))
        case.damage(folder)
        outcomes[case.name] = load_and_ask(folder)
    assert failures(outcomes) == []

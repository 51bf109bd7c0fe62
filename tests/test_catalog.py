"""The catalogue: which names there are, and what an unknown one is told."""

import subprocess
import sys

import pytest

from florence_lab.exceptions import unknown_name
from florence_lab.loading.registry import MODELS, available_models, get_model_info

PUBLISHED = ["florence-2-base", "florence-2-base-ft", "florence-2-large", "florence-2-large-ft"]


def test_names():
    assert available_models() == [*PUBLISHED, "florence-2-nano"]
    assert all(info.model_type == name for name, info in MODELS.items())


def test_changing_the_list_changes_no_model():
    available_models().clear()
    assert available_models()


@pytest.mark.parametrize("model_type", PUBLISHED)
def test_published_models_are_on_both_hubs(model_type):
    info = get_model_info(model_type)
    assert info.modelscope_id == "AI-ModelScope/F" + model_type[1:]
    assert info.hf_id == "microsoft/F" + model_type[1:]
    assert info.path is None
    assert ("0.77B" if "large" in model_type else "0.23B") in info.description
    assert ("fine-tuned" in info.description) == model_type.endswith("-ft")


def test_nano_ships_with_the_package_and_says_what_it_is():
    info = get_model_info("florence-2-nano")
    assert (info.modelscope_id, info.hf_id) == (None, None)
    assert info.path.parts[-3:] == ("florence_lab", "assets", "florence-2-nano")
    assert "cartoon" in info.description


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("florence-2-lagre", "florence-2-large"), ("Florence-2-Base-FT", "florence-2-base-ft")],
)
def test_unknown_model_names_the_nearest_and_all(name, nearest):
    with pytest.raises(ValueError, match=rf"'{name}'; did you mean '{nearest}'\?") as caught:
        get_model_info(name)
    assert str(caught.value).endswith(", ".join(available_models()))


def test_unknown_name_without_a_near_one_suggests_nothing():
    assert unknown_name("task", "zzz", ["<OD>", "<OCR>"]) == "unknown task 'zzz'. Known: <OD>, <OCR>"


def test_importing_the_catalogue_and_the_hub_imports_nothing_heavy():
    heavy = "{'torch', 'transformers', 'modelscope', 'huggingface_hub', 'requests', 'numpy', 'PIL'}"
    code = f"import sys, florence_lab.catalog, florence_lab.hub; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

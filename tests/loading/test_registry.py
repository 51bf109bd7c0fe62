"""The known models."""

import subprocess
import sys

import pytest

from florence_lab.loading.registry import MODELS, available_models, get_model_info

PUBLISHED = ["florence-2-base", "florence-2-base-ft", "florence-2-large", "florence-2-large-ft"]


def test_five_models_are_known():
    assert available_models() == [*PUBLISHED, "florence-2-nano"]
    assert all(info.model_type == name for name, info in MODELS.items())


def test_the_list_of_models_is_a_copy():
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


def test_nano_ships_with_the_package():
    info = get_model_info("florence-2-nano")
    assert (info.modelscope_id, info.hf_id) == (None, None)
    assert info.path.parts[-3:] == ("florence_lab", "assets", "florence-2-nano")
    assert "cartoon" in info.description


@pytest.mark.parametrize(
    ("name", "closest"),
    [("florence-2-lagre", "florence-2-large"), ("Florence-2-Base-FT", "florence-2-base-ft")],
)
def test_an_unknown_model_is_answered_with_the_closest_and_all(name, closest):
    with pytest.raises(ValueError, match=rf"'{name}'; did you mean '{closest}'\?") as caught:
        get_model_info(name)
    assert str(caught.value).endswith(", ".join(available_models()))


def test_importing_registry_and_hub_is_light():
    heavy = "{'torch', 'transformers', 'modelscope', 'huggingface_hub', 'requests', 'numpy', 'PIL'}"
    code = f"import sys, florence_lab.loading.registry, florence_lab.loading.hub; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

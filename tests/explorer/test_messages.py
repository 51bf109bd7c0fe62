"""Messages of the panel."""

import pytest
import torch
from support import PHOTO

from florence_lab.exceptions import HubError, ImageError
from florence_lab.explorer.images import load_sample, open_source
from florence_lab.explorer.messages import describe_error, domain_notice, loading_message


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB.\nmore"), "not enough memory"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "not enough memory"),
        (ImageError("nowhere.png does not exist"), "nowhere.png does not exist. Give another path"),
        (
            HubError("cannot download a/b: 404 (x). Alternatives: hub='hf'; the files"),
            "Cannot download a/b: 404 (x). Give",
        ),
        (
            HubError("cannot download a/b: https://a.b is not reachable ([Errno -2])"),
            "https://a.b is not reachable. Give",
        ),
        (ValueError("one\n  two"), "one two"),
        (TypeError("of a library"), "Unexpected error: TypeError: of a library"),
        (SystemExit(), "SystemExit"),
    ],
)
def test_an_error_is_described_in_one_line(error, message):
    described = describe_error(error)
    assert message in described
    assert "\n" not in described
    assert "hub='hf'" not in described


def test_nano_has_a_notice_about_images_that_are_not_scenes():
    assert "florence-2-nano was trained on" in domain_notice(("florence-2-nano",), open_source(str(PHOTO)))


@pytest.mark.parametrize(("model", "source"), [("florence-2-base", None), ("florence-2-nano", "sheep")])
def test_other_models_and_scenes_have_no_notice(model, source):
    image = load_sample(source) if source else open_source(str(PHOTO))
    assert domain_notice((model,), image) == ""


def test_a_model_compared_with_itself_has_one_notice():
    notice = domain_notice(("florence-2-nano", "florence-2-nano"), open_source(str(PHOTO)))
    assert notice.count("trained on") == 1


@pytest.mark.parametrize(
    ("model", "is_compiled", "message"),
    [
        ("florence-2-nano", False, "Loading florence-2-nano …"),
        (".", True, "Loading . … Compiling takes about a minute."),
        ("florence-2-base", False, "Loading florence-2-base … It is downloaded the first time."),
    ],
)
def test_only_a_model_that_is_not_on_this_machine_is_downloaded(model, is_compiled, message):
    assert loading_message(model, is_compiled) == message

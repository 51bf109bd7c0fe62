"""What visitors of a page that is served to other machines may open."""

import pytest

from florence_lab.exceptions import ArgumentError, ImageError
from florence_lab.explorer.access import PUBLIC_PAGE, check_model, check_source, is_public_page


@pytest.fixture
def public_page(monkeypatch):
    monkeypatch.setenv(PUBLIC_PAGE, "/models/mine")


def test_in_a_notebook_everything_may_be_opened():
    assert not is_public_page()
    check_source("/etc/passwd")
    check_model("anything")


@pytest.mark.parametrize(
    "source", ["/etc/passwd", "cat.png", "~/cat.png", "http://169.254.169.254/", "https://example.org/cat.png"]
)
def test_a_public_page_opens_neither_paths_nor_urls(public_page, source):
    with pytest.raises(ImageError, match="upload the image"):
        check_source(source)


@pytest.mark.parametrize("model_type", ["florence-2-nano", "florence-2-base", "/models/mine"])
def test_a_public_page_loads_registered_models_and_its_own(public_page, model_type):
    check_model(model_type)


@pytest.mark.parametrize("model_type", ["/models/others", "somebody/model", ""])
def test_a_public_page_loads_no_other_model(public_page, model_type):
    with pytest.raises(ArgumentError, match=repr(model_type)):
        check_model(model_type)

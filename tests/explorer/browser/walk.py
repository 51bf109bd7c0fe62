"""The walk through the panel that each application has to pass."""

import re

from explorer.browser.harness import TIMEOUT, playwright
from support import PHOTO, UNREACHABLE

expect = playwright.expect
FIRST_SHEEP = (35, 237, 157, 337)  # xyxy in pixels of the sample "sheep"


def walk(user, tmp_path):
    """Ask about a sample, a phrase, a region, a broken URL and an upload, and open each tab."""
    user.ask()
    assert [row.split()[1] for row in user.viewer.read_list()] == ["sheep"] * 4
    expect(user.viewer.drawn(3)).to_be_visible()
    assert (
        user.viewer.root.locator("img.fl-image").first.evaluate("image => image.complete && image.naturalWidth") == 512
    )

    user.choose_task("<CAPTION_TO_PHRASE_GROUNDING>")
    user.type_phrase("four sheep in a field")
    user.ask()
    assert len(user.viewer.read_list()) >= 1
    expect(user.viewer.header).to_contain_text("four sheep in a field")

    user.choose_task("<REGION_TO_CATEGORY>")
    user.viewer.drag_region(*FIRST_SHEEP)
    region = user.viewer.read_region()
    assert all(abs(a - b) <= 2 for a, b in zip(region, FIRST_SHEEP, strict=True)), region
    user.ask()
    expect(user.viewer.answer).to_have_text("sheep")

    user.open_path(f"{UNREACHABLE}/cat.png")
    user.wait_for_status("cannot be fetched")

    notes = tmp_path / "notes.png"
    notes.write_text("not an image")
    user.upload(notes)
    expect(user.panel).to_contain_text(re.compile(r"notes\.png.*(not an image|cannot be read)"), timeout=TIMEOUT * 1000)
    user.upload(PHOTO)
    user.viewer.wait_for_image(PHOTO.stem)
    expect(user.panel).to_contain_text("florence-2-nano was trained on")

    user.choose_task("<CAPTION>")
    user.ask()
    for name, selector in (("Raw text", ".fl-prompt"), ("Code", ".fl-tabpanel-code")):
        user.viewer.open_tab(name)
        expect(user.viewer.root.locator(selector).first).to_be_visible()
    expect(user.viewer.root.locator(".fl-tabpanel-code")).to_contain_text("florence_lab.load")

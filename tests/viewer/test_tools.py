"""The tools of the viewer in a browser: uploads, heartbeat, history, downloads, roles of the widgets around it."""

import hashlib
import re
from pathlib import Path

import pytest
from front_end import CHROMIUM, FrontEnd, encode_image, photo, playwright

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")]

expect = playwright.expect
MIB = 2**20
RECEIVED = "content => content.kind === 'upload' && {kind: 'received', id: content.id, at: content.at}"
PONG = "content => content.kind === 'ping' && {kind: 'pong', id: content.id}"
# as ipywidgets builds the panel around the viewer
PANEL = """\
<div class="fl-panel jupyter-widgets">
  <div class="fl-bar jupyter-widgets">
    <div class="jupyter-widgets widget-dropdown"><label class="widget-label" for="task">Task</label><select id="task"></select></div>
    <div class="jupyter-widgets widget-label">Model</div>
    <div class="jupyter-widgets widget-text"><label class="widget-label" style="display: none"></label><input></div>
    <div class="jupyter-widgets widget-text"><input placeholder="a sheep"></div>
    <button class="fl-run jupyter-button"><i class="fa fa-play"></i>Run</button>
    <div class="jupyter-widgets fl-status"><div class="widget-html-content"></div></div>
  </div>
  <div id="viewer"></div>
</div>"""


@pytest.fixture
def in_panel(page):
    """Like `front_end`, between the widgets of a panel."""
    in_panel = FrontEnd(page, PANEL)
    yield in_panel
    assert in_panel.errors == []


class TestUploads:
    @pytest.fixture
    def uploads(self, front_end):
        return front_end.start(has_tools=True, upload_limit=64 * MIB)

    def choose(self, uploads, name, size):
        with uploads.page.expect_file_chooser() as chooser:
            uploads.page.get_by_role("button", name="Upload an image").click()
        content = bytes(i % 251 for i in range(1000)) * (size // 1000 + 1)
        chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": content[:size]})
        return content[:size]

    def test_a_file_arrives_whole_in_acknowledged_chunks(self, uploads):
        uploads.answers(RECEIVED)
        content = self.choose(uploads, "photo.png", 5 * MIB)
        expect(uploads.root.get_by_text("photo.png has been uploaded.")).to_be_visible()
        sent = uploads.sent("upload")
        assert [(part["at"], part["sizes"]) for part in sent] == [
            (0, [2 * MIB]), (2 * MIB, [2 * MIB]), (4 * MIB, [1 * MIB])
        ]  # fmt: skip
        assert {(part["id"], part["name"], part["size"]) for part in sent} == {(sent[0]["id"], "photo.png", 5 * MIB)}
        arrived = uploads.page.evaluate(
            """async () => { const blob = new Blob(model.sent.flatMap(m => m.buffers));
              const hash = await crypto.subtle.digest('SHA-256', await blob.arrayBuffer());
              return [...new Uint8Array(hash)].map(b => b.toString(16).padStart(2, '0')).join('') }"""
        )
        assert arrived == hashlib.sha256(content).hexdigest()

    def test_the_next_chunk_waits_for_the_answer(self, uploads):
        self.choose(uploads, "photo.png", 5 * MIB)
        (first,) = uploads.waits_for_sent("upload")
        uploads.page.wait_for_timeout(200)
        uploads.receive({"kind": "received", "id": "another", "at": 0})
        uploads.page.wait_for_timeout(100)
        assert len(uploads.sent("upload")) == 1
        uploads.receive({"kind": "received", "id": first["id"], "at": 0})
        uploads.waits_for_sent("upload", 2)
        expect(uploads.root.get_by_role("progressbar")).to_have_attribute("value", str(2 * MIB))
        expect(uploads.root.get_by_text("2.0 MiB of 5.0 MiB")).to_be_visible()

    def test_the_limit_is_said_first(self, uploads):
        expect(uploads.root.get_by_text("up to 64 MiB")).to_be_visible()

    @pytest.mark.parametrize(
        ("size", "words"), [(3 * MIB, "photo.png has 3.0 MiB, and up to 1.0 MiB can be uploaded."), (0, "is empty")]
    )
    def test_an_impossible_size_is_refused_before_the_first_byte(self, front_end, size, words):
        front_end.start(has_tools=True, upload_limit=MIB)
        self.choose(front_end, "photo.png", size)
        expect(front_end.root.get_by_role("alert").filter(has_text=words)).to_be_visible()
        assert front_end.sent("upload") == []

    def test_a_refusal_of_python_is_shown(self, uploads):
        uploads.answers("c => ({kind: 'refused', id: c.id, text: 'notes.png is not an image.'})")
        self.choose(uploads, "notes.png", 100)
        expect(uploads.root.get_by_role("alert").filter(has_text="notes.png is not an image.")).to_be_visible()
        expect(uploads.root.get_by_role("progressbar")).to_be_hidden()

    def test_a_silent_kernel_is_told_and_the_upload_ends(self, front_end):
        front_end.page.clock.install()
        front_end.start(has_tools=True, upload_limit=64 * MIB)
        self.choose(front_end, "photo.png", 5 * MIB)
        front_end.waits_for_sent("upload")
        front_end.page.clock.fast_forward(10_001)
        alert = front_end.root.get_by_role("alert").filter(
            has_text="The kernel does not answer. The upload of photo.png"
        )
        expect(alert).to_be_visible()
        expect(front_end.root.get_by_role("progressbar")).to_be_hidden()

    def test_a_closed_connection_is_told_like_a_silent_kernel(self, front_end):
        front_end.page.clock.install()
        front_end.start(has_tools=True, upload_limit=64 * MIB)
        front_end.page.evaluate("() => { model.send = () => { throw Error('closed') } }")
        self.choose(front_end, "photo.png", 100)
        expect(front_end.root.get_by_role("progressbar")).to_be_visible()
        front_end.page.clock.run_for(10_500)
        expect(front_end.root.get_by_role("alert").filter(has_text="The upload of photo.png")).to_be_visible()
        expect(front_end.root.get_by_role("progressbar")).to_be_hidden()

    def test_an_upload_can_be_cancelled(self, uploads):
        self.choose(uploads, "photo.png", 5 * MIB)
        uploads.waits_for_sent("upload")
        uploads.page.get_by_role("button", name="Cancel the upload").click()
        (first,) = uploads.sent("upload")
        assert [message["id"] for message in uploads.sent("cancel")] == [first["id"]]
        uploads.receive({"kind": "received", "id": first["id"], "at": 0})  # late
        uploads.page.wait_for_timeout(100)
        assert len(uploads.sent("upload")) == 1
        expect(uploads.root.get_by_text("Upload cancelled.")).to_be_visible()
        expect(uploads.page.get_by_role("button", name="Upload an image")).to_be_focused()

    def test_a_second_upload_cancels_the_first(self, uploads):
        self.choose(uploads, "first.png", 5 * MIB)
        uploads.waits_for_sent("upload")
        uploads.answers(RECEIVED)
        self.choose(uploads, "second.png", 100)
        expect(uploads.root.get_by_text("second.png has been uploaded.")).to_be_visible()
        (first, second) = uploads.sent("upload")
        assert [message["id"] for message in uploads.sent("cancel")] == [first["id"]]
        assert second["name"] == "second.png"

    @pytest.mark.parametrize(("event", "where"), [("drop", ".fl-stage"), ("paste", ".fl-viewer")])
    def test_files_are_dropped_and_pasted(self, uploads, event, where):
        uploads.answers(RECEIVED)
        uploads.page.evaluate(
            """([type, where]) => { const data = new DataTransfer();
              data.items.add(new File(['abc'], 'cat.png', {type: 'image/png'}));
              const init = {bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data};
              const event = type === 'drop' ? new DragEvent(type, init) : new ClipboardEvent(type, init);
              document.querySelector(where).dispatchEvent(event) }""",
            [event, where],
        )
        expect(uploads.root.get_by_text("cat.png has been uploaded.")).to_be_visible()

    @pytest.mark.parametrize(
        "traits", [{"has_tools": False, "upload_limit": MIB}, {"has_tools": True, "upload_limit": 0}]
    )
    def test_there_is_no_button_without_uploads(self, front_end, traits):
        front_end.start(**traits)
        expect(front_end.page.get_by_role("button", name="Upload an image")).to_be_hidden()


class TestHeartbeat:
    @pytest.fixture
    def alive(self, in_panel):
        in_panel.page.clock.install()
        in_panel.start(has_tools=True)
        return in_panel

    def runs(self, alive, seconds):
        alive.page.clock.run_for(int(1000 * seconds))

    def notice(self, alive):
        return alive.root.get_by_role("alert").filter(has_text="The kernel does not answer.")

    def test_a_kernel_that_answers_is_asked_every_three_seconds(self, alive):
        alive.answers(PONG)
        self.runs(alive, 30)
        assert 10 <= len(alive.sent("ping")) <= 11
        expect(self.notice(alive)).to_be_hidden()

    def test_a_dead_kernel_is_told_within_eight_seconds(self, alive):
        alive.answers(PONG)
        self.runs(alive, 7)  # a moment after an answer
        alive.answers("() => null")
        self.runs(alive, 7.9)
        expect(self.notice(alive)).to_have_text(
            "The kernel does not answer. It is busy with another cell, or it was restarted: run this cell again."
        )
        run = alive.page.locator(".fl-run")
        assert run.get_attribute("aria-disabled") == "true"
        alive.page.evaluate(
            "() => { window.clicks = 0; document.querySelector('.fl-run').onclick = () => { clicks += 1 } }"
        )
        run.click(force=True)
        assert "fl-silent" in alive.page.locator(".fl-panel").get_attribute("class")

        alive.answers(PONG)
        self.runs(alive, 30)
        expect(self.notice(alive)).to_be_hidden()
        assert run.get_attribute("aria-disabled") is None
        run.click()
        assert alive.page.evaluate("clicks") == 1  # the first one did nothing
        assert "fl-silent" not in alive.page.locator(".fl-panel").get_attribute("class")

    @pytest.mark.parametrize(
        ("kernel", "words", "is_disabled"),
        [
            ({"status": "busy", "connectionStatus": "connected"}, "busy with another cell", False),
            (
                {"status": "autorestarting", "connectionStatus": "connected"},
                "The kernel was restarted: run this cell",
                True,
            ),
            (
                {"status": "idle", "connectionStatus": "connected"},
                "It is busy with another cell, or it was restarted",
                True,
            ),
            ({"status": "dead", "connectionStatus": "connected"}, "The kernel has stopped", True),
            ({"status": "unknown", "connectionStatus": "disconnected"}, "The connection to the kernel is lost", True),
        ],
    )
    def test_the_reason_is_told_where_jupyter_knows_it(self, alive, kernel, words, is_disabled):
        alive.page.evaluate("kernel => { model.widget_manager = {kernel} }", kernel)
        self.runs(alive, 8)
        expect(alive.root.get_by_role("alert").filter(has_text=words)).to_be_visible()
        assert (alive.page.locator(".fl-run").get_attribute("aria-disabled") == "true") is is_disabled

    def test_a_restart_that_jupyter_reports_is_told_until_the_kernel_answers(self, in_panel):
        in_panel.page.clock.install()
        in_panel.page.evaluate(
            """() => { const slots = new Set(); window.tell = (status) => slots.forEach((slot) => slot(null, status)); window.slots = slots;
              const statusChanged = { connect: (slot) => slots.add(slot), disconnect: (slot) => slots.delete(slot) };
              window.widget_manager = { kernel: { status: 'idle', connectionStatus: 'connected', statusChanged } } }"""
        )
        in_panel.start(has_tools=True)
        alert = in_panel.root.get_by_role("alert").filter(has_text="The kernel was restarted: run this cell")
        in_panel.page.evaluate("['busy', 'idle'].forEach(tell)")
        expect(alert).to_be_hidden()
        in_panel.page.evaluate("tell('autorestarting')")
        expect(alert).to_be_visible()
        self.runs(in_panel, 30)
        expect(alert).to_be_visible()
        in_panel.receive({"kind": "pong", "id": in_panel.sent("ping")[-1]["id"]})
        expect(alert).to_be_hidden()
        in_panel.close()
        assert in_panel.page.evaluate("slots.size") == 0

    def test_a_page_of_voila_is_reloaded(self, alive):
        alive.page.evaluate("() => { document.body.dataset.voila = 'voila' }")
        self.runs(alive, 8)
        expect(self.notice(alive)).to_contain_text("it was restarted: reload the page.")

    def test_a_restart_that_ipywidgets_knows_of_is_told_at_once(self, alive):
        alive.answers(PONG)
        alive.page.locator("#viewer").evaluate("e => e.classList.add('jupyter-widgets-disconnected')")
        expect(
            alive.root.get_by_role("alert").filter(has_text="The kernel was restarted: run this cell")
        ).to_be_visible()
        count = len(alive.sent("ping"))
        self.runs(alive, 30)
        assert len(alive.sent("ping")) == count  # which a new kernel would only log

    def test_answers_of_a_former_silence_and_of_other_views_are_ignored(self, alive):
        self.runs(alive, 3.5)
        first = alive.sent("ping")[0]["id"]
        alive.receive({"kind": "pong", "id": first})
        self.runs(alive, 7.5)
        expect(self.notice(alive)).to_be_visible()
        for late in (first, "another view"):
            alive.receive({"kind": "pong", "id": late})
            expect(self.notice(alive)).to_be_visible()
        alive.receive({"kind": "pong", "id": alive.sent("ping")[-1]["id"]})
        expect(self.notice(alive)).to_be_hidden()

    def test_nothing_is_asked_without_tools_or_after_the_view_is_removed(self, in_panel):
        in_panel.page.clock.install()
        in_panel.start(has_tools=False)
        self.runs(in_panel, 30)
        assert in_panel.sent("ping") == []
        in_panel.set(has_tools=True)
        assert len(in_panel.sent("ping")) == 1
        in_panel.close()
        self.runs(in_panel, 30)
        assert len(in_panel.sent("ping")) == 1


class TestHistory:
    @staticmethod
    def entries(*ids):
        thumbnail = "data:image/jpeg;base64," + encode_image(photo(72, 72))
        return [{"id": i, "title": f"Caption · image {i}", "time": f"14:{i:02}", "thumbnail": thumbnail} for i in ids]

    def test_an_entry_is_a_button_with_a_name_that_opens_it(self, front_end):
        front_end.start(has_tools=True, history=self.entries(2, 1))
        entry = front_end.page.get_by_role("button", name="Caption · image 1, 14:01")
        entry.focus()
        front_end.page.keyboard.press("Enter")
        assert front_end.sent("open") == [{"kind": "open", "id": 1, "sizes": []}]
        assert entry.get_attribute("title") == "Caption · image 1, 14:01"

    def test_it_does_not_grow_and_keeps_the_focus(self, front_end):
        front_end.start(has_tools=True, history=self.entries(*range(20, 0, -1)))
        front_end.page.get_by_role("button", name="image 20,").focus()
        count = front_end.page.locator(".fl-history *").count()
        for newest in range(21, 31):
            front_end.set(history=self.entries(*range(newest, newest - 20, -1)))
        assert front_end.page.locator(".fl-history *").count() == count
        names = front_end.page.locator(".fl-history-button").evaluate_all(
            "b => b.map(x => x.getAttribute('aria-label'))"
        )
        assert names == [f"Caption · image {i}, 14:{i:02}" for i in range(30, 10, -1)]
        expect(front_end.page.get_by_role("button", name="image 20,")).to_be_focused()

    def test_titles_are_text(self, front_end):
        front_end.start(
            has_tools=True, history=[self.entries(1)[0] | {"title": "<b>x</b>", "thumbnail": "javascript:1"}]
        )
        assert front_end.page.locator(".fl-history-title").inner_text() == "<b>x</b>"
        assert front_end.page.locator(".fl-history img").get_attribute("src") is None


class TestFiles:
    FILES = [{"id": "png", "label": "PNG"}, {"id": "json", "label": "COCO JSON"}]  # noqa: RUF012

    def test_a_file_is_made_by_python_and_saved_by_the_browser(self, front_end):
        front_end.start(files=self.FILES)
        menu = front_end.page.get_by_role("button", name="Download")
        menu.focus()
        front_end.page.keyboard.press("Enter")
        front_end.page.keyboard.press("Tab")
        front_end.page.keyboard.press("Enter")
        assert front_end.sent("file") == [{"kind": "file", "id": "json", "sizes": []}]
        expect(front_end.page.get_by_role("button", name="Preparing …")).to_be_focused()
        with front_end.page.expect_download() as download:
            front_end.receive({"kind": "file", "name": "sheep.json", "mime": "application/json"}, b'{"a": 1}')
        assert download.value.suggested_filename == "sheep.json"
        assert Path(download.value.path()).read_bytes() == b'{"a": 1}'
        expect(front_end.root.get_by_role("status").filter(has_text="sheep.json saved.")).to_have_count(1)
        expect(menu).to_be_focused()

    def test_a_failure_is_told(self, front_end):
        front_end.start(files=self.FILES)
        front_end.answers("() => ({kind: 'failed', text: 'There is no answer yet.'})")
        front_end.page.get_by_role("button", name="Download").click()
        front_end.page.get_by_role("button", name="PNG").click()
        expect(front_end.root.get_by_role("alert").filter(has_text="There is no answer yet.")).to_be_visible()

    def test_files_that_another_view_asked_for_are_not_saved(self, front_end):
        front_end.start(files=self.FILES)
        front_end.receive({"kind": "file", "name": "sheep.json", "mime": "application/json"}, b"{}")
        assert front_end.page.get_by_text("saved").count() == 0

    def test_the_menu_keeps_its_focus_while_an_entry_is_pressed(self, front_end):
        """Safari does not focus a button that is pressed: the menu would close before the click."""
        front_end.start(files=self.FILES)
        front_end.page.get_by_role("button", name="Download").click()
        front_end.page.get_by_role("button", name="COCO JSON").hover()
        front_end.page.mouse.down()
        expect(front_end.page.get_by_role("button", name="PNG")).to_be_focused()
        front_end.page.mouse.up()
        assert [message["id"] for message in front_end.sent("file")] == ["json"]

    def test_escape_closes_the_menu(self, front_end):
        front_end.start(files=self.FILES)
        front_end.page.get_by_role("button", name="Download").click()
        expect(front_end.page.get_by_role("button", name="PNG")).to_be_focused()
        front_end.page.keyboard.press("Escape")
        expect(front_end.page.get_by_role("button", name="PNG")).to_be_hidden()
        expect(front_end.page.get_by_role("button", name="Download")).to_be_focused()


class TestCode:
    CODE = "import florence_lab\n\nflorence_lab.load('florence-2-nano')"

    @pytest.fixture
    def copy(self, front_end):
        """The button that copies, and the clipboard for reading."""
        front_end.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        front_end.show(photo(), code=self.CODE, code_note="The threshold is applied.")
        front_end.page.get_by_role("tab", name="Code").click()
        expect(front_end.page.get_by_text("The threshold is applied.")).to_be_visible()
        return front_end.page.get_by_role("button", name="Copy the code")

    @pytest.mark.parametrize("api", ["clipboard", "selection"])
    def test_the_code_is_copied(self, copy, api):
        read = copy.page.evaluate_handle("() => navigator.clipboard.readText.bind(navigator.clipboard)")
        if api == "selection":  # as on a page that is neither HTTPS nor localhost
            copy.page.evaluate("() => Object.defineProperty(navigator, 'clipboard', { value: undefined })")
        copy.click()
        expect(copy.page.get_by_role("status").filter(has_text="Copied.")).to_be_visible()
        assert copy.page.evaluate("read => read()", read) == self.CODE

    def test_where_copying_is_not_allowed_the_code_is_selected(self, copy):
        copy.page.evaluate("() => Object.defineProperty(navigator, 'clipboard', { value: undefined })")
        copy.page.evaluate("() => { document.execCommand = () => false }")
        copy.click()
        expect(copy.page.get_by_role("status").filter(has_text="press Ctrl+C")).to_be_visible()
        assert copy.page.evaluate("String(getSelection())") == self.CODE


class TestSiblings:
    def test_the_status_line_is_a_live_region_also_when_it_comes_later(self, in_panel):
        in_panel.page.evaluate("() => document.querySelector('.fl-status').remove()")
        in_panel.start()
        in_panel.page.evaluate(
            """() => { document.querySelector('.fl-bar').insertAdjacentHTML('beforeend',
              '<div class="jupyter-widgets fl-status"><div class="widget-html-content"></div></div>') }"""
        )
        status = in_panel.page.locator(".fl-status .widget-html-content")
        expect(status).to_have_attribute("role", "status")
        expect(status).to_have_attribute("aria-live", "polite")
        status.evaluate("e => { e.innerHTML = '<span class=\"fl-error\">No region.</span>' }")
        expect(in_panel.page.locator(".fl-status").get_by_role("alert")).to_have_text("No region.")

    def test_controls_without_a_name_get_that_of_their_label(self, in_panel):
        in_panel.start()
        names = in_panel.page.locator(".fl-bar :is(select, input)")
        expect(names.nth(1)).to_have_attribute("aria-label", "Model")
        expect(names.nth(2)).to_have_attribute("aria-label", "a sheep")
        assert names.nth(0).get_attribute("aria-label") is None  # has a label
        expect(in_panel.page.get_by_label("Task", exact=True)).to_have_count(1)

    def test_icons_of_buttons_are_not_read_out(self, in_panel):
        in_panel.start()
        icon = in_panel.page.locator(".fl-run i")
        expect(icon).to_have_attribute("aria-hidden", "true")
        in_panel.page.locator(".fl-run").evaluate("b => { b.innerHTML = '<i></i>Stop' }")  # as ipywidgets does
        expect(icon).to_have_attribute("aria-hidden", "true")

    def test_keys_in_the_panel_are_no_shortcuts_of_the_notebook(self, in_panel):
        in_panel.show(photo())
        in_panel.page.evaluate(
            """() => { window.keys = []; const name = 'data-lm-suppress-shortcuts';
              const isFree = (event) => !event.target.closest(`[${name}]`);  // where Lumino looks
              document.addEventListener('keydown', (event) => isFree(event) && keys.push(event.key), true) }"""
        )
        expect(in_panel.page.locator(".fl-status .widget-html-content")).to_have_attribute("role", "status")
        for focused in (in_panel.page.get_by_label("Task", exact=True), in_panel.page.locator(".fl-view").first):
            focused.focus()
            for key in ("r", "0", "Control+s", "b"):
                in_panel.page.keyboard.press(key)
        assert in_panel.page.evaluate("keys") == ["Control", "s"] * 2

    def test_the_run_button_gets_its_focus_back(self, in_panel):
        in_panel.start()
        expect(in_panel.page.locator(".fl-status .widget-html-content")).to_have_attribute("role", "status")
        run = in_panel.page.locator(".fl-run")
        run.focus()
        run.evaluate("b => { b.disabled = true; b.blur() }")
        run.evaluate("b => { b.disabled = false }")
        expect(run).to_be_focused()

    def test_everything_is_taken_back(self, in_panel):
        before = in_panel.page.locator(".fl-panel").evaluate("e => e.outerHTML")
        in_panel.start(has_tools=True, upload_limit=MIB, takes_region=True)
        expect(in_panel.page.locator(".fl-status .widget-html-content")).to_have_attribute("role", "status")
        assert in_panel.close() == {"handlers": 0, "html": ""}
        assert in_panel.page.locator(".fl-panel").evaluate("e => e.outerHTML") == re.sub(r" />", ">", before)

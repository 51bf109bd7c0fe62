"""The page that `florence-lab explore` serves."""

import http.client
import json
import signal
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, sleep

import psutil
import pytest
from explorer.browser.harness import NEEDS_BROWSER, TIMEOUT, opened, playwright, voila_served
from explorer.browser.user import SIZES, User
from explorer.browser.walk import walk

pytest.importorskip("voila", reason="pip install voila")
pytestmark = NEEDS_BROWSER
expect = playwright.expect
TOKEN = "abcdefgh12345678"


@pytest.fixture(scope="module")
def voila(tmp_path_factory):
    with voila_served(tmp_path_factory.mktemp("voila")) as server:
        yield server


@pytest.fixture
def page(browser, voila):
    page = opened(browser, voila.url)
    yield page
    page.context.close()
    wait_for_kernels(voila, 0)


def kernels(server):
    """Return the processes of the kernels."""
    found = []
    for child in psutil.Process(server.process.pid).children(recursive=True):
        try:
            if "ipykernel_launcher" in child.cmdline():
                found.append(child)
        except psutil.Error:  # it ended meanwhile
            pass
    return found


def wait_for_kernels(server, count, seconds=30):
    """Wait until so many kernels are left, and return the seconds."""
    start = monotonic()
    while len(kernels(server)) != count:
        assert monotonic() - start < seconds, f"{len(kernels(server))} kernels after {seconds} s, not {count}"
        sleep(0.1)
    return monotonic() - start


def fetch(server, path="", method="GET", **headers):
    """Return the status and the text that the server answers, from an address that no redirection changes."""
    address = urllib.parse.urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=TIMEOUT)
    try:
        connection.request(method, f"/{path}", headers=headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_a_walk_through_the_panel(page, tmp_path):
    walk(User(page), tmp_path)
    assert page.errors == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_has_title_words_landmarks_and_the_theme_of_the_visitor(browser, voila, shots, theme):
    page = opened(browser, "about:blank", theme=theme)
    addresses = []
    page.on("request", lambda request: addresses.append(request.url))
    page.goto(voila.url, wait_until="commit")
    expect(page.get_by_role("status").first).to_contain_text("Starting Python")
    page.screenshot(path=shots / f"voila-loading-{theme}.png")
    user = User(page)
    assert page.title() == "florence_lab explorer"
    expect(page.get_by_role("heading", level=1)).to_have_text("florence_lab explorer")
    assert page.locator("main .fl-panel").count() == 1
    expect(page.locator("#fl-page-status")).to_have_text("The explorer is ready.")
    color = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (max(color[:3]) < 64) == (theme == "dark")
    for name, (width, height) in SIZES.items():
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(400)  # until the layout has settled, for which there is no event
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        page.screenshot(path=shots / f"voila-{name}-{theme}.png")
    page.set_viewport_size({"width": 1366, "height": 768})
    expect(user.panel.get_by_role("button", name="Run").first).to_be_in_viewport(ratio=1)

    hosts = {urllib.parse.urlsplit(address).netloc for address in addresses if address.startswith(("http", "ws"))}
    assert hosts == {urllib.parse.urlsplit(voila.url).netloc}
    assert page.errors == []
    page.context.close()
    wait_for_kernels(voila, 0)


def test_five_reloads_leave_one_kernel_and_closing_the_page_leaves_none(browser, voila):
    page = opened(browser, voila.url)
    User(page)
    (first,) = kernels(voila)
    print(f"a fresh kernel: {first.memory_info().rss / 1e6:.0f} MB")
    for _ in range(5):
        start = monotonic()
        page.reload()
        User(page)
        print(f"page to panel: {monotonic() - start:.1f} s")
    print(f"one kernel {wait_for_kernels(voila, 1):.1f} s after the fifth reload")
    page.close()
    print(f"no kernel {wait_for_kernels(voila, 0):.1f} s after the page was closed")
    page.context.close()


def test_reloads_before_the_panel_is_there_leave_one_kernel(browser, voila):
    page = opened(browser, "about:blank")
    for _ in range(3):
        page.goto(voila.url, wait_until="commit")
        page.locator("#fl-page-status").wait_for()
    User(page)
    wait_for_kernels(voila, 1)
    page.context.close()
    wait_for_kernels(voila, 0)


def test_a_run_ends_with_its_page(browser, voila):
    page = opened(browser, voila.url)
    User(page).panel.get_by_role("button", name="Run").first.click()
    page.goto("about:blank")
    wait_for_kernels(voila, 0)
    page.context.close()


@pytest.mark.parametrize(
    ("path", "status"), [("nothing", 404), ("voila/files/explorer.ipynb", 404), ("voila/files/cat.png", 404)]
)
def test_there_is_nothing_but_the_page(voila, path, status):
    assert fetch(voila, path)[0] == status


def test_another_host_name_is_refused(voila):
    """A web site whose name leads to this machine must not reach a page without a token."""
    assert fetch(voila, Host="evil.example")[0] == 403
    assert kernels(voila) == []


def test_a_request_of_another_site_cannot_shut_a_kernel_down(page, voila):
    User(page)
    kernel_id = page.evaluate("JSON.parse(document.getElementById('jupyter-config-data').textContent).kernelId")
    assert fetch(voila, f"voila/api/shutdown/{kernel_id}", "POST", Origin="http://evil.example")[0] in (403, 404)
    sleep(1)
    assert len(kernels(voila)) == 1


def test_pages_that_are_opened_at_the_same_time_are_counted(tmp_path):
    with voila_served(tmp_path, "--max_visitors", "1") as server, ThreadPoolExecutor(3) as pool:
        assert sorted(pool.map(lambda _: fetch(server)[0], range(3))) == [200, 503, 503]


def test_one_visitor_too_many_reads_why_and_ctrl_c_ends_all(browser, tmp_path):
    with voila_served(tmp_path, "--max_visitors", "1") as server:
        page = opened(browser, server.url)
        User(page)
        status, text = fetch(server)
        assert status == 503
        assert "Too many visitors" in text
        left = kernels(server)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) in (0, 130)
        assert not any(process.is_running() and process.status() != "zombie" for process in left)
        assert "Traceback" not in server.read_log()
        page.context.close()


def test_with_a_token_only_the_link_opens_the_page(browser, tmp_path):
    with voila_served(tmp_path, "--token", TOKEN) as server:
        assert f"?token={TOKEN}" in server.read_log()
        for path in ("", "?token=wrong-token"):
            status, text = fetch(server, path)
            assert status == 401
            assert "This page needs its token" in text
        assert fetch(server, "api/kernels/00000000-0000-0000-0000-000000000000")[0] == 403
        assert kernels(server) == []
        page = opened(browser, f"{server.url}?token={TOKEN}")
        user = User(page)
        user.ask()
        assert len(user.viewer.read_list()) == 4
        page.goto(server.url)  # the browser keeps a cookie
        User(page)
        page.context.close()
        wait_for_kernels(server, 0)


def test_a_page_for_other_machines_offers_no_paths(browser, tmp_path):
    with voila_served(tmp_path, "--ip", "0.0.0.0", "--token", TOKEN) as server:
        page = opened(browser, f"{server.url}?token={TOKEN}")
        user = User(page)
        assert "Path or URL" not in json.dumps(user.panel.locator("option").all_inner_texts())
        user.ask()
        assert len(user.viewer.read_list()) == 4
        page.context.close()

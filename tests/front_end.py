"""The viewer's front end in a bare page of a browser, on a model that the test plays."""

import base64
import io
import shutil
from pathlib import Path

import pytest
from PIL import Image

import florence_lab.viewer

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
FOLDER = Path(florence_lab.viewer.__file__).parent
URL = "http://localhost/viewer/"  # nothing is fetched: the page is fulfilled from memory. The clipboard needs localhost
TRAITS = {
    "picture": {},
    "pixels": "",
    "answers": [],
    "arrangement": "single",
    "is_stale": False,
    "phase": "empty",
    "hint": "",
    "code": "",
    "code_note": "",
    "history": [],
    "files": [],
    "upload_limit": 0,
    "takes_region": False,
    "has_tools": False,
    "region": [],
    "threshold": 0.0,
    "active": 0,
    "selected": [],
}
"""The initial values of the traits of `Viewer`, as a notebook's front end has them. `pixels` is base64."""

PAGE = """\
<!doctype html><html><head><meta charset="utf-8"><title>viewer</title><link rel="stylesheet" href="viewer.css">
<style>body {{ margin: 8px; font: 13px sans-serif }}
@media (prefers-color-scheme: dark) {{ body {{ background: #111; color: #eee; color-scheme: dark }} }}</style></head>
<body>{body}</body></html>
"""

MODEL = """\
class Model {
  constructor(traits) {
    Object.assign(this, { traits, handlers: [], sent: [], saved: [], answer: null, widget_manager: window.widget_manager });
    this.changed = {};
  }
  get(name) { return this.traits[name] }
  set(name, value) {
    if (JSON.stringify(this.traits[name]) === JSON.stringify(value)) return;
    this.traits[name] = this.changed[name] = value;
    this.fire(`change:${name}`);
  }
  save_changes() { if (Object.keys(this.changed).length) this.saved.push(this.changed); this.changed = {} }
  on(event, handler) { this.handlers.push([event, handler]) }
  off(event, handler) { this.handlers = this.handlers.filter(([e, h]) => e !== event || (handler && h !== handler)) }
  fire(event, ...values) { for (const [e, handler] of [...this.handlers]) if (e === event) handler(...values) }
  send(content, callbacks, buffers = []) {
    this.sent.push({ content, buffers });
    if (this.answer) this.answer(content, buffers);
  }
  receive(content, buffers = []) { this.fire("msg:custom", content, buffers) }
}
const bytes = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
window.bytes = bytes;
window.start = async (traits) => {
  window.model = new Model({ ...traits, pixels: bytes(traits.pixels) });
  const { default: widget } = await import("./viewer.js");
  const el = document.querySelector("#viewer");
  window.close_viewer = await widget.render({ model: window.model, el });
};
"""


def encode_image(image, image_format="JPEG"):
    """Return an image file as base64."""
    file = io.BytesIO()
    image.save(file, image_format)
    return base64.b64encode(file.getvalue()).decode()


class FrontEnd:
    """A page with one viewer.

    Attributes:
        page: the page of playwright.
        root: the viewer.
        errors: exceptions of the page and messages of its console that are errors.
    """

    def __init__(self, page, body='<div id="viewer"></div>'):
        self.page = page
        self.root = page.locator(".fl-viewer")
        self.errors = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        files = {"viewer.js": "text/javascript", "viewer.css": "text/css"}

        def fulfil(route):
            name = route.request.url.removeprefix(URL)
            if name in files:
                route.fulfill(content_type=files[name], body=(FOLDER / name).read_text(encoding="utf-8"))
            else:
                route.fulfill(content_type="text/html", body=PAGE.format(body=body))

        page.route("http://localhost/**", fulfil)
        page.goto(URL)
        page.evaluate(f"() => {{ {MODEL} }}")

    def start(self, **traits):
        """Render the viewer."""
        self.page.evaluate("traits => start(traits)", TRAITS | traits)
        return self

    def show(self, image, **traits):
        """Render the viewer with an image."""
        picture = {"id": "1", "name": "image", "width": image.width, "height": image.height}
        return self.start(picture=picture, pixels=encode_image(image), **traits)

    def set(self, **traits):
        """Set traits as Python does, in one message."""
        self.page.evaluate(
            "traits => Object.entries(traits).forEach(([name, value]) => model.set(name, value))", traits
        )

    def get(self, name):
        """Return the value of a trait."""
        return self.page.evaluate("name => model.get(name)", name)

    def saved(self, name):
        """Return the values of a trait that were sent to Python, oldest first."""
        return self.page.evaluate("name => model.saved.filter(c => name in c).map(c => c[name])", name)

    def sent(self, kind):
        """Return the custom messages of a kind that were sent to Python, with the sizes of their buffers as `sizes`."""
        sent = self.page.evaluate(
            "() => model.sent.map(({content, buffers}) => ({...content, sizes: buffers.map(b => b.byteLength)}))"
        )
        return [message for message in sent if message["kind"] == kind]

    def waits_for_sent(self, kind, count=1):
        """Wait until at least `count` messages of a kind were sent, and return them."""
        self.page.wait_for_function(
            "([kind, count]) => model.sent.filter(m => m.content.kind === kind).length >= count", arg=[kind, count]
        )
        return self.sent(kind)

    def receive(self, content, *buffers):
        """Send a custom message as Python does."""
        encoded = [base64.b64encode(buffer).decode() for buffer in buffers]
        self.page.evaluate("([content, b]) => model.receive(content, b.map(bytes))", [content, encoded])

    def answers(self, function):
        """Answer the front end's messages by a JavaScript function `(content, buffers) => message | undefined`, in a moment."""
        self.page.evaluate(
            f"""() => {{ const f = {function};
                model.answer = (content, buffers) => {{
                  const message = f(content, buffers);
                  if (message) setTimeout(() => model.receive(message), 0);
                }} }}"""
        )

    def close(self):
        """Remove the viewer, and return what is left of it: `{"handlers": 0, "html": ""}`."""
        return self.page.evaluate(
            """() => { close_viewer();
              return {handlers: model.handlers.length, html: document.querySelector('#viewer').innerHTML} }"""
        )


def photo(width=512, height=512):
    """Return an image with a gradient and a grid of 32 pixels."""
    image = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    for x in range(0, width, 32):
        image.paste((90, 140, 90), (x, 0, x + 1, height))
    for y in range(0, height, 32):
        image.paste((90, 140, 90), (0, y, width, y + 1))
    return image

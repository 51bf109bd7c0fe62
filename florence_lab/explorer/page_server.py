"""The server of the explorer's page: Voilà with the explorer's templates, whose kernels end when their visitor leaves."""

from __future__ import annotations

import errno
import logging
import socket
import time
import webbrowser
from collections import defaultdict, deque
from contextvars import ContextVar
from importlib import resources
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.ioloop import IOLoop, PeriodicCallback
from tornado.web import authenticated
from traitlets.config import Config
from voila.app import Voila
from voila.shutdown_kernel_handler import VoilaShutdownKernelHandler
from voila.static_file_handler import AllowListFileHandler
from voila.tornado.handler import TornadoVoilaHandler

from .kernel_watch import KernelWatch
from .page_options import PageOptions, server_settings

_WATCH_INTERVAL = 1000  # ms
_MAX_BODY_BYTES = 2**20  # of a POST request; uploads do not come that way
_PAGES_PER_MINUTE = 20  # that one address may open on a page that is served to other machines

_TEXTS = {
    401: "This page needs its token. Open the whole link that florence-lab explore printed: it ends with ?token= and the token.",
    404: "There is nothing at this address.",
    429: "Too many pages were opened from your address. Wait a minute, and open the page again.",
    503: "Too many visitors: each has a process of its own on this machine, and no more fit. Try again later.",
}

logger = logging.getLogger(__name__)

_current_page: ContextVar[PageHandler] = ContextVar("the page for which a kernel is started")


class PageKernelManager(AsyncMappingKernelManager):
    """A kernel manager that stores the id of a kernel in the page that it is started for."""

    async def start_kernel(self, **kwargs: Any) -> str:  # type: ignore[override]
        """Start a kernel for the page that is being rendered, and return its id."""
        kernel_id = await super().start_kernel(**kwargs)
        page = _current_page.get()
        page.kernel_id = kernel_id
        page.server.opening.discard(page)
        return kernel_id


class PageHandler(TornadoVoilaHandler):
    """Serves the page, or a notice that says why it is refused."""

    kernel_id = ""
    is_left = False

    def initialize(self, server: PageServer, **kwargs: Any) -> None:
        """Store the server beside Voilà's own arguments."""
        super().initialize(**kwargs)
        self.server = server

    @allow_unauthenticated  # such a request is not sent to a form, but gets a text
    async def get(self, path: str = "") -> None:
        """Start a kernel, and send the page with what its cell displays."""
        status = self._refusal(path)
        if status:
            self.set_status(status)
            self.finish(self.server.render_notice(_TEXTS[status]))
            return
        # Voilà's script sends this cookie back when the page is closed. Without it, its request is rejected (403).
        _ = self.xsrf_token
        _current_page.set(self)
        self.server.opening.add(self)
        try:
            async for html in self.get_generator():
                if self.is_left:
                    await self.server.watch.close(self.kernel_id, now=True)
                    return
                self.write(html)
                self.flush()
        finally:
            self.server.opening.discard(self)

    def on_connection_close(self) -> None:
        """Shut the kernel down at once if the visitor leaves before the page is complete."""
        self.is_left = True
        if self.kernel_id:
            IOLoop.current().spawn_callback(self.server.watch.close, self.kernel_id, now=True)

    def _refusal(self, path: str) -> int:
        """Return the status of a request that gets no page, 0 for one that does."""
        if not self.current_user:
            return 401
        if path:
            return 404
        if self.server.options.is_public and not self.server.rate.allows(self.request.remote_ip or ""):
            return 429
        count = self.server.watch.count + len(self.server.opening)
        return 503 if count >= self.server.options.max_visitors else 0


class LeaveHandler(VoilaShutdownKernelHandler):
    """Shuts down the kernel of a page that is left. A page may send two requests; the second one finds no kernel."""

    def initialize(self, server: PageServer) -> None:
        """Store the server."""
        self.server = server

    @authenticated
    async def post(self, kernel_id: str) -> None:
        """Begin to shut the kernel down. The reply does not wait for it."""
        IOLoop.current().spawn_callback(self.server.watch.close, kernel_id)
        self.set_status(204)


class PageRate:
    """Counts the pages that each address opened within the last minute."""

    def __init__(self) -> None:
        """Create a counter without addresses."""
        self._times: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_PAGES_PER_MINUTE))

    def allows(self, address: str) -> bool:
        """Return whether an address may open one more page now, and count it if so."""
        now = time.monotonic()
        for other in [key for key, times in self._times.items() if now - times[-1] > 60]:
            del self._times[other]
        times = self._times[address]
        if len(times) == times.maxlen and now - times[0] < 60:
            return False
        times.append(now)
        return True


class PageServer(Voila):
    """Voilà with the templates, the page and the kernel watch of the explorer.

    Attributes:
        opening: the pages whose kernel is being started, which the watch does not know yet.
    """

    options: PageOptions
    opens_browser = False

    def setup_template_dirs(self) -> None:
        """Put the package's templates before Voilà's."""
        super().setup_template_dirs()
        self.template_paths.insert(0, str(resources.files("florence_lab") / "assets" / "voila"))

    def init_settings(self) -> dict[str, Any]:
        """Create the kernel manager and its watch."""
        settings: dict[str, Any] = super().init_settings()
        self.opening: set[PageHandler] = set()
        self.rate = PageRate()
        self.watch = KernelWatch(self.kernel_manager)
        PeriodicCallback(self.watch.check, _WATCH_INTERVAL).start()
        return settings

    def init_handlers(self) -> list[Any]:
        """Serve the page by `PageHandler`, and no files of the notebook's folder."""
        handlers: list[Any] = []
        for path, handler, *arguments in super().init_handlers():
            if handler is TornadoVoilaHandler:
                handlers.append((path, PageHandler, {**arguments[0], "server": self}))
            elif handler is VoilaShutdownKernelHandler:
                handlers.append((path, LeaveHandler, {"server": self}))
            elif handler is not AllowListFileHandler:
                handlers.append((path, handler, *arguments))
        return handlers

    def render_notice(self, text: str) -> str:
        """Return a page that consists of a text."""
        return self.app.settings["voila_jinja2_env"].get_template("notice.html").render(text=text)

    def listen(self) -> None:
        """Listen at the port, or at the next free one, until Ctrl+C or SIGTERM.

        Raises:
            OSError: if no port is free, or the address is not one of this machine.
        """
        wanted = self.port
        try:
            for port in self.random_ports(wanted, self.port_retries + 1):
                if self._can_listen(port):
                    break
            else:
                raise OSError(f"no port near {wanted} is free")
            if self.port != wanted and wanted:
                logger.info("port %s is taken, so another one is used", wanted)
            logger.info("the explorer is at %s (Ctrl+C ends it)", self.url)
            if self.options.is_public:
                logger.info("whoever has this link can use this machine to run models; the connection is not encrypted")
            if self.opens_browser:
                webbrowser.open(self.url, new=self.webbrowser_open_new)
            self.ioloop = IOLoop.current()
            # Voilà's task goes on rendering a page whose visitor has left, and fails as its kernel is gone
            self.ioloop.asyncio_loop.set_exception_handler(_log_task_error)  # type: ignore[attr-defined]
            self.ioloop.start()
        finally:
            self.stop()

    @property
    def url(self) -> str:
        """The link to the page, with its token."""
        is_any = ip_address(self.ip).is_unspecified
        host = socket.gethostname() if is_any else f"[{self.ip}]" if ":" in self.ip else self.ip
        return f"http://{host}:{self.port}/" + (f"?token={self.options.token}" if self.options.token else "")

    def _can_listen(self, port: int) -> bool:
        """Listen at a port and return True, or False if the port is taken or not permitted."""
        try:
            server = self.app.listen(port, self.ip, max_body_size=_MAX_BODY_BYTES)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise OSError(f"cannot listen at {self.ip}: {error.strerror}") from error
        (self.port, *_) = {s.getsockname()[1] for s in server._sockets.values()}  # noqa: SLF001 - the port of port 0
        return True


def _log_task_error(_: Any, context: dict[str, Any]) -> None:
    logger.debug("%s", context.get("message"), exc_info=context.get("exception"))


def run_server(options: PageOptions, notebook: Path, open_browser: bool) -> None:
    """Serve a notebook until the process is interrupted.

    Args:
        options: of the page.
        notebook: the file to serve.
        open_browser: open the page in a browser.
    """
    for name in ("tornado.access", "tornado.general"):  # each page that is not found, and how pings are configured
        logging.getLogger(name).setLevel(logging.ERROR)
    settings = server_settings(options)
    settings["VoilaConfiguration"]["multi_kernel_manager_class"] = PageKernelManager
    server = PageServer(config=Config(settings))
    server.options, server.opens_browser = options, open_browser
    server.initialize([str(notebook)])
    server.start()

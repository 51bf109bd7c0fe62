"""The options of the explorer's page, and the settings of Voilà that follow from them."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..exceptions import ArgumentError, shorten

LOOPBACK = "127.0.0.1"
"""The address that only this machine can reach."""

START_SECONDS = 3
"""How long a visitor waits for the panel, in seconds, as the page says."""

_NUM_PORTS = 2**16
_MIN_TOKEN_LENGTH = 8
_MAX_MESSAGE_BYTES = 4 * 2**20  # an upload comes in chunks of 2 MiB
_IDLE_SECONDS = 3600  # of a page that is open on another machine, until its kernel is shut down
_PING_INTERVAL = 10_000  # ms; a browser that misses three of them is disconnected
_EXTENSIONS = ("@jupyter-widgets/jupyterlab-manager", "@voila-dashboards/widgets-manager8", "anywidget")


@dataclass(frozen=True)
class PageOptions:
    """The options of the page.

    Attributes:
        model_type: as for `explore`.
        ip: the address to listen at; the default can be reached from this machine only.
        port: 0..65535. If it is taken, the next free one is used.
        token: the secret of the link, "" for none.
        max_visitors: maximum number of open pages, at least 1. Each has a process of its own.

    Raises:
        ArgumentError: for a value that is out of its range, and without a token for an address that others can reach.
    """

    model_type: str = "florence-2-nano"
    ip: str = LOOPBACK
    port: int = 8866
    token: str = ""
    max_visitors: int = 8

    def __post_init__(self) -> None:
        if not 0 <= self.port < _NUM_PORTS:
            raise ArgumentError(f"port must be 0 to {_NUM_PORTS - 1}, got {self.port}")
        if self.max_visitors < 1:
            raise ArgumentError(f"max_visitors must be at least 1, got {self.max_visitors}")
        parse_address(self.ip)
        if self.token and not (len(self.token) >= _MIN_TOKEN_LENGTH and self.token.isascii() and self.token.isalnum()):
            raise ArgumentError(
                f"token must be at least {_MIN_TOKEN_LENGTH} letters and digits, got {len(self.token)} characters"
            )
        if self.is_public and not self.token:
            raise ArgumentError(f"a token is needed at {self.ip}, which other machines can reach")

    @property
    def is_public(self) -> bool:
        """Whether other machines can reach the page."""
        return not parse_address(self.ip).is_loopback


def server_settings(options: PageOptions) -> dict[str, dict[str, Any]]:
    """Return the settings of Voilà's classes: class name -> trait -> value."""
    return {
        "Voila": {
            "ip": str(parse_address(options.ip)),
            "port": options.port,
            "token": options.token,
            "open_browser": False,
            "config_file_paths": [],  # a voila.json of the current folder is not meant for this page
            "log_level": "ERROR",
            "tornado_settings": {
                # rejects requests under another host name, with which a web site could reach a page without a token
                "allow_remote_access": options.is_public,
                "ws_ping_interval": _PING_INTERVAL,
                "ws_ping_timeout": 3 * _PING_INTERVAL,
                "websocket_max_message_size": _MAX_MESSAGE_BYTES,
                "headers": {
                    "Content-Security-Policy": content_security_policy(),
                    "Referrer-Policy": "same-origin",
                    "X-Content-Type-Options": "nosniff",
                },
            },
        },
        "VoilaConfiguration": {
            "template": "lab",
            "theme": "light",
            "allow_template_override": "NO",
            "allow_theme_override": "NO",
            "show_tracebacks": not options.is_public,
            "file_allowlist": [],
            "extension_allowlist": list(_EXTENSIONS),
            "resources": {"seconds": START_SECONDS},
        },
        "MappingKernelManager": {
            "root_dir": str(Path.cwd()),  # relative paths in the panel start where the command was called
            "transport_encryption": "auto",
            "cull_interval": 60,
            "cull_idle_timeout": _IDLE_SECONDS if options.is_public else 0,
            "cull_connected": options.is_public,
        },
    }


def content_security_policy() -> str:
    """Return the header that lets a browser load from the page's own host only."""
    return "; ".join(
        [
            "default-src 'self' data: blob:",
            "script-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:",  # widgets are modules in blob URLs
            "style-src 'self' 'unsafe-inline' data: blob:",
            "connect-src 'self' data: blob:",
            "frame-ancestors 'self'",
        ]
    )


def parse_address(ip: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return an IP address.

    Raises:
        ArgumentError: for a host name, and for anything else that is not an address.
    """
    try:
        return ipaddress.ip_address({"localhost": LOOPBACK}.get(ip, ip))
    except ValueError:
        raise ArgumentError(f"ip must be an address such as {LOOPBACK} or 0.0.0.0, got {shorten(ip)}") from None

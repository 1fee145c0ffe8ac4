"""The proxy that the environment names for a URL, read as urllib.request does."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

PORTS = {"http": 80, "https": 443}


class Proxy(NamedTuple):
    """The address of a proxy (*url* holds no credentials), and the headers to send to it."""

    url: str
    host: str
    port: int
    headers: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Proxy({self.url})"

    @property
    def secure(self) -> bool:
        """Whether the connection to the proxy itself uses TLS."""
        return self.url.startswith("https:")


def proxy_for(url: str) -> Proxy | None:
    """Return the proxy for *url* from http_proxy, https_proxy and no_proxy, or None."""
    from urllib.request import getproxies, proxy_bypass  # slow to import

    parts = urlsplit(url)
    scheme = parts.scheme.replace("ws", "http")
    value = getproxies().get(scheme, "").strip()
    if not value or proxy_bypass(parts.netloc):
        return None
    try:
        return _parse(value if "://" in value else f"http://{value}")
    except ValueError:
        raise ValueError(
            f"the variable {scheme}_proxy is not a proxy's URL;"
            " expected http://[user:password@]host:port"
        ) from None  # the cause might show the password


def _parse(url: str) -> Proxy:
    # As in urllib.request, a password may contain "/" and "@" unescaped.
    scheme, _, rest = url.partition("://")
    user, _, rest = rest.rpartition("@")
    parts = urlsplit(f"{scheme}://{rest}")
    if parts.scheme not in PORTS or not parts.hostname:
        raise ValueError("not a proxy's URL")
    headers: Mapping[str, str] = {}
    if user:
        name, _, password = user.partition(":")
        credentials = f"{unquote(name)}:{unquote(password)}"
        encoded = base64.b64encode(credentials.encode()).decode("ascii")
        headers = {"Proxy-Authorization": f"Basic {encoded}"}
    return Proxy(
        f"{parts.scheme}://{parts.netloc}",
        parts.hostname,
        parts.port or PORTS[parts.scheme],
        headers,
    )


def through(proxy: Proxy | None) -> str:
    """Return " through the proxy ..." for the end of a message, or "" without a proxy."""
    return f" through the proxy {proxy.url}" if proxy else ""

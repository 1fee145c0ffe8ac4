"""The proxy on the way to a host: that of the environment, as urllib.request reads it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

PORTS = {"http": 80, "https": 443}


class Proxy(NamedTuple):
    """Where a proxy is (*url* holds no credentials), and the headers that it is sent."""

    url: str
    host: str
    port: int
    headers: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Proxy({self.url})"

    @property
    def secure(self) -> bool:
        """Say whether the proxy itself is spoken to over TLS."""
        return self.url.startswith("https:")


def proxy_for(url: str) -> Proxy | None:
    """Return the proxy for *url* by http_proxy, https_proxy and no_proxy, or None."""
    from urllib.request import getproxies, proxy_bypass  # a tenth of the time of import pymdc

    parts = urlsplit(url)
    scheme = parts.scheme.replace("ws", "http")
    found = getproxies().get(scheme, "").strip()
    if not found or proxy_bypass(parts.netloc):
        return None
    try:
        return _parsed(found if "://" in found else f"http://{found}")
    except ValueError:
        # The cause might hold the password.
        raise ValueError(
            f"the variable {scheme}_proxy is no proxy's; expected http://[user:password@]host:port"
        ) from None


def _parsed(url: str) -> Proxy:
    # As in urllib.request, a password may hold what ends the host of other URLs.
    scheme, _, rest = url.partition("://")
    user, _, rest = rest.rpartition("@")
    parts = urlsplit(f"{scheme}://{rest}")
    if parts.scheme not in PORTS or not parts.hostname:
        raise ValueError("no proxy's")
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
    """Say which way something goes, for the end of a sentence."""
    return f" through the proxy {proxy.url}" if proxy else ""

"""The proxy on the way to a host: that of the environment, as urllib.request reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from urllib3.util import make_headers


@dataclass(frozen=True)
class Proxy:
    """A proxy's address, without its credentials, and the headers that hold them."""

    url: str
    headers: Mapping[str, str] = field(repr=False)


def proxy_for(url: str) -> Proxy | None:
    """Return the proxy for *url* by http_proxy, https_proxy and no_proxy, or None."""
    parts = urlsplit(url)
    found = getproxies().get(parts.scheme.replace("ws", "http"))
    if not found or proxy_bypass(parts.netloc):
        return None
    proxy = urlsplit(found if "://" in found else f"http://{found}")
    if proxy.scheme not in ("http", "https") or not proxy.hostname:
        raise ValueError(f"the proxy for {parts.scheme} is none: expected http://host:port")
    address = proxy.netloc.rpartition("@")[2]
    if not proxy.username:
        return Proxy(f"{proxy.scheme}://{address}", {})
    credentials = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    headers = make_headers(proxy_basic_auth=credentials)
    return Proxy(f"{proxy.scheme}://{address}", dict(headers))

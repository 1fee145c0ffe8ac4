"""Who sent a request, and to which address, if proxies stand in between."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple

from starlette.types import Scope

from pymdc.bridge.serving.request import Headers
from pymdc.bridge.settings import MAX_NAME

_IPV6 = r"\[[0-9A-Fa-f:.]+(%[A-Za-z0-9._~%-]+)?\]"  # with the zone, if there is one
_HOST = re.compile(rf"([A-Za-z0-9._-]+|{_IPV6})(:[0-9]{{1,5}})?")
_WITH_PORT = re.compile(r"\[(.+)\](?::[0-9]+)?|([0-9.]+):[0-9]+")


class Origin(NamedTuple):
    """The *address* of the client, and the *scheme* and *host* that it asked for."""

    address: str
    scheme: str  # http or https
    host: str


class Proxies:
    """Reads the headers X-Forwarded-* of the *trusted* proxies, and of nobody else."""

    def __init__(self, trusted: Iterable[str]) -> None:
        self._trusted = [ipaddress.ip_network(text, strict=False) for text in trusted]

    def origin(self, scope: Scope, headers: Headers) -> Origin:
        """Return where a request is from; its host may be empty."""
        peer = str((scope.get("client") or ("-",))[0])
        scheme = "https" if scope["scheme"] in ("https", "wss") else "http"
        host = headers.get("host", "")
        if not self._trusts(peer):
            return Origin(peer, scheme, host)
        address = self._client(peer, _forwarded_for(scope))
        forwarded = _first(headers.get("x-forwarded-proto", "")).lower()
        named = _first(headers.get("x-forwarded-host", ""))
        return Origin(
            address,
            forwarded if forwarded in ("http", "https") else scheme,
            named if is_host(named) else host,
        )

    def _client(self, peer: str, forwarded_for: str) -> str:
        """Return the last address that is no trusted proxy's; anybody can write those before it."""
        for text in reversed(forwarded_for.split(",")):
            address = _address(text.strip())
            if address is None:
                break
            peer = str(address)
            if not self._trusts(peer):
                break
        return peer

    def _trusts(self, peer: str) -> bool:
        if not self._trusted:
            return False
        address = _address(peer)
        return address is not None and any(address in network for network in self._trusted)


def is_host(text: str) -> bool:
    """Return whether *text* may stand in the header Host, and in the address of a channel."""
    return len(text) <= MAX_NAME and _HOST.fullmatch(text) is not None


def _forwarded_for(scope: Scope) -> str:
    wanted = b"x-forwarded-for"
    return ",".join(value.decode("latin-1") for name, value in scope["headers"] if name == wanted)


def _first(text: str) -> str:
    return text.partition(",")[0].strip()


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address in *text*, which may have a port; None if there is none."""
    if found := _WITH_PORT.fullmatch(text):
        text = found[1] or found[2]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address

"""``doctor``: looks for what keeps the other verbs from working."""

from __future__ import annotations

import os
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from typing import NamedTuple
from urllib.parse import urlsplit

import click
from click.exceptions import Exit

from pymdc._cli import profile
from pymdc._cli.failures import Code, failure_of
from pymdc._cli.options import verb
from pymdc._cli.session import Session, connect
from pymdc._text import printable
from pymdc.exceptions import CertificateError, HTTPError, unwrap
from pymdc.rest import REST

_SECONDS = 10
_CLOCK_WARNS, _CLOCK_FAILS = 30, 600  # seconds
_AWAY = "is it running? pymdc serve --data FOLDER starts one"
_OK, _WARNING, _FAILED = "ok", "warning", "failed"


class Finding(NamedTuple):
    """What one check found: a *state*, its *text*, and what to do."""

    state: str
    text: str
    remedy: str = ""
    code: Code = Code.FAILED


@verb
@click.argument("url", required=False)
def doctor(session: Session, url: str | None) -> None:
    """Look for what keeps the other verbs from working.

    Checks the profile, the bridge, the clock, the key, proxies and signing. With URL, checks what
    login needs to reach the bridge there.
    """
    failed: dict[str, Code] = {}
    if url:
        session.endpoint = connect(url).endpoint
    for name, check in CHECKS.items():
        if (url and name in OF_PROFILE) or failed.keys() & NEEDED.get(name, set()):
            continue
        for finding in _findings(check, session):
            record = {"check": name, "state": finding.state, "text": finding.text}
            session.out.record(record | {"remedy": finding.remedy}, _line(name, finding))
            if finding.state == _FAILED:
                failed.setdefault(name, finding.code)
    if failed:
        raise Exit(next(iter(failed.values())))


def _findings(check: Callable[[Session], Iterator[Finding]], session: Session) -> Iterator[Finding]:
    try:
        yield from check(session)
    except Exception as error:  # noqa: BLE001  # that is what is looked for
        failure = failure_of(error)
        yield Finding(_FAILED, failure.message, _remedy(session, error), failure.code)


def _remedy(session: Session, error: Exception) -> str:
    failure = failure_of(error)
    if failure.code != Code.NETWORK or isinstance(error, CertificateError):
        return failure.remedy
    if isinstance(error, HTTPError):
        return "something else answers there: is the address right?"
    host = urlsplit(session.endpoint).hostname
    return f"is it the proxy? no_proxy={host} goes past it" if _proxy_of(session) else _AWAY


def _line(name: str, finding: Finding) -> str:
    line = f"{finding.state:8} {name:9} {printable(finding.text)}"
    return line + (f"\n{'':19}{printable(finding.remedy)}" if finding.remedy else "")


def _sign_in(session: Session) -> Iterator[Finding]:
    identity = session.identity
    yield Finding(_OK, f"{identity.source}, for {identity.endpoint}")
    named = os.environ.get("PYMDC_ENDPOINT")
    if named and named.rstrip("/") != identity.endpoint.rstrip("/"):
        text = f"PYMDC_ENDPOINT is {named}, which the profile overrides"
        yield Finding(_WARNING, text, "unset PYMDC_ENDPOINT, or pymdc login there")
    if os.environ.get("PYMDC_PRIVATE_KEY") and session.profile_name:
        yield Finding(_WARNING, "PYMDC_PRIVATE_KEY is set, and --profile overrides it")


def _bridge(session: Session) -> Iterator[Finding]:
    answer = unwrap(REST("GET", "/"))
    described = answer.get("info") if isinstance(answer, dict) else None
    if not isinstance(described, dict):
        yield Finding(_FAILED, f"{session.endpoint} answers, but is no bridge", code=Code.NETWORK)
        return
    own = described.get("x-version")
    kind = f"pymdc.bridge {own}" if own else f"another one, version {described.get('version')}"
    yield Finding(_OK, f"{session.endpoint} answers: {kind}")


def _tls(session: Session) -> Iterator[Finding]:
    parts = urlsplit(session.endpoint)
    if parts.scheme == "https":
        yield Finding(_OK, f"https, with {ssl.OPENSSL_VERSION}")
    elif parts.hostname in ("127.0.0.1", "localhost", "::1"):
        yield Finding(_OK, "http, on this machine")
    else:
        remedy = "whoever sees the network sees the files; docs/running-a-bridge.rst has HTTPS"
        yield Finding(_WARNING, "http, without encryption", remedy)


def _clock(session: Session) -> Iterator[Finding]:
    # Not urlopen, which would keep the certificates that it trusts when it is called first.
    opener = urllib.request.build_opener()
    with opener.open(f"{session.endpoint}/", timeout=_SECONDS) as answer:
        date = answer.headers["Date"]
    if not date:
        yield Finding(_WARNING, "the bridge does not tell its time")
        return
    difference = time.time() - parsedate_to_datetime(date).timestamp()
    state = _FAILED if abs(difference) > _CLOCK_FAILS else _WARNING
    if abs(difference) < _CLOCK_WARNS:
        yield Finding(_OK, "as the bridge's")
    else:
        where = "ahead of" if difference > 0 else "behind"
        text = f"{abs(difference):.0f} seconds {where} the bridge's"
        yield Finding(state, text, "set the clock, or that of the bridge", Code.SIGN_IN)


def _key(session: Session) -> Iterator[Finding]:
    listed = unwrap(session.keys.list())
    email = listed[0]["user"] if listed else session.identity.email
    yield Finding(_OK, f"registered, and {email} is activated")


def _proxy(session: Session) -> Iterator[Finding]:
    parts, proxy = urlsplit(session.endpoint), _proxy_of(session)
    if not proxy:
        yield Finding(_OK, "none")
    else:
        shown = urlsplit(proxy if "//" in proxy else f"//{proxy}").netloc.rpartition("@")[2]
        remedy = f"no_proxy={parts.hostname} goes past it"
        yield Finding(_WARNING, f"{parts.scheme}_proxy: all goes through {shown}", remedy)


def _proxy_of(session: Session) -> str:
    """Return the proxy on the way to the bridge, or ''."""
    parts = urlsplit(session.endpoint)
    proxy = urllib.request.getproxies().get(parts.scheme, "")
    return "" if urllib.request.proxy_bypass(parts.netloc) else proxy


def _signing(_session: Session) -> Iterator[Finding]:
    if find_spec("btclib_secp256k1"):
        yield Finding(_OK, "libsecp256k1")
    else:
        remedy = "in a clone of the project: pip install '.[fast]'"
        yield Finding(_WARNING, "python-ecdsa, which is slow and not in constant time", remedy)


def _folder(session: Session) -> Iterator[Finding]:
    path = profile.path_of(session.chosen_profile)
    if not path.exists():
        yield Finding(_OK, f"{path.parent} holds no profile {session.chosen_profile}")
    elif not os.access(path.parent, os.W_OK):
        yield Finding(_WARNING, f"{path.parent} cannot be written to: login would fail")
    else:
        yield Finding(_OK, str(path))


CHECKS: dict[str, Callable[[Session], Iterator[Finding]]] = {
    "profile": _folder,
    "sign-in": _sign_in,
    "proxy": _proxy,
    "bridge": _bridge,
    "tls": _tls,
    "clock": _clock,
    "key": _key,
    "signing": _signing,
}
OF_PROFILE = {"profile", "sign-in", "key"}
# A check is left out if one that it needs has failed.
NEEDED = {
    "proxy": {"sign-in"},
    "bridge": {"sign-in"},
    "tls": {"sign-in"},
    "clock": {"sign-in", "bridge"},
    "key": {"sign-in", "bridge"},
}

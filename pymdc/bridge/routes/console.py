"""The console: the page for people at the path /, and the files that it needs."""

from __future__ import annotations

from hashlib import sha256
from importlib import resources

from pymdc.bridge.auth import Identity
from pymdc.bridge.context import Context
from pymdc.bridge.errors import Refused
from pymdc.bridge.serving.request import Request, Response

VARY = (("Vary", "Accept"),)  # the path / is the page, or the description of the API
_PAGE = "index.html"
_KINDS = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:;"
    " connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    ("Content-Security-Policy", _POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cache-Control", "no-cache"),  # kept, and asked for again with its ETag: so it is never old
)
_FOLDER = resources.files("pymdc.bridge").joinpath("console")
_FILES = {file.name: file.read_bytes() for file in _FOLDER.iterdir() if "." in file.name}
_TAGS = {name: f'"{sha256(content).hexdigest()[:32]}"' for name, content in _FILES.items()}


def show_page(request: Request) -> Response:
    """Return the page."""
    return _file(request, _PAGE, VARY)


async def show_file(_context: Context, request: Request, _identity: Identity) -> Response:
    """Return a script, the style sheet or the icon of the page."""
    name = request.path_parameters["name"]
    if name not in _FILES or name == _PAGE:
        raise Refused(404, f"Cannot {request.method} {request.path}")
    return _file(request, name)


def _file(request: Request, name: str, more: tuple[tuple[str, str], ...] = ()) -> Response:
    kind, tag = _KINDS[name.rpartition(".")[2]], _TAGS[name]
    headers = (*_HEADERS, *more, ("Content-Type", kind), ("ETag", tag))
    known = request.headers.get("if-none-match", "").split(",")
    # A proxy that compresses makes the tag a weak one, W/"...".
    if tag in {text.strip().removeprefix("W/") for text in known}:
        return Response(status=304, headers=headers)
    return Response(content=_FILES[name], headers=headers)

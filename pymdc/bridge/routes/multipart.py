"""Finds the file in a multipart/form-data body."""

from __future__ import annotations

import re
from encodings.aliases import aliases
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from pymdc.bridge.errors import Refused
from pymdc.bridge.serving.request import has_nul
from pymdc.bridge.settings import MAX_KIND, MAX_NAME, MAX_PARTS

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_BYTES = "application/octet-stream"
_PARAMETER = re.compile(r';\s*([^\s;=]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)')
_CHARSETS = {*aliases, *aliases.values()}  # the codec registry never forgets an unknown name


def base_name(name: str) -> str:
    """Return the last part of a file name, which may be empty; refuse a long one with 400."""
    base = name.rpartition("/" if "/" in name else "\\")[2]
    if len(base) > MAX_NAME:
        raise Refused(400, f"The name of the file has more than {MAX_NAME} characters")
    if "\0" in base:
        raise has_nul()
    return base


class FilePart:
    """The file in a body: the first part with a file name or the type octet-stream.

    *content_type* is the header of the request.
    *filename* is a base name, which may be empty; it is None until the part has begun.
    """

    filename: str | None = None
    mimetype = "text/plain"

    def __init__(self, content_type: str) -> None:
        self._ended = self._in_file = False
        self._parts = -1  # the first one is not the client's
        self._name = self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._pieces: list[memoryview] = []
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise Refused(400, "Content-Type is not multipart/form-data with a boundary")
        callbacks: MultipartCallbacks = {
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }
        try:
            self._parser = MultipartParser(options[b"boundary"], callbacks)
            # The parser accepts no bytes before a boundary. Now it takes them for a part.
            self._parser.write(b"--" + options[b"boundary"] + b"\r\n\r\n\r\n")
        except FormParserError as error:
            raise Refused(400, f"Malformed multipart data: {error}") from None

    def feed(self, chunk: bytes) -> list[memoryview]:
        """Parse the next piece of the body, and return the bytes of the file in it."""
        self._pieces = []
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise Refused(400, f"Malformed multipart data: {error}") from None
        return self._pieces

    def finish(self) -> None:
        """Refuse a body that ended too early or has no file."""
        if not self._ended:
            raise Refused(400, "Unexpected end of multipart data")
        if self.filename is None:
            raise Refused(400, "No file was found in the multipart data")

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _on_headers_finished(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise Refused(400, f"The form has more than {MAX_PARTS} parts")
        headers, self._headers = self._headers, {}
        kind = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
        name = _filename(headers.get(b"content-disposition", b"").decode("latin-1"))
        if name is None and kind == _BYTES:
            name = ""
        if self.filename is not None or name is None:
            return
        self.filename = base_name(name)
        if "\0" in kind:
            raise has_nul()
        if len(kind) > MAX_KIND:
            raise Refused(400, f"The type of the file has more than {MAX_KIND} characters")
        self._in_file = True
        self.mimetype = kind or self.mimetype

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._pieces.append(memoryview(data)[start:end])

    def _on_part_end(self) -> None:
        self._in_file = False

    def _on_end(self) -> None:
        self._ended = True


def _filename(disposition: str) -> str | None:
    """Return the file name in a Content-Disposition header, or None.

    ``filename*`` takes precedence over ``filename``, as RFC 6266 4.3 says.
    Names in several pieces (RFC 2231) are ignored, as RFC 8187 says.
    """
    parameters = {
        found[1].lower(): _unquoted(found[2]) for found in _PARAMETER.finditer(disposition)
    }
    extended, plain = parameters.get("filename*"), parameters.get("filename")
    if extended is None:
        return None if plain is None else _decoded(plain.encode("latin-1"), "utf-8")
    charset, *_, text = extended.split("'", 2) if extended.count("'") > 1 else ("utf-8", extended)
    return _decoded(unquote_to_bytes(text.encode("latin-1")), charset)


def _unquoted(value: str) -> str:
    value = value.strip()
    quoted = len(value) > 1 and value[0] == value[-1] == '"'
    return re.sub(r'\\(["\\])', r"\1", value[1:-1]) if quoted else value


def _decoded(data: bytes, charset: str) -> str:
    """Decode *data* in *charset*, or in UTF-8 if that fails."""
    name = charset.lower().replace("-", "_")
    try:
        text = data.decode(name if name in _CHARSETS else "utf-8", "replace")
        text.encode()  # some charsets decode to half a surrogate pair, which raises
    except (LookupError, ValueError):
        return data.decode("utf-8", "replace")
    return text

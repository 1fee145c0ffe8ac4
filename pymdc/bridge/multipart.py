"""A multipart/form-data body, of which one part is a file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from pymdc.bridge.errors import Refused

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks


class FilePart:
    """The first part with a file name, taken out of a body as that comes in.

    *content_type* is the header of the request.
    *filename* is a base name, perhaps empty, and None until the part has begun.
    """

    filename: str | None = None
    mimetype = "text/plain"

    def __init__(self, content_type: str) -> None:
        self._ended = self._within = False
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
        except FormParserError as error:
            raise Refused(400, f"Malformed multipart data: {error}") from None

    def feed(self, chunk: bytes) -> list[memoryview]:
        """Take the next piece of the body, and return what of it belongs to the file."""
        self._pieces = []
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise Refused(400, f"Malformed multipart data: {error}") from None
        return self._pieces

    def finish(self) -> None:
        """Refuse a body that has ended too early, or without a file."""
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
        headers, self._headers = self._headers, {}
        disposition = headers.get(b"content-disposition", b"").decode("latin-1")
        filename = parse_options_header(disposition)[1].get(b"filename")
        if self.filename is not None or filename is None:
            return
        self._within = True
        self.filename = re.split(r"[/\\]", filename.decode("utf-8", "replace"))[-1]
        mimetype = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0]
        self.mimetype = mimetype.strip().lower() or self.mimetype

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._within:
            self._pieces.append(memoryview(data)[start:end])

    def _on_part_end(self) -> None:
        self._within = False

    def _on_end(self) -> None:
        self._ended = True

"""Which part of a multipart body is the file, and its name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from plain_client import BOUNDARY, Reply, User, ask, form, upload_headers

from pymdc._crypto.file_hash import file_hash
from pymdc.bridge import Bridge

DATA = b"the file"
FIELD = 'form-data; name="f"'


@pytest.fixture(scope="module")
def alice() -> Iterator[User]:
    """Give a user of a bridge that all tests share."""
    with Bridge() as bridge:
        yield User(bridge, "alice")


def part(disposition: str, kind: str = "", data: bytes = DATA) -> bytes:
    lines = [f"--{BOUNDARY}", f"Content-Disposition: {disposition}"]
    lines += [f"Content-Type: {kind}"] if kind else []
    return "\r\n".join([*lines, "", ""]).encode() + data + b"\r\n"


def send(alice: User, bucket: str, body: bytes, *, cut: int | None = None) -> Reply:
    """Upload *body*, at once or in chunks of *cut* bytes."""
    headers = upload_headers(alice.token(bucket, "PUSH"), len(DATA))
    size = cut or len(body)
    chunks = (body[start : start + size] for start in range(0, len(body), size))
    path = f"/buckets/{bucket}/files"
    return ask(alice.bridge, "PUT", path, chunks if cut else body, headers)


def sent(alice: User, bucket: str, *parts: bytes) -> Reply:
    return send(alice, bucket, b"".join(parts) + f"--{BOUNDARY}--\r\n".encode())


@pytest.mark.parametrize(
    "kind", ["application/octet-stream", "Application/Octet-Stream; charset=binary"]
)
def test_octet_stream_part_without_a_name_is_the_file(alice: User, bucket: str, kind: str) -> None:
    fields = part('form-data; name="before"', data=b"no file")
    entry = sent(alice, bucket, fields, part('form-data; name="data"', kind)).json
    assert (entry["filename"], entry["mimetype"]) == (file_hash(DATA), "application/octet-stream")
    assert alice.download(bucket, entry["hash"]) == DATA


@pytest.mark.parametrize("kind", ["text/plain", "image/png", "application/octet-streams", ""])
def test_part_of_another_type_without_a_name_is_a_field(
    alice: User, bucket: str, kind: str
) -> None:
    reply = sent(alice, bucket, part(FIELD, kind))
    assert reply.error == (400, "No file was found in the multipart data")
    named = part(f'{FIELD}; filename="a.css"', "text/css")
    assert sent(alice, bucket, part(FIELD, kind, b"no file"), named).json["filename"] == "a.css"


def test_first_of_two_files_is_taken(alice: User, bucket: str) -> None:
    octets = part(FIELD, "application/octet-stream")
    other = part(f'{FIELD}; filename="a"', "text/css", b"another")
    assert sent(alice, bucket, octets, other).json["hash"] == file_hash(DATA)


NAMES = {
    "filename*=utf-8''na%C3%AFve.txt": "naïve.txt",
    "filename*=UTF-8'fr'na%c3%afve.txt": "naïve.txt",
    "filename*=\"utf-8''na%C3%AFve.txt\"": "naïve.txt",
    "FileName* = iso-8859-1''na%EFve.txt": "naïve.txt",
    "filename*=Shift_JIS''%83e%83X%83g": "テスト",
    "filename*=utf-8''it's": "it's",
    "filename*=utf-8''..%2F..%2Fetc%5Cpasswd": "etc\\passwd",
    "filename=\"naive.txt\"; filename*=utf-8''na%C3%AFve.txt": "naïve.txt",
    "filename*=utf-8''na%C3%AFve.txt; filename=\"naive.txt\"": "naïve.txt",
    'filename="a;b=\\"c\\".txt"': 'a;b="c".txt',
    'filename="100%41.txt"': "100%41.txt",
    "filename=bare.txt": "bare.txt",
    'filename="C:\\dir\\a.txt"': "a.txt",
    'filename="back\\slash.txt"': "slash.txt",
    'filename="a\\b/c\\d.txt"': "c\\d.txt",
    'filename="C:\\dir/a\\b.txt"': "a\\b.txt",
    'filename=""': file_hash(DATA),
    'filename="dir/"': file_hash(DATA),
}


@pytest.mark.parametrize("parameter", NAMES)
def test_file_name_is_parsed(alice: User, bucket: str, parameter: str) -> None:
    reply = sent(alice, bucket, part(f"{FIELD}; {parameter}", "text/css"))
    assert reply.json["filename"] == NAMES[parameter]
    [listed] = alice.ask("GET", f"/buckets/{bucket}/files").json
    assert listed == reply.json


BROKEN = [
    "utf-8''%C3%ZZ%",
    "utf-8''%FF%FE",
    "utf-8'%C3%AF",
    "%C3%AF",
    "nothing''%C3%AF",
    "idna''%FF",
    "hex''zz",
    "unicode_escape''%5Cud800",
    "utf-7''%2B2AA-",
    "utf-16''%00",
    "''%C3%AF",
    "\xef''\xef",
    "'",
    "",
]


@pytest.mark.parametrize("broken", BROKEN)
def test_undecodable_name_is_still_a_file(alice: User, bucket: str, broken: str) -> None:
    reply = sent(alice, bucket, part(f"{FIELD}; filename*={broken}", "text/css"))
    assert reply.status == 200
    assert alice.ask("GET", f"/buckets/{bucket}/files").json == [reply.json]


def test_name_in_several_pieces_is_ignored(alice: User, bucket: str) -> None:
    pieces = "filename*0*=utf-8''na%C3%AF; filename*1=ve.txt"
    reply = sent(alice, bucket, part(f"{FIELD}; {pieces}", "text/css"))
    assert reply.error == (400, "No file was found in the multipart data")


PREAMBLES = [
    b"\r\n",
    b"A message in several parts.\r\n",
    b"Content-Type: application/octet-stream\r\n\r\nno file\r\n",
    f'\r\n--{BOUNDARY}ed\r\nContent-Disposition: form-data; filename="no"\r\n\r\nx\r\n'.encode(),
    f"--{BOUNDARY[:-1]}\r\n-\r\r\n--\r\n".encode(),
    100 * b"\r\n--",
]


@pytest.mark.parametrize("cut", [None, 1, 10])
@pytest.mark.parametrize("preamble", range(len(PREAMBLES)))
def test_preamble_and_epilogue_are_ignored(
    alice: User, bucket: str, preamble: int, cut: int | None
) -> None:
    before = PREAMBLES[preamble]
    before += b"" if before.endswith(b"\r\n") else b"\r\n"
    after = b"The end.\r\n" + form(b"another file")
    entry = send(alice, bucket, before + form(DATA) + after, cut=cut).json
    assert (entry["filename"], entry["hash"]) == ("a.bin", file_hash(DATA))
    assert alice.download(bucket, entry["hash"]) == DATA


@pytest.mark.parametrize("body", [b"no boundary", b"-", b"\r\n", f"--{BOUNDARY}".encode()])
def test_body_without_a_part_is_refused(alice: User, bucket: str, body: bytes) -> None:
    assert send(alice, bucket, body).error == (400, "Unexpected end of multipart data")


def test_boundary_in_the_middle_of_a_line_is_ignored(alice: User, bucket: str) -> None:
    reply = send(alice, bucket, b"see " + form(DATA))
    assert reply.error == (400, "No file was found in the multipart data")


@pytest.mark.parametrize(("parts", "status"), [(100, 200), (101, 400)])
@pytest.mark.parametrize("first", [True, False])
def test_form_has_at_most_100_parts(
    alice: User, bucket: str, parts: int, status: int, first: bool
) -> None:
    file, fields = part(f'{FIELD}; filename="a"'), (parts - 1) * part(FIELD, data=b"")
    reply = sent(alice, bucket, *((file, fields) if first else (fields, file)))
    assert reply.status == status
    assert status == 200 or reply.json == {"error": "The form has more than 100 parts"}

"""Requests and frames as no good client sends them, drawn at random."""

from __future__ import annotations

import base64
import json
import random
import re
import struct
from collections.abc import Callable, Sequence

from plain_client import BOUNDARY, PASSWORD, User, form, upload_headers
from websockets.frames import Frame, Opcode

METHODS = [
    *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PRI"),
    *("get", "PROPFIND", "M-SEARCH", "SOURCE", "X", "G\tET", "", "GET\0"),
]
IDS = [
    "0" * 24,
    "f" * 24,
    "0" * 23,
    "%30" * 24,
    "x",
    "%00",
    "%2f",
    "..",
    "%ff%fe",
    "٣" * 24,
    "{id}",
]
PATHS = [
    *("/", "//", "*", "", "/users", "/USERS/", "/keys", "/buckets", "/buckets/", "/health"),
    *("/buckets/ID", "/buckets/ID/files", "/buckets/ID/tokens", "/buckets/ID/files/ID"),
    *("/buckets/ID/files/ID/content", "/usage", "/buckets/ID/files/ID/content/x"),
    *("/activations/ID", "/keys/ID", "/keys/%00", "/activations/", "/ready", "/metrics"),
    *("http://other.example/keys", "http://", "http://x:y@[::1]:99999/buckets", "x:/y", "/a#b"),
    *("/../../etc/passwd", "/%2e%2e/%2e%2e", "/\x01", "/\xff\xfe", "/a b", "/%0d%0aX:%20y"),
    *("/" + 5000 * "a", "/" + 3000 * "%41", "/" + 1000 * "a/", "/\\..\\", "/?" + 3000 * "&a"),
]
RANGES = [
    *("bytes=0-", "bytes=-0", "bytes=0-,-0", "bytes=5-4", "bytes=-", "bytes=--1", "bytes=0-0,2-2"),
    *("bytes=" + 5000 * "9" + "-", "bytes=-" + 5000 * "9", "bytes=" + 5000 * "0-,", "lines=1-2"),
    *("bytes=\xb2-", "bytes= 0 - 1", "BYTES=1-2", "bytes=1-99999999999999999999", ""),
]
CONDITIONS = [
    *(
        "If-None-Match: *",
        'If-None-Match: "x"',
        'If-None-Match: W/"',
        "If-None-Match: " + 5000 * '",',
    ),
    *('If-Range: "x"', "If-Range: Wed, 21 Oct 2015 07:28:00 GMT", 'If-Range: W/"x"', "If-Range:"),
]
GOOD_PATHS = [path for path in PATHS if re.fullmatch(r"/[!-~]*", path)]
QUERIES = [
    *("", "?", "??", "?__nonce=1", "?__nonce=1e999", "?__nonce=-0", "?__nonce=NaN", "?limit=-1"),
    *("?limit=%D9%A3", "?limit=1_0", "?limit=" + 400 * "9", "?after=x", "?after=%00", "?name=%25"),
    *(
        "?redirect=http://x/%0d%0aSet-Cookie:a",
        "?redirect=//x",
        "?redirect=javascript:1",
        "?%ff=%fe",
    ),
    *("?__nonce=1&__nonce=2", "?" + 2000 * "a=b&", "?__nonce=%31", "?__nonce[]=1", "?a;b=c"),
]
NUMBERS = [
    *(
        "0",
        "-0",
        "-1",
        "1.5",
        "1e400",
        "-1e400",
        "1e-400",
        "0x1e",
        "0xg",
        "0b2",
        "",
        " ",
        "٣",
        "1_0",
    ),
    *(
        "9" * 19,
        "9" * 300,
        "9" * 5000,
        "1" * 400 + "x",
        "NaN",
        "Infinity",
        "9007199254740993",
        "+5",
    ),
    *(str(2**63), str(2**63 - 1), str(2**31), "1e18", "1e19", "5e-324", "1.7976931348623157e308"),
]
TEXTS = [
    *(
        "",
        "a",
        "a@example.com",
        "A@EXAMPLE.COM",
        "a@b\r\nTo: c@d",
        "\0",
        "\u2028",
        "é",
        "😀",
        "'--",
    ),
    *(
        "%",
        "_",
        "../x",
        "a\\b/c",
        "\ud800",
        "${jndi:ldap://x}",
        "<script>",
        "K@x",
        2000 * "n",
        PASSWORD,
    ),
]
KEYS = [
    *("email", "password", "pubkey", "redirect", "key", "user", "name", "storage", "transfer"),
    *("pubkeys", "operation", "__nonce", "__proto__", "constructor", "invitation", "id", "", "\0"),
]
FIELDS = [
    *("x-pubkey", "x-signature", "x-token", "x-filesize", "Content-Type", "Authorization", "Host"),
    *("Expect", "Connection", "Upgrade", "Origin", "Access-Control-Request-Headers", "Cookie"),
    *("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "Range", "TE"),
    *("If-None-Match", "Accept-Encoding", "Content-Encoding", "X" * 300, "a\tb", "", " x", "é"),
    *("Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Extensions", "HTTP2-Settings"),
]
VALUES = [
    *(
        "",
        " ",
        "a",
        "100-continue",
        "close",
        "keep-alive",
        "upgrade",
        "websocket",
        "h2c",
        "chunked",
    ),
    *(
        "gzip",
        "multipart/form-data",
        f"multipart/form-data; boundary={BOUNDARY}",
        "13",
        "8",
        "PULL",
    ),
    *("multipart/form-data; boundary=" + 300 * "b", 'multipart/form-data; boundary="', "Basic"),
    *("Basic !", "Basic Og==", "Bearer x", "[::1%25eth0]:80", "a\tb", "a\x01b", "\xff", "bytes=0-"),
    *(
        "x:y@z",
        "x/../y",
        "127.0.0.1, 127.0.0.1",
        "for=_x;proto=https",
        9000 * "v",
        "a\r\n b",
        "x\ny",
    ),
]
FRAMINGS = [
    *("Content-Length: -1", "Content-Length: +1", "Content-Length: 1e3", "Content-Length: 0x10"),
    *("Content-Length: 5\r\nContent-Length: 6", "Content-Length: 5, 5", "Content-Length: ٣"),
    *("Content-Length: 5\r\nTransfer-Encoding: chunked", "Transfer-Encoding: identity"),
    *("Transfer-Encoding: chunked, identity", "Transfer-Encoding: xchunked", "Transfer-Encoding:"),
    *("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "Transfer-Encoding : chunked"),
    *("Content-Length: 99999999999999999999", "Content-Length: 70000", "Transfer-Encoding: gzip"),
]
CHUNKS = [
    *(b"0\r\n\r\n", b"5\r\nabcde\r\n0\r\n\r\n", b"5;x=y\r\nabcde\r\n0\r\nX: y\r\n\r\n", b"-1\r\n"),
    *(
        b"5\r\nabc\r\n0\r\n\r\n",
        b"g\r\n",
        b"5\nabcde\n0\n\n",
        b"ffffffffffffffffff\r\n",
        b"0x5\r\n",
    ),
    *(
        b"5 \r\nabcde\r\n0\r\n\r\n",
        b"\r\n",
        3000 * b"1\r\nx\r\n" + b"0\r\n\r\n",
        b"00000005\r\nabcde\r\n0",
    ),
]
VERSIONS = ["HTTP/1.1"] * 12 + [
    "HTTP/1.0",
    "HTTP/0.9",
    "HTTP/2.0",
    "HTTP/1.1 ",
    "http/1.1",
    "HTTP/9.9",
    "",
]

Pick = Callable[[], bytes]


class Nasty:
    """Draws requests and frames; *user* owns *bucket*, in which the file *file_hash* is."""

    def __init__(self, choose: random.Random, user: User, bucket: str, file_hash: str) -> None:
        self._choose = choose
        self._user = user
        self._bucket = bucket
        self._hash = file_hash
        self._tame = False

    def requests(self) -> list[bytes]:
        """Return requests for one connection, of which the last may be damaged."""
        choose, good = self._choose, [self._signed, self._json, self._upload, self._pull]
        self._tame = True  # a head that is malformed would end the connection
        requests = [choose.choice(good)() for _ in range(choose.choice([0, 0, 0, 1, 4, 20]))]
        self._tame = False
        [last] = choose.choices([*good, self._odd, self._upgrade], [4, 4, 4, 1, 6, 1])
        requests.append(last())
        if choose.random() < 0.3:
            requests[-1] = self.damaged(requests[-1])
        return requests

    def frames(self) -> list[bytes]:
        """Return frames for one channel: mostly one message that means something, and others."""
        frames = [self.frame() for _ in range(self._choose.choice([1, 2, 5, 20]))]
        if self._choose.random() < 0.3:
            frames.insert(0, self._pull_message())
        if self._choose.random() < 0.2:
            frames[-1] = self.damaged(frames[-1])
        return frames

    def damaged(self, data: bytes) -> bytes:
        """Return *data* with some bytes changed, lost, doubled or added."""
        result = bytearray(data)
        for _ in range(self._choose.choice([1, 1, 2, 10])):
            start = self._choose.randrange(len(result) + 1)
            end = min(len(result), start + self._choose.choice([0, 1, 1, 4, 100]))
            new = self._choose.choice(
                [
                    b"",
                    bytes(result[start:end]) * 2,
                    self._choose.randbytes(3),
                    b"\r\n",
                    b"\0",
                    b"\n",
                ]
            )
            result[start:end] = new
        return bytes(result)

    def split(self, data: bytes) -> list[bytes]:
        """Return *data* in pieces: mostly one, sometimes many."""
        count = self._choose.choice([0, 0, 0, 0, 1, 1, 3, 20])
        places = sorted(self._choose.randrange(len(data) + 1) for _ in range(count))
        return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True) if a < b]

    def _one(self, values: Sequence[str]) -> str:
        return self._choose.choice(values)

    def _path(self) -> str:
        path = self._one(GOOD_PATHS if self._tame else PATHS)
        ids = [self._bucket, self._hash, self._user.key.public, *IDS]
        while "ID" in path:
            path = path.replace("ID", self._one(ids), 1)
        return path

    def _head(self, method: str, path: str, *fields: str) -> bytes:
        version = VERSIONS[0] if self._tame else self._one(VERSIONS)
        lines = [f"{method} {path} {version}".rstrip(), "Host: x", *fields]
        text = "\r\n".join([*lines, "", ""])
        return text.encode("utf-8" if self._choose.random() < 0.5 else "latin-1", "replace")

    def _fields(self) -> list[str]:
        count = 0 if self._tame else self._choose.choice([0, 1, 1, 3, 30, 200])
        values = [*VALUES, *NUMBERS, *TEXTS, self._credentials()]
        return [f"{self._one(FIELDS)}: {self._one(values)}" for _ in range(count)]

    def _credentials(self) -> str:
        password = self._one([PASSWORD, "0" * 64, *TEXTS])
        text = f"{self._one([self._user.email, *TEXTS])}:{password}"
        return "Basic " + base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()

    def _odd(self) -> bytes:
        path = self._path() + self._one(QUERIES)
        if self._choose.random() < 0.5:
            return self._head(self._one(METHODS), path, *self._fields())
        framing, body = self._one(FRAMINGS), self._choose.choice(CHUNKS)
        if self._choose.random() < 0.5:
            framing = "Transfer-Encoding: chunked"
        return self._head(self._one(METHODS[:6]), path, framing, *self._fields()) + body

    def _value(self, depth: int = 0) -> str:
        """Return a JSON value, or almost one."""
        kind = self._choose.randrange(9)
        if kind < 3:
            return json.dumps(self._one([self._user.email, self._user.key.public, *TEXTS]))
        if kind < 6:
            return self._one([*NUMBERS, "null", "true", "{}", "[]"])
        if kind == 6:
            depth = self._choose.choice([10, 1000, 20_000])
            return depth * "[" + depth * "]" if self._choose.random() < 0.5 else depth * '{"a":'
        if kind == 7 and depth < 3:
            return "[" + ",".join(self._value(depth + 1) for _ in range(3)) + "]"
        return self._one(
            ['"\\ud800"', '"\\u0000"', '"\\x"', "'a'", "-", "1e", "\ufeff1", '"' + 70000 * "x"]
        )

    def _fields_json(self) -> bytes:
        members = [
            f"{json.dumps(self._one(KEYS))}:{self._value()}"
            for _ in range(self._choose.choice([1, 3, 8]))
        ]
        return ("{" + ",".join(members) + "}").encode("utf-8", "surrogatepass")

    def _json(self) -> bytes:
        body = self._fields_json()
        paths = [
            "/users",
            "/keys",
            "/buckets",
            f"/buckets/{self._bucket}",
            f"/buckets/{self._bucket}/tokens",
        ]
        path, method = self._one(paths), self._one(["POST", "POST", "PATCH", "PUT", "DELETE"])
        if self._choose.random() < 0.4:
            return self._sign(method, path, body)
        return self._head(method, path, f"Content-Length: {len(body)}", *self._fields()[:3]) + body

    def _signed(self) -> bytes:
        """Return a request whose signature is good, and its parameters are as they come."""
        method = self._one(["GET", "HEAD", "DELETE", "POST", "PATCH"])
        path = (
            self._path()
            if self._choose.random() < 0.5
            else f"/buckets/{self._one([self._bucket, *IDS])}"
        )
        if method == "DELETE" and path.rstrip("/").endswith((self._bucket, self._user.key.public)):
            path += "/x"  # the others need the bucket and the key
        nonce = next(self._user.nonces)
        if method in ("GET", "HEAD", "DELETE"):
            extra = self._one(QUERIES).replace("?", "&")
            return self._sign(method, path, f"__nonce={nonce}{extra}".encode())
        value = self._value()
        body = f'{{"__nonce":{nonce},{json.dumps(self._one(KEYS))}:{value}}}'
        return self._sign(method, path, body.encode("utf-8", "surrogatepass"))

    def _sign(self, method: str, path: str, payload: bytes) -> bytes:
        key = self._user.key
        signature = key.sign(f"{method}\n{path}\n{payload.decode('utf-8', 'replace')}")
        signed = f"x-pubkey: {key.public}", f"x-signature: {signature}"
        if method in ("GET", "HEAD", "DELETE"):
            return self._head(method, f"{path}?{payload.decode('utf-8', 'replace')}", *signed)
        return self._head(method, path, f"Content-Length: {len(payload)}", *signed) + payload

    def _upload(self) -> bytes:
        data = self._choose.randbytes(self._choose.choice([0, 1, 100, 70_000]))
        body = form(data, self._one(["a.bin", "x" * 2000, "..", "a\0b"]))
        if self._choose.random() < 0.6:
            body = self.damaged(body)
        token = self._user.token(self._bucket, "PUSH") if self._choose.random() < 0.5 else "0" * 64
        headers = upload_headers(token, len(data))
        if self._choose.random() < 0.2:
            headers["x-filesize"] = self._one(NUMBERS)
        if self._choose.random() < 0.2:
            headers["Content-Type"] = self._one(VALUES[:14] if self._tame else VALUES)
        fields = [f"{name}: {value}" for name, value in headers.items()]
        if self._choose.random() < 0.3:
            size = self._choose.choice([1, 1000, 100_000])
            chunks = [body[place : place + size] for place in range(0, len(body), size)][:2000]
            body = (
                b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
            )
            fields.append("Transfer-Encoding: chunked")
        else:
            wrong = 0 if self._tame else self._choose.choice([0, 0, -5, 5])
            fields.append(f"Content-Length: {max(0, len(body) + wrong)}")
        if not self._tame and self._choose.random() < 0.2:
            fields.append("Expect: 100-continue")
        return self._head("PUT", f"/buckets/{self._bucket}/files", *fields) + body

    def _pull(self) -> bytes:
        token = self._user.token(self._bucket, "PULL") if self._choose.random() < 0.5 else "0" * 64
        method = self._one(["GET", "HEAD", "DELETE"])
        path = f"/buckets/{self._bucket}/files/{self._one([self._hash, *IDS])}"
        fields = [f"x-token: {token}", *self._fields()[:3]]
        if self._choose.random() < 0.5:
            path += "/content"
            if self._choose.random() < 0.3:
                path += f"?token={token}"
                del fields[0]
            fields += [f"Range: {self._one(RANGES)}", self._one(CONDITIONS)]
            self._choose.shuffle(fields)
        return self._head(method, path, *fields)

    def _upgrade(self) -> bytes:
        fields = [
            f"Upgrade: {self._one(['websocket', 'WebSocket', 'h2c', 'websocket, h2c', ''])}",
            f"Connection: {self._one(['Upgrade', 'upgrade, close', 'keep-alive', 'close'])}",
            f"Sec-WebSocket-Version: {self._one(['13', '13', '8', '', 'x'])}",
            f"Sec-WebSocket-Key: {self._one(['AAAAAAAAAAAAAAAAAAAAAA==', 'A', '', 'é'])}",
            *self._fields(),
        ]
        kept = [field for field in fields if self._choose.random() < 0.95]
        body = self._choose.choice([b"", b"", self.frame(), b"\0" * 100])
        return (
            self._head(
                self._one(["GET", "GET", "GET", "POST"]), self._one(["/", "/x", *PATHS]), *kept
            )
            + body
        )

    def frame(self) -> bytes:
        """Return a frame of WebSocket: any opcode, flags, length and mask."""
        choose = self._choose
        opcode = choose.choice([0, 1, 1, 1, 2, 8, 9, 10, choose.randrange(16)])
        flags = choose.choice([0x80, 0x80, 0x80, 0x00, choose.randrange(16) << 4])
        data = (
            self._message()
            if choose.random() < 0.7
            else choose.randbytes(choose.choice([0, 1, 2, 125, 126, 70_000]))
        )
        if opcode == 8 and choose.random() < 0.7:
            data = (
                struct.pack("!H", choose.choice([0, 999, 1000, 1004, 1005, 3000, 65535]))
                + data[:120]
            )
        if opcode > 7 and choose.random() < 0.8:
            data = data[:125]
        length = max(0, len(data) + choose.choice([0, 0, 0, 0, 0, 0, 1, -1, 2**40]))
        masked = choose.random() < 0.9
        mask = choose.randbytes(4)
        if masked:
            data = bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))
        head = bytes([flags | opcode]) + _length(
            length, choose.choice([7, 7, 7, 7, 16, 64]), masked
        )
        return head + (mask if masked else b"") + data

    def _pull_message(self) -> bytes:
        """Return the frame that asks for the shard of the file."""
        [pointer] = self._user.pointers(self._bucket, self._hash).json
        fields = {name: pointer[name] for name in ("token", "hash", "operation")}
        return Frame(Opcode.TEXT, json.dumps(fields).encode()).serialize(mask=True)

    def _message(self) -> bytes:
        values = [self._value() for _ in range(3)]
        text = f'{{"token":{values[0]},"hash":{values[1]},"operation":{values[2]}}}'
        return self._choose.choice(
            [text.encode("utf-8", "surrogatepass"), b"\xff\xfe", b"", b"[]", b"{", 5000 * b"["]
        )


def _length(length: int, bits: int, masked: bool) -> bytes:
    flag = 0x80 if masked else 0
    if length > 65535 or bits == 64:
        return struct.pack("!BQ", flag | 127, length)
    if length > 125 or bits == 16:
        return struct.pack("!BH", flag | 126, length)
    return bytes([flag | length])

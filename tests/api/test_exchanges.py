"""Exchanges with the bridge of 2016, repeated with this bridge by a plain client.

``exchanges.json`` holds 248 exchanges with the bridge of 2016, version 0.3.0, in order: later
exchanges need what earlier ones created.  Each has a ``name``, a request, ``then`` (the answer of
2016) and, if this bridge answers differently, ``now`` (its answer) and ``reason`` (why).

The request:

    ask       the request line, with a body: ``json``, ``body`` (text) or ``fields`` and a ``file``
              of multipart (``cut`` bytes are left off its end, ``chunked`` sends chunks)
    basic     the user: a name, or an e-mail and the password as sent
    sign      the key that signs the contract of the request, or the text in ``signed``;
              ``"nonce": false`` adds no fresh ``__nonce``
    token     operation and bucket of a token that is fetched first and sent as x-token
    pointer   the hash of a file in the first bucket, whose pointer is fetched first
    wait      seconds by which the bridge's clock is advanced after that
    headers   set last; null removes a header
    before    exchanges that prepare this one and are not among the 248
    pull      the first message on a channel, in a text frame unless ``frame`` says binary
    mail      e-mail addresses whose activation links are looked up
    join      the pulls whose bytes make one file

The answer: ``status``, ``headers`` and one of ``error``, ``text``, ``body`` (an object that
``bodies`` defines, with what this bridge has ``added``, except for its ``values``) or ``list``
(the same, ``values`` for each); for a channel ``bytes`` and ``hash``, or ``message``, and the
``close`` code; ``ended`` if the bridge of 2016 stopped answering.

In every text ``{name}`` is a value: one of ``names``, the hash of one of ``files``, a key
(``{ka}`` is Alice's, ``{ka_long}`` the same uncompressed, ``{KA}`` in upper case; ``{kb}`` is
Bob's, ``{kn}`` is not registered), a fresh ``{nonce}``, ``{N-1}`` (one less than the nonce N), or
a value of an earlier answer: in an answer ``{name:40}`` matches 40 hex digits and stores them.
``{date}`` matches any date, ``{now}`` the bridge's time, ``{soon}`` the time five minutes later,
and ``{*}`` any text.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import random
import re
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import datetime, timezone
from email import message_from_bytes, policy
from functools import cache
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from ecdsa import SECP256k1, SigningKey
from ecdsa.util import sigencode_der
from websockets.exceptions import ConnectionClosedOK, WebSocketException
from websockets.sync.client import ClientConnection, connect

from pymdc._crypto.file_hash import file_hash
from pymdc.bridge import Bridge

Fields = dict[str, Any]

TABLE: Fields = json.loads(Path(__file__).with_name("exchanges.json").read_text("utf-8"))
EXCHANGES: list[Fields] = TABLE["exchanges"]

NOON = 1458820800  # of 24 March 2016 in UTC, the day of version 0.3.0
DATE = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
NAME = re.compile(r"\{(\w+)([+-][\d.]+)?\}")
KEYS = ("ka", "ka2", "kb", "kc", "kn", "kt", "kx")
BOUNDARY = "----bridgetest"
FAULTS = (KeyError, ValueError, OSError, HTTPException, WebSocketException)


class Clock:
    """The bridge's time in seconds since 1970, which only the test advances."""

    seconds = NOON

    def __call__(self) -> float:
        return float(self.seconds)

    def date(self, later: int = 0) -> str:
        moment = datetime.fromtimestamp(self.seconds + later, timezone.utc)
        return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")


# Keys and files


@cache
def signing_key(name: str) -> Any:
    return SigningKey.from_string(hashlib.sha256(name.encode()).digest(), curve=SECP256k1)


def public_keys(name: str) -> dict[str, str]:
    """Return the three forms of a public key by name."""
    point = signing_key(name).verifying_key
    short, long = (point.to_string(form).hex() for form in ("compressed", "uncompressed"))
    return {name: short, name.upper(): short.upper(), f"{name}_long": long}


@cache
def random_bytes(size: int) -> bytes:
    return random.Random(1).randbytes(size)


def content(file: Fields) -> bytes:
    return random_bytes(file["random"]) if "random" in file else file["text"].encode()


# Placeholders in texts


def lookup(found: re.Match[str], names: Fields) -> Any:
    """Return the value of a ``{name}`` or a ``{name+1}``."""
    value = names[found[1]]
    return value + json.loads(found[2].lstrip("+")) if found[2] else value


def fill(value: Any, names: Fields) -> Any:
    """Return *value* with its placeholders replaced; one that is the whole text keeps its type."""
    if isinstance(value, dict):
        return {key: fill(part, names) for key, part in value.items()}
    if isinstance(value, list):
        return [fill(part, names) for part in value]
    if not isinstance(value, str):
        return value
    alone = NAME.fullmatch(value)
    return lookup(alone, names) if alone else NAME.sub(lambda name: str(lookup(name, names)), value)


def pattern(template: str, names: Fields) -> str:
    """Return the regular expression of the texts that match *template*."""
    text, *rest = re.split(r"\{(\*|\w*:\d+|\w+)\}", template)
    slots = zip(rest[::2], rest[1::2], strict=True)
    return re.escape(text) + "".join(
        slot_pattern(name, names) + re.escape(text) for name, text in slots
    )


def slot_pattern(name: str, names: Fields) -> str:
    if name in ("*", "date"):
        return ".*" if name == "*" else DATE
    if ":" not in name:
        return re.escape(str(names[name]))
    name, digits = name.split(":")
    return f"({f'?P<{name}>' if name else '?:'}[0-9a-f]{{{digits}}})"


# Answers


def body(name: str) -> Fields:
    """Return the body of this bridge."""
    fields: Fields = TABLE["bodies"][name] | TABLE["added"].get(name, {})
    return fields


def parts_of(expected: Fields) -> Fields:
    """Return the answer that the table expects, in the parts of an answer."""
    parts = {f"header {name}": value for name, value in expected.get("headers", {}).items()}
    if "error" in expected:
        parts["json"] = {"error": expected["error"]}
    if "body" in expected:
        parts["json"] = body(expected["body"]) | expected.get("values", {})
    if "list" in expected:
        parts["json"] = [body(expected["list"]) | values for values in expected["values"]]
    converted = {"headers", "error", "body", "list", "values"}
    return parts | {name: value for name, value in expected.items() if name not in converted}


def differences(template: Any, value: Any, names: Fields, where: str) -> Iterator[str]:
    """Yield each difference of *value* from *template*; store captured values in *names*."""
    if isinstance(template, dict) and isinstance(value, dict) and template.keys() == value.keys():
        for key in template:
            yield from differences(template[key], value[key], names, f"{where}.{key}")
    elif isinstance(template, list) and isinstance(value, list) and len(template) == len(value):
        for index, part in enumerate(template):
            yield from differences(part, value[index], names, f"{where}[{index}]")
    elif isinstance(template, str) and isinstance(value, str):
        found = re.fullmatch(pattern(template, names), value, re.DOTALL)
        names.update(found.groupdict() if found else {})
        if not found:
            yield f"{where}: {value!r} does not fit {template!r}"
    elif type(template) is not type(value) or template != value:
        yield f"{where}: {value!r} is not {template!r}"


class Client:
    """Sends the requests of the table, each on a connection of its own."""

    def __init__(self, host: str, clock: Clock, names: Fields) -> None:
        self.host = host
        self.clock = clock
        self.names = names
        self.count = itertools.count()

    def send(self, entry: Fields) -> Fields:
        """Send the request of *entry* and return the parts of the answer."""
        method, target, headers, body = self.request(entry)
        chunked = "transfer-encoding" in headers
        with closing(HTTPConnection(self.host, timeout=10)) as connection:
            # A refusal may come before the whole request is sent; it can still be read.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, target, body, headers, encode_chunked=chunked)
            reply = connection.getresponse()
            text = reply.read().decode()
        answer: Fields = {f"header {name.lower()}": value for name, value in reply.getheaders()}
        if text and answer.get("header content-type", "").startswith("application/json"):
            answer["json"] = json.loads(text)
        return answer | {"status": reply.status, "text": text}

    def request(self, entry: Fields) -> tuple[str, str, Fields, bytes]:
        """Return method, target, headers and body of the request of *entry*."""
        self.names["nonce"] = self.clock.seconds * 1000 + next(self.count)
        numbered = entry.get("nonce", "sign" in entry)
        method, target = fill(entry["ask"], self.names).split(" ")
        if numbered and method in ("GET", "DELETE") and "__nonce=" not in target:
            target += f"{'&' if '?' in target else '?'}__nonce={self.names['nonce']}"
        headers, body = self.body(entry, numbered)
        if "basic" in entry:
            headers["authorization"] = self.basic(entry["basic"])
        if "sign" in entry:
            headers |= self.signature(entry, method, target, body)
        if "token" in entry:
            headers["x-token"] = self.names["token"]
        headers |= fill(entry.get("headers", {}), self.names)
        return method, target, {k: v for k, v in headers.items() if v is not None}, body

    def body(self, entry: Fields, numbered: bool) -> tuple[Fields, bytes]:
        if "file" in entry or "fields" in entry:
            return self.multipart(entry)
        text = fill(entry.get("body", ""), self.names)
        if "json" in entry:
            fields = fill(entry["json"], self.names)
            if numbered:
                fields.setdefault("__nonce", self.names["nonce"])
            text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False)
        return {"content-type": "application/json"} if text else {}, text.encode()

    def multipart(self, entry: Fields) -> tuple[Fields, bytes]:
        headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
        fields = entry.get("fields", {}).items()
        parts = [f'name="{name}"\r\n\r\n{text}'.encode() for name, text in fields]
        if "file" in entry:
            file = entry["file"]
            file = TABLE["files"][file] if isinstance(file, str) else file
            head = f'name="{file.get("name", "file")}"; filename="{file["filename"]}"\r\n'
            head += f"Content-Type: {file['type']}\r\n" if "type" in file else ""
            parts.append(f"{head}\r\n".encode() + content(file))
            headers["x-filesize"] = str(len(content(file)))
        if "chunked" in entry:
            headers["transfer-encoding"] = "chunked"
        start = f"--{BOUNDARY}\r\nContent-Disposition: form-data; ".encode()
        body = b"".join(start + part + b"\r\n" for part in parts) + f"--{BOUNDARY}--\r\n".encode()
        return headers, body[: len(body) - entry.get("cut", 0)]

    def basic(self, user: str | list[str]) -> str:
        pair = [f"{user}@example.com", "{password}"] if isinstance(user, str) else user
        return "Basic " + base64.b64encode(":".join(fill(pair, self.names)).encode()).decode()

    def signature(self, entry: Fields, method: str, target: str, body: bytes) -> Fields:
        path, _, query = target.partition("?")
        payload = query.encode() if method in ("GET", "DELETE") else body
        contract = f"{method}\n{path}\n".encode() + payload
        if "signed" in entry:
            contract = fill(entry["signed"], self.names).encode()
        # The nonce of ECDSA is random: some signatures have a high S and some a low S.
        key = signing_key(entry["sign"])
        signature = key.sign(contract, hashfunc=hashlib.sha256, sigencode=sigencode_der)
        return {"x-pubkey": self.names[entry["sign"]], "x-signature": signature.hex()}


class Replay:
    """The exchanges of one client with one bridge, and the values that the answers gave."""

    def __init__(self, endpoint: str, clock: Clock, outbox: Path) -> None:
        host = urlsplit(endpoint).netloc
        self.names: Fields = {"host": host, "channel": f"ws://{host}", "N": NOON * 1000 + 100_000}
        self.names |= {name: file_hash(content(file)) for name, file in TABLE["files"].items()}
        self.names |= TABLE["names"]
        for name in KEYS:
            self.names |= public_keys(name)
        self.client = Client(host, clock, self.names)
        self.clock = clock
        self.outbox = outbox
        self.pulled: dict[str, bytes] = {}

    def run(self, entry: Fields) -> list[str]:
        """Send the request of *entry*; return the differences of the answer from the table."""
        try:
            earlier = [fault for step in entry.get("before", []) for fault in self.run(step)]
            self.prepare(entry)
            answer = self.answer(entry)
            expected = parts_of(entry.get("now") or entry["then"]).items()
            faults = [
                fault
                for part, template in expected
                for fault in differences(template, answer.get(part), self.names, part)
            ]
        except FAULTS as error:
            return [repr(error)]
        return earlier + faults + [f"the answer was {answer!r:.500}" for _ in faults[:1]]

    def prepare(self, entry: Fields) -> None:
        self.advance(1)
        if "token" in entry:
            self.names["token"] = self.token(*fill(entry["token"], self.names).split())
        if "pointer" in entry:
            token = self.token("PULL", self.names["first"])
            ask = {"ask": f"GET /buckets/{{first}}/files/{entry['pointer']}"}
            pointers = self.client.send({**ask, "headers": {"x-token": token}})["json"]
            self.names["pointer"] = pointers[0]["token"]
        self.advance(entry.get("wait", 0))

    def advance(self, seconds: int) -> None:
        self.clock.seconds += seconds
        self.names |= {"now": self.clock.date(), "soon": self.clock.date(300)}

    def token(self, operation: str, bucket: str) -> str:
        ask = {"ask": f"POST /buckets/{bucket}/tokens", "json": {"operation": operation}}
        return str(self.client.send({**ask, "sign": "ka"})["json"]["token"])

    def answer(self, entry: Fields) -> Fields:
        if "pull" in entry:
            return self.pull(entry)
        if "mail" in entry:
            return {"links": [self.link(address) for address in entry["mail"]]}
        if "join" in entry:
            shards = [self.pulled[name] for name in entry["join"]]
            return {"sizes": [len(shard) for shard in shards], "hash": file_hash(b"".join(shards))}
        return self.client.send(entry)

    def pull(self, entry: Fields) -> Fields:
        """Send one message on a channel and read until it closes."""
        message = fill(entry["pull"], self.names)
        text = message if isinstance(message, str) else json.dumps(message)
        url = self.names["channel"]
        with connect(url, compression=None, max_size=65536, proxy=None) as channel:
            channel.send(text.encode() if entry.get("frame") == "binary" else text)
            frames = list(frames_of(channel))
        data = b"".join(frame for frame in frames if isinstance(frame, bytes))
        self.pulled[entry["name"]] = data
        answer = {"bytes": len(data), "hash": file_hash(data), "close": channel.close_code}
        if frames and isinstance(frames[0], str):
            answer["message"] = json.loads(frames[0])
        return answer

    def link(self, address: str) -> str:
        """Return the link in the mail to *address*."""
        for path in self.outbox.iterdir():
            mail = message_from_bytes(path.read_bytes(), policy=policy.default)
            if mail["to"] == address:
                return str(re.findall(r"http://\S+", mail.get_content())[0])
        raise ValueError(f"no mail for {address}")


def frames_of(channel: ClientConnection) -> Iterator[str | bytes]:
    with suppress(ConnectionClosedOK):
        while True:
            yield channel.recv(timeout=10)


@pytest.fixture(scope="module")
def faults_by_exchange(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Replay all exchanges once; return the differences from the table by exchange."""
    data, clock = tmp_path_factory.mktemp("bridge"), Clock()
    with Bridge(data, clock=clock) as bridge:
        replay = Replay(bridge.endpoint, clock, data / "outbox")
        return {entry["name"]: replay.run(entry) for entry in EXCHANGES}


@pytest.mark.parametrize("name", [entry["name"] for entry in EXCHANGES])
def test_answer_is_that_of_table(faults_by_exchange: dict[str, list[str]], name: str) -> None:
    assert not faults_by_exchange[name], "\n".join(faults_by_exchange[name])


def test_table_holds_each_exchange_once() -> None:
    assert len({entry["name"] for entry in EXCHANGES}) == len(EXCHANGES) == 248


def test_reason_is_given_exactly_where_answers_differ() -> None:
    for entry in EXCHANGES:
        assert ("reason" in entry) == ("now" in entry), entry["name"]
        assert entry.get("now") != entry["then"], entry["name"]
        assert "now" in entry or "ended" not in entry["then"], entry["name"]


def test_file_hash_is_that_of_2016() -> None:
    assert file_hash(content(TABLE["files"]["hello"])) == TABLE["names"]["hello"]

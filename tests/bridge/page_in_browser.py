"""Calls of a page of another origin, in Chromium."""

from __future__ import annotations

import html
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, SWITCHES
from modes import PATIENCE
from plain_client import PASSWORD, User, basic
from servers import RawServer, answering, written

from pymdc._crypto.file_hash import file_hash

ONCE = "--virtual-time-budget=60000", "--dump-dom"  # shows the page when it is done, and ends

PAGE = """<!DOCTYPE html><link rel="icon" href="data:,"><pre></pre><script>
async function answer([method, path, headers, body, file]) {
  const options = {method, headers, body, credentials: "include"};
  if (file) {
    options.body = new FormData();
    options.body.append("file", new Blob([file], {type: "text/css"}), "na\\u00efve.css");
  }
  try {
    const reply = await fetch(BRIDGE + path, options);
    return [reply.status, await reply.text()];
  } catch (error) {
    return String(error);
  }
}
(async () => {
  const answers = [];
  for (const call of CALLS) answers.push(await answer(call));
  document.querySelector("pre").textContent = JSON.stringify(answers);
})();
</script>"""

Call = list[Any]


def signed(alice: User, method: str, path: str, **fields: object) -> Call:
    """Return a signed call, with *fields* in its body or with a query string."""
    nonce = next(alice.nonces)
    body = json.dumps({**fields, "__nonce": nonce}) if fields else None
    query = f"__nonce={nonce}"
    signature = alice.key.sign(f"{method}\n{path}\n{body or query}")
    headers = {"x-pubkey": alice.key.public, "x-signature": signature}
    if body:
        return [method, path, {**headers, "Content-Type": "application/json"}, body]
    return [method, f"{path}?{query}", headers]


def answers(alice: User, folder: Path, calls: list[Call]) -> list[Any]:
    """Return what a page gets for each of *calls*: the status and the text, or an error."""
    page = PAGE.replace("CALLS", json.dumps(calls))
    page = page.replace("BRIDGE", json.dumps(alice.bridge.endpoint))
    kind = "Content-Type: text/html; charset=utf-8"
    with RawServer(answering(written("200 OK", page.encode(), kind))) as server:
        command = [str(CHROMIUM), *SWITCHES, *ONCE, f"--user-data-dir={folder}", server.endpoint]
        done = subprocess.run(command, capture_output=True, text=True, timeout=4 * PATIENCE)
    found = re.search("<pre>(.+)</pre>", done.stdout)
    assert found, done.stdout + done.stderr
    got: list[Any] = json.loads(html.unescape(found[1]))
    return got


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_page_of_another_origin_makes_every_kind_of_call(alice: User, tmp_path: Path) -> None:
    bucket, data = alice.bucket(), "the file"
    by_password = basic(alice.email, PASSWORD)
    pushing = {"x-token": alice.token(bucket, "PUSH"), "x-filesize": str(len(data))}
    path = f"/buckets/{bucket}/files"
    calls: list[Call] = [
        signed(alice, "GET", "/keys"),
        signed(alice, "POST", "/buckets", name="of a page"),
        signed(alice, "PATCH", f"/buckets/{bucket}", name="changed"),
        ["GET", "/keys", by_password],
        ["GET", f"/buckets/{24 * '0'}", by_password],
        ["GET", "/keys", {}],
        ["PUT", path, pushing, None, data],
        signed(alice, "DELETE", f"{path}/{file_hash(data.encode())}"),
    ]
    got = answers(alice, tmp_path, calls)
    assert [reply[0] for reply in got] == [200, 200, 200, 200, 404, 401, 200, 204], got
    keys, created, changed, listed, unknown, nobody, stored = (
        json.loads(reply[1]) for reply in got[:-1]
    )
    assert keys == listed == alice.ask("GET", "/keys").json
    assert (created["name"], changed["name"]) == ("of a page", "changed")
    assert unknown == {"error": "Bucket not found"}
    assert nobody == {"error": "No authentication strategy detected"}
    assert (stored["filename"], stored["hash"]) == ("naïve.css", file_hash(data.encode()))

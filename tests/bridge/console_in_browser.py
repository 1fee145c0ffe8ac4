"""The console in Chromium: what a person does with it, from the registration to the end."""

from __future__ import annotations

import json
import os
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from hashlib import sha256
from importlib import resources
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from browser import MISSING, NARROW, WIDE, Browser, browsing
from certificates import certificate
from modes import PATIENCE
from plain_client import DATA, PASSWORD, Clock, User, address, ask, basic
from reverse_proxies import PROXIES
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from servers import free_port

from pymdc._cli.address import parse_file
from pymdc.bridge import Bridge

pytestmark = [
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
    pytest.mark.filterwarnings("ignore::ResourceWarning:selenium"),
]

AXE = resources.files("axe_core_python").joinpath("axe.min.js").read_text("utf-8")
MAILED = SimpleQueue[str]()
NUMBERS = count()
SIGNED_IN = "document.getElementById('nav')?.hidden === false"
REFUSALS = "Failed to load resource: the server responded with a status of 4"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("downloads")) as browser:
        yield browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def bridge(folder: Path) -> Iterator[Bridge]:
    with Bridge(folder, announce=lambda _, text: MAILED.put(text)) as running:
        yield running


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """Give the browser; afterwards, nothing but refusals may be in its console."""
    yield chromium
    assert [entry for entry in chromium.log() if not is_refusal(entry)] == []


def is_refusal(entry: dict[str, Any]) -> bool:
    """Say whether the browser only notes that a request was refused, which the page shows."""
    return entry["source"] == "network" and REFUSALS in entry["message"]


@pytest.fixture(scope="module")
def alice(bridge: Bridge) -> User:
    return registered(bridge, "alice")


@pytest.fixture
def bob(browser: Browser, bridge: Bridge) -> Iterator[User]:
    """Give a user whose account a test changes."""
    yield registered(bridge, f"bob{next(NUMBERS)}")
    sign_out(browser)


def registered(bridge: Bridge, name: str) -> User:
    while not MAILED.empty():  # of a test that failed
        MAILED.get()
    user = User(bridge, name)
    MAILED.get(timeout=PATIENCE)
    return user


@pytest.fixture
def signed_in(browser: Browser, bridge: Bridge, alice: User) -> Browser:
    """Give the browser with Alice's page, which may be that of the test before."""
    if not (is_at(browser, bridge) and browser.driver.execute_script(f"return {SIGNED_IN}")):
        sign_in(browser, alice)
    return browser


@pytest.fixture
def photos(signed_in: Browser, alice: User) -> str:
    """Show a bucket, and return its id."""
    name = f"photos {next(NUMBERS)}"
    bucket = alice.bucket(name=name)
    go_to(signed_in, f"#bucket/{bucket}")
    signed_in.heading(name)
    return bucket


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, content: bytes = b"abc") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path

    return write


def sign_in(browser: Browser, user: User, password: str = "pass") -> None:
    if not is_at(browser, user.bridge):
        browser.open(user.bridge.endpoint)
    sign_out(browser)
    go_to(browser, "#buckets")
    browser.heading("Sign in")
    browser.fill("E-mail", user.email)
    browser.fill("Password", password)
    browser.press("Sign in")
    browser.heading("Buckets")


def sign_out(browser: Browser) -> None:
    browser.driver.execute_script(f"if ({SIGNED_IN}) document.getElementById('sign-out').click()")


def is_at(browser: Browser, bridge: Bridge) -> bool:
    return browser.driver.current_url.startswith(f"{bridge.endpoint}/")


def go_to(browser: Browser, place: str) -> None:
    browser.driver.execute_script("location.hash = arguments[0]", place)


def names(user: User, bucket: str) -> list[str]:
    listed = user.ask("GET", f"/buckets/{bucket}/files").json
    return sorted(entry["filename"] for entry in listed)


def shown(browser: Browser) -> list[str]:
    """Return the names of the files in the list, in its order."""
    script = """return [...document.querySelectorAll("td.filename button")]
        .map((cell) => cell.textContent)"""
    return list(browser.driver.execute_script(script))


def wait_for_files(browser: Browser, *expected: str) -> None:
    browser.wait(lambda: shown(browser) == [*expected], f"the list of {expected}")


def test_person_registers_stores_shares_and_deletes(
    browser: Browser, bridge: Bridge, files: Callable[..., Path]
) -> None:
    browser.open(bridge.endpoint)
    browser.press("Register")
    browser.fill("E-mail", "Ann@example.com")
    browser.fill("Password", "pässwörd €")
    browser.press("Register")
    browser.heading("Look in your mail")
    browser.open(MAILED.get(timeout=PATIENCE))
    browser.see("Your address is confirmed")
    browser.fill("E-mail", "Ann@example.com")
    browser.fill("Password", "password")
    browser.press("Sign in")
    browser.see("Invalid email or password. Check both.")
    browser.fill("Password", "pässwörd €")
    browser.press("Sign in")
    browser.heading("Buckets")

    browser.press("New bucket")
    browser.fill("Name", "photos")
    browser.fill("Storage in GB", "1")
    browser.press("Make the bucket")
    browser.heading("photos")
    browser.choose(files("notes.txt", b"Dear diary"), files("b.bin", DATA), files("a.bin"))
    wait_for_files(browser, "a.bin", "b.bin", "notes.txt")
    browser.see("3 files stored")
    browser.press("Size")
    wait_for_files(browser, "b.bin", "notes.txt", "a.bin")
    browser.fill("Filter by name", "NOTE")
    wait_for_files(browser, "notes.txt")
    browser.see("1 of 3 files")

    browser.press("notes.txt")
    browser.see("Dear diary")
    browser.press("Rename…")
    browser.fill("Name", "diary.txt")
    browser.press("Rename")
    browser.fill("Filter by name", "")
    wait_for_files(browser, "b.bin", "diary.txt", "a.bin")
    browser.press("Download diary.txt")
    assert browser.downloaded("diary.txt") == b"Dear diary"

    browser.field("Select a.bin").click()
    browser.field("Select b.bin").click()
    browser.see("2 files selected")
    browser.fill("Filter by name", "diary")
    wait_for_files(browser, "diary.txt")
    assert not browser.field("Select all files shown").is_selected()
    browser.fill("Filter by name", "")
    browser.find("//*[@aria-label='Selected files']//button[.='Delete…']").click()
    browser.see("Delete 2 files?")
    browser.press("Delete")
    wait_for_files(browser, "diary.txt")

    browser.press("Delete…")
    browser.see("Delete this bucket?")
    delete = browser.find("//button[.='Delete the bucket']")
    browser.fill("Type the name of the bucket", "photo")
    assert not delete.is_enabled()
    browser.fill("Type the name of the bucket", "photos")
    delete.click()
    browser.heading("Buckets")
    browser.see("Make the first one")
    browser.press("Sign out")
    browser.heading("Sign in")
    assert "Ann" not in browser.text


def test_large_upload_is_cancelled_and_another_goes_through(
    browser: Browser, alice: User, photos: str, files: Callable[..., Path], folder: Path
) -> None:
    def uploads() -> int:
        with closing(sqlite3.connect(folder / "metadata.sqlite")) as connection:
            return int(connection.execute("SELECT count(*) FROM uploads").fetchone()[0])

    def objects() -> set[Path]:
        return {path for path in (folder / "shards").rglob("*") if path.is_file()}

    before, large = objects(), files("large.bin")
    os.truncate(large, 100_000_000)
    browser.upload_rate(50_000_000)
    browser.choose(large)
    browser.see("MB of 100 MB")
    browser.wait(lambda: uploads() == 1 and objects() > before, "the beginning of the upload")
    browser.press("Cancel large.bin")
    browser.gone("MB of 100 MB")
    browser.upload_rate(-1)
    browser.wait(lambda: uploads() == 0, "the end of the upload")
    assert (names(alice, photos), objects()) == ([], before)
    os.truncate(large, 20_000_000)
    browser.choose(large)
    wait_for_files(browser, "large.bin")
    browser.see("20 MB of 10 GB")
    assert alice.ask("GET", f"/buckets/{photos}/files").json[0]["size"] == 20_000_000


def test_folder_is_uploaded_without_its_path(
    browser: Browser, alice: User, photos: str, files: Callable[..., Path], tmp_path: Path
) -> None:
    files("trip/one.txt", b"1")
    files("trip/two.txt", b"2")
    browser.choose(tmp_path / "trip", folder=True)
    wait_for_files(browser, "one.txt", "two.txt")
    assert names(alice, photos) == ["one.txt", "two.txt"]


def test_files_and_folders_are_dropped(
    browser: Browser, alice: User, photos: str, files: Callable[..., Path], tmp_path: Path
) -> None:
    files("trip/one.txt", b"1")
    files("trip/two.txt", b"2")
    paths = [str(files("three.txt", b"3")), str(tmp_path / "trip")]
    data = {"items": [], "files": paths, "dragOperationsMask": 1}
    browser.press("Edit…")
    browser.press("Save")
    browser.see("The bucket is changed.")
    for kind in "dragEnter", "dragOver", "drop":
        event = {"type": kind, "x": 400, "y": 300, "data": data}
        browser.driver.execute_cdp_cmd("Input.dispatchDragEvent", event)
    wait_for_files(browser, "one.txt", "three.txt", "two.txt")


def test_content_that_is_there_already_is_said_to_be(
    browser: Browser, alice: User, photos: str, files: Callable[..., Path]
) -> None:
    browser.choose(files("old.txt"))
    wait_for_files(browser, "old.txt")
    browser.choose(files("new.txt"))
    wait_for_files(browser, "new.txt")
    browser.see("new.txt has the content of old.txt, so the two are one file")


def test_upload_that_fails_says_why_and_can_be_repeated(
    browser: Browser, alice: User, photos: str, files: Callable[..., Path]
) -> None:
    alice.ask("PATCH", f"/buckets/{photos}", {"storage": 0})
    browser.choose(files("a.txt"))
    browser.see("Delete files, or give the bucket more storage.")
    alice.ask("PATCH", f"/buckets/{photos}", {"storage": 1})
    browser.press("Try a.txt again")
    wait_for_files(browser, "a.txt")


def test_large_file_without_room_is_refused_before_it_is_sent(
    browser: Browser, alice: User, photos: str, files: Callable[..., Path]
) -> None:
    large = files("large.bin")
    os.truncate(large, 100_000_000)
    alice.ask("PATCH", f"/buckets/{photos}", {"storage": 0.02})
    browser.upload_rate(1_000_000)
    browser.choose(large)
    browser.see("The file has 100 MB, and there is room for 20 MB. Delete files, or give")
    browser.upload_rate(-1)


def test_signing_out_says_nothing_of_the_uploads_that_it_ends(
    browser: Browser, alice: User, photos: str, files: Callable[..., Path]
) -> None:
    alice.ask("PATCH", f"/buckets/{photos}", {"storage": 0.02})
    failing, sent = files("failing.bin"), files("sent.bin")
    os.truncate(failing, 30_000_000)
    os.truncate(sent, 15_000_000)
    browser.upload_rate(1_000_000)
    browser.choose(failing, sent)
    browser.see("there is room for 20 MB")
    browser.see("of 15 MB")
    browser.driver.execute_script("""window.said = [];
        const status = document.getElementById("status");
        new MutationObserver(() => said.push(status.textContent))
          .observe(status, {childList: true})""")
    browser.press("Sign out")
    browser.heading("Sign in")
    assert "failing.bin" not in browser.text, "somebody else may sign in now"
    browser.upload_rate(-1)
    browser.fill("E-mail", alice.email)
    browser.fill("Password", "pass")
    browser.press("Sign in")
    browser.heading("Buckets")
    said = "".join(browser.driver.execute_script("return said"))
    assert said == ""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("<img src=x onerror=alert(1)>.txt", b"<script>alert(2)</script>"),
        ("picture.svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(3)</script></svg>"),
        ("page.html", b"<h1 id=foreign>Hello</h1><script>alert(4)</script>"),
    ],
)
def test_markup_in_names_and_contents_is_text(
    browser: Browser, photos: str, files: Callable[..., Path], name: str, content: bytes
) -> None:
    browser.choose(files(name, content))
    wait_for_files(browser, name)
    browser.press(name)
    browser.see(content.decode())
    assert not browser.driver.find_elements(By.CSS_SELECTOR, "main img, dialog img, svg, #foreign")
    browser.press("Share…")
    browser.see("A link to share")
    browser.press("Delete…")
    browser.press("Delete")
    wait_for_files(browser)


def test_file_that_is_gone_does_not_stop_the_deletion_of_others(
    browser: Browser, alice: User, photos: str, files: Callable[..., Path]
) -> None:
    browser.choose(files("a.txt", b"a"), files("b.txt", b"b"))
    wait_for_files(browser, "a.txt", "b.txt")
    [gone] = alice.ask("GET", f"/buckets/{photos}/files", query="name=a.txt").json
    assert alice.ask("DELETE", f"/buckets/{photos}/files/{gone['hash']}").status == 204
    browser.field("Select all files shown").click()
    browser.find("//*[@aria-label='Selected files']//button[.='Delete…']").click()
    browser.press("Delete")
    wait_for_files(browser)
    assert names(alice, photos) == []


def test_image_is_shown(browser: Browser, photos: str, files: Callable[..., Path]) -> None:
    gif = b"GIF89a\x02\0\x03\0\xf0\0\0\xff\0\0\0\0\0,\0\0\0\0\x02\0\x03\0\0\x02\x03\x84\x6f\x05\0;"
    browser.choose(files("dot.gif", gif))
    wait_for_files(browser, "dot.gif")
    browser.press("dot.gif")
    image = browser.find("//dialog//img")
    browser.wait(lambda: image.get_property("naturalHeight") == 3, "the picture")


def test_list_of_many_files_is_shown_in_pieces(
    signed_in: Browser, alice: User, folder: Path
) -> None:
    browser = signed_in
    bucket = alice.bucket(name="many")
    alice.upload(bucket, b"abc", "template")
    with closing(sqlite3.connect(folder / "metadata.sqlite", timeout=PATIENCE)) as connection:
        cursor = connection.execute("SELECT * FROM files WHERE bucket = ?", [bucket])
        fields = [field[0] for field in cursor.description]
        row = dict(zip(fields, cursor.fetchone(), strict=True))
        del row["number"]
        rows = [row | {"hash": f"{i:040x}", "filename": f"file {i:05}"} for i in range(12_000)]
        marks = ", ".join(f":{name}" for name in row)
        connection.executemany(f"INSERT INTO files ({', '.join(row)}) VALUES ({marks})", rows)
        connection.commit()
    go_to(browser, f"#bucket/{bucket}")
    browser.see("12,001 files")
    assert shown(browser)[0] == "file 00000"
    assert len(shown(browser)) == 200
    browser.driver.execute_script("scrollTo(0, document.body.scrollHeight)")
    browser.wait(lambda: len(shown(browser)) == 400, "the next rows")
    browser.fill("Filter by name", "11999")
    wait_for_files(browser, "file 11999")


def test_files_without_a_time_stand_before_the_others(browser: Browser, bridge: Bridge) -> None:
    times = ["2026-03-01", None, "2026-01-01", None, "2026-02-01"]
    script = """const [times, done] = arguments;
        import("/console/listing.js").then(({Listing}) => {
          const listing = new Listing();
          listing.add(times.map((created, i) => ({hash: `${i}`, filename: `${i}`, created})));
          listing.sortBy("created");
          listing.sortBy("created");
          done(listing.shown().map((file) => file.created));
        })"""
    browser.driver.get(bridge.endpoint)
    shown = browser.driver.execute_async_script(script, times)
    assert shown == [None, None, "2026-01-01", "2026-02-01", "2026-03-01"]


def look_at(browser: Browser, link: str) -> None:
    """Follow a link as somebody who is not signed in, without a new load of the page."""
    sign_out(browser)
    go_to(browser, "#forgot")
    browser.heading("A new password")
    go_to(browser, f"#{link.partition('#')[2]}")


def test_link_gets_a_file_without_an_account(
    browser: Browser, alice: User, photos: str, files: Callable[..., Path]
) -> None:
    browser.choose(files("gift.txt", b"for you"))
    wait_for_files(browser, "gift.txt")
    browser.press("gift.txt")
    browser.press("Share…")
    browser.see("Works once, until")
    link = browser.find("//pre[@aria-label='the link']").text
    for look in browser.open, partial(look_at, browser):  # that does not use it up
        look(link)
        browser.see("gift.txt")
        browser.see("7 bytes")
    (browser.folder / "gift.txt").unlink(missing_ok=True)
    browser.press("Download")
    browser.see("The link is used up")
    assert browser.downloaded("gift.txt") == b"for you"
    look_at(browser, link)
    browser.see("This link does not work any more")


def test_link_receives_a_file_without_an_account(
    browser: Browser, alice: User, photos: str, files: Callable[..., Path]
) -> None:
    browser.press("Receive…")
    browser.press("Make a link")
    link = browser.find("//pre[@aria-label='the link']").text
    look_at(browser, link)
    browser.heading("Send a file")
    browser.choose(files("thesis.txt", b"at last"))
    browser.see("has arrived, 7 bytes")
    assert names(alice, photos) == ["thesis.txt"]
    look_at(browser, link)
    browser.choose(files("more.txt"))
    browser.see("This link does not work any more")
    assert names(alice, photos) == ["thesis.txt"]


def test_command_of_a_link_works_in_a_terminal(
    browser: Browser, photos: str, files: Callable[..., Path], tmp_path: Path
) -> None:
    name = "it's $(a) `trap`.txt"
    browser.choose(files(name, b"safe"))
    wait_for_files(browser, name)
    browser.press(name)
    browser.press("Share…")
    command = browser.find("//pre[@aria-label='the command']").text
    shell(command, tmp_path / "down")
    assert [path.read_bytes() for path in (tmp_path / "down").iterdir()] == [b"safe"]
    browser.keys(Keys.ESCAPE)
    browser.press("Receive…")
    browser.press("Make a link")
    command = browser.find("//pre[@aria-label='the command']").text
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "FILE").write_bytes(b"sent")
    shell(command, tmp_path / "up")
    go_to(browser, "#buckets")
    go_to(browser, f"#bucket/{photos}")
    wait_for_files(browser, "FILE", name)


def test_python_that_the_page_shows_works(
    browser: Browser, alice: User, photos: str, files: Callable[..., Path], tmp_path: Path
) -> None:
    name = 'say "ü".txt'
    browser.choose(files(f"up/{name}", b"said"))
    wait_for_files(browser, name)
    browser.press("As pymdc, in Python")
    upload = browser.find("//pre[@aria-label='the same in Python']").text
    browser.press(name)
    browser.press("As pymdc, in Python, with curl")
    download = browser.find("//dialog//pre[@aria-label='the same in Python']").text
    word = alice.email.partition("@")[0]
    (tmp_path / "you.key").write_text(sha256(word.encode()).hexdigest())
    (tmp_path / "FILE").write_bytes(b"more")
    for code in upload, download:
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=PATIENCE)
        assert done.returncode == 0
    assert (tmp_path / name).read_bytes() == b"said"
    assert names(alice, photos) == sorted(["FILE", name])


def test_command_of_pymdc_names_the_bucket_so_that_pymdc_finds_it(
    browser: Browser, bridge: Bridge
) -> None:
    names = ["photos", "my photos", "it's", "2016/summer", "a:b", "-q", "", "x", None]
    script = """const [names, done] = arguments;
        import("/console/commands.js").then(({getCommand}) =>
          done(names.map((name) => getCommand({name, id: "0123"}, {hash: "abcdef"}))))"""
    browser.driver.get(bridge.endpoint)
    commands = browser.driver.execute_async_script(script, names)
    found = [parse_file(shlex.split(command)[2]) for command in commands]
    assert [address.hash for address in found] == ["abcdef"] * len(names)
    assert [address.bucket for address in found] == [*names[:3], *["0123"] * 6]


def shell(command: str, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        ["sh", "-c", command], cwd=folder, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr


def test_keyboard_is_enough(browser: Browser, alice: User, files: Callable[..., Path]) -> None:
    browser.open(alice.bridge.endpoint)
    browser.heading("Sign in")
    browser.keys(alice.email, Keys.TAB, "pass", Keys.ENTER)
    browser.heading("Buckets")
    browser.tab_to("New bucket")
    browser.keys(Keys.ENTER)
    browser.see("A new bucket")
    browser.tab_to("Name")
    browser.keys("by keys", Keys.ENTER)
    browser.heading("by keys")
    browser.tab_to("Upload files")
    browser.choose(files("a.txt", b"a"), files("b.txt", b"b"))
    wait_for_files(browser, "a.txt", "b.txt")
    browser.tab_to("b.txt")
    browser.keys(Keys.ENTER)
    browser.see("Hash")
    browser.keys(Keys.ESCAPE)
    browser.tab_to("b.txt")  # where the focus is again
    browser.keys(Keys.SHIFT + Keys.TAB + Keys.NULL)
    browser.keys(Keys.SPACE)
    browser.see("1 file selected")


def test_password_that_was_changed_elsewhere_signs_out(browser: Browser, bob: User) -> None:
    sign_in(browser, bob)
    change = json.dumps({"password": "1" * 64})
    by_old = basic(bob.email, PASSWORD)
    assert ask(bob.bridge, "PATCH", f"/users/{bob.email}", change, by_old).status == 200
    browser.press("Account")
    browser.heading("Sign in")
    browser.see("You are signed out: Invalid email or password.")


def test_account_changes_its_password_and_ends(browser: Browser, bob: User) -> None:
    sign_in(browser, bob)
    browser.press("Account")
    browser.see(bob.key.public)
    browser.fill("Old password", "pass")
    browser.fill("New password", "better")
    browser.press("Change the password")
    browser.see("The password is changed.")
    browser.press("Buckets")
    browser.heading("Buckets")
    browser.press("Account")
    browser.press("Delete the account…")
    browser.fill("Password", "better")
    browser.press("Delete everything")
    browser.see("The account is deleted.")
    reply = ask(bob.bridge, "GET", "/keys", None, basic(bob.email, PASSWORD))
    assert reply.status == 401


def test_forgotten_password_is_set_by_mail(browser: Browser, bob: User) -> None:
    browser.open(bob.bridge.endpoint)
    browser.press("Forgot the password?")
    browser.fill("E-mail", bob.email)
    browser.press("Send the mail")
    browser.fill("Token", MAILED.get(timeout=PATIENCE))
    browser.fill("New password", "new")
    browser.press("Set the password")
    browser.heading("Buckets")
    browser.press("Sign out")
    browser.fill("E-mail", bob.email)
    browser.fill("Password", "new")
    browser.press("Sign in")
    browser.heading("Buckets")


def test_too_many_wrong_passwords_wait_as_the_bridge_says(browser: Browser) -> None:
    clock = Clock()
    with Bridge(clock=clock) as bridge:
        alice = User(bridge, "alice")
        for _ in range(5):
            ask(bridge, "GET", "/keys", None, basic(alice.email, 64 * "0"))
        ask(bridge, "GET", "/keys", None, basic(alice.email, 64 * "0"))
        browser.open(bridge.endpoint)
        browser.fill("E-mail", alice.email)
        browser.fill("Password", "pass")
        browser.press("Sign in")
        browser.see("The bridge asks to wait")
        clock.seconds += 60
        browser.heading("Buckets")


def test_bridge_that_is_gone_is_said_to_be(browser: Browser) -> None:
    with Bridge() as bridge:
        sign_in(browser, User(bridge, "alice"))
    browser.press("Account")
    browser.see("The bridge cannot be reached")
    refused = [entry["message"] for entry in browser.log()]
    assert refused
    assert all("ERR_CONNECTION_REFUSED" in message for message in refused), refused


def test_registration_asks_for_an_invitation_or_is_closed(browser: Browser) -> None:
    with Bridge(registration="invite") as bridge:
        browser.open(f"{bridge.endpoint}/#register")
        browser.fill("E-mail", "bob@example.com")
        browser.fill("Password", "pass")
        browser.fill("Invitation", "guess")
        browser.press("Register")
        browser.see("The invitation is not valid. Ask the person who runs this bridge")
        browser.see("Registration is by invitation")
    with Bridge(registration="closed") as bridge:
        browser.open(bridge.endpoint)
        browser.heading("Sign in")
        assert "Register" not in [
            link.text for link in browser.driver.find_elements(By.TAG_NAME, "a")
        ]
        go_to(browser, "#register")
        browser.see("Registration is closed")


def test_hash_of_every_length_and_script_is_that_of_python(
    browser: Browser, bridge: Bridge
) -> None:
    texts = ["ä" * length for length in range(70)]
    texts += ["abc", "pässwörd €", "密码", "🔑" * 40, "\0", "a" * 5000]
    script = """const [texts, done] = arguments;
        import("/console/sha256.js").then(({sha256}) => done(texts.map(sha256)))"""
    browser.driver.get(bridge.endpoint)
    hashes = browser.driver.execute_async_script(script, texts)
    assert hashes == [sha256(text.encode()).hexdigest() for text in texts]


def axe(browser: Browser, *rules: str) -> list[str]:
    """Return what axe-core finds on the page, by all rules or by some: the rule and the element."""
    if not browser.driver.execute_script("return Boolean(window.axe)"):
        browser.driver.execute_script(AXE)
    script = """const [rules, done] = arguments;
        const options = rules.length ? {runOnly: rules} : {};
        axe.run({...options, resultTypes: ["violations"]}).then(done)"""
    found = browser.driver.execute_async_script(script, rules)["violations"]
    return [f"{rule['id']}: {node['html']}" for rule in found for node in rule["nodes"]]


def views(alice: User, photos: str, entry: dict[str, Any]) -> dict[str, Callable[[Browser], None]]:
    """Return how to come from one view to the next, by the names of the views."""
    pull, push = alice.token(photos, "PULL"), alice.token(photos, "PUSH")
    link = f"/#get/{photos}/{entry['hash']}/{pull}"

    def dialog(button: str, text: str) -> Callable[[Browser], None]:
        def show(browser: Browser) -> None:
            browser.press(button)
            browser.see(text)

        return show

    def place(hash_: str, text: str) -> Callable[[Browser], None]:
        def show(browser: Browser) -> None:
            go_to(browser, hash_)
            browser.see(text)

        return show

    def shared(browser: Browser) -> None:
        browser.press("Share…")
        browser.see("A link to share")
        browser.press("As pymdc, in Python, with curl")

    return {
        "register": place("#register", "I have an account"),
        "forgot": place("#forgot", "The bridge mails a token"),
        "reset": place("#reset", "The 64 digits and letters"),
        "get": place(link.removeprefix("/"), "9 bytes"),
        "receive": place(f"#receive/{photos}/{push}", "Drop a file here"),
        "used up": place(f"#get/{photos}/{entry['hash']}/{64 * '0'}", "does not work any more"),
        "sign in": lambda browser: sign_in(browser, alice),
        "account": place("#account", "Key pairs"),
        "bucket": place(f"#bucket/{photos}", "1 file"),
        "file": dialog("notes.txt", "the notes"),
        "share": shared,
        "closed": lambda browser: browser.keys(Keys.ESCAPE),
        "receive a file": dialog("Receive…", "Make a link for somebody"),
        "closed again": lambda browser: browser.keys(Keys.ESCAPE),
        "edit": dialog("Edit…", "Whoever has one of these"),
        "closed at last": lambda browser: browser.keys(Keys.ESCAPE),
        "delete": dialog("Delete…", "Type the name of the bucket"),
    }


def test_views_have_no_fault_that_axe_finds_and_fit_a_phone(browser: Browser, alice: User) -> None:
    photos = alice.bucket(name="photos")
    entry = alice.upload(photos, b"the notes", "notes.txt").json
    browser.open(alice.bridge.endpoint)
    browser.heading("Sign in")
    faults = []
    try:
        for name, show in views(alice, photos, entry).items():
            browser.size(*WIDE)
            show(browser)
            if name.startswith("closed"):
                continue
            faults += [f"{name}: {fault}" for fault in axe(browser)]
            browser.scheme("dark")
            faults += [f"{name}, dark: {fault}" for fault in axe(browser, "color-contrast")]
            browser.scheme("light")
            browser.size(*NARROW)
            if browser.driver.execute_script("return document.documentElement.scrollWidth") > 390:
                faults.append(f"{name} is wider than a phone")
    finally:
        browser.scheme("light")
        browser.size(*WIDE)
    assert faults == []


@pytest.mark.parametrize("proxy", PROXIES)
def test_page_is_used_behind_a_proxy(proxy: str, tmp_path: Path) -> None:
    content = os.urandom(9_000_000)  # more than nginx's default for a body
    (tmp_path / "large.bin").write_bytes(content)
    (tmp_path / "more.bin").write_bytes(content[::-1])
    made, port = certificate(tmp_path, "localhost"), free_port()
    endpoint = f"https://localhost:{port}"
    with (
        Bridge(url=endpoint, trusted_proxies=("127.0.0.1",)) as bridge,
        PROXIES[proxy](tmp_path, port, address(bridge)[1], made),
        browsing(tmp_path / "saved") as browser,
    ):
        alice = User(bridge, "alice")
        bucket = alice.bucket(name="photos")
        browser.open(endpoint)
        browser.fill("E-mail", alice.email)
        browser.fill("Password", "pass")
        browser.press("Sign in")
        browser.press("photos")
        browser.heading("photos")
        browser.choose(tmp_path / "large.bin")
        browser.press("Download large.bin")
        assert browser.downloaded("large.bin") == content
        alice.ask("PATCH", f"/buckets/{bucket}", {"storage": 0})
        browser.choose(tmp_path / "more.bin")
        browser.see("Delete files, or give the bucket more storage.")

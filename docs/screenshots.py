"""Make the screenshots of the console in docs/images: ``python docs/screenshots.py``.

It needs the extra ``bridge``, Selenium, Pillow, and Chromium with chromedriver.
"""

from __future__ import annotations

import sys
import tempfile
from io import BytesIO
from mimetypes import guess_type
from pathlib import Path

from PIL import Image, ImageDraw
from selenium.webdriver.common.keys import Keys

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from browser import NARROW, WIDE, Browser, browsing  # noqa: E402  # see the line above
from plain_client import Clock, User, ask, form, upload_headers  # noqa: E402

from pymdc.bridge import Bridge  # noqa: E402

IMAGES = ROOT / "docs" / "images"
MAX_SIZE = 60_000  # bytes of a picture
COLOURS = 256
BUCKETS = {"Photos": (2, 10), "Letters": (0.5, 2), "Backup of the laptop": (50, None)}
FILES = {
    "Evening at the lake.png": None,
    "Invoice 2026-11.pdf": 184_000,
    "Packing list.txt": b"Tent\nSleeping bags\nStove, two pots\nMatches\nTorch, and batteries\n",
    "Recording of the concert.mp3": 9_300_000,
    "Tickets.pdf": 71_000,
    "Walk in the hills.gpx": 412_000,
}


def main() -> None:
    """Make all pictures."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock()
        clock.seconds = 1_764_000_000.0
        with Bridge(port=6382, clock=clock) as bridge, browsing(Path(folder)) as browser:
            ann = User(bridge, "ann")
            photos = fill(ann, clock)
            accounts(browser, ann)
            files(browser, photos)
            uploads(browser, Path(folder))
            links(browser, photos)


def fill(ann: User, clock: Clock) -> str:
    """Make buckets with files; return the id of the one with pictures."""
    ids = [
        ann.bucket(name=name, storage=storage, transfer=transfer)
        for name, (storage, transfer) in BUCKETS.items()
    ]
    for number, (name, content) in enumerate(FILES.items()):
        clock.seconds += 47_000
        data = evening() if content is None else content
        stored = data if isinstance(data, bytes) else number.to_bytes(1, "big") * data
        store(ann, ids[0], stored, name)
    store(ann, ids[1], bytes(21_000_000), "Letters.zip")
    return ids[0]


def store(ann: User, bucket: str, data: bytes, name: str) -> None:
    """Upload a file with its type."""
    kind = (guess_type(name)[0] or "application/octet-stream").encode()
    headers = upload_headers(ann.token(bucket, "PUSH"), len(data))
    body = form(data, name).replace(b"text/css", kind, 1)
    ask(ann.bridge, "PUT", f"/buckets/{bucket}/files", body, headers)


def evening() -> bytes:
    """Return a picture of an evening."""
    width, height = 900, 520
    picture = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(picture)
    for y in range(height):
        part = y / height
        colour = (int(40 + 200 * part), int(60 + 90 * part), int(120 - 30 * part))
        draw.line([(0, y), (width, y)], colour)
    draw.ellipse([600, 210, 700, 310], (255, 214, 140))
    for shade, tops in ((60, (330, 260, 350, 280)), (35, (400, 340, 390, 420))):
        points = [(index * width // 3, top) for index, top in enumerate(tops)]
        draw.polygon([(0, height), *points, (width, height)], (shade, shade, shade + 25))
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def accounts(browser: Browser, ann: User) -> None:
    """Show signing in, and the buckets."""
    browser.open(ann.bridge.endpoint)
    browser.fill("E-mail", ann.email)
    browser.fill("Password", "pass")
    browser.size(WIDE[0], 600)
    shoot(browser, "sign-in")
    browser.press("Sign in")
    browser.heading("Buckets")
    browser.size(WIDE[0], 540)
    shoot(browser, "buckets")
    browser.size(*WIDE)


def files(browser: Browser, bucket: str) -> None:
    """Show the files of a bucket, wide and narrow, light and dark."""
    browser.press("Photos")
    browser.heading("Photos")
    browser.see("Packing list.txt")
    for scheme in "light", "dark":
        browser.scheme(scheme)
        shoot(browser, f"files-{scheme}")
        browser.size(*NARROW)
        shoot(browser, f"phone-{scheme}")
        browser.size(*WIDE)
    browser.scheme("light")


def uploads(browser: Browser, folder: Path) -> None:
    """Show uploads that are on their way."""
    paths = [folder / name for name in ("Film.mp4", "Scan 1.tiff", "Scan 2.tiff")]
    for number, path in enumerate(paths):
        path.write_bytes(number.to_bytes(1, "big") * (60_000_000 - 20_000_000 * number))
    browser.upload_rate(30_000_000)
    browser.choose(*paths)
    browser.see("% ·")
    browser.wait(lambda: "MB/s" in browser.text and "3 % " not in browser.text)
    shoot(browser, "uploads")
    browser.upload_rate(-1)
    browser.press("Cancel all")


def links(browser: Browser, bucket: str) -> None:
    """Show a file, a link to it, and the page of that link."""
    browser.press("Evening at the lake.png")
    browser.wait(lambda: browser.find("//dialog//img").get_property("naturalWidth"), "the image")
    shoot(browser, "file")
    browser.press("Share…")
    browser.see("A link to share")
    link = browser.find("//pre[@aria-label='the link']").text
    browser.keys(Keys.ESCAPE)
    browser.press("Packing list.txt")
    browser.press("Share…")
    browser.see("A link to share")
    browser.scheme("dark")
    shoot(browser, "share-dark")
    browser.scheme("light")
    browser.size(*NARROW)
    browser.open(link)
    browser.see("Download")
    shoot(browser, "get")
    browser.size(*WIDE)


def shoot(browser: Browser, name: str) -> None:
    """Save what is seen as a picture of few colours."""
    browser.quiet()
    away = {"type": "mouseMoved", "x": 1, "y": 1}  # from the button that was pressed
    browser.driver.execute_cdp_cmd("Input.dispatchMouseEvent", away)
    with Image.open(BytesIO(browser.driver.get_screenshot_as_png())) as picture:
        small = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    path = IMAGES / f"console-{name}.png"
    small.save(path, optimize=True)
    assert path.stat().st_size <= MAX_SIZE, f"{path} has {path.stat().st_size} bytes"


if __name__ == "__main__":
    main()

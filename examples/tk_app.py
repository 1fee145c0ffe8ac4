"""A window that uploads files, with progress and cancel, and stays responsive.

    .venv/bin/python examples/tk_app.py [--demo]

It starts a bridge of its own. With --demo it cancels an upload and then uploads a file, and exits
with 0 only if the list then has that file alone.
"""

import random
import sys
import tempfile
import time
import tkinter as tk
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from tkinter import filedialog, ttk
from typing import Any

import pymdc
from pymdc.bridge import Bridge

TICK = 20  # milliseconds between two looks at the answers
DEMO_SIZE = 20_000_000

Then = Callable[[Any], object]


class Window:
    """Signs in, then uploads the chosen file, and lists the files in the bucket.

    Only one thread may use Tk. Callbacks and progress run on workers, so they only put what they
    get into a queue, which the Tk thread reads every few milliseconds.
    """

    def __init__(self, root: tk.Tk, bridge: Bridge, client: pymdc.Client) -> None:
        self.root, self.bridge, self.client = root, bridge, client
        self.user = pymdc.api.Users("you@example.com", "a good password", client=client)
        self.keys = pymdc.api.Keys(self.user)
        self.answers: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self.path: Path | None = None
        self.call: pymdc.Call | None = None  # during the upload
        self.status = tk.StringVar(root, "Signing in ...")
        self.percent = tk.IntVar(root, 0)
        self.lines = tk.Variable(root)
        self.choose_button = ttk.Button(root, text="Choose a file ...", command=self.choose)
        self.upload_button = ttk.Button(root, text="Upload", command=self.upload)
        self.cancel_button = ttk.Button(root, text="Cancel", command=self.cancel)
        self.build()
        self.due = time.monotonic()
        self.latest = 0.0
        self.take_answers()
        self.user.register(self.later(self.registered))

    def build(self) -> None:
        self.root.title("Uploads")
        for widget in (
            self.choose_button,
            self.upload_button,
            self.cancel_button,
            ttk.Progressbar(self.root, variable=self.percent, length=400),
            ttk.Label(self.root, textvariable=self.status),
            tk.Listbox(self.root, listvariable=self.lines, width=60),
        ):
            widget.pack(fill="x", padx=8, pady=4)
        self.allow(False)

    def later(self, then: Then) -> Then:
        """Return a callback that makes the Tk thread call *then* with the answer."""
        return lambda answer: self.answers.put(partial(self.show, then, answer))

    def take_answers(self) -> None:
        self.latest = max(self.latest, time.monotonic() - self.due)
        try:
            while True:
                self.answers.get_nowait()()
        except Empty:
            pass
        self.due = time.monotonic() + TICK / 1000
        self.root.after(TICK, self.take_answers)

    def show(self, then: Then, answer: Any) -> None:
        """Call *then* with the *answer*, or show the *answer* if it is an error."""
        try:
            then(pymdc.unwrap(answer))
        except (pymdc.PymdcError, OSError) as error:
            self.call = None
            self.percent.set(0)
            self.failed(error)
            self.allow(bool(self.keys.key_pairs))

    def failed(self, error: Exception) -> None:
        cancelled = isinstance(error, pymdc.Cancelled)
        self.say("Cancelled." if cancelled else f"It did not work: {error}")

    def registered(self, answer: Any) -> None:
        token = self.bridge.activation_key(self.user.username)  # usually the token comes by mail
        self.user.activate(token, self.later(self.activated))

    def activated(self, answer: Any) -> None:
        self.keys.create(callback=self.later(self.key_created))

    def key_created(self, answer: Any) -> None:
        buckets = pymdc.api.Buckets(self.keys.key_pairs[0], client=self.client)
        buckets.create("photos", 10, 30, [], self.later(self.signed_in))

    def signed_in(self, bucket: Any) -> None:
        key_pair = self.keys.key_pairs[0]
        self.files = pymdc.api.Bucket(bucket["id"], key_pair, client=self.client).files
        self.say("Choose a file.")
        self.allow(True)

    def choose(self) -> None:
        self.take(filedialog.askopenfilename())

    def take(self, path: str) -> None:
        if path:
            self.path = Path(path)
            self.say(f"{self.path.name}: ready to go up.")
            self.allow(True)

    def upload(self) -> None:
        assert self.path
        self.say(f"{self.path.name}: on its way ...")
        self.call = self.files.upload(
            self.path, callback=self.later(self.uploaded), progress=self.progress
        )
        self.allow(False)

    def progress(self, done: int, total: int | None) -> None:
        self.answers.put(partial(self.percent.set, 100 * done // max(1, total or 1)))

    def cancel(self) -> None:
        if self.call is not None:
            self.call.cancel()

    def uploaded(self, entry: Any) -> None:
        self.call = None
        self.percent.set(100)
        self.say(f"{entry['filename']}: {entry['size']} bytes went up.")
        self.files.list(self.later(self.listed))

    def listed(self, entries: Any) -> None:
        self.lines.set([f"{entry['filename']}  {entry['size']} bytes" for entry in entries])
        self.allow(True)

    def say(self, text: str) -> None:
        self.status.set(text)
        print(text, flush=True)

    def allow(self, allowed: bool) -> None:
        self.choose_button.state(["!disabled" if allowed else "disabled"])
        self.upload_button.state(["!disabled" if allowed and self.path else "disabled"])
        self.cancel_button.state(["!disabled" if self.call else "disabled"])


class Demo(Window):
    """Does what a user would do, and closes the window."""

    def __init__(self, root: tk.Tk, bridge: Bridge, client: pymdc.Client, path: Path) -> None:
        super().__init__(root, bridge, client)
        self.made = path
        self.cancelled = self.succeeded = False

    def signed_in(self, bucket: Any) -> None:
        super().signed_in(bucket)
        self.take(str(self.made))
        self.upload_button.invoke()
        self.cancel_button.invoke()

    def failed(self, error: Exception) -> None:
        super().failed(error)
        self.cancelled = isinstance(error, pymdc.Cancelled)
        if not self.cancelled:
            self.root.quit()
            return
        self.root.after(TICK, self.upload_button.invoke)

    def listed(self, entries: Any) -> None:
        super().listed(entries)
        sizes = [entry["size"] for entry in entries]
        self.succeeded = self.cancelled and sizes == [self.made.stat().st_size]
        self.root.quit()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, Bridge() as bridge:
        with pymdc.Client(bridge.endpoint) as client:
            try:
                root = tk.Tk()
            except tk.TclError as error:
                sys.exit(f"No window can be opened: {error}")
            if "--demo" not in sys.argv:
                Window(root, bridge, client)
                root.mainloop()
                client.close(cancel=True)  # nobody waits for the calls that are left
                return
            path = Path(folder, "photo.jpg")
            path.write_bytes(random.randbytes(DEMO_SIZE))
            demo = Demo(root, bridge, client, path)
            root.mainloop()
            root.destroy()
            if not demo.succeeded:
                sys.exit("The file is not in the list.")
            print(f"Success: the window was never more than {1000 * demo.latest:.0f} ms late.")


if __name__ == "__main__":
    main()

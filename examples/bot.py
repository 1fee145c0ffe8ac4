"""A bot that keeps notes: it answers lines on a socket, and calls pymdc with callbacks.

    .venv/bin/python examples/bot.py [--listen PORT]

With --listen, talk to it with ``nc 127.0.0.1 PORT``; Ctrl-C stops it. Without, it holds a short
conversation with itself, and exits with 0 only if all answers were right.

The bot has one thread, with an event loop, as a bot for IRC or a chat service has. A callback runs
on a worker, so it hands its answer to the loop, and the bot answers others meanwhile.
"""

import argparse
import asyncio
import contextlib
import io
import sys
from collections.abc import Callable
from typing import Any

import pymdc
from pymdc.bridge import Bridge

HELP = "I know: !keep TEXT, !notes, !read NUMBER"


class Bot:
    """Answers the commands of one conversation; the notes are files in a bucket."""

    def __init__(self, files: pymdc.api.Files, say: Callable[[str], None]) -> None:
        self.files = files
        self.say = say
        self.loop = asyncio.get_running_loop()

    def hear(self, line: str) -> None:
        """Begin to answer *line*; this returns at once."""
        command, _, rest = line.strip().partition(" ")
        if command == "!keep" and rest:
            note = bytearray(rest.encode())
            self.files.upload(note, callback=self.later(self.kept), name="note.txt")
        elif command == "!notes":
            self.files.list(self.later(lambda entries: self.say(f"notes: {len(entries)}")))
        elif command == "!read" and rest.isdecimal():
            self.files.list(self.later(lambda entries: self.read(entries, int(rest))))
        else:
            self.say(HELP)

    def later(self, then: Callable[[Any], None]) -> Callable[[Any], object]:
        """Return a callback that makes the loop call *then* with the answer."""
        return lambda answer: self.loop.call_soon_threadsafe(self.take, then, answer)

    def take(self, then: Callable[[Any], None], answer: Any) -> None:
        """Call *then* with the *answer*, or say the error."""
        try:
            then(pymdc.unwrap(answer))
        except (pymdc.PymdcError, OSError) as error:
            self.say(f"That did not work: {error}")

    def kept(self, entry: Any) -> None:
        self.say(f"kept, {entry['size']} bytes")

    def read(self, entries: Any, number: int) -> None:
        if not 1 <= number <= len(entries):
            self.say(f"there is no note {number}")
            return
        note = io.BytesIO()
        show = self.later(lambda answer: self.say(note.getvalue().decode()))
        self.files.download(entries[number - 1]["hash"], to=note, callback=show)


async def serve(files: pymdc.api.Files, port: int) -> asyncio.Server:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bot = Bot(files, lambda text: writer.write(f"{text}\n".encode()))
        with contextlib.closing(writer):
            while line := await reader.readline():
                bot.hear(line.decode(errors="replace"))

    return await asyncio.start_server(converse, "127.0.0.1", port)


CONVERSATION = [
    ("hello", HELP),
    ("!keep Buy milk", "kept, 8 bytes"),
    ("!notes", "notes: 1"),
    ("!read 1", "Buy milk"),
    ("!read 7", "there is no note 7"),
]


async def demonstrate(files: pymdc.api.Files) -> bool:
    server = await serve(files, 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        right = True
        for line, expected in CONVERSATION:
            writer.write(f"{line}\n".encode())
            answer = (await reader.readline()).decode().strip()
            print(f"> {line}\n{answer}", flush=True)
            right = right and answer == expected
        writer.close()
        await writer.wait_closed()
    return right


async def listen(files: pymdc.api.Files, port: int) -> None:
    server = await serve(files, port)
    host, port = server.sockets[0].getsockname()
    print(f"The bot listens on {host}, port {port}.", flush=True)
    await server.serve_forever()


def make_bucket(bridge: Bridge, client: pymdc.Client) -> pymdc.api.Bucket:
    user = pymdc.api.Users("bot@example.com", "a good password", client=client)
    user.register()
    user.activate(bridge.activation_key(user.username))  # usually the token comes by mail
    keys = pymdc.api.Keys(user)
    keys.create()
    made = pymdc.api.Buckets(keys.key_pairs[0], client=client).create("notes", 1, 1, [])
    return pymdc.api.Bucket(made["id"], keys.key_pairs[0], client=client)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", metavar="PORT", type=int)
    port = parser.parse_args().listen
    with Bridge() as bridge, pymdc.Client(bridge.endpoint) as client:
        files = make_bucket(bridge, client).files
        if port is not None:
            try:
                asyncio.run(listen(files, port))
            except KeyboardInterrupt:
                pass  # it was stopped
            except (OSError, OverflowError) as error:  # it is in use, or out of range
                sys.exit(f"The bot can't listen on port {port}: {error}")
        elif asyncio.run(demonstrate(files)):
            print("Success: the bot answered every line.")
        else:
            sys.exit("An answer was wrong.")


if __name__ == "__main__":
    main()

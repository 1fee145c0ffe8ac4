"""Channels: each sends one shard over a WebSocket."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import closing
from functools import partial
from typing import Any

import sqlalchemy as sa
from starlette.websockets import WebSocket, WebSocketDisconnect

from pymdc.bridge.context import Context
from pymdc.bridge.errors import Refused, UnavailableError
from pymdc.bridge.logs import Entry, log_damage, log_fault
from pymdc.bridge.routes.files import is_needed
from pymdc.bridge.settings import FIRST_MESSAGE_SECONDS, FRAME
from pymdc.bridge.storage.objects import ObjectReader
from pymdc.bridge.storage.prepared import Prepared, Row
from pymdc.bridge.storage.tables import buckets, pointers, redeem_token, shards, users

# Its pointer may have been made while the user was being disabled.
_IS_DISABLED = (
    sa.exists()
    .select_from(buckets.join(users))
    .where(buckets.c.id == sa.bindparam("from", type_=sa.String), users.c.disabled)
)
_SHARD = Prepared(sa.select(shards).where(shards.c.hash == sa.bindparam("its"), ~_IS_DISABLED))


class Channels:
    """The channels of a bridge."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._sending: set[asyncio.Task[Any] | None] = set()

    async def serve(self, socket: WebSocket, entry: Entry) -> None:
        """Send the shard that the first message asks for, or an error, and close."""
        status = 408
        try:
            await socket.accept()
            message = await asyncio.wait_for(socket.receive(), FIRST_MESSAGE_SECONDS)
            if message["type"] == "websocket.receive":
                given = message.get("text") or message.get("bytes") or b""
                entry.received = len(given)
                self._sending.add(asyncio.current_task())  # until all is sent, the close included
                status = await self._respond(socket, given, entry)
                await socket.close()
        except asyncio.TimeoutError:
            await socket.close()
        except (WebSocketDisconnect, asyncio.CancelledError):
            status = 499  # the client has gone, or the grace is over
        finally:
            self._sending.discard(asyncio.current_task())
            entry.finish(status)

    async def finish(self, seconds: float) -> None:
        """Wait until no channel is sending, for at most *seconds*."""
        deadline = time.monotonic() + seconds
        while tasks := {task for task in self._sending if task}:
            done, _ = await asyncio.wait(tasks, timeout=deadline - time.monotonic())
            if not done:
                return

    async def _respond(self, socket: WebSocket, message: str | bytes, entry: Entry) -> int:
        """Send the shard or the refusal; return its status."""
        try:
            redeem = partial(_redeem_pointer, self._context, message, entry)
            shard = await self._context.threads.run_db_only(self._context.load.run, redeem)
            reader = self._context.objects.open(shard["object"])
            with self._context.load.sending(), closing(reader):
                while entry.sent < shard["size"]:
                    sent = await self._send_block(socket, reader)
                    if not sent:
                        sizes = f"{entry.sent:,} of {shard['size']:,} bytes"
                        fault = f"object {shard['object']} has {sizes}"
                        return await self._report(socket, shard, fault, "The shard is damaged")
                    entry.sent += sent
        except Refused as refused:
            entry.note = refused.message
            await socket.send_json({"code": refused.status, "message": refused.message})
            return refused.status
        except FileNotFoundError as error:
            fault = f"{error.filename} is missing"
            return await self._report(socket, shard, fault, "The shard is lost")
        except UnavailableError as error:
            entry.note = str(error)
            await socket.send_json({"code": 503, "message": "The storage does not answer"})
            return 503
        except WebSocketDisconnect:
            raise
        except Exception as error:  # noqa: BLE001  # every error is logged and answered
            log_fault(f"the channel {entry.request}", error)
            await socket.send_json(
                {"code": 500, "message": f"Internal error in request {entry.request}"}
            )
            return 500
        else:
            return 200

    async def _send_block(self, socket: WebSocket, reader: ObjectReader) -> int:
        """Send one block of an object, wait until the client has read it, return its size."""
        block = await self._context.threads.run(reader.read, self._context.load.block_size())
        for offset in range(0, len(block), FRAME):
            frame = block[offset : offset + FRAME]
            await socket.send({"type": "websocket.send", "bytes": frame})
        return len(block)

    async def _report(self, socket: WebSocket, shard: Row, fault: str, message: str) -> int:
        """Report an object that cannot be sent to the operator and to the client."""
        needed = partial(is_needed, self._context, shard["object"])
        status = 500 if await self._context.threads.run_db_only(needed) else 404
        if status == 500:
            log_damage(fault)
        else:
            message = "The shard was removed"
        await socket.send_json({"code": status, "message": message})
        return status


def _redeem_pointer(context: Context, message: str | bytes, entry: Entry) -> Row:
    """Use up the token in *message*, and return the row of the shard that it is for."""
    try:
        parsed = json.loads(message)
    except (ValueError, RecursionError):
        raise Refused(400, "Failed to parse message") from None
    fields = parsed if isinstance(parsed, dict) else {}
    if not fields.get("token"):
        raise Refused(400, "You did not supply a token")
    with context.database.write_once() as connection:
        token = str(fields["token"]).encode("ascii", "replace").decode().replace("\0", "?")
        pointer = redeem_token(connection, pointers, token, context.now())
        its = pointer and {"its": pointer["shard"], "from": pointer["bucket"]}
        shard = _SHARD.first(connection, its) if its else None
    if shard is None:
        raise Refused(400, "The supplied token is not accepted")
    entry.who = pointer["bucket"] if pointer else "-"
    if not fields.get("hash"):
        raise Refused(400, "You did not supply the data hash")
    if fields["hash"] != shard["hash"]:
        raise Refused(400, "Token not valid for hash")
    if fields.get("operation") != "PULL":
        raise Refused(400, "Failed to handle the defined operation")
    return shard

"""The channel: one shard, out over a WebSocket."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import sqlalchemy as sa
from starlette.websockets import WebSocket, WebSocketDisconnect

from pymdc.bridge.context import State
from pymdc.bridge.errors import Refused
from pymdc.bridge.settings import FIRST_MESSAGE_SECONDS
from pymdc.bridge.storage.tables import pointers, shards, spend

_FRAME = 65536  # bytes at the most, as the protocol says
_BLOCK = 8 * _FRAME
_log = logging.getLogger("pymdc.bridge")


class Channels:
    """The channels of a bridge."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._sending: set[asyncio.Task[Any] | None] = set()

    async def serve(self, socket: WebSocket) -> None:
        """Send the shard that the first message asks for, or say why not, and close."""
        try:
            await socket.accept()
            message = await asyncio.wait_for(socket.receive(), FIRST_MESSAGE_SECONDS)
            if message["type"] == "websocket.receive":
                await self._answer(socket, message.get("text") or message.get("bytes") or b"")
                await socket.close()
        except asyncio.TimeoutError:
            await socket.close()
        except (WebSocketDisconnect, asyncio.CancelledError):  # the client goes, or the bridge
            pass

    async def finish(self, seconds: float) -> None:
        """Wait until no channel is sending, for *seconds* at the most."""
        tasks = {task for task in self._sending if task}
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    async def _answer(self, socket: WebSocket, message: str | bytes) -> None:
        self._sending.add(asyncio.current_task())
        try:
            shard = await self._state.offload.briefly(_spend, self._state, message)
            for start in range(0, shard["size"], _BLOCK):
                await self._send(socket, shard["object"], start)
        except Refused as refused:
            await socket.send_json({"code": refused.status, "message": refused.message})
        except WebSocketDisconnect:
            raise
        except Exception:  # noqa: BLE001  # whatever it is, it is logged and answered
            _log.exception("a channel failed")
            await socket.send_json({"code": 500, "message": "Internal error"})
        finally:
            self._sending.discard(asyncio.current_task())

    async def _send(self, socket: WebSocket, name: str, start: int) -> None:
        """Send a block of an object; a slow client is waited for, and no further one is read."""
        block = await self._state.offload(self._state.shards.read, name, start, _BLOCK)
        for place in range(0, len(block), _FRAME):
            frame = block[place : place + _FRAME]
            await socket.send({"type": "websocket.send", "bytes": frame})


def _spend(state: State, message: str | bytes) -> sa.RowMapping:
    """Spend the pointer token in *message*, and return the row of the shard that it is for."""
    try:
        wanted = json.loads(message)
    except (ValueError, RecursionError):
        raise Refused(400, "Failed to parse message") from None
    wanted = wanted if isinstance(wanted, dict) else {}
    if not wanted.get("token"):
        raise Refused(400, "You did not supply a token")
    with state.database.write() as connection:
        token = str(wanted["token"]).encode("ascii", "replace").decode()
        pointer = spend(connection, pointers, token, state.now())
        named = sa.select(shards).where(shards.c.hash == (pointer["shard"] if pointer else ""))
        shard = connection.execute(named).mappings().first()
    if shard is None:
        raise Refused(400, "The supplied token is not accepted")
    if not wanted.get("hash"):
        raise Refused(400, "You did not supply the data hash")
    if wanted["hash"] != shard["hash"]:
        raise Refused(400, "Token not valid for hash")
    if wanted.get("operation") != "PULL":
        raise Refused(400, "Failed to handle the defined operation")
    return shard

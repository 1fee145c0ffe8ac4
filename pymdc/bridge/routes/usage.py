"""What a user stores and sends."""

from __future__ import annotations

from pymdc.bridge.auth import Identity
from pymdc.bridge.context import Context, iso_time
from pymdc.bridge.js_number import json_number
from pymdc.bridge.serving.request import Request, Response
from pymdc.bridge.storage.usage import usage_of_user


def show_usage(context: Context, _request: Request, identity: Identity) -> Response:
    """Show what the user's buckets store and have sent in this month (UTC), in bytes."""
    month = iso_time(context.now())[:7]
    with context.database.read() as connection:
        own_limit, rows = usage_of_user(connection, identity.email, month)
    limit = context.limits.each_user if own_limit is None else own_limit
    usage = {
        "stored": sum(row["stored"] for row in rows),
        "limit": json_number(limit),
        "disk_free": context.load.free(),
        "buckets": [dict(row) for row in rows],
    }
    return Response(usage)

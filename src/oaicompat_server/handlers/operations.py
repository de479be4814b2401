"""What the people who run the gateway ask of it: whether it is ready, what rests and why, and to forget that.

One rule: health tells a stranger nothing but that; the status has no secret in it, and none of these calls
the upstream.
"""

from __future__ import annotations

import asyncio
import time
from importlib.metadata import version

import msgspec
from msgspec import Struct

from oaicompat.errors import InvalidRequestError
from oaicompat_server.bodies import has_body, read_body
from oaicompat_server.framing import JSON_TYPE, common_headers, send_body
from oaicompat_server.handlers.context import Context, Table, read_only, shown
from oaicompat_server.relay import Relay

HEALTH = ("/healthz", "/health", "/readyz")


class _Reset(Struct, forbid_unknown_fields=True):
    """What to forget: of one account, one model, or (both empty) of all."""

    account: str = ""
    model: str = ""


class Operations:
    """Answers about the gateway itself."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._version = version("oaicompat-server")
        self._core = version("oaicompat")
        self._started = time.monotonic()
        self.table: Table = {
            "/healthz": read_only(self._health),
            "/health": read_only(self._health),
            "/readyz": read_only(self._ready),
            "/oaicompat/status": read_only(self._status),
            "/oaicompat/reset": {"POST": self._reset},
        }

    async def _health(self, context: Context) -> None:
        await context.reply({"status": "ok", "version": self._version})

    async def _ready(self, context: Context) -> None:
        """Answer 200 where a request could be served: a credential is not refused, and nothing is closing."""
        if self._relay.draining:
            await self._unready(context, "draining")
        elif self._relay.pool.all_refused:
            await self._unready(context, "no usable credential")
        else:
            await context.reply({"status": "ready"})

    async def _unready(self, context: Context, why: str) -> None:
        headers = [JSON_TYPE, *common_headers(context.request_id, context.started)]
        await send_body(context.send, 503, headers, msgspec.json.encode({"status": why}))

    async def _status(self, context: Context) -> None:
        now = time.monotonic()
        relay = self._relay
        await context.reply(
            {
                "object": "oaicompat.status",
                "versions": {"oaicompat": self._core, "oaicompat-server": self._version},
                "uptime": round(now - self._started, 3),
                "draining": relay.draining,
                "worker": {"index": relay.worker, "of": relay.config.server.workers},
                "requests": {
                    "running": relay.admission.active,
                    "waiting": relay.admission.waiting,
                    "leases": relay.leases,
                    "body_bytes": relay.bodies.used,
                    "tasks": len(asyncio.all_tasks()),
                },
                "settings": {
                    "auth": relay.settings.access.mode,
                    "state": relay.config.state.store,
                    "loaded": relay.settings.number,
                },
                "pool": relay.pool.status(now),
            }
        )

    async def _reset(self, context: Context) -> None:
        body = b"{}"
        if has_body(context.headers):
            limit = self._relay.config.server.body_limit
            body = await read_body(context.headers, context.receive, limit)
        try:
            wanted = msgspec.json.decode(body, type=_Reset)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise InvalidRequestError(
                "The body must be empty or an object with 'account', 'model' or both, as strings."
            ) from None
        known = {credential.account for credential in self._relay.pool.credentials}
        if wanted.account and wanted.account not in known:
            raise InvalidRequestError(
                f"There is no credential {shown(wanted.account)!r}.", status=404, param="account"
            )
        await self._relay.sharing.reset(wanted.account, wanted.model)
        self._relay.others_forget(wanted.account, wanted.model)
        await context.reply(
            {"object": "oaicompat.reset", "pool": self._relay.pool.status(time.monotonic())}
        )

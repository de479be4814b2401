"""What requests share, and how one becomes an exchange.

One rule: everything here outlives a request; what belongs to one is in its session.
"""

from __future__ import annotations

import secrets
import time

import anyio
import anyio.to_thread
from msgspec import Struct

from oaicompat.dialects import AnswerOptions
from oaicompat.errors import OaicompatError
from oaicompat.exchange import Exchange, Options
from oaicompat.models import ModelMap
from oaicompat.providers.gemini.context import EncodeOptions
from oaicompat.providers.gemini.endpoints import Target
from oaicompat.retry import RetryPolicy
from oaicompat_server.admission import Admission
from oaicompat_server.credentials import Credential, Pool
from oaicompat_server.settings import Config
from oaicompat_server.store import SignatureStore
from oaicompat_server.upstream import Upstream

_PARSE_IN_THREAD = 4 * 1024 * 1024
_PARSERS = 2


class Incoming(Struct, frozen=True):
    """One request whose body has been read.

    `started` is when it came, on the monotonic clock; `owner` whose it is (see `auth.OWNER`).
    """

    dialect: str
    body: bytes
    request_id: str
    started: float
    owner: str = ""


class Relay:
    """Serves requests; owns what they share."""

    def __init__(self, config: Config, upstream: Upstream, pool: Pool, models: ModelMap) -> None:
        server = config.server
        self.config = config
        self.upstream = upstream
        self.pool = pool
        self.models = models
        self.admission = Admission(server.max_in_flight, server.queue, server.queue_wait)
        self.policy = RetryPolicy(attempts=config.upstream.attempts)
        self.signatures = SignatureStore()
        self.leases = 0
        answer = config.answer
        self._options = Options(
            answer=AnswerOptions(images=answer.images, code=answer.code),
            encode=EncodeOptions(thoughts=answer.thoughts),
        )
        self._parsers = anyio.CapacityLimiter(_PARSERS)

    def target(self, credential: Credential) -> Target:
        """Return where this credential is used."""
        return credential.target(self.config.upstream.base_url)

    async def exchange(self, incoming: Incoming) -> Exchange:
        """Decode the request, in a thread when it is big; raises `InvalidRequestError`."""

        def build() -> Exchange:
            return Exchange(
                incoming.dialect,
                incoming.body,
                models=self.models,
                created=int(time.time()),
                new_id=_new_id,
                strict=self.config.request.strict,
                options=self._options,
            )

        if len(incoming.body) < _PARSE_IN_THREAD:
            return build()
        return await anyio.to_thread.run_sync(build, abandon_on_cancel=True, limiter=self._parsers)


def internal_error(request_id: str) -> OaicompatError:
    """Return the opaque error for a fault of our own."""
    return OaicompatError(
        f"The server had an error while processing your request (request ID {request_id}).",
        status=500,
    )


def _new_id() -> str:
    return secrets.token_hex(14)

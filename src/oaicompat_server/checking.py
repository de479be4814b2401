"""Whether a credential works, found out by the cheapest call its front door has.

One rule: nothing that costs money is called, and what fails is said in the words a client would read.
"""

from __future__ import annotations

from msgspec import Struct, structs

from oaicompat.providers.gemini.endpoints import count_tokens_url, headers, models_url
from oaicompat.providers.gemini.errors import decode_error
from oaicompat_server.listing import fetch_models
from oaicompat_server.pool import Credential
from oaicompat_server.secret import keeping_out
from oaicompat_server.upstream import Upstream

PROBE_MODEL = "gemini-2.5-flash"


class _Post(Struct, frozen=True):
    """A request, as `Upstream.open` takes it."""

    url: str
    body: bytes
    method: str = "POST"


async def check_credential(upstream: Upstream, credential: Credential, base_url: str) -> str:
    """Return what was seen of a credential that works; raises `OaicompatError` for one that does not."""
    proof = await credential.proof()
    target = credential.target(base_url)
    if models_url(target) is not None:
        return f"{len(await fetch_models(upstream, target, credential))} models"
    target = structs.replace(target, model=PROBE_MODEL)
    request = _Post(
        count_tokens_url(target), b'{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}'
    )
    lines = headers(target, proof.reveal(), credential.payer)
    async with upstream.open(request, lines, proxy=credential.proxy) as response:
        body = b"".join([chunk async for chunk in response])
    if response.status != 200:
        with keeping_out(proof):
            raise decode_error(response.status, response.headers, body, model=PROBE_MODEL)
    return f"counts tokens of {PROBE_MODEL}"

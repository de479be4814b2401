"""Who may call: the access rules as pure functions, and the outermost gate that applies them.

One rule: everything is refused unless it is allowed, decided on the very path the router matches
(`scope["path"]`) and before the body is read. A browser page is stopped by its Host and Origin, whatever key
it carries.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from functools import lru_cache
from hashlib import sha256

from msgspec import Struct

from oaicompat.errors import AuthenticationError, InvalidRequestError, OaicompatError
from oaicompat_server.framing import (
    FIELDS,
    OWN_HEADERS,
    Fields,
    Headers,
    Message,
    Receive,
    Scope,
    Send,
    common_headers,
    fields_of,
    find_header,
    header_value,
    refuse,
    refuse_upgrade,
    request_id_in,
)
from oaicompat_server.secret import Secret
from oaicompat_server.settings import AuthMode, Config, ConfigError

App = Callable[[Scope, Receive, Send], Awaitable[None]]

EXEMPT_PATHS = frozenset({"/healthz", "/health", "/readyz"})
_EXEMPT_METHODS = frozenset({"GET", "HEAD"})
_KEY_HEADERS = (b"authorization", b"x-api-key", b"x-goog-api-key")
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::([0-9]{1,5}))?\Z")
_ORIGIN_SHAPE = re.compile(r"null|[a-z][a-z0-9+.-]*://[^/?#\s]+")
_LONGEST_HOST = 512
_METHODS = b"GET, POST, DELETE, HEAD, OPTIONS"


class Access(Struct, frozen=True):
    """The rules in force: the effective mode, the keys' digests, the names and origins that are listed."""

    mode: AuthMode
    digests: tuple[bytes, ...] = ()
    check_hosts: bool = True
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    bound: str = ""


def is_loopback(host: str) -> bool:
    """Tell whether binding to `host` is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def effective_mode(mode: AuthMode, host: str, has_keys: bool) -> AuthMode:
    """Resolve `auto`: off iff bound to loopback with no key configured, else all_except_health."""
    if mode != "auto":
        return mode
    return "off" if is_loopback(host) and not has_keys else "all_except_health"


def plan_access(config: Config) -> Access:
    """Return the rules for these settings; raises `ConfigError` for a start that would be unsafe."""
    auth, server = config.auth, config.server
    mode = effective_mode(auth.mode, server.host, bool(auth.keys))
    if mode == "off" and not is_loopback(server.host) and not server.insecure:
        raise ConfigError(
            f"auth.mode = 'off' while listening on {server.host}: anybody who reaches this port could use your "
            "credentials; set auth.keys, or pass --insecure to accept it"
        )
    if mode != "off" and not auth.keys:
        raise ConfigError(
            f"auth.mode = {auth.mode!r} on {server.host} needs a key: set auth.keys or OAICOMPAT_API_KEY"
        )
    if mode == "off" and not server.check_hosts:
        raise ConfigError("server.check_hosts = false is allowed only when auth is required")
    for origin in server.allowed_origins:
        if not _ORIGIN_SHAPE.fullmatch(origin):
            raise ConfigError(
                f"server.allowed_origins: {origin!r} is no origin, which is scheme://host or scheme://host:port"
            )
    return Access(
        mode,
        digest_keys(auth.keys),
        server.check_hosts,
        frozenset(name.lower() for name in server.allowed_hosts),
        frozenset(server.allowed_origins),
        _bound_name(server.host),
    )


def _bound_name(host: str) -> str:
    if host in ("", "0.0.0.0", "::"):
        return ""
    return f"[{host.strip('[]')}]" if ":" in host else host.lower()


def digest_keys(keys: Iterable[Secret]) -> tuple[bytes, ...]:
    """Return the SHA-256 digest of every configured key."""
    return tuple(sha256(key.reveal().encode("ascii")).digest() for key in keys if key)


def presented_key(fields: Fields) -> bytes | None:
    """Return the key the client shows: Authorization, then x-api-key, then x-goog-api-key.

    The first header present decides; `Bearer` is optional and its case does not matter.
    """
    for wanted in _KEY_HEADERS:
        sent = fields.get(wanted)
        if sent is not None:
            value = sent.strip()
            if wanted == b"authorization" and value[:7].lower() == b"bearer ":
                return value[7:].strip()
            return b"" if value.lower() == b"bearer" else value
    return None


def key_digest(key: bytes) -> bytes:
    """Return the SHA-256 digest of a key that is shown."""
    return sha256(key).digest()


def key_matches(digest: bytes, digests: tuple[bytes, ...]) -> bool:
    """Compare a key's digest in constant time over all keys."""
    matched = False
    for known in digests:
        matched |= hmac.compare_digest(digest, known)
    return matched


def is_exempt(method: str, path: str, mode: AuthMode) -> bool:
    """Tell whether a request needs no key: health by GET and HEAD, by exact path, unless the mode is strict."""
    return mode != "strict" and method in _EXEMPT_METHODS and path in EXEMPT_PATHS


def parse_host(host: bytes) -> tuple[str, int | None] | None:
    """Return a Host header as lower-case name and port; None when malformed."""
    matched = _HOST.match(host)
    if matched is None:
        return None
    port = matched[2]
    if port is not None and int(port) > 65535:
        return None
    return matched[1].decode("ascii").lower(), None if port is None else int(port)


def host_allowed(
    name: str,
    port: int | None,
    server: tuple[str, int | None] | None,
    listed: Collection[str],
    bound: str = "",
) -> bool:
    """Tell whether a Host names this gateway.

    Allowed are, on our own port, localhost, 127.0.0.0/8, [::1], the name we are `bound` to and the very address
    the connection came in on; and listed names (with any port, or with the port they are listed with).
    """
    if name in listed or (port is not None and f"{name}:{port}" in listed):
        return True
    own_address, own_port = server if server else ("", None)
    if own_port is not None and (80 if port is None else port) != own_port:
        return False
    if name in ("localhost", "[::1]") or (bound and name == bound):
        return True
    try:
        address = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    if address.version == 4 and address.is_loopback:
        return True
    return own_address != "" and str(address) == own_address.partition("%")[0]


@lru_cache(256)
def _host_status(
    host: bytes, server: tuple[str, int | None] | None, listed: frozenset[str], bound: str
) -> int:
    """Return how a Host is answered: 400 where it is malformed, 403 where it is not ours, else 200."""
    named = parse_host(host)
    if named is None:
        return 400
    return 200 if host_allowed(*named, server, listed, bound) else 403


def browser_refusal(headers: Headers, origins: Collection[str]) -> str | None:
    """Return why a page of another site may not call, or None."""
    for name, value in headers:
        if name == b"origin" and value.decode("latin-1") not in origins:
            shown = header_value(value.decode("latin-1")).decode("ascii")
            return f"Origin {shown} is not listed in server.allowed_origins."
        if name == b"sec-fetch-site" and value.strip().lower() == b"cross-site":
            origin = find_header(headers, b"origin") or b""
            if origin.decode("latin-1") in origins:
                continue
            return "Cross-site requests are refused."
    return None


OWNER = "oaicompat.owner"
"""Where the gate leaves in the scope whose request this is: a digest of the key, empty with auth off."""


class Gate:
    """Pure ASGI middleware that applies the rules in force to every request; it wraps the whole application.

    It reads the headers, once for all: what is behind it finds them in the scope, as `FIELDS`.
    """

    def __init__(self, app: App, rules: Callable[[], Access]) -> None:
        self._app = app
        self._rules = rules

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "lifespan":
            return self._app(scope, receive, send)
        access = self._rules()
        scope[FIELDS] = fields = fields_of(scope["headers"])
        origin = fields.get(b"origin")
        listed = origin is not None and origin.decode("latin-1") in access.origins
        if origin is not None and listed:
            send = _with_origin(send, origin)
        error = _site_error(access, scope, fields)
        if error is None:
            if listed and _is_preflight(scope, fields):
                return _answer_preflight(fields, send)
            key = None if access.mode == "off" else presented_key(fields)
            digest = key_digest(key) if key else b""
            error = _key_error(access, scope, digest)
            if error is None:
                scope[OWNER] = digest.hex()
                return self._app(scope, receive, send)
        return _refuse(scope, receive, send, error)


def _site_error(access: Access, scope: Scope, fields: Fields) -> OaicompatError | None:
    headers: Headers = scope["headers"]
    host = fields.get(b"host", b"")
    repeated = len(headers) != len(fields) and sum(name == b"host" for name, _ in headers) > 1
    if repeated or len(host) > _LONGEST_HOST:
        status = 400
    else:
        server = scope.get("server")
        own = tuple(server) if server else None
        status = _host_status(host, own, access.hosts, access.bound)
    if status == 400:
        return InvalidRequestError("Exactly one valid Host header is needed.")
    if not access.check_hosts:
        return None
    if status == 403:
        return InvalidRequestError(
            "This Host is not served here; list it in server.allowed_hosts.", status=403
        )
    if b"origin" not in fields and b"sec-fetch-site" not in fields:
        return None
    reason = browser_refusal(headers, access.origins)
    return InvalidRequestError(reason, status=403) if reason else None


def _key_error(access: Access, scope: Scope, digest: bytes) -> OaicompatError | None:
    if access.mode == "off" or (digest and key_matches(digest, access.digests)):
        return None
    if is_exempt(scope.get("method", ""), scope["path"], access.mode):
        return None
    if not digest:
        return AuthenticationError(
            "You didn't provide an API key. Send it in an Authorization header: Authorization: Bearer KEY."
        )
    return AuthenticationError("Incorrect API key provided.")


def _refuse(scope: Scope, receive: Receive, send: Send, error: OaicompatError) -> Awaitable[None]:
    more = common_headers(request_id_in(scope[FIELDS]), time.monotonic())
    if error.status == 401:
        more.append((b"www-authenticate", b"Bearer"))
    refused = refuse_upgrade if scope["type"] == "websocket" else refuse
    return refused(receive, send, error, more)


def _is_preflight(scope: Scope, fields: Fields) -> bool:
    return b"access-control-request-method" in fields and scope.get("method") == "OPTIONS"


async def _answer_preflight(fields: Fields, send: Send) -> None:
    reply: Headers = [
        *common_headers(request_id_in(fields), time.monotonic()),
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-max-age", b"3600"),
    ]
    asked = fields.get(b"access-control-request-headers")
    if asked is not None:
        reply.append((b"access-control-allow-headers", asked))
    await send({"type": "http.response.start", "status": 204, "headers": reply})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _with_origin(send: Send, origin: bytes) -> Send:
    more: Headers = [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", OWN_HEADERS),
        (b"vary", b"Origin"),
    ]

    async def send_with_origin(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *more]
        await send(message)

    return send_with_origin

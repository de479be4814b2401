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
    OWN_HEADERS,
    Headers,
    Message,
    Receive,
    Scope,
    Send,
    common_headers,
    find_header,
    header_value,
    refuse,
    refuse_upgrade,
    request_id_of,
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


def presented_key(headers: Headers) -> bytes | None:
    """Return the key the client shows: Authorization, then x-api-key, then x-goog-api-key.

    The first header present decides; `Bearer` is optional and its case does not matter.
    """
    for wanted in _KEY_HEADERS:
        sent = find_header(headers, wanted)
        if sent is not None:
            value = sent.strip()
            if wanted == b"authorization" and value[:7].lower() == b"bearer ":
                return value[7:].strip()
            return b"" if value.lower() == b"bearer" else value
    return None


def key_matches(key: bytes, digests: tuple[bytes, ...]) -> bool:
    """Compare in constant time over all keys."""
    digest = sha256(key).digest()
    matched = False
    for known in digests:
        matched |= hmac.compare_digest(digest, known)
    return matched


def is_exempt(method: str, path: str, mode: AuthMode) -> bool:
    """Tell whether a request needs no key: health by GET and HEAD, by exact path, unless the mode is strict."""
    return mode != "strict" and method in _EXEMPT_METHODS and path in EXEMPT_PATHS


def parse_host(headers: Headers) -> tuple[str, int | None] | None:
    """Return the one Host header as lower-case name and port; None when missing, repeated or malformed."""
    values = [value for name, value in headers if name == b"host"]
    return _named(values[0]) if len(values) == 1 and len(values[0]) <= _LONGEST_HOST else None


@lru_cache(256)
def _named(host: bytes) -> tuple[str, int | None] | None:
    matched = _HOST.match(host)
    if matched is None:
        return None
    port = matched[2]
    if port is not None and int(port) > 65535:
        return None
    return matched[1].decode("ascii").lower(), None if port is None else int(port)


@lru_cache(256)
def host_allowed(
    name: str,
    port: int | None,
    server: tuple[str, int | None] | None,
    listed: frozenset[str],
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


def browser_refusal(headers: Headers, origins: Collection[str]) -> str | None:
    """Return why a page of another site may not call, or None."""
    for name, value in headers:
        if name == b"origin" and value.decode("latin-1") not in origins:
            shown = header_value(value.decode("latin-1")).decode("ascii")
            return f"Origin {shown} is not listed in server.allowed_origins."
        if name == b"sec-fetch-site" and value.strip().lower() == b"cross-site":
            if _origin(headers) in origins:
                continue
            return "Cross-site requests are refused."
    return None


def _origin(headers: Headers) -> str:
    return (find_header(headers, b"origin") or b"").decode("latin-1")


OWNER = "oaicompat.owner"
"""Where the gate leaves in the scope whose request this is: a digest of the key, empty with auth off."""


class Gate:
    """Pure ASGI middleware that applies the rules in force to every request; it wraps the whole application."""

    def __init__(self, app: App, rules: Callable[[], Access]) -> None:
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers: Headers = scope["headers"]
        access = self._rules()
        origin = _origin(headers)
        listed = origin in access.origins
        key = None if access.mode == "off" else presented_key(headers)
        if listed:
            send = _with_origin(send, origin)
        error = _site_error(access, scope, headers)
        if error is None and listed and _is_preflight(scope, headers):
            await _answer_preflight(headers, send)
            return
        error = error or _key_error(access, scope, key)
        if error is None:
            scope[OWNER] = sha256(key).hexdigest() if key else ""
            await self._app(scope, receive, send)
            return
        more = common_headers(request_id_of(headers), time.monotonic())
        if error.status == 401:
            more.append((b"www-authenticate", b"Bearer"))
        if scope["type"] == "websocket":
            await refuse_upgrade(receive, send, error, more)
        else:
            await refuse(receive, send, error, more)


def _site_error(access: Access, scope: Scope, headers: Headers) -> OaicompatError | None:
    host = parse_host(headers)
    if host is None:
        return InvalidRequestError("Exactly one valid Host header is needed.")
    if not access.check_hosts:
        return None
    server = scope.get("server")
    own = tuple(server) if server else None
    if not host_allowed(*host, own, access.hosts, access.bound):
        return InvalidRequestError(
            "This Host is not served here; list it in server.allowed_hosts.", status=403
        )
    reason = browser_refusal(headers, access.origins)
    return InvalidRequestError(reason, status=403) if reason else None


def _key_error(access: Access, scope: Scope, key: bytes | None) -> OaicompatError | None:
    if access.mode == "off" or is_exempt(scope.get("method", ""), scope["path"], access.mode):
        return None
    if not key:
        return AuthenticationError(
            "You didn't provide an API key. Send it in an Authorization header: Authorization: Bearer KEY."
        )
    if not key_matches(key, access.digests):
        return AuthenticationError("Incorrect API key provided.")
    return None


def _is_preflight(scope: Scope, headers: Headers) -> bool:
    asked = any(name == b"access-control-request-method" for name, _ in headers)
    return asked and scope.get("method") == "OPTIONS"


async def _answer_preflight(headers: Headers, send: Send) -> None:
    asked = [value for name, value in headers if name == b"access-control-request-headers"]
    reply: Headers = [
        *common_headers(request_id_of(headers), time.monotonic()),
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-max-age", b"3600"),
        *((b"access-control-allow-headers", value) for value in asked[:1]),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": reply})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _with_origin(send: Send, origin: str) -> Send:
    more: Headers = [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", OWN_HEADERS),
        (b"vary", b"Origin"),
    ]

    async def send_with_origin(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *more]
        await send(message)

    return send_with_origin

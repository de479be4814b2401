"""Settings with a secret in every place that takes one, and the search for those secrets.

One rule: a secret is looked for in every form in which it could come out: as it is, escaped, in base64, in
percent-encoding, and a private key line by line.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from tests.support.token_service import key_file, pem

INLINE = "AIzaSySentinelInline00000000000000000001"
PLAIN = "plain-sentinel-key-0002"
BY_VARIABLE = "variable-sentinel-key-0003"
BY_FILE = "AQ.sentinel-file-key-0004"
EXPRESS = "express-sentinel-key-0005"
BEARER = "ya29.sentinel-bearer-token-0006"
PROXY = "sentinel@proxy:password-0007"
REDIS = "sentinel-redis-password-0008"
CLIENT = "sentinel-client-key-0009"
OTHER_CLIENT = "sentinel-client-key-0010"
ROTATED = "sentinel-rotated-key-0011"
WRONG = "sentinel-wrong-client-key-0012"
MISPLACED = "sentinel-misplaced-0013"
VARIABLE = "SENTINEL_KEY"

_PROXY_LOGIN = base64.b64encode(f"someone:{PROXY}".encode()).decode()
SECRETS = (
    *(INLINE, PLAIN, BY_VARIABLE, BY_FILE, EXPRESS, BEARER, PROXY, REDIS, CLIENT, OTHER_CLIENT, ROTATED),
    *(WRONG, MISPLACED, _PROXY_LOGIN),
)  # fmt: skip


def forms() -> tuple[str, ...]:
    """Return every text that must not be found."""
    found = [*SECRETS, *(quote(each, safe="") for each in SECRETS)]
    found += [base64.b64encode(each.encode()).decode().rstrip("=") for each in SECRETS]
    found += [each.encode().hex() for each in SECRETS]
    # The last line of a key is short; the first ones say what it is.
    found += [each for each in pem().splitlines()[1:-1] if len(each) > 20]
    return tuple(dict.fromkeys((*found, "PRIVATE KEY-----")))


def leaks(text: str) -> list[str]:
    """Return the secrets that a text shows."""
    return [each for each in forms() if each in text]


def leaks_of_bytes(data: bytes) -> list[str]:
    """Return the secrets that bytes show."""
    return [each for each in forms() if each.encode() in data]


def kinds(upstream: str, proxy: str, closed: str) -> Mapping[str, Mapping[str, object]]:
    """Return a credential of every kind, each serving one model, the one of its name.

    `upstream` is the simulator, `proxy` host and port of a proxy, `closed` those of nobody.
    """
    vertex = {"base_url": upstream, "project": "my-project", "location": "us-central1"}
    plain_tls = upstream.replace("http:", "https:")
    return {
        "inline": {"key": INLINE},
        "plain": {"key": PLAIN},
        "variable": {"key_env": VARIABLE},
        "file": {"key_file": "key"},
        "express": {"kind": "express", "key": EXPRESS, "base_url": upstream},
        "bearer": {"kind": "bearer", "key": BEARER, **vertex},
        "account": {"kind": "service_account", "key": key_file(), **vertex},
        "account-file": {"kind": "service_account", "key_file": "account.json", **vertex},
        "proxied": {"key": f"{PLAIN}-p", "proxy": f"http://someone:{quote(PROXY)}@{proxy}"},
        "unproxied": {"key": f"{PLAIN}-u", "proxy": f"http://someone:{quote(PROXY)}@{closed}"},
        "refused": {"key": f"{PLAIN}-r", "base_url": f"http://{closed}"},
        "tls": {"key": f"{PLAIN}-t", "base_url": plain_tls},
    }


def write_settings(
    place: Path,
    upstream: str,
    credentials: Mapping[str, Mapping[str, object]],
    *,
    http: str = "fast",
) -> Path:
    """Write a settings file and the key files beside it, readable by their owner alone."""
    files = {"key": f"{BY_FILE}\n", "account.json": key_file()}
    lines = [
        *("[auth]", 'mode = "strict"', f"keys = {json.dumps([CLIENT, OTHER_CLIENT])}"),
        *(
            "[upstream]",
            f'base_url = "{upstream}"',
            f'http = "{http}"',
            "attempts = 1",
            "connect_timeout = 1.0",
        ),
        *("first_byte_timeout = 0.5", "idle_timeout = 0.5"),
        *("[state]", f'path = "{place / "state.sqlite3"}"'),
        f'redis_url = "redis://someone:{REDIS}@127.0.0.1:1/0"',
    ]
    for name, entry in credentials.items():
        given = dict(entry)
        if "key_file" in given:
            given["key_file"] = str(place / str(given["key_file"]))
        lines += ["[[credentials]]", f'models = ["model-{name}"]']
        lines += [f"{field} = {json.dumps(value)}" for field, value in given.items()]
    files["settings.toml"] = "\n".join(lines)
    for name, text in files.items():
        path = place / name
        path.touch(0o600)
        path.write_text(text)
        path.chmod(0o600)
    return place / "settings.toml"

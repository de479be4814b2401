"""What a `[[credentials]]` entry says, made complete: its secret is fetched, what its kind needs is there.

One rule: a wrong entry stops the start with its place, and no message quotes a secret. Nothing here opens a
socket; whether a credential is good is found out by using it.
"""

from __future__ import annotations

import stat
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct, structs

from oaicompat.errors import InvalidRequestError
from oaicompat.providers.gemini.endpoints import Target
from oaicompat.providers.gemini.redaction import scrub
from oaicompat_server.secret import Secret
from oaicompat_server.settings import ConfigError, CredentialKind, CredentialSettings

KEY_VARIABLES = ("GEMINI_API_KEY", "GOOGLE_API_KEY")

_BACKENDS: Mapping[CredentialKind, bool] = {
    "api_key": False,
    "express": False,
    "bearer": True,
    "service_account": True,
    "adc": True,
}
"""By kind: whether it is of a project, which its calls name."""


class ServiceAccount(Struct, frozen=True):
    """What is read of a service account's key file."""

    type: str
    client_email: str
    private_key: str
    project_id: str = ""

    def __repr__(self) -> str:
        return f"ServiceAccount({self.client_email!r})"


def service_account(key: Secret) -> ServiceAccount:
    """Return what the JSON of a key file says; raises `ValueError`, without quoting it, for anything else."""
    try:
        account = msgspec.json.decode(key.reveal().encode("utf-8"), type=ServiceAccount)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        account = None
    if account is None or account.type != "service_account":
        raise ValueError("the key is not the JSON of a service account's key file")
    return account


def complete(
    entry: CredentialSettings, environ: Mapping[str, str], place: str
) -> CredentialSettings:
    """Return the entry with its secret, and checked; `place` begins every message. Raises `ConfigError`."""
    entry = structs.replace(entry, key=_key(entry, environ, place))
    if entry.kind == "service_account":
        try:
            project = service_account(entry.key).project_id
        except ValueError as error:
            raise ConfigError(f"{place}: {error}") from None
        entry = structs.replace(entry, project=entry.project or project)
    elif any(character.isspace() for character in entry.key.reveal()):
        raise ConfigError(f"{place}: a key may hold visible ASCII characters only")
    _check_place(entry, place)
    _check_proxy(entry, place)
    return entry


def from_variables(environ: Mapping[str, str]) -> list[CredentialSettings]:
    """Return a credential for each key in the usual variables, each key once."""
    found = {
        key: name
        for name in reversed(KEY_VARIABLES)
        for key in (item.strip() for item in environ.get(name, "").split(","))
        if key
    }
    return [
        CredentialSettings(key=_secret(key, f"environment variable {name}"))
        for key, name in found.items()
    ]


def doubled(entries: Sequence[CredentialSettings]) -> list[str]:
    """Return what is to be said of credentials that cannot be told apart, or are the same."""
    labels = Counter(entry.label for entry in entries if entry.label)
    keys = Counter((entry.kind, entry.key, entry.base_url, entry.project) for entry in entries)
    found = [
        f"{count} credentials have the label {label!r}: logs and the status do not tell them apart"
        for label, count in labels.items()
        if count > 1
    ]
    same = sum(count - 1 for (_, key, *_), count in keys.items() if key)
    if same:
        found.append(f"{same} of the credentials were there before; that adds nothing to a quota")
    return found


def readable_files(entry: CredentialSettings) -> list[str]:
    """Return what is to be said of a key file that others can read."""
    return [said] if entry.key_file and (said := readable(_path(entry))) else []


def readable(path: Path) -> str:
    """Say what to do about a file with secrets that others can read, "" where nothing is."""
    if sys.platform == "win32" or not stat.S_IMODE(path.stat().st_mode) & 0o077:
        return ""
    return f"{path} holds secrets and others can read it: chmod 600 {path}"


def _key(entry: CredentialSettings, environ: Mapping[str, str], place: str) -> Secret:
    given = [name for name in ("key", "key_env", "key_file") if getattr(entry, name)]
    if entry.kind == "adc":
        if given:
            raise ConfigError(
                f"{place}: kind 'adc' finds its credentials itself; remove {given[0]}"
            )
        return Secret("")
    if len(given) != 1:
        raise ConfigError(f"{place}: exactly one of key, key_env and key_file is needed")
    if entry.key:
        return entry.key
    if entry.key_env:
        text = environ.get(entry.key_env, "")
        if not text.strip():
            raise ConfigError(f"{place}: environment variable {scrub(entry.key_env)} is not set")
    else:
        try:
            text = _path(entry).read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            raise ConfigError(f"{place}: key_file {scrub(entry.key_file)} cannot be read") from None
        if not text.strip():
            raise ConfigError(f"{place}: key_file {scrub(entry.key_file)} is empty")
    return Secret.document(text) if entry.kind == "service_account" else _secret(text, place)


def _path(entry: CredentialSettings) -> Path:
    return Path(entry.key_file).expanduser()


def _secret(text: str, place: str) -> Secret:
    try:
        return Secret(text)
    except ValueError as error:
        raise ConfigError(f"{place}: {error}") from None


def _check_place(entry: CredentialSettings, place: str) -> None:
    of_project = _BACKENDS[entry.kind]
    for name in ("project", "location"):
        if getattr(entry, name) and not of_project:
            raise ConfigError(f"{place}: kind {entry.kind!r} has no {name}")
    # The project of default credentials may be known only once they were found.
    if not of_project or (entry.kind == "adc" and not entry.project):
        return
    if not entry.project:
        raise ConfigError(f"{place}: kind {entry.kind!r} needs a project")
    try:
        Target("vertex", project=entry.project, location=entry.location or "global")
    except InvalidRequestError as error:
        raise ConfigError(f"{place}: {error.message}") from None


def _check_proxy(entry: CredentialSettings, place: str) -> None:
    if not entry.proxy:
        return
    try:
        url = urlsplit(entry.proxy.reveal())
        known = url.scheme == "http" and bool(url.hostname) and url.port is not None
        plain = not url.query and not url.fragment and url.path in ("", "/")
    except ValueError:
        known = plain = False
    if not (known and plain):
        raise ConfigError(
            f"{place}: proxy must be http://[user:password@]host:port and nothing more"
        )

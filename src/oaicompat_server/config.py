"""How file, environment and flags merge into one value of the settings.

One rule: a setting that cannot be honoured stops the start with its place and the nearest valid name;
nothing is ignored. Priority rises from file over environment to flags. Nothing here opens a socket.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct, structs

from oaicompat.errors import InvalidRequestError
from oaicompat.providers.gemini.endpoints import Target
from oaicompat_server.credential_entries import (
    complete,
    doubled,
    from_variables,
    readable,
    readable_files,
    service_account,
)
from oaicompat_server.secret import Secret
from oaicompat_server.settings import Config, ConfigError

__all__ = ["ConfigError", "Loaded", "default_path", "files_of", "load", "secrets_of"]


class Loaded(Struct, frozen=True):
    """The settings, the file they came from if there was one, and what is worth a warning."""

    config: Config
    path: Path | None = None
    warnings: tuple[str, ...] = ()


SHORT_NAMES: Mapping[str, str] = {
    "HOST": "server.host",
    "PORT": "server.port",
    "AUTH_MODE": "auth.mode",
    "API_KEY": "auth.keys",
    "API_KEYS": "auth.keys",
    "BASE_URL": "upstream.base_url",
    "STRICT": "request.strict",
    "CREDENTIALS": "credentials",
}
PREFIX = "OAICOMPAT_"
CONFIG_VARIABLE = "OAICOMPAT_CONFIG"


def default_path(environ: Mapping[str, str]) -> Path:
    """Return the place of the settings file on this platform; it need not exist."""
    if sys.platform == "win32":
        base = environ.get("APPDATA") or str(Path.home() / "AppData" / "Roaming")
    else:
        base = environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "oaicompat" / "config.toml"


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Loaded:
    """Merge file, environment and flags (dotted names to values) into checked settings.

    `defaults`, named like flags, replace those of the settings.

    `path` or `OAICOMPAT_CONFIG` names a file that must exist; the default file is read when it exists.
    `GEMINI_API_KEY` and `GOOGLE_API_KEY` (one key or several, comma-separated) become credentials when no
    other source lists any. Raises `ConfigError`.
    """
    environ = os.environ if environ is None else environ
    merged = _Merged()
    for dotted, value in (defaults or {}).items():
        merged.add(dotted.split("."), value, "default")
    found = _find_file(path, environ)
    if found is not None:
        merged.add_table(_read_toml(found), str(found))
    for name, value in sorted(environ.items()):
        if name.startswith(PREFIX) and name != CONFIG_VARIABLE:
            merged.add(_path_of(name), value, f"environment variable {name}")
    for dotted, value in (flags or {}).items():
        if value is not None:
            merged.add(
                dotted.split("."), value, f"flag --{dotted.split('.')[-1].replace('_', '-')}"
            )
    config = merged.convert()
    _check_addresses(config)
    _check_workers(config)
    config = _with_credentials(config, environ, merged)
    warnings = (*_permissions(config, found, merged.inline_secret), *doubled(config.credentials))
    return Loaded(config, found, warnings)


def files_of(loaded: Loaded) -> tuple[Path, ...]:
    """Return the files these settings came from."""
    keys = (
        Path(entry.key_file).expanduser() for entry in loaded.config.credentials if entry.key_file
    )
    return (*((loaded.path,) if loaded.path else ()), *keys)


def secrets_of(config: Config) -> tuple[Secret, ...]:
    """Return every secret in these settings."""
    found = [*config.auth.keys, config.state.redis_url]
    for entry in config.credentials:
        found += [entry.key, entry.proxy]
        if entry.kind == "service_account":
            found.append(Secret.document(service_account(entry.key).private_key))
    return tuple(found)


def _check_addresses(config: Config) -> None:
    addresses = {"upstream.base_url": config.upstream.base_url}
    for number, credential in enumerate(config.credentials):
        addresses[f"credentials[{number}].base_url"] = credential.base_url
    for name, address in addresses.items():
        try:
            Target(base_url=address)
        except InvalidRequestError:
            raise ConfigError(f"{name}: must be http(s)://host[:port] and nothing more") from None


def _check_workers(config: Config) -> None:
    if config.server.workers == 1:
        return
    if sys.platform == "win32":
        raise ConfigError("server.workers: only 1 on Windows")
    if config.state.store == "memory":
        raise ConfigError(
            "server.workers: more than 1 need a store that they share: state.store = 'sqlite' or 'redis'; "
            "'memory' (with --demo the default) is each process's own"
        )


def _find_file(path: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> Path | None:
    named = path or environ.get(CONFIG_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise ConfigError(f"settings file {os.fspath(named)}: no such file")
        return Path(named)
    default = default_path(environ)
    return default if default.is_file() else None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"settings file {path}: cannot be read ({type(error).__name__})"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"settings file {path}: not valid TOML: {error}") from None


def _path_of(name: str) -> list[str]:
    rest = name[len(PREFIX) :]
    if rest in SHORT_NAMES:
        return SHORT_NAMES[rest].split(".")
    path = rest.lower().split("__")
    if len(path) == 2 and path[0] != "credentials":
        return path
    known = [PREFIX + short for short in SHORT_NAMES]
    known += [f"{PREFIX}{'__'.join(path).upper()}" for path in _all_paths() if len(path) == 2]
    raise ConfigError(f"environment variable {name}: unknown setting{_nearest(name, known)}")


def _all_paths() -> Iterable[tuple[str, ...]]:
    for section in structs.fields(Config):
        struct = _struct_of(section.type)
        if struct is None or section.name == "credentials":
            yield (section.name,)
            continue
        for field in structs.fields(struct):
            yield (section.name, field.name)


def _struct_of(annotation: Any) -> type[Struct] | None:
    """Return the struct behind a table's or an array of tables' annotation."""
    if get_origin(annotation) is tuple:
        return _struct_of(get_args(annotation)[0])
    return annotation if isinstance(annotation, type) and issubclass(annotation, Struct) else None


def _choices(where: str) -> str:
    """Return what a setting may be, by msgspec's path of it, where that is one of a few words."""
    annotation: Any = Config
    for name in re.sub(r"\[.*?\]", "", where).split(".")[1:]:
        struct = _struct_of(annotation)
        annotation = get_type_hints(struct).get(name) if struct else None
    words = get_args(annotation) if get_origin(annotation) is Literal else ()
    return f"; valid are {', '.join(words)}" if words else ""


def _nearest(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; valid are {', '.join(names)}"


class _Merged:
    """Settings under way, each with the place it came from."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.places: dict[str, str] = {}
        self.inline_secret = False

    def add_table(self, table: Mapping[str, Any], source: str) -> None:
        _check_keys(table, Config, "", source)
        for section, value in table.items():
            if isinstance(value, dict):
                for key, inner in value.items():
                    self._set([section, key], inner, source)
            else:
                self._set([section], value, source)
        keys = [entry for entry in table.get("credentials", ()) if "key" in entry]
        self.inline_secret = bool(keys or table.get("auth", {}).get("keys"))

    def add(self, path: list[str], value: Any, source: str) -> None:
        nested: Any = value
        for key in reversed(path):
            nested = {key: nested}
        if path != ["credentials"]:
            _check_keys(nested, Config, "", source)
        self._set(path, _from_text(path, value), source)

    def _set(self, path: list[str], value: Any, source: str) -> None:
        target = self.data
        for key in path[:-1]:
            target = target.setdefault(key, {})
        target[path[-1]] = value
        self.places["$." + ".".join(path)] = source

    def convert(self) -> Config:
        try:
            return msgspec.convert(self.data, Config, strict=False, dec_hook=_decode)
        except msgspec.ValidationError as error:
            message, _, where = str(error).partition(" - at `")
            where = where.rstrip("`")
            raise ConfigError(
                f"{self.place(where)}: {where[2:] or 'settings'}: {message}{_choices(where)}"
            ) from None

    def place(self, where: str) -> str:
        """Return the source of a setting, by msgspec's path of it."""
        plain = re.sub(r"\[.*", "", where)
        return next((place for path, place in self.places.items() if path == plain), "settings")


def _check_keys(value: Any, struct: type[Struct], prefix: str, source: str) -> None:
    if not isinstance(value, dict):
        raise ConfigError(f"{source}: {prefix.rstrip('.')} must be a table")
    hints = get_type_hints(struct)
    for key, inner in value.items():
        if key not in hints:
            raise ConfigError(f"{source}: unknown setting {prefix + key!r}{_nearest(key, hints)}")
        nested = _struct_of(hints[key])
        if nested is not None:
            for entry in inner if isinstance(inner, list) else [inner]:
                _check_keys(entry, nested, f"{prefix}{key}.", source)


def _from_text(path: list[str], value: Any) -> Any:
    """Turn a variable's text into what the setting's type wants: lists by commas, tables as `a=b,c=d`."""
    if not isinstance(value, str):
        return value
    if path == ["credentials"]:
        return [{"key": key} for key in _split(value)]
    annotation: Any = Config
    for key in path:
        annotation = get_type_hints(annotation)[key]
    if get_origin(annotation) is tuple:
        return _split(value)
    if get_origin(annotation) is Mapping:
        return dict(_pair(item) for item in _split(value))
    return value


def _split(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _pair(item: str) -> tuple[str, str | list[str]]:
    name, _, target = item.partition("=")
    names = [each.strip() for each in target.split("|")]
    return name.strip(), names[0] if len(names) == 1 else names


def _decode(wanted: type[Any], value: Any) -> Any:
    if wanted is Secret and isinstance(value, str):
        return Secret.document(value) if value.lstrip().startswith("{") else Secret(value)
    raise TypeError("Expected `str`")


def _with_credentials(config: Config, environ: Mapping[str, str], merged: _Merged) -> Config:
    found = [
        complete(entry, environ, f"{merged.place('$.credentials')}: credentials[{index}]")
        for index, entry in enumerate(config.credentials)
    ]
    return structs.replace(config, credentials=tuple(found or from_variables(environ)))


def _permissions(config: Config, path: Path | None, inline_secret: bool) -> tuple[str, ...]:
    """Return what is to be said of files with secrets that others can read; `auth.mode` strict refuses them."""
    found = [said for entry in config.credentials for said in readable_files(entry)]
    if path is not None and inline_secret and (said := readable(path)):
        found.insert(0, f"settings file {said}")
    if found and config.auth.mode == "strict":
        raise ConfigError(found[0])
    return tuple(found)

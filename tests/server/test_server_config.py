"""Settings: three sources, rising priority, and errors that name the place and the nearest valid key."""

from __future__ import annotations

import copy
import pickle
import re
import tomllib
from pathlib import Path

import pytest
from msgspec.structs import fields

from oaicompat_server.config import ConfigError, Loaded, load
from oaicompat_server.secret import Secret
from oaicompat_server.settings import Config, CredentialSettings


def _load(
    tmp_path: Path, text: str = "", environ: dict[str, str] | None = None, **flags: object
) -> Loaded:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    path.chmod(0o600)
    dotted = {name.replace("__", "."): value for name, value in flags.items()}
    return load(path, environ=environ or {}, flags=dotted)


def _keys(loaded: Loaded) -> list[str]:
    return [entry.key.reveal() for entry in loaded.config.credentials]


def test_defaults_need_nothing(tmp_path: Path) -> None:
    loaded = load(environ={"XDG_CONFIG_HOME": str(tmp_path)})
    assert loaded == Loaded(Config())
    assert (loaded.config.server.host, loaded.config.server.port) == ("127.0.0.1", 8045)


def test_priority_rises_from_file_over_environment_to_flags(tmp_path: Path) -> None:
    text = "[server]\nport = 1\nqueue = 7\n[upstream]\nattempts = 2\n"
    environ = {"OAICOMPAT_PORT": "2", "OAICOMPAT_UPSTREAM__ATTEMPTS": "1"}
    config = _load(tmp_path, text, environ, server__port=3).config
    assert (config.server.port, config.server.queue, config.upstream.attempts) == (3, 7, 1)


def test_other_defaults_give_way_to_every_source(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("[server]\nqueue = 7\n")
    defaults = {"state.store": "memory", "server.queue": 5, "server.port": 1, "auth.mode": "off"}
    config = load(
        path, environ={"OAICOMPAT_PORT": "2"}, flags={"auth.mode": "strict"}, defaults=defaults
    ).config
    assert (config.state.store, config.server.queue) == ("memory", 7)
    assert (config.server.port, config.auth.mode) == (2, "strict")
    with pytest.raises(ConfigError, match="default"):
        load(path, environ={}, defaults={"state.store": "stone"})


def test_default_file_is_read_when_it_exists(tmp_path: Path) -> None:
    place = tmp_path / "oaicompat" / "config.toml"
    place.parent.mkdir()
    place.write_text("[server]\nport = 99\n")
    loaded = load(environ={"XDG_CONFIG_HOME": str(tmp_path)})
    assert loaded.config.server.port == 99
    assert loaded.path == place


def test_file_named_by_the_environment(tmp_path: Path) -> None:
    place = tmp_path / "other.toml"
    place.write_text("[request]\nstrict = true\n")
    assert load(environ={"OAICOMPAT_CONFIG": str(place)}).config.request.strict


@pytest.mark.parametrize(
    ("text", "environ", "expected"),
    [
        ("[server]\nprot = 1\n", {}, r"settings\.toml: unknown setting 'server\.prot'.*'port'"),
        ("[sever]\n", {}, r"unknown setting 'sever'; did you mean 'server'"),
        ("[[credentials]]\nkye = 'x'\n", {}, r"unknown setting 'credentials\.kye'.*'key'"),
        ("", {"OAICOMPAT_PROT": "1"}, r"variable OAICOMPAT_PROT.*'OAICOMPAT_PORT'"),
        ("", {"OAICOMPAT_SERVER__PROT": "1"}, r"OAICOMPAT_SERVER__PROT: unknown.*'port'"),
        ("", {"OAICOMPAT_CREDENTIALS__KEY": "1"}, r"OAICOMPAT_CREDENTIALS__KEY: unknown setting"),
        ("", {"OAICOMPAT_PORT": "x"}, r"variable OAICOMPAT_PORT: server\.port: Expected `int`"),
        ("", {"OAICOMPAT_PORT": "70000"}, r"OAICOMPAT_PORT: server\.port: Expected `int` <= 65535"),
        ("[auth]\nmode = 'on'\n", {}, r"settings\.toml: auth\.mode: .*; valid are auto, off"),
        ("[state]\nstore = 'mysql'\n", {}, r"state\.store: .*; valid are sqlite, memory, redis$"),
        ("server = 1\n", {}, r"server must be a table"),
        ("[server\n", {}, r"not valid TOML"),
        ("[upstream]\nattempts = 4\n", {}, r"upstream\.attempts"),
    ],
)
def test_what_cannot_be_honoured_names_its_place(
    tmp_path: Path, text: str, environ: dict[str, str], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        _load(tmp_path, text, environ)


def test_wrong_flag_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"flag --port: server\.port"):
        _load(tmp_path, server__port=-1)


def test_missing_file_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load("/nonexistent/settings.toml", environ={})


def test_credentials_from_variable_and_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-file\n")
    text = (
        "[[credentials]]\nkey = 'inline'\nlabel = 'first'\n[[credentials]]\nkey_env = 'SOME_KEY'\n"
        f"[[credentials]]\nkey_file = '{tmp_path}/key'\n"
    )
    loaded = _load(tmp_path, text, {"SOME_KEY": " from-env\n"})
    assert _keys(loaded) == ["inline", "from-env", "from-file"]
    assert loaded.config.credentials[0].label == "first"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[credentials]]\nlabel = 'x'\n", "exactly one of"),
        ("[[credentials]]\nkey = 'a'\nkey_env = 'B'\n", "exactly one of"),
        ("[[credentials]]\nkey_env = 'UNSET'\n", "UNSET is not set"),
        ("[[credentials]]\nkey_file = '/nonexistent'\n", "cannot be read"),
    ],
)
def test_credentials_that_cannot_be_had(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        _load(tmp_path, text)


def test_gemini_variables_serve_when_nothing_else_does(tmp_path: Path) -> None:
    environ = {"GEMINI_API_KEY": "a, b,", "GOOGLE_API_KEY": "b,c"}
    assert sorted(_keys(_load(tmp_path, "", environ))) == ["a", "b", "c"]
    assert _keys(_load(tmp_path, "[[credentials]]\nkey = 'file'\n", environ)) == ["file"]
    assert _keys(_load(tmp_path, "", environ | {"OAICOMPAT_CREDENTIALS": "x,y"})) == ["x", "y"]


def test_lists_and_tables_from_the_environment(tmp_path: Path) -> None:
    environ = {
        "OAICOMPAT_API_KEYS": "one,two",
        "OAICOMPAT_MODELS__ALIASES": "gpt-4o=gemini-x, a*=b",
    }
    config = _load(tmp_path, "", environ).config
    assert [key.reveal() for key in config.auth.keys] == ["one", "two"]
    assert config.models.aliases == {"gpt-4o": "gemini-x", "a*": "b"}


def test_key_with_its_newline_is_stripped_and_a_broken_one_is_not_quoted(tmp_path: Path) -> None:
    assert _keys(_load(tmp_path, '[[credentials]]\nkey = "abc\\n"\n')) == ["abc"]
    for text in ('[[credentials]]\nkey = "sentinel\\nkey"\n', '[auth]\nkeys = ["sentinel é"]\n'):
        with pytest.raises(ConfigError, match="visible ASCII") as caught:
            _load(tmp_path, text)
        assert "sentinel" not in str(caught.value)


def test_readable_secrets_are_warned_about(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("[[credentials]]\nkey = 'x'\n")
    for mode, warned in ((0o600, False), (0o640, True), (0o604, True)):
        path.chmod(mode)
        assert bool(load(path, environ={}).warnings) is warned
    path.write_text("[[credentials]]\nkey_env = 'K'\n")
    assert not load(path, environ={"K": "x"}).warnings


def test_secret_shows_itself_nowhere() -> None:
    secret = Secret("sentinel")
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>20}",
        f"{secret:>9}",
        repr([secret]),
    ]
    assert not any("sentinel" in text for text in shown)
    assert copy.deepcopy(secret) is secret
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    assert secret.reveal() == "sentinel"
    assert secret == Secret(" sentinel ")
    assert secret.fingerprint() != Secret("other").fingerprint()


def test_settings_show_no_secret(tmp_path: Path) -> None:
    loaded = _load(tmp_path, "[auth]\nkeys = ['sentinel']\n", {"GEMINI_API_KEY": "sentinel2"})
    assert "sentinel" not in repr(loaded)


def test_documented_settings_are_the_settings(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text("utf-8")
    example = page.partition("```toml\n")[2].partition("```")[0]
    environ = {"GEMINI_KEY_WORK": "k", "HOME": str(tmp_path)}
    example = example.replace("~/.secrets/gemini", str(tmp_path / "key"))
    (tmp_path / "key").write_text("k2")
    loaded = _load(tmp_path, example, environ)
    assert [entry.label for entry in loaded.config.credentials] == ["work", "private"]
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| (?:`([^`]*)`|\w+)", page, re.MULTILINE))
    for section in fields(Config):
        table = getattr(Config(), section.name)
        if section.name == "credentials":
            assert {field.name for field in fields(CredentialSettings)} <= set(rows)
            continue
        for field in fields(table):
            name = field.name if field.name in rows else f"{section.name}.{field.name}"
            shown = rows[name]
            default = getattr(table, field.name)
            if default not in ("", None, Secret("")):
                wanted = list(default) if isinstance(default, tuple) else default
                assert tomllib.loads(f"x = {shown}")["x"] == wanted, name


@pytest.mark.parametrize("address", ["https://user:hunter2@x.com", "x.com", "https://x.com/v1?k=1"])
def test_an_address_that_is_more_than_a_host_is_refused_unquoted(
    address: str, tmp_path: Path
) -> None:
    for name, text in (
        ("upstream.base_url", f'[upstream]\nbase_url = "{address}"\n'),
        ("credentials[0].base_url", f'[[credentials]]\nkey = "k"\nbase_url = "{address}"\n'),
    ):
        path = tmp_path / "config.toml"
        path.write_text(text)
        path.chmod(0o600)
        with pytest.raises(ConfigError) as caught:
            load(path, environ={})
        assert str(caught.value).startswith(name)
        assert "hunter2" not in str(caught.value)

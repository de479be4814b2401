"""Credentials in the settings: what each kind needs, where its secret comes from, and who may read its file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.pools import Renewing

from oaicompat_server.config import ConfigError, Loaded, files_of, load, secrets_of
from oaicompat_server.pool import Credential, TokenSource
from oaicompat_server.settings import CredentialSettings
from oaicompat_server.snapshot import model_map

ACCOUNT = {
    "type": "service_account",
    "client_email": "me@my-project.iam.gserviceaccount.com",
    "private_key": "-----BEGIN PRIVATE KEY-----\nsentinel\n-----END PRIVATE KEY-----\n",
    "project_id": "my-project",
    "token_uri": "https://oauth2.googleapis.com/token",
}


def settings(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> Loaded:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    path.chmod(0o600)
    return load(path, environ=environ or {})


def entry(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> CredentialSettings:
    (found,) = settings(tmp_path, f"[[credentials]]\n{text}\n", environ).config.credentials
    return found


def key_file(tmp_path: Path, content: Any = None) -> Path:
    path = tmp_path / "account.json"
    path.write_text(json.dumps(ACCOUNT if content is None else content))
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("text", "door", "target"),
    [
        ("key = 'k'", "gemini", ("gemini", "", "global", False)),
        ("kind = 'express'\nkey = 'k'", "vertex express", ("vertex", "", "global", True)),
        (
            "kind = 'bearer'\nkey = 'k'\nproject = 'my-project'\nlocation = 'us-central1'",
            "vertex us-central1",
            ("vertex", "my-project", "us-central1", False),
        ),
        (
            "kind = 'bearer'\nkey = 'k'\nproject = 'my-project'",
            "vertex global",
            ("vertex", "my-project", "global", False),
        ),
    ],
)
def test_each_kind_is_used_where_it_belongs(
    tmp_path: Path, text: str, door: str, target: tuple[str, str, str, bool]
) -> None:
    credential = Credential.of(entry(tmp_path, text))
    assert credential.door == door
    found = credential.target("")
    assert (found.backend, found.project, found.location, found.express) == target


def test_a_service_account_brings_its_project_and_its_address(tmp_path: Path) -> None:
    path = key_file(tmp_path)
    asked: list[CredentialSettings] = []

    def source_of(given: CredentialSettings) -> TokenSource:
        asked.append(given)
        return Renewing()

    found = entry(tmp_path, f"kind = 'service_account'\nkey_file = '{path}'")
    assert found.project == "my-project"
    credential = Credential.of(found, source_of)
    assert asked == [found]
    assert credential.account == ACCOUNT["client_email"]
    assert credential.target("").project == "my-project"
    own = entry(tmp_path, f"kind = 'service_account'\nkey_file = '{path}'\nproject = 'other-one'")
    assert own.project == "other-one"
    with pytest.raises(ConfigError, match="source of tokens"):
        Credential.of(found)


def test_a_service_account_may_stand_in_a_variable_or_inline(tmp_path: Path) -> None:
    text = json.dumps(ACCOUNT)
    for found in (
        entry(tmp_path, "kind = 'service_account'\nkey_env = 'ACCOUNT'", {"ACCOUNT": text}),
        entry(tmp_path, f"kind = 'service_account'\nkey = '''{text}'''"),
    ):
        assert json.loads(found.key.reveal()) == ACCOUNT
        assert "sentinel" not in repr(found)


def test_default_credentials_need_nothing(tmp_path: Path) -> None:
    assert not entry(tmp_path, "kind = 'adc'").key
    found = entry(tmp_path, "kind = 'adc'\nproject = 'my-project'\nlocation = 'europe-west4'")
    assert (found.project, found.location) == ("my-project", "europe-west4")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("key = 'k'\nproject = 'my-project'", "kind 'api_key' has no project"),
        ("kind = 'express'\nkey = 'k'\nlocation = 'global'", "kind 'express' has no location"),
        ("kind = 'bearer'\nkey = 'k'", "kind 'bearer' needs a project"),
        ("kind = 'bearer'\nproject = 'my-project'", "exactly one of key"),
        ("kind = 'bearer'\nkey = 'k'\nproject = '../x'", r"credentials\[0\]"),
        ("kind = 'bearer'\nkey = 'k'\nproject = 'my-project'\nlocation = 'x.evil'", r"\[0\]"),
        ("kind = 'adc'\nkey_env = 'K'", "remove key_env"),
        ("kind = 'adc'\nproject = 'a/b'", r"credentials\[0\]"),
        ("kind = 'gold'\nkey = 'k'", "Invalid enum value 'gold'; valid are api_key, express"),
        ("key = 'sentinel key'", "visible ASCII"),
        ("kind = 'service_account'\nkey = 'sentinel'", "not the JSON of a service account"),
        ("kind = 'service_account'\nkey = '{\"sentinel\": 1}'", "not the JSON of a service"),
        ("key_file = '.'", "cannot be read"),
        ("key_env = 'EMPTY'", "EMPTY is not set"),
        ("key = 'k'\nweight = 0", "weight"),
        ("key = 'k'\nweight = inf", "weight"),
        ("key = 'k'\npriority = -1", "priority"),
        ("key = 'k'\nmodels = 'x'", "models"),
    ],
)
def test_what_a_kind_cannot_use_is_refused_unquoted(
    tmp_path: Path, text: str, expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected) as caught:
        entry(tmp_path, text, {"EMPTY": " \n"})
    assert "sentinel" not in str(caught.value)
    assert "settings.toml" in str(caught.value)


@pytest.mark.parametrize("content", [[], {}, "x", {**ACCOUNT, "type": "authorized_user"}])
def test_a_file_that_is_no_service_accounts_is_refused(tmp_path: Path, content: Any) -> None:
    path = key_file(tmp_path, content)
    with pytest.raises(ConfigError, match="not the JSON of a service account"):
        entry(tmp_path, f"kind = 'service_account'\nkey_file = '{path}'")


@pytest.mark.parametrize("proxy", ["http://h:1", "http://u:sentinel@h.example:8080/"])
def test_a_proxy_is_taken_and_not_shown(tmp_path: Path, proxy: str) -> None:
    found = entry(tmp_path, f"key = 'k'\nproxy = '{proxy}'")
    assert found.proxy.reveal() == proxy
    assert "sentinel" not in repr(found)


@pytest.mark.parametrize(
    "proxy",
    [
        "h:1",
        "http://sentinel",
        "http://:1",
        "https://sentinel:1",
        "ftp://sentinel:1",
        "socks5://sentinel:1",
        "http://u:sentinel@h:99999",
        "http://u:sentinel@h:1/path",
        "http://h:1?sentinel",
        "http://h:1#sentinel",
        "http://[sentinel:1",
    ],
)
def test_a_proxy_that_is_more_or_less_is_refused_unquoted(tmp_path: Path, proxy: str) -> None:
    with pytest.raises(ConfigError, match=r"credentials\[0\]: proxy must be") as caught:
        entry(tmp_path, f"key = 'k'\nproxy = '{proxy}'")
    assert "sentinel" not in str(caught.value)


def test_every_secret_is_known_as_one(tmp_path: Path) -> None:
    text = (
        "[auth]\nkeys = ['client']\n[[credentials]]\nkey = 'k'\nproxy = 'http://u:p@h:1'\n"
        f"[[credentials]]\nkind = 'service_account'\nkey_file = '{key_file(tmp_path)}'\n"
    )
    found = {secret.reveal() for secret in secrets_of(settings(tmp_path, text).config)}
    assert {"client", "k", "http://u:p@h:1", str(ACCOUNT["private_key"]).strip()} <= found


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such permissions")
@pytest.mark.parametrize(
    ("mode", "said"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True), (0o620, True)]
)
def test_a_key_file_that_others_can_read_is_told_and_refused_when_strict(
    tmp_path: Path, mode: int, said: bool
) -> None:
    key = tmp_path / "key"
    key.write_text("sentinel")
    key.chmod(mode)
    text = f"[[credentials]]\nkey_file = '{key}'\n"
    loaded = settings(tmp_path, text)
    assert [f"chmod 600 {key}" in each for each in loaded.warnings] == ([True] if said else [])
    assert files_of(loaded) == (tmp_path / "settings.toml", key)
    strict = f"[auth]\nmode = 'strict'\nkeys = ['client']\n{text}"
    if not said:
        assert not settings(tmp_path, strict).warnings
        return
    with pytest.raises(ConfigError, match="chmod 600") as caught:
        settings(tmp_path, strict)
    assert "sentinel" not in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such permissions")
def test_a_settings_file_with_keys_that_others_can_read_is_refused_when_strict(
    tmp_path: Path,
) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("[auth]\nmode = 'strict'\nkeys = ['client']\n")
    for mode, refused in ((0o600, False), (0o644, True)):
        path.chmod(mode)
        if not refused:
            assert not load(path, environ={}).warnings
            continue
        with pytest.raises(ConfigError, match=r"settings file .* chmod 600"):
            load(path, environ={})
    assert len(load(path, environ={}, flags={"auth.mode": "off"}).warnings) == 1


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        ("[models.aliases]\na = ['x', 'y']\nb = 'z'\n", {}),
        ("", {"OAICOMPAT_MODELS__ALIASES": "a=x|y, b=z"}),
        ("", {"OAICOMPAT_MODELS__ALIASES": " a = x | y ,b=z,"}),
    ],
)
def test_aliases_may_list_several_models(
    tmp_path: Path, text: str, environ: dict[str, str]
) -> None:
    config = settings(tmp_path, text, environ).config
    models = model_map(config)
    assert (models.resolve("a").model, models.resolve("a").fallbacks) == ("x", ("y",))
    assert (models.resolve("b").model, models.resolve("b").fallbacks) == ("z", ())


@pytest.mark.parametrize("value", ["a=", "a=x|", "a=|", "a", "a=|x"])
def test_an_alias_without_a_model_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match=r"models\.aliases: alias 'a' names no model"):
        model_map(settings(tmp_path, "", {"OAICOMPAT_MODELS__ALIASES": value}).config)


def test_credentials_that_cannot_be_told_apart_are_warned_about(tmp_path: Path) -> None:
    text = "[[credentials]]\nkey = 'a'\nlabel = 'work'\n" * 2 + "[[credentials]]\nkey = 'b'\n"
    path = tmp_path / "settings.toml"
    path.write_text(text)
    path.chmod(0o600)
    label, same = load(path, environ={}).warnings
    assert "'work'" in label
    assert same.startswith("1 of the credentials were there before")


def test_a_key_in_the_place_of_a_name_is_not_quoted(tmp_path: Path) -> None:
    pasted = "AIza" + "Sy" * 18
    for name in ("key_env", "key_file"):
        path = tmp_path / "settings.toml"
        path.write_text(f"[[credentials]]\n{name} = '{pasted}'\n")
        path.chmod(0o600)
        with pytest.raises(ConfigError) as caught:
            load(path, environ={})
        assert pasted not in str(caught.value)

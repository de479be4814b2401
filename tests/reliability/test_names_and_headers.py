"""Rows F1-F3 of the fault matrix: what a client writes as a name changes no URL, no host and no header."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.support import raw
from tests.support.asking import Reply, ask
from tests.support.gateway import Gateway, gateway
from tests.support.plain import line, send

from oaicompat.errors import InvalidRequestError, ModelNotFoundError
from oaicompat.providers.gemini.endpoints import (
    Target,
    count_tokens_url,
    generate_url,
    method_url,
    origin,
)
from oaicompat_server import framing
from oaicompat_server.config import load
from oaicompat_server.secret import Secret
from oaicompat_server.settings import (
    Config,
    ConfigError,
    CredentialSettings,
    ModelSettings,
)

_BASE = "gemini-2.5-flash"
_MARKS = (
    *("/", "//", "\\", "?", "#", "%", "%2f", "%2e%2e", "%00"),
    *("%0d%0a", ":", "::", "@", "&", "=", ";", ",", "|"),
    *("..", "/..", "/../", "../", "..\\", "?key=", "?alt=sse&key=", "#/"),
    *("*", "+", "~", "!", "$", "'", '"', "`"),
    *("(", ")", "[", "]", "{", "}", "<", ">", "^"),
    *(" ", "  ", "\t", "\n", "\r", "\r\n", "\r\nX: y", "\0", "\x01"),
    *("\x1b[2J", "\x7f", "\x85", "\xa0", "\u200b", "\u2028", "\u202e", "\ufeff", "\uff0f", "\uff0e\uff0e"),
    *("\u2215", "\u00e9", "\u4e2d", "\U0001f600", "\u0000", ":generateContent", ":streamGenerateContent?"),
)  # fmt: skip
_MARKED = [
    each
    for mark in _MARKS
    for each in (mark, f"{_BASE}{mark}x", f"{mark}{_BASE}", f"{_BASE}{mark}")
]
FAIR = (
    _BASE,
    f"{_BASE}..",
    f"{_BASE}..x",
    "x",
    "A.b_c-9",
    "x" * 128,
    "a..b",
    "gemini-2.5-flash-preview-09-2025",
)
NAMES = [
    *(each for each in _MARKED if each not in FAIR),
    *("../../v1/x", "../../../v1beta/models", "//evil.example/x", "https://evil.example/", "http:evil"),
    *("a/b", "models/../x", "models//x"),
    *("models/models/../x", "tunedModels/", "tunedModels/../x", "tunedModels/a/b"),
    *("publishers/google/models/", "publishers/../models/x", "publishers/evil/models/x", "endpoints/../x"),
    *("endpoints/a/b", "projects/p/locations/l/endpoints/1", "cachedContents/x", "files/x", "operations/x"),
    *("-" + _BASE, "." + _BASE, "_" + _BASE, ".", ".."),
    *("...", "-", "_", "x" * 129, "x" * 10_000, "\u00e9" * 5000),
    *("a" * 128 + "/", "%" * 5000, "../" * 3000, "TunedModels/x", "MODELS/x", "models/", "models/ x"),
]  # fmt: skip


@pytest.fixture(scope="module")
def served() -> Iterator[Gateway]:
    with gateway() as running:
        yield running


def refused(found: Reply, name: str) -> None:
    assert found.status in (400, 404), (name, found.content)
    message: str = found.error["message"]
    assert message.isprintable(), name
    assert len(message) < 400, name


@pytest.mark.parametrize("path", [raw.CHAT, raw.RESPONSES, "/v1/responses/input_tokens"])
def test_f1_a_name_that_is_none_of_a_model_goes_nowhere(served: Gateway, path: str) -> None:
    """A model name that could change the upstream URL is 400 or 404, and the upstream is not called."""
    assert len(set(NAMES)) >= 200
    before = len(served.simulator.requests)
    for name in NAMES:
        refused(ask(served, "POST", path, raw.words(path, "hello") | {"model": name}), name)
    assert len(served.simulator.requests) == before


TARGETS = (
    Target(),
    Target(base_url="http://127.0.0.1:9"),
    Target("vertex", project="my-project", location="us-central1"),
    Target("vertex", project="my-project"),
    Target("vertex", express=True),
)


@pytest.mark.parametrize("target", TARGETS)
def test_f1_the_url_is_a_fixed_start_the_name_and_a_fixed_end(target: Target) -> None:
    """Whatever characters a name is made of, a URL that is built holds it as one segment, or none is built."""
    draw = random.Random(1)
    letters = "ab.-_/\\?#%:@ \r\n\0é中" + "models"
    drawn = ["".join(draw.choices(letters, k=draw.randint(1, 20))) for _ in range(2000)]
    for name in (*NAMES, *FAIR, *drawn):
        for build in (
            lambda one: generate_url(one, True),
            lambda one: generate_url(one, False),
            count_tokens_url,
            lambda one: method_url(one, "embedContent"),
        ):
            named = Target(
                **{each: getattr(target, each) for each in Target.__struct_fields__}
                | {"model": name}
            )
            try:
                url = build(named)
            except ModelNotFoundError:
                assert name not in FAIR
                continue
            parts = urlsplit(url)
            assert f"{parts.scheme}://{parts.netloc}" == origin(target)
            assert (parts.fragment, parts.query) in (("", ""), ("", "alt=sse"))
            segments = parts.path.split("/")
            assert not {"", ".", ".."} & set(segments[1:]), name
            assert segments[-1].partition(":")[0] == name.rpartition("/")[2]


@pytest.mark.parametrize("target", ["../x", "g?key=", "g#", "a/b", "x y", "x\r\ny"])
def test_f1_an_alias_is_no_way_around(target: str) -> None:
    """An alias or a default that names no model is refused like a client's name."""
    models = ModelSettings(aliases={"mine": target}, default=target)
    with gateway(Config(models=models)) as aliased:
        for name in ("mine", "other-name"):
            body = raw.words(raw.CHAT, "hello") | {"model": name}
            refused(ask(aliased, "POST", raw.CHAT, body), name)
        assert aliased.simulator.requests == []


PROJECTS = (
    *("x#", "x#y.example", "x?", "x/", "x/../y", "x@evil.example", "x:80", "x.evil.example", "X", "Project"),
    *("", " ", "abc", "a", "1abcd", "-abcd", "a" * 63, "proj\n", "proj\0ect", "pro ject", "pr\u00f6ject"),
    *("proj%2fx", "proj\\x", "pro_ject", "example.com:proj", "..", "proj;x", "proj\r\nHost: evil"),
)  # fmt: skip
LOCATIONS = (
    *("x#", "us-central1#", "us-central1.evil.example/", "us-central1/", "us-central1?x", "us-central1@evil"),
    *("evil.example", "evil.example/#", "us-central1:80"),
    *("localhost", "127.0.0.1", "US-CENTRAL1", " us-central1"),
    *("us-central1\n", "us-central", "us-central123", "us_central1"),
    *("us-center1", "mars-east1", "..", "-", "/"),
    *("us-central1\0", "\uff55s-central1", "us-central1-aiplatform.googleapis.com"),
)  # fmt: skip


@pytest.mark.parametrize("kind", ["bearer", "service_account", "adc"])
def test_f2_a_project_and_a_place_cannot_name_a_host(tmp_path: Path, kind: str) -> None:
    """A project or location that is none stops the start; no credential is attached to a host made of it."""
    assert len({*PROJECTS, *LOCATIONS}) >= 40
    wrong = [(project, "us-central1") for project in PROJECTS] + [
        ("my-project", location) for location in LOCATIONS
    ]
    account = {"type": "service_account", "client_email": "a@b", "private_key": "x"}
    secret = json.dumps(account) if kind == "service_account" else "ya29.token"
    for project, location in wrong:
        with pytest.raises(InvalidRequestError):
            Target("vertex", project=project, location=location)
        entry = {"kind": kind, "project": project, "location": location}
        if kind != "adc":
            entry["key"] = secret
        elif not project:
            # The project of default credentials is looked at when they are found.
            continue
        lines = [f"{name} = {json.dumps(value)}" for name, value in entry.items()]
        path = tmp_path / "settings.toml"
        path.write_text("\n".join(["[[credentials]]", *lines]).replace("\\u0000", "\\u0001"))
        path.chmod(0o600)
        with pytest.raises(ConfigError) as caught:
            load(path, environ={})
        assert secret not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        *(
            "https://a/b",
            "https://a?x",
            "https://a#",
            "https://u@a",
            "https://a:b@c",
            "ftp://a",
            "a",
            "//a",
        ),
        *(
            "https://",
            "https://a b",
            "https://a\\b",
            "https://a\r\n",
            "https://\u24d4vil",
            "file:///x",
        ),
    ],
)
def test_f2_an_address_is_a_host_and_nothing_more(address: str) -> None:
    """An upstream address with a path, a user, a query or an odd character is refused."""
    with pytest.raises(InvalidRequestError):
        Target(base_url=address)
    with pytest.raises(ConfigError):
        load(
            environ={
                "OAICOMPAT_BASE_URL": address,
                "HOME": "/nonexistent",
                "XDG_CONFIG_HOME": "/nonexistent",
            }
        )


HEADER_NAMES = (
    *("a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\rX-Evil: 1", "\r\n\r\n<html>", "a\0b", "\x00", "\x7f", "\x1b[31m"),
    *("\u2603", "\U0001f600" * 100, "\u4e2d" * 300, "caf\u00e9"),
    *("\u202eevil", "\u2028", "\x85", "\ufeff", "a b"),
    *(" lead", "trail ", "\ttab", "x" * 300, "x" * 10_000, "%0d%0aX-Evil: 1", "100%", '"quoted"', "a,b;c=d"),
    *("a: b", "a=b; c", "%", "\xa0", "\u200b\u200b", "(comment)", "\\"),
)  # fmt: skip


def one_header(data: bytes, name: str) -> str:
    """Return the one header of this name; fails where there are others that it may have made."""
    top, _, _ = data.partition(b"\r\n\r\n")
    lines = top.decode("ascii").split("\r\n")[1:]
    names = [each.partition(":")[0].lower() for each in lines]
    assert "x-evil" not in names
    assert names.count(name) == 1
    return lines[names.index(name)].partition(": ")[2]


def test_f3_the_mapped_name_is_one_well_formed_header(served: Gateway) -> None:
    """Whatever a model is called, the answer comes, its name being one header of visible ASCII."""
    assert len(HEADER_NAMES) >= 30
    for name in HEADER_NAMES:
        body = json.dumps({"model": name}).encode()
        data = line(b"POST", b"/v1/models/detect", b"Content-Type: application/json", body=body)
        with raw.connect(served.port) as plug:
            plug.sendall(data.replace(b"%d", str(served.port).encode(), 1))
            answer = raw.read(plug)
        assert answer.startswith(b"HTTP/1.1 200 "), (name, answer)
        value = one_header(answer, "x-mapped-model")
        assert 0 < len(value) <= 256
        assert all("\x21" <= each <= "\x7e" for each in value), name
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["mapped_model"] == name


def test_f3_a_label_of_the_settings_breaks_no_answer() -> None:
    """A credential's label goes into the header x-account-email encoded and cut, so the answer comes."""
    entries = tuple(
        CredentialSettings(key=Secret(f"key-{number}"), label=label)
        for number, label in enumerate(HEADER_NAMES)
    )
    seen = set()
    with gateway(Config(credentials=entries)) as labelled:
        for number, _ in enumerate(entries):
            # Each a conversation of its own, so that every credential has its turn.
            body = raw.words(raw.CHAT, f"hello {number}")
            with raw.connect(labelled.port) as plug:
                plug.sendall(raw.request(labelled.port, raw.CHAT, body, "connection: close"))
                answer = raw.read(plug)
            assert answer.startswith(b"HTTP/1.1 200 ")
            seen.add(one_header(answer, "x-account-email"))
    assert len(seen) > len(entries) // 2
    assert all(0 < len(each) <= 256 for each in seen)


def test_f3_a_request_id_of_the_client_is_a_token_or_replaced(served: Gateway) -> None:
    """The client's request id is echoed only where it is a plain token."""
    for sent in (b"a b", b"a\xff", b"a;b", b"x" * 129, b"<x>", b'"', b"a\tb", b"", b"%0d%0a"):
        for target in (b"/healthz", b"/v1/nothing"):
            found = send(served, line(b"GET", target, b"X-Request-Id: " + sent))[1]["x-request-id"]
            assert found.startswith("req_"), sent
    assert (
        send(served, line(b"GET", b"/healthz", b"X-Request-Id: a-b.c_1"))[1]["x-request-id"]
        == "a-b.c_1"
    )
    assert framing.header_value("\ud800") == b"%ED%A0%80"

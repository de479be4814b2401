"""Properties over generated input, small here and long in `python -m tests.fuzz`: I1 to I3, I6 to I8."""

from __future__ import annotations

import random
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.corpus import corpus, mutated
from tests.fuzz.surface import fuzz_surface
from tests.fuzz.targets import TARGETS
from tests.support.gateway import gateway

from oaicompat.errors import OaicompatError
from oaicompat.models import ModelMap
from oaicompat.providers.gemini.endpoints import Target, generate_url, headers, origin
from oaicompat_server.framing import header_value

ROUNDS = 300
CRASHES = Path(__file__).parents[1] / "fuzz" / "crashes"
NAMES = st.text(alphabet="ab*.-/", max_size=12)


def neighbours(name: str, rounds: int = ROUNDS) -> list[bytes]:
    """Return inputs near good ones, the same in every run."""
    chance = random.Random(name)
    seeds = corpus(7, 10)[name]
    return [mutated(chance.choice(seeds), chance.choice(seeds), chance) for _ in range(rounds)]


def test_i1_events_are_framed_alike_however_they_are_cut() -> None:
    """The events of a stream do not depend on how the network cut it, whatever the bytes are."""
    for data in neighbours("sse", 60):
        TARGETS["sse"](data)


@pytest.mark.parametrize("name", ["chat", "responses", "compact", "input-tokens"])
def test_i2_any_request_is_served_or_refused(name: str) -> None:
    """Whatever a client sends becomes a body for the upstream or an error with a reason."""
    for data in neighbours(name):
        TARGETS[name](data)


@pytest.mark.parametrize(
    "name", ["chat-stream", "chat-answer", "responses-stream", "responses-answer"]
)
def test_i3_any_answer_is_told_alike_however_it_is_cut(name: str) -> None:
    """Whatever the upstream sends becomes the same frames or the same error, however it was cut."""
    for data in neighbours(name, 100):
        TARGETS[name](data)


@given(st.text(max_size=60), st.sampled_from(["gemini", "vertex", "express"]))
def test_i6_an_upstream_url_keeps_its_host_and_prefix(name: str, kind: str) -> None:
    """No name of a model changes the host, the prefix or the query of an upstream URL."""
    target = {
        "gemini": Target(model=name),
        "vertex": Target("vertex", model=name, project="project-1", location="us-central1"),
        "express": Target("vertex", model=name, express=True),
    }[kind]
    try:
        url = urlsplit(generate_url(target, True))
    except OaicompatError:
        return
    assert f"{url.scheme}://{url.netloc}" == origin(target)
    assert url.path.startswith("/v1")
    assert url.path.endswith(":streamGenerateContent")
    assert ".." not in url.path.split("/")
    assert (url.query, url.fragment) == ("alt=sse", "")


@given(st.text(max_size=400))
def test_i6_a_header_is_one_line_of_ascii(text: str) -> None:
    """No text of a client's breaks a header of the answer, or of a call to the upstream."""
    shown = header_value(text)
    assert len(shown) <= 256
    assert all(0x20 <= byte < 0x7F for byte in shown)
    try:
        lines = headers(Target(), text)
    except OaicompatError:
        return
    assert not any(character in value for _, value in lines for character in "\r\n\0")


@settings(max_examples=300)
@given(st.lists(st.tuples(NAMES, st.sampled_from("xyz")), max_size=6), NAMES)
def test_i7_wildcards_match_as_a_slow_reading_does(table: list[tuple[str, str]], name: str) -> None:
    """A pattern matches just what it says, as a slow and plain reading of it finds."""
    aliases = {key: target for key, target in table if "*" in key}
    found = ModelMap(aliases, builtin=False).resolve(name)
    matching = {key for key in aliases if _matches(key, name)}
    assert (found.rule in ("exact", "wildcard")) == bool(matching)
    if found.rule == "wildcard":
        most = max(len(key.replace("*", "")) for key in matching)
        assert found.model in {
            aliases[key] for key in matching if len(key.replace("*", "")) == most
        }


def _matches(pattern: str, name: str) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(_matches(pattern[1:], name[at:]) for at in range(len(name) + 1))
    return name[:1] == pattern[0] and _matches(pattern[1:], name[1:])


def test_i8_no_bytes_bring_the_gateway_down() -> None:
    """Whatever comes to the port, the gateway goes on, and answers nothing but whole replies."""
    assert fuzz_surface(4.0, 11) > 20


@pytest.mark.parametrize(
    "line",
    [
        b"Host: a.\xff\r\n",
        b"Host: xn--a\r\n",
        b"Host: 127.0.0.1\r\nSec-WebSocket-Protocol: \xff\r\n",
    ],
)
def test_i8_an_upgrade_that_cannot_be_read_is_refused(
    line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A request to upgrade whose head is no text gets a 400, and no fault is logged."""
    with gateway() as served:
        with socket.create_connection(("127.0.0.1", served.port), timeout=5) as plug:
            plug.sendall(
                b"GET /v1/responses HTTP/1.1\r\n" + line + b"Connection: Upgrade\r\n"
                b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            assert plug.recv(65536).split(b"\r\n")[0].split()[1] in (b"400", b"403")
        assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("path", sorted(CRASHES.glob("*/*")), ids=lambda path: path.name)
def test_i3_what_fuzzing_once_found(path: Path) -> None:
    """What fuzzing found once is not found again."""
    TARGETS[path.parent.name](path.read_bytes())

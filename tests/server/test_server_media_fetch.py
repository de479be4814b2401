"""Fetching linked media: what comes back, what is refused, and what it costs at most."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from tests.support.media_hosts import (
    PNG,
    PUBLIC,
    MediaHosts,
    Step,
    make_certificate,
    media_hosts,
    redirect,
    reply,
)

from oaicompat.errors import OaicompatError
from oaicompat.supplies import Supplies
from oaicompat_server.bodies import BodyBudget
from oaicompat_server.checked_network import CheckedNetwork, Names
from oaicompat_server.settings import MediaSettings

CDN, OTHER = "cdn.example.com", "images.example.org"
LINK = f"https://{CDN}/a.png"
QUICK = MediaSettings(fetch=True, timeout=3.0)
_DRIPPING: Sequence[Step] = (PNG, 0.05) * 100
UNREACHABLE = "The media at this link could not be fetched."


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("certificates")
    make_certificate(place, CDN, OTHER)
    return place


@pytest.fixture
def hosts(certificates: Path) -> Iterator[MediaHosts]:
    names = {CDN: PUBLIC, OTHER: PUBLIC, "unnamed.example.net": PUBLIC}
    with media_hosts(certificates, names) as served:
        served.pages[f"{CDN}/a.png"] = [reply(PNG)]
        yield served


def _free(size: int) -> None:
    """Let any memory be taken."""


def _fetch(
    hosts: MediaHosts,
    *urls: str,
    settings: MediaSettings = QUICK,
    most: int = 1 << 30,
    hold: Callable[[int], None] = _free,
) -> Supplies:
    return asyncio.run(hosts.fetcher(most).fetch(settings, "", urls, hold))


def _refusal(hosts: MediaHosts, *urls: str, **named: Any) -> str:
    found = _fetch(hosts, *urls, **named)
    assert len(found.refused) == 1, found
    return next(iter(found.refused.values()))


def test_media_come_as_base64_with_the_type_their_bytes_tell(hosts: MediaHosts) -> None:
    hosts.pages[f"{CDN}/b"] = [reply(b"\xff\xd8\xff\xe0" + bytes(5000), "image/png")]
    found = _fetch(hosts, LINK, f"https://{CDN}/b")
    assert not found.refused
    assert found.media == {
        LINK: ("image/png", base64.b64encode(PNG).decode()),
        f"https://{CDN}/b": (
            "image/jpeg",
            base64.b64encode(b"\xff\xd8\xff\xe0" + bytes(5000)).decode(),
        ),
    }
    assert hosts.dialled == [PUBLIC, PUBLIC]
    assert not hosts.open


def test_nothing_of_the_client_or_the_gateway_is_sent_along(hosts: MediaHosts) -> None:
    _fetch(hosts, f"https://{CDN.upper()}:443/a.png?x=\u00e4&y=1#part")
    assert hosts.heads == [
        f"GET /a.png?x=%C3%A4&y=1 HTTP/1.1\r\nhost: {CDN}\r\n"
        "accept: image/*,audio/*,video/*,application/pdf\r\naccept-encoding: identity\r\n"
        "user-agent: oaicompat-server\r\nconnection: close\r\n\r\n"
    ]


def test_a_host_that_cannot_prove_its_name_is_not_asked(hosts: MediaHosts) -> None:
    assert _refusal(hosts, "https://unnamed.example.net/a.png") == UNREACHABLE
    assert hosts.dialled == [PUBLIC]
    assert hosts.heads == []


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 1000, 100_000, 700_001])
def test_bytes_survive_however_they_are_cut(hosts: MediaHosts, size: int) -> None:
    body = (PNG * (size // len(PNG) + 2))[: size + 8]
    pieces = [b"%x\r\n%s\r\n" % (len(one), one) for one in (body[:5], body[5:6], body[6:]) if one]
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    hosts.pages[f"{CDN}/a.png"] = [head, 0.01, *pieces, b"0\r\n\r\n"]
    found = _fetch(hosts, LINK)
    assert base64.b64decode(found.media[LINK][1]) == body


def test_redirects_are_followed_within_and_across_hosts(hosts: MediaHosts) -> None:
    hosts.pages[f"{CDN}/x/a"] = [redirect("b?c", "301 Moved Permanently")]
    hosts.pages[f"{CDN}/x/b"] = [redirect(f"//{OTHER}/c", "307 Temporary Redirect")]
    hosts.pages[f"{OTHER}/c"] = [redirect(f"HTTPS://{CDN}/a.png#x", "308 Permanent Redirect")]
    link = f"https://{CDN}/x/a"
    assert list(_fetch(hosts, link).media) == [link]
    assert [head.split(" ")[1] for head in hosts.heads] == ["/x/a", "/x/b?c", "/c", "/a.png"]


@pytest.mark.parametrize(
    "location", ["http://cdn.example.com/a.png", "", "\\\\127.0.0.1\\a", "/\\x"]
)
def test_a_redirect_elsewhere_is_refused(hosts: MediaHosts, location: str) -> None:
    hosts.pages[f"{CDN}/a.png"] = [redirect(location)]
    assert "malformed" in _refusal(hosts, LINK)
    assert len(hosts.heads) == 1


def test_a_redirect_loop_ends_after_three(hosts: MediaHosts) -> None:
    hosts.pages[f"{CDN}/a.png"] = [redirect(LINK)]
    assert _refusal(hosts, LINK) == "The media link redirects too often."
    assert len(hosts.heads) == 4


def test_what_says_or_turns_out_to_be_too_large_is_refused(hosts: MediaHosts) -> None:
    settings = structs.replace(QUICK, max_bytes=len(PNG))
    assert list(_fetch(hosts, LINK, settings=settings).media) == [LINK]
    large = PNG + b"x"
    hosts.pages[f"{CDN}/a.png"] = [reply(large).partition(b"\r\n\r\n")[0] + b"\r\n\r\n", 60.0]
    began = time.monotonic()
    too_large = f"The media at this link are larger than {len(PNG)} bytes."
    assert _refusal(hosts, LINK, settings=settings) == too_large
    hosts.pages[f"{CDN}/a.png"] = [b"HTTP/1.1 200 OK\r\n\r\n", large, 60.0]
    assert _refusal(hosts, LINK, settings=settings) == too_large
    assert time.monotonic() - began < 1


def test_media_of_a_request_are_bounded_together(hosts: MediaHosts) -> None:
    hosts.pages[f"{CDN}/b.png"] = [reply(PNG)]
    assert "together" in _refusal(hosts, LINK, f"https://{CDN}/b.png", most=len(PNG) * 2)


def test_memory_is_asked_for_before_it_is_taken(hosts: MediaHosts) -> None:
    taken: list[int] = []
    media = _fetch(hosts, LINK, hold=taken.append).media
    assert sum(taken) == len(media[LINK][1])
    with pytest.raises(OaicompatError) as raised:
        _fetch(hosts, LINK, hold=BodyBudget(10).take)
    assert raised.value.status == 503


@pytest.mark.parametrize(
    "steps",
    [
        [60.0],
        [b"HTTP/1.1 200 OK\r\n", *[b"x-a: 1\r\n", 0.1] * 100],
        [b"HTTP/1.1 200 OK\r\n\r\n", *[b"\x89", 0.1] * 100],
        [b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n", *[b"\x89", 0.1] * 100],
    ],
    ids=["silent", "slow head", "slow body", "slow body with length"],
)
def test_a_host_that_drips_is_left_after_the_total_time(
    hosts: MediaHosts, steps: Sequence[Step]
) -> None:
    hosts.pages[f"{CDN}/a.png"] = steps
    began = time.monotonic()
    settings = structs.replace(QUICK, timeout=0.4)
    assert (
        _refusal(hosts, LINK, settings=settings) == "The media at this link took too long to fetch."
    )
    assert time.monotonic() - began < 1.5


def test_a_look_up_that_hangs_is_left_after_the_total_time(hosts: MediaHosts) -> None:
    hosts.hang = True
    settings = structs.replace(QUICK, timeout=0.2)
    assert (
        _refusal(hosts, LINK, settings=settings) == "The media at this link took too long to fetch."
    )


def test_redirects_share_the_total_time(hosts: MediaHosts) -> None:
    hosts.pages[f"{CDN}/a.png"] = [0.25, redirect(LINK)]
    began = time.monotonic()
    assert "too long" in _refusal(hosts, LINK, settings=structs.replace(QUICK, timeout=0.6))
    assert time.monotonic() - began < 1.2


def test_one_link_too_many_is_named_and_nothing_is_fetched(hosts: MediaHosts) -> None:
    links = [f"{LINK}?{number}" for number in range(9)]
    assert len(_fetch(hosts, *links[:8]).media) == 8
    hosts.asked.clear()
    assert _fetch(hosts, *links).refused == {links[8]: "At most 8 media links can be fetched."}
    assert hosts.asked == []


def test_the_first_failure_ends_the_other_downloads(hosts: MediaHosts) -> None:
    hosts.pages[f"{CDN}/slow"] = [60.0]
    began = time.monotonic()
    assert "404" in _refusal(hosts, f"https://{CDN}/slow", f"https://{CDN}/missing")
    assert time.monotonic() - began < 1


def test_too_many_requests_that_fetch_wait_for_their_turn(hosts: MediaHosts) -> None:
    most = 0

    async def run() -> None:
        nonlocal most
        fetcher = hosts.fetcher()
        hosts.pages[f"{CDN}/a.png"] = [0.1, reply(PNG)]
        work = [asyncio.create_task(fetcher.fetch(QUICK, "", [LINK], _free)) for _ in range(40)]
        while not all(task.done() for task in work):
            most = max(most, hosts.open)
            await asyncio.sleep(0.005)
        assert all(task.result().media for task in work)
        refused = [asyncio.create_task(fetcher.fetch(QUICK, "", [LINK], _free)) for _ in range(300)]
        done = await asyncio.gather(*refused, return_exceptions=True)
        errors = [each for each in done if isinstance(each, BaseException)]
        assert len(errors) == 300 - 16 - 256
        assert all(isinstance(each, OaicompatError) and each.status == 503 for each in errors)

    asyncio.run(run())
    assert 1 < most <= 16


def test_nobody_is_kept_from_fetching_by_the_flood_of_another(hosts: MediaHosts) -> None:
    async def run() -> None:
        fetcher = hosts.fetcher()
        hosts.pages[f"{CDN}/a.png"] = [0.1, reply(PNG)]
        flood = [
            asyncio.create_task(fetcher.fetch(QUICK, "many", [LINK], _free)) for _ in range(80)
        ]
        await asyncio.sleep(0.02)
        assert (await fetcher.fetch(QUICK, "one", [LINK], _free)).media
        assert sum(task.done() for task in flood) <= 48
        assert all(found.media for found in await asyncio.gather(*flood))

    asyncio.run(run())


async def _within(seconds: float, true: Callable[[], bool]) -> bool:
    for _ in range(round(seconds * 100)):
        if true():
            return True
        await asyncio.sleep(0.01)
    return False


def test_cancellation_leaves_no_connection(hosts: MediaHosts) -> None:
    hosts.pages[f"{CDN}/a.png"] = [b"HTTP/1.1 200 OK\r\n\r\n", *_DRIPPING]

    async def run() -> None:
        task = asyncio.create_task(hosts.fetcher().fetch(QUICK, "", [LINK], _free))
        assert await _within(1, lambda: hosts.open > 0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await _within(1, lambda: not hosts.open)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("body", "declared", "mime"),
    [
        (PNG, "", "image/png"),
        (PNG, "image/webp; charset=binary", "image/png"),
        (PNG, "application/octet-stream", "image/png"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "IMAGE/JPEG", "image/webp"),
        (b"%PDF-1.7\n", "application/x-pdf", "application/pdf"),
        (b"OggS" + bytes(60), "application/ogg", "audio/ogg"),
        (b"\x00\x00\x00\x18ftypisom" + bytes(60), "audio/mp4", "audio/mp4"),
        (b"\x00\x00\x00\x18ftypisom" + bytes(60), "video/quicktime", "video/mp4"),
        (b"\x1aE\xdf\xa3" + bytes(60), "audio/webm", "audio/webm"),
        (b"ID3\x04" + bytes(60), "video/mpeg", "audio/mp3"),
        (PNG, "text/html", None),
        (PNG, "application/pdf", None),
        (PNG, "video/mp4", None),
        (PNG, "application/json", None),
        (b"%PDF-1.7\n", "image/png", None),
        (b"<html>", "image/png", None),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml", None),
        (b'{"secret": 1}', "", None),
        (b"", "image/png", None),
        (b"\x89PNG", "image/png", None),
        (b"PK\x03\x04", "application/octet-stream", None),
    ],
)
def test_the_type(hosts: MediaHosts, body: bytes, declared: str, mime: str | None) -> None:
    hosts.pages[f"{CDN}/a.png"] = [reply(body, declared)]
    found = _fetch(hosts, LINK)
    if mime is None:
        assert "known format" in found.refused[LINK]
    else:
        assert found.media[LINK] == (mime, base64.b64encode(body).decode())


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (reply(PNG, "image/png", "content-encoding: gzip"), "compressed"),
        (reply(PNG, "image/png", "Content-Encoding: br"), "compressed"),
        (reply(PNG, status="404 Not Found"), "status 404"),
        (reply(PNG, status="206 Partial Content"), "status 206"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "status 204"),
        (reply(PNG, status="304 Not Modified"), "status 304"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "could not be fetched"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n" + PNG[:20], "could not be fetched"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: %s\r\n\r\n" % (b"9" * 5000), "could not be fetched"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n" + PNG, "could not be fetched"),
        (b"HTTP/1.1 302 Found\r\n\r\n", "malformed"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: 1\r\n" * 20_000, "could not be fetched"),
        (b"", "could not be fetched"),
    ],
)
def test_an_answer_that_is_no_media(hosts: MediaHosts, answer: bytes, says: str) -> None:
    hosts.pages[f"{CDN}/a.png"] = [answer]
    assert says in _refusal(hosts, LINK)


def test_only_allowed_hosts_are_asked(hosts: MediaHosts) -> None:
    hosts.pages[f"{OTHER}/b.png"] = [reply(PNG)]
    only = structs.replace(QUICK, allowed_hosts=("CDN.example.com", "*.example.org"))
    assert len(_fetch(hosts, LINK, f"https://{OTHER}/b.png", settings=only).media) == 2
    only = structs.replace(QUICK, allowed_hosts=(CDN,))
    hosts.asked.clear()
    assert "this host" in _refusal(hosts, f"https://{OTHER}/b.png", settings=only)
    assert hosts.asked == []
    hosts.pages[f"{CDN}/a.png"] = [redirect(f"https://{OTHER}/b.png")]
    assert "this host" in _refusal(hosts, LINK, settings=only)
    assert hosts.asked == [CDN]


def test_look_ups_that_hang_take_four_threads_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hanging(host: str, *_: Any, **__: Any) -> list[Any]:
        released.wait(10)
        return []

    async def run() -> None:
        monkeypatch.setattr("oaicompat_server.resolver.socket.getaddrinfo", hanging)
        names = Names()
        network = CheckedNetwork(names)
        before = threading.active_count()
        work = [network.connect_tcp(f"h{number}.example", 443, 0.1) for number in range(20)]
        failures = await asyncio.gather(*work, return_exceptions=True)
        assert {type(each).__name__ for each in failures} == {"ConnectTimeout"}
        assert threading.active_count() - before == 4
        names.close()
        released.set()

    asyncio.run(run())


def test_the_system_is_asked_for_names() -> None:
    async def run() -> None:
        names = Names()
        assert set(await names("localhost")) <= {"127.0.0.1", "::1"}
        names.close()

    asyncio.run(run())

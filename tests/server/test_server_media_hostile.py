"""Links and names that must not lead into the gateway's own network: nobody there may be reached."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.asking import Reply, ask
from tests.support.gateway import Gateway, gateway
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

from oaicompat.supplies import Supplies
from oaicompat_server import checked_network
from oaicompat_server.addresses import is_public
from oaicompat_server.links import Hosts, Unfetchable, follow, is_public_name, parse_link
from oaicompat_server.settings import Config, ConfigError, MediaSettings
from oaicompat_server.snapshot import snapshot

CDN, OTHER = "cdn.example.com", "images.example.org"
LINK = f"https://{CDN}/a.png"
QUICK = MediaSettings(fetch=True, timeout=3.0)
_DRIPPING: Sequence[Step] = (PNG, 0.05) * 100
UNREACHABLE = "The media at this link could not be fetched."


_ADDRESSES = (
    *("127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0x7f.1"),
    *("017700000001", "0177.0.0.1", "00000177.0.0.01", "127.0.0.1.", "0", "0.0.0.0", "0x0"),
    *("10.0.0.1", "172.16.0.1", "172.31.255.254", "192.168.0.1", "192.168.257", "0xc0a80001"),
    *("100.64.0.1", "100.100.100.200", "192.0.0.8", "192.0.0.192", "169.254.169.254", "2852039166"),
    *("0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "168.63.129.16", "198.18.0.1"),
    *("224.0.0.1", "255.255.255.255", "240.0.0.1", "192.88.99.1", "203.0.113.9"),
    *("[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::127.0.0.1]", "[::ffff:127.0.0.1]"),
    *("[::ffff:7f00:1]", "[::ffff:169.254.169.254]", "[::ffff:0:127.0.0.1]"),
    *("[64:ff9b::127.0.0.1]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]"),
    *("[2001:0:7f00:1::1]", "[2001:db8::1]", "[fc00::1]", "[fd00:ec2::254]", "[fe80::1]"),
    *("[fe80::1%25lo]", "[fe80::1%lo]", "[fec0::1]", "[ff02::1]", "[100::1]", "[3fff::1]"),
)
_NAMES = (
    *("localhost", "localhost.", "LOCALHOST", "localhost.localdomain", "intranet", "metadata"),
    *(
        "metadata.google.internal",
        "printer.local",
        "app.localhost",
        "x.onion",
        "1.0.0.127.in-addr.arpa",
    ),
    *("127.0.0.1.nip.io", "localtest.me", "intranet.example.com", "intranet.example.com."),
    *("xn--intranet-.example.com", "a_b.example.com", "7f000001.example.com", "0x7f000001.com"),
)
_AUTHORITIES = (
    *(f"{CDN}@127.0.0.1", "user:pass@127.0.0.1", f"127.0.0.1\\@{CDN}", f"{CDN}\\@127.0.0.1"),
    *(f"127.0.0.1\\.{CDN}", f"{CDN}:443@127.0.0.1", f"127.0.0.1#@{CDN}", f"127.0.0.1?@{CDN}"),
    *(f"127.0.0.1%23@{CDN}", f"127.0.0.1%2f.{CDN}", f"127.0.0.1%00.{CDN}", "%31%32%37.0.0.1"),
    *("127.0.0.1:443", "127.0.0.1:22", "localhost:8045", f"{CDN}:80", f"{CDN}:8443", f"{CDN}:"),
    *(f"{CDN}:0443", f"{CDN}:443:443", f"{CDN}:+443", f"{CDN}:\uff14\uff14\uff13", f"{CDN}:65979"),
    *("\u2460\u2461\u2466.0.0.1", "\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021"),
    *("l\u24deca\u1e3chost", "\u017focalhost.example.com", f"{CDN}\u2100.evil", f"{CDN}\u2028x"),
    *(
        f" {CDN}",
        f"{CDN} ",
        f"{CDN}\t",
        f"{CDN}\r\nhost: x",
        f"{CDN}\x00.evil",
        f".{CDN}",
        f"{CDN}..",
    ),
    *("", ".", "..", "-", "[", "[]", "[::1", "::1", "*", f"*.{CDN}", f"-{CDN}", "a" * 64 + ".com"),
    *("a." * 130 + "com", f"{CDN},127.0.0.1", f"{CDN};127.0.0.1", f"({CDN})", "127.0.0.1&@x.com"),
)
HOSTILE = [
    *(f"https://{one}/a.png" for one in (*_ADDRESSES, *_NAMES, *_AUTHORITIES)),
    *("https:127.0.0.1/a", "https:/127.0.0.1/a", "https:///127.0.0.1/a", "https:\\\\127.0.0.1\\a"),
    *("//127.0.0.1/a", "http://127.0.0.1/a", "HTTPS://127.0.0.1/a", f"http\u017f://{CDN}/a"),
    *("https://127.0.0.1", "https://127.0.0.1?a", "https://127.0.0.1#a", "https://x@y@127.0.0.1/"),
    *(
        f"https://{CDN}/{'a' * 9000}",
        f"https://{CDN}\\a",
        f"https://{CDN}/a\\b",
        f"https://{CDN}/\x7f",
    ),
    *("ftp://127.0.0.1/a", "gopher://127.0.0.1:70/_x", "file:///etc/passwd", "jar:https://x!/a"),
]
# Their spelling is that of any host, so that what they resolve to must be what stops them.
_LOOKED_UP = (
    "127.0.0.1.nip.io",
    "localtest.me",
    "intranet.example.com",
    "localhost.localdomain",
    "a_b.example.com",
    "7f000001.example.com",
    "0x7f000001.com",
)


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


def test_no_hostile_link_reaches_a_private_listener(hosts: MediaHosts) -> None:
    assert len(set(HOSTILE)) >= 80

    async def run() -> None:
        fetcher = hosts.fetcher()
        for link in HOSTILE:
            found = await fetcher.fetch(QUICK, "", [link], _free)
            assert list(found.refused) == [link], link
            assert not found.media

    asyncio.run(run())
    assert hosts.dialled == []
    assert hosts.heads == []
    assert hosts.private == 0
    assert set(hosts.asked) == set(_LOOKED_UP)


@pytest.mark.parametrize(
    "address", [each.strip("[]") for each in _ADDRESSES if "%" not in each and each != "127.0.0.1."]
)
def test_an_address_in_any_spelling_is_stopped_without_help_of_the_parser(
    hosts: MediaHosts, address: str
) -> None:
    hosts.names["evil.example.com"] = [asyncio.run(hosts.resolve(address))]
    assert _refusal(hosts, "https://evil.example.com/a.png") == UNREACHABLE
    assert hosts.dialled == []
    assert hosts.private == 0


def test_the_listener_is_reached_where_addresses_are_not_checked(
    hosts: MediaHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checked_network, "is_public", lambda address: True)
    assert _refusal(hosts, "https://localtest.me/a.png") == UNREACHABLE
    assert hosts.private == 1


def test_one_private_address_among_public_ones_refuses_the_host(hosts: MediaHosts) -> None:
    hosts.names["mixed.example.com"] = [[PUBLIC, "10.0.0.1"]]
    assert _refusal(hosts, "https://mixed.example.com/a.png") == UNREACHABLE
    hosts.names["none.example.com"] = [[]]
    assert _refusal(hosts, "https://none.example.com/a.png") == UNREACHABLE
    assert hosts.dialled == []


def test_a_name_that_is_rebound_after_the_check_changes_nothing(hosts: MediaHosts) -> None:
    hosts.names[CDN] = [[PUBLIC], ["127.0.0.1"]]
    assert list(_fetch(hosts, LINK).media) == [LINK]
    assert hosts.asked == [CDN]
    assert hosts.dialled == [PUBLIC]
    assert _refusal(hosts, LINK) == UNREACHABLE
    assert hosts.dialled == [PUBLIC]
    assert hosts.private == 0


def test_a_name_that_is_rebound_between_redirects_is_checked_again(hosts: MediaHosts) -> None:
    hosts.names[CDN] = [[PUBLIC], ["127.0.0.1"]]
    hosts.pages[f"{CDN}/a.png"] = [redirect("/b.png")]
    assert _refusal(hosts, LINK) == UNREACHABLE
    assert hosts.asked == [CDN, CDN]
    assert hosts.dialled == [PUBLIC]
    assert hosts.private == 0


def test_a_redirect_is_checked_like_a_link(hosts: MediaHosts) -> None:
    async def run() -> None:
        fetcher = hosts.fetcher()
        for location in HOSTILE:
            if not set("\r\n\x00") & set(location):
                told = location.encode().decode("latin-1").strip()
                hosts.pages[f"{CDN}/a.png"] = [redirect(told)]
                found = await fetcher.fetch(QUICK, "", [LINK], _free)
                assert list(found.refused) == [LINK], location

    asyncio.run(run())
    assert set(hosts.dialled) == {PUBLIC}
    assert hosts.private == 0


@pytest.fixture
def served(hosts: MediaHosts) -> Iterator[Gateway]:
    with gateway(Config(media=QUICK)) as running:
        relay = running.relay
        relay.media.close()
        relay.media = hosts.fetcher()
        yield running


def _chat(served: Gateway, *links: str) -> Reply:
    parts = [{"type": "image_url", "image_url": {"url": link}} for link in links]
    message = {"role": "user", "content": [{"type": "text", "text": "What is it?"}, *parts]}
    return ask(served, "POST", "/v1/chat/completions", {"model": "gpt-4o", "messages": [message]})


def test_no_hostile_link_gets_through_the_gateway(served: Gateway, hosts: MediaHosts) -> None:
    for link in HOSTILE:
        reply = _chat(served, link)
        assert reply.status == 400, (link, reply.content)
        assert reply.error["param"] == "messages[0].content[1].image_url.url", link
        assert "127" not in reply.error["message"]
        assert "passwd" not in reply.error["message"]
    assert hosts.dialled == []
    assert hosts.private == 0
    assert served.simulator.requests == []
    assert served.idle()["active"] == 0


# The first seven are public to `ipaddress` of Python 3.11.7 (reliability F5).
_PRIVATE = (
    *("192.0.0.8", "224.0.0.1", "ff02::1", "fec0::1", "64:ff9b::7f00:1", "2002:7f00:1::"),
    *("::127.0.0.1", "0.0.0.0", "0.255.255.255", "10.0.0.0", "10.255.255.255", "100.64.0.0"),
    *("100.100.100.200", "100.127.255.255", "127.0.0.1", "127.255.255.255", "168.63.129.16"),
    *("169.254.169.254", "172.16.0.0", "172.31.255.255", "192.0.0.0", "192.0.0.192", "192.0.0.255"),
    *("192.0.2.1", "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.0.0", "192.175.48.1"),
    *(
        "198.18.0.0",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "239.255.255.255",
        "240.0.0.0",
    ),
    *("255.255.255.255", "::", "::1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:8.8.8.8"),
    *("::ffff:0:8.8.8.8", "64:ff9b::8.8.8.8", "64:ff9b:1::1", "100::1", "2001::1", "2001:2::1"),
    *("2001:10::1", "2001:20::1", "2001:1ff:ffff::", "2001:db8::1", "2002:808:808::1", "3ffe::1"),
    *("3fff::1", "2620:4f:8000::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fd20:ce::254"),
    *("fe80::1", "fe80::1%lo", "2606:4700::1111%lo", "feff::1", "ff0e::1", "ffff::", "4000::1"),
    *("", "localhost", "1", "127.1", "0x7f.1", "0177.0.0.1", "8.8.8.8 ", "8.8.8.8/32", "[::1]"),
    *("\u0661.1.1.1", "\uff18.8.8.8", "8.8.8.8\n", "8.8.8.8\x00", "2606:4700::1111/128"),
)
_OPEN = (
    *("1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0"),
    *("126.255.255.255", "128.0.0.1", "168.63.129.15", "169.253.255.255", "172.15.255.255"),
    *(
        "172.32.0.0",
        "192.0.1.0",
        "192.167.255.255",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
    ),
    *("2606:4700:4700::1111", "2001:4860:4860::8888", "2a00:1450:4001::1", "2001:200::1"),
)


@pytest.mark.parametrize("address", _PRIVATE)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", _OPEN)
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address)


def test_the_library_may_refuse_more(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (ipaddress.IPv4Address, ipaddress.IPv6Address):
        monkeypatch.setattr(kind, "is_global", False)
    assert [address for address in _OPEN if is_public(address)] == []


def test_the_own_list_does_not_lean_on_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (ipaddress.IPv4Address, ipaddress.IPv6Address):
        monkeypatch.setattr(kind, "is_global", True)
    assert [address for address in _PRIVATE if is_public(address)] == []


@pytest.mark.parametrize(
    "pattern",
    ["", "*", "*.", "localhost", "10.0.0.1", "https://a.com", "a.com:443", "*a.com", "a*.com"],
)
def test_hosts_that_cannot_be_allowed(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"media\.allowed_hosts"):
        snapshot(Config(media=MediaSettings(allowed_hosts=("a.com", pattern))))


def test_a_pattern_allows_what_is_below_its_name() -> None:
    allowed = Hosts(["*.a.com", "B.org"])
    assert [allow for allow in ("x.a.com", "x.y.a.com", "b.org") if not allowed.allow(allow)] == []
    for other in ("a.com", "xa.com", "x.b.org", "a.com.evil.net", "b.org.evil.net"):
        assert not allowed.allow(other)
    assert Hosts([]).allow("anything.net")


@given(st.text(max_size=60), st.sampled_from(["https://", "https://a.com", "https://a.com/", ""]))
def test_any_text_is_a_link_or_refused(text: str, start: str) -> None:
    try:
        link = parse_link(start + text)
    except Unfetchable:
        return
    assert is_public_name(link.host)
    assert link.url.isascii()
    assert link.url.isprintable()
    assert urlsplit(link.url).hostname == link.host
    assert parse_link(link.url) == link


@given(st.text(max_size=40))
def test_any_redirect_is_a_link_or_refused(location: str) -> None:
    try:
        link = follow(parse_link("https://a.com/b/c?d"), location)
    except Unfetchable:
        return
    assert urlsplit(link.url).hostname == link.host
    assert link.host == "a.com" or location.lower().startswith(("https://", "//"))

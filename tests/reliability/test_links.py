"""Rows F4-F8 of the fault matrix: links of clients, what is in them, and the headers that go upstream.

The tables of links and addresses are those of the tests of media; here they go by other routes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from tests.server.test_server_media_hostile import HOSTILE
from tests.support import raw
from tests.support.asking import Reply, ask
from tests.support.gateway import Gateway, gateway
from tests.support.media_hosts import PNG, PUBLIC, MediaHosts, make_certificate, media_hosts, reply

from oaicompat_server.addresses import is_public
from oaicompat_server.config import load
from oaicompat_server.settings import Config, MediaSettings


@pytest.fixture(scope="module")
def served() -> Iterator[Gateway]:
    with gateway() as running:
        yield running


CDN = "cdn.example.com"


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MediaHosts]:
    place = tmp_path_factory.mktemp("certificates")
    make_certificate(place, CDN)
    with media_hosts(place, {CDN: PUBLIC}) as made:
        made.pages[f"{CDN}/a.png"] = [reply(PNG)]
        yield made


@pytest.fixture(scope="module")
def fetching(hosts: MediaHosts) -> Iterator[Gateway]:
    """Serve with media fetched, from hosts of our own."""
    with gateway(Config(media=MediaSettings(fetch=True, timeout=3.0))) as running:
        running.relay.media.close()
        running.relay.media = hosts.fetcher()
        yield running


def shown(served: Gateway, part: Mapping[str, object]) -> Reply:
    body = {"model": "gpt-4o", "store": False, "input": [{"role": "user", "content": [part]}]}
    return ask(served, "POST", raw.RESPONSES, body)


def test_f4_no_link_leads_into_the_own_network(fetching: Gateway, hosts: MediaHosts) -> None:
    """Of links in every spelling that could mean a private address none is fetched, nor passed on."""
    assert len(set(HOSTILE)) >= 80
    for number, link in enumerate(HOSTILE):
        part = {"type": "input_image", "image_url": link}
        if number % 3 == 0:
            part = {"type": "input_file", "file_url": link}
        assert shown(fetching, part).status == 400, link
    assert (hosts.dialled, hosts.private) == ([], 0)
    assert fetching.simulator.requests == []
    assert (
        shown(fetching, {"type": "input_image", "image_url": f"https://{CDN}/a.png"}).status == 200
    )
    assert (hosts.dialled, hosts.private) == ([PUBLIC], 0)


def test_f4_nothing_is_fetched_by_default(served: Gateway, hosts: MediaHosts) -> None:
    """Unless it is switched on, the gateway resolves and calls no host that a client names."""
    before = (list(hosts.asked), list(hosts.dialled))
    served.relay.media.close()
    served.relay.media = hosts.fetcher()
    for link in (f"https://{CDN}/a.png", "https://localtest.me/a.png", *HOSTILE[::10]):
        shown(served, {"type": "input_image", "image_url": link})
    assert (hosts.asked, hosts.dialled) == before


@pytest.mark.parametrize(
    "address",
    [
        *(
            "192.0.0.8",
            "224.0.0.1",
            "ff02::1",
            "fec0::1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "::127.0.0.1",
        ),
        *(
            "::ffff:127.0.0.1",
            "::ffff:0:7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a00:1",
            "2002:a00:1::",
        ),
        *(
            "2001:0:7f00:1::",
            "fd00::1",
            "fe80::1",
            "::",
            "::1",
            "0.0.0.0",
            "100.64.0.1",
            "169.254.169.254",
        ),
        *(
            "198.18.0.1",
            "192.88.99.1",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "203.0.113.1",
        ),
    ],
)
def test_f5_an_address_is_public_by_our_own_list(address: str) -> None:
    """Addresses that lead inside are private by our own list, whatever the standard library says of them."""
    assert not is_public(address)
    assert is_public("8.8.8.8")
    assert is_public("2001:4860:4860::8888")


LOCAL = (
    *("file:///etc/passwd", "file:/etc/passwd"),
    *("file://localhost/etc/passwd", "FILE:///etc/passwd", "/etc/passwd"),
    *("../../etc/passwd", "~/etc/passwd", "C:\\etc\\passwd", "\\\\host\\etc\\passwd", "gs://bucket/etc/passwd"),
    *("s3://bucket/etc/passwd", "http://host.example/etc/passwd"),
    *("ftp://host.example/etc/passwd", "data:etc/passwd"),
    *("data:;base64,etc/passwd!", "data:etc/passwd;base64,", "data:image/png;base64,etc/passwd!"),
    *("javascript:etc/passwd", "blob:https://host.example/etc/passwd"),
    *("jar:file:///etc/passwd!/x", "php://etc/passwd"),
)  # fmt: skip


@pytest.mark.parametrize("link", LOCAL)
def test_f6_only_https_and_data_are_taken(fetching: Gateway, link: str) -> None:
    """A local path, file:, gs: and every other scheme is 400, and the refusal does not repeat it."""
    assert len(LOCAL) >= 20
    for part in (
        {"type": "input_image", "image_url": link},
        {"type": "input_file", "file_url": link},
    ):
        found = shown(fetching, part)
        assert found.status == 400, found.content
        assert "etc" not in found.error["message"]


@pytest.mark.parametrize("kind", ["image/png", "video/mp4"])
def test_f7_images_are_counted_and_never_decoded(served: Gateway, kind: str) -> None:
    """A message may have 256 media and no more; what is in them is passed on as it came, were it no image."""
    part = {"type": "input_image", "image_url": f"data:{kind};base64,bm90IGFuIGltYWdl"}
    for count, status in ((256, 200), (257, 400), (10_000, 400)):
        before = len(served.simulator.requests)
        body = {
            "model": "gpt-4o",
            "store": False,
            "input": [{"role": "user", "content": [part] * count}],
        }
        assert ask(served, "POST", raw.RESPONSES, body).status == status, count
        assert len(served.simulator.requests) - before == (status == 200)
    parts = served.simulator.requests[-1].body["contents"][0]["parts"]
    assert {each["inlineData"]["data"] for each in parts} == {"bm90IGFuIGltYWdl"}


CLIENT_HEADERS = (
    *("cookie", "x-goog-user-project", "x-goog-request-params", "x-goog-api-client", "x-goog-ext-1-bin"),
    *("x-goog-iam-authority-selector"),
    *("x-goog-iam-authorization-token", "x-goog-encode-response-if-executable"),
    *("x-goog-fieldmask", "x-server-timeout"),
    *("x-http-method-override", "x-method-override", "proxy-authorization"),
    *("proxy-connection", "te", "trailer", "keep-alive"),
    *("via", "forwarded", "x-forwarded-for", "x-forwarded-host"),
    *("x-forwarded-proto", "x-real-ip", "x-client-ip", "cf-connecting-ip", "referer", "user-agent", "accept"),
    *("accept-language", "accept-charset", "if-none-match"),
    *("if-modified-since", "range", "cache-control", "pragma"),
    *("dnt", "openai-organization", "openai-project"),
    *("openai-beta", "x-stainless-lang", "x-stainless-retry-count"),
    *("x-stainless-timeout", "x-api-version", "anthropic-version"),
    *("x-request-id", "x-session-id", "session_id"),
    *("conversation_id", "idempotency-key", "x-amzn-trace-id"),
    *("traceparent", "tracestate", "baggage", "x-b3-traceid"),
    *("x-cloud-trace-context", "content-language", "content-location", "content-disposition", "digest", "link"),
    *("x-api-key", "from", "x-csrf-token", "x-custom", "priority"),
)  # fmt: skip


@pytest.mark.parametrize("path", [raw.CHAT, raw.RESPONSES])
@pytest.mark.parametrize("http", ["fast", "httpcore"])
def test_f8_upstream_headers_are_a_fixed_list(path: str, http: str) -> None:
    """Of what a client sends as headers nothing goes upstream: those are made anew from a fixed list."""
    assert len(set(CLIENT_HEADERS)) >= 60
    marks = [f"{name}: sentinel-{number}" for number, name in enumerate(CLIENT_HEADERS)]
    config = load(environ={"HOME": "/nonexistent", "OAICOMPAT_UPSTREAM__HTTP": http}).config
    with gateway(config) as running:
        with raw.connect(running.port) as plug:
            plug.sendall(raw.request(running.port, path, raw.words(path, "hello"), *marks))
            assert raw.answer(plug)[0] == 200
        (made,) = raw.calls(running)
    assert set(made.headers) == {
        *("host", "accept-encoding", "content-type", "content-length", "x-goog-api-key"),
    }
    assert "sentinel" not in f"{made.headers} {made.target} {made.body}"

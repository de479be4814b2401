"""Names and proxies of upstreams: row B2, and what goes through a proxy."""

from __future__ import annotations

import asyncio
import base64
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest
from tests.support import faulty, raw
from tests.support.asking import Reply, ask
from tests.support.certificates import make_certificates, over_tls, trusting
from tests.support.gateway import Gateway, gateway

from oaicompat_server import resolver
from oaicompat_server import upstream as upstream_module
from oaicompat_server.secret import Secret
from oaicompat_server.settings import Config, CredentialSettings, UpstreamSettings
from oaicompat_server.simulator import Simulator, running

Kind = Literal["fast", "httpcore"]
KINDS = pytest.mark.parametrize("kind", ["fast", "httpcore"])
BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}


def chat(served: Gateway, user: str = "") -> Reply:
    return ask(served, "POST", "/v1/chat/completions", BODY | ({"user": user} if user else {}))


def entry(key: str, url: str, proxy: str = "") -> CredentialSettings:
    return CredentialSettings(key=Secret(key), label=key, base_url=url, proxy=Secret(proxy))


@KINDS
def test_b2_a_name_that_hangs_holds_up_nobody_else(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While 40 calls wait for a name that hangs, calls to another host are answered at once."""
    hanging = threading.Event()

    def look_up(host: str) -> Sequence[str]:
        if host == "hung.example":
            hanging.wait(10)
            raise OSError("gave up")
        return ["127.0.0.1"]

    monkeypatch.setattr(resolver.Resolver.__init__, "__defaults__", (look_up, time.monotonic))
    upstream = UpstreamSettings(http=kind, connect_timeout=3.0)
    with running(any_model=True) as simulator:
        port = simulator.url.rpartition(":")[2]
        hung = entry("hung", f"http://hung.example:{port}")
        well = entry("well", f"http://well.example:{port}")
        with (
            gateway(Config(upstream=upstream, credentials=(hung,)), simulator) as stuck,
            gateway(Config(upstream=upstream, credentials=(well,)), simulator) as served,
            ThreadPoolExecutor(40) as threads,
        ):
            waiting = [threads.submit(chat, stuck) for _ in range(40)]
            time.sleep(0.2)
            assert chat(served).status == 200
            assert not any(each.done() for each in waiting)
            hanging.set()
            assert {each.result().status for each in waiting} == {502}


@KINDS
def test_b2_a_name_that_is_not_there_is_a_502(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that cannot be found is a 502 that says no more than that."""

    def look_up(host: str) -> Sequence[str]:
        raise OSError("Name or service not known: internal.example")

    monkeypatch.setattr(resolver.Resolver.__init__, "__defaults__", (look_up, time.monotonic))
    lost = entry("lost", "http://internal.example:1")
    config = Config(upstream=UpstreamSettings(http=kind), credentials=(lost,))
    with gateway(config) as served:
        reply = chat(served)
        assert reply.status == 502
        assert reply.error["message"] == "The upstream cannot be reached."


class Proxy:
    """An HTTP proxy on a loopback port: what was asked of it, and what it answers."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.answer = b"HTTP/1.1 200 Connection established\r\n\r\n"
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii")
        self.heads.append(head)
        host, _, port = head.split(" ")[1].rpartition(":")
        writer.write(self.answer)
        if b" 200 " not in self.answer:
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@contextmanager
def proxying() -> Iterator[Proxy]:
    """Run a proxy in a thread."""
    proxy = Proxy()
    loop = asyncio.new_event_loop()

    async def begin() -> asyncio.Server:
        return await asyncio.start_server(proxy.serve, "127.0.0.1", 0)

    async def end() -> None:
        server.close()
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    server = loop.run_until_complete(begin())
    proxy.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.run_until_complete(end())
        loop.close()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with proxying() as found:
        yield found


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with running(any_model=True) as found:
        yield found


@KINDS
def test_a_credential_goes_through_its_proxy_and_another_does_not(
    kind: Kind, proxy: Proxy, simulator: Simulator
) -> None:
    simulator.behave("through", [])
    simulator.behave("straight", [])
    through = entry("through", "", f"http://user:p%40ss@127.0.0.1:{proxy.port}")
    config = Config(
        upstream=UpstreamSettings(http=kind), credentials=(through, entry("straight", ""))
    )
    with gateway(config, simulator) as served:
        seen = set()
        for number in range(40):
            reply = chat(served, user=f"user {number}")
            assert reply.status == 200
            seen.add(reply.headers["x-account-email"])
        assert seen == {"through", "straight"}
        # One tunnel serves all of them.
        (head,) = proxy.heads
    authority = simulator.url.removeprefix("http://")
    assert head.startswith(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n")
    login = base64.b64encode(b"user:p@ss").decode()
    assert f"Proxy-Authorization: Basic {login}\r\n" in head
    assert "through" not in head
    for record in simulator.requests:
        assert "proxy-authorization" not in record.headers


@KINDS
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
        b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n",
        b"hello",
        b"",
        b"HTTP/1.1 " + b"x" * 20_000,
    ],
)
def test_a_proxy_that_refuses_is_a_502_without_its_words(
    kind: Kind, answer: bytes, proxy: Proxy, simulator: Simulator
) -> None:
    proxy.answer = answer
    through = entry("k", "", f"http://user:sentinel@127.0.0.1:{proxy.port}")
    config = Config(upstream=faulty.upstream(kind), credentials=(through,))
    with gateway(config, simulator) as served:
        reply = chat(served)
        assert reply.status == 502
        assert "sentinel" not in reply.content.decode()
        assert simulator.requests == []
        assert served.idle()["leases"] == 0


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@KINDS
@pytest.mark.parametrize("name", ["good", "other"])
def test_tls_through_a_proxy_is_with_the_upstream(
    kind: Kind, name: str, proxy: Proxy, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream_module, "tls_context", lambda: trusting(certificates))
    with faulty.listening(over_tls(certificates, name), "https") as listener:
        through = entry("k", listener.url, f"http://127.0.0.1:{proxy.port}")
        config = Config(upstream=faulty.upstream(kind), credentials=(through,))
        with gateway(config) as served, faulty.left_clean(served):
            told = faulty.tell(served, raw.CHAT, False)
            if name == "good":
                assert faulty.success(told) == "over TLS"
            else:
                assert faulty.failure(told)["message"] == "The upstream cannot be reached."
    (head,) = proxy.heads
    assert head.startswith(f"CONNECT {listener.url.removeprefix('https://')} HTTP/1.1\r\n")


def _mute(plug: socket.socket) -> None:
    while plug.recv(4096):
        pass


@KINDS
@pytest.mark.parametrize(("fault", "status"), [("mute", 504), ("reset", 502), ("gone", 502)])
def test_a_proxy_that_fails_is_told_as_that_in_time(kind: Kind, fault: str, status: int) -> None:
    serve = {"mute": _mute, "reset": raw.reset}.get(fault, socket.socket.close)
    with faulty.listening(serve) as listener:
        port = listener.url.rpartition(":")[2]
        through = entry("k", "", f"http://user:sentinel@127.0.0.1:{port}")
        waits = faulty.upstream(kind, connect_timeout=0.4)
        with (
            gateway(Config(upstream=waits, credentials=(through,))) as served,
            faulty.left_clean(served),
        ):
            told = faulty.tell(served, raw.CHAT, True)
            said = faulty.failure(told)["message"]
            assert "sentinel" not in said
            assert told.reply.status == status
            assert told.seconds < 1.0
            if status == 502:
                assert said == "The proxy did not connect to the upstream."


@KINDS
def test_b2_an_address_that_is_silent_leaves_time_for_the_next(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several addresses of a host, one that does not answer does not use up the time of the others."""

    def look_up(host: str) -> Sequence[str]:
        return ["127.0.0.2", "127.0.0.1"]

    monkeypatch.setattr(resolver.Resolver.__init__, "__defaults__", (look_up, time.monotonic))
    with running(any_model=True) as simulator, faulty.full("127.0.0.2", simulator.port):
        two = entry("k", f"http://two.example:{simulator.port}")
        waits = faulty.upstream(kind, connect_timeout=1.0)
        with gateway(Config(upstream=waits, credentials=(two,)), simulator) as served:
            assert chat(served).status == 200

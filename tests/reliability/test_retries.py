"""Retries, rotation and cooldowns over real sockets: rows C1 to C14 but C11, which is a matter of reloading."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from email.utils import formatdate
from itertools import pairwise
from typing import Any

import openai
import pytest
from tests.support.asking import Reply, ask
from tests.support.gateway import Gateway, gateway
from tests.support.pools import M, attempts, credential, failure, rate, spend, user_of

from oaicompat.errors import OaicompatError
from oaicompat.retry import RetryPolicy
from oaicompat_server.pool import Pool, Wanted
from oaicompat_server.pool.sharing import Sharing
from oaicompat_server.secret import Secret
from oaicompat_server.settings import Config, CredentialSettings, UpstreamSettings
from oaicompat_server.simulator import Body, Finish, Head
from oaicompat_server.store.cooldowns import MemoryCooldowns

DAY = 86_400.0
PATH = "/v1/chat/completions"


def chat(served: Gateway, text: str = "hello", model: str = M, **more: Any) -> Reply:
    """Ask for one chat completion."""
    body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
    return ask(served, "POST", PATH, body)


def called(served: Gateway) -> list[str]:
    """Return the key of every call that reached the upstream."""
    return [record.key for record in served.simulator.requests if record.method == "POST"]


@contextmanager
def scripted(
    behaviours: Mapping[str, Sequence[str]], config: Config | None = None
) -> Iterator[Gateway]:
    """Run a gateway whose keys behave so."""
    with gateway(config, keys=tuple(behaviours)) as served:
        for key, steps in behaviours.items():
            served.simulator.behave(key, steps)
        yield served


def together(number: int, work: Callable[[int], Any]) -> list[Any]:
    """Do the same in so many threads at once."""
    with ThreadPoolExecutor(number) as threads:
        return list(threads.map(work, range(number)))


def one_attempt(**more: Any) -> Config:
    """Return settings under which failures are not tried again."""
    return Config(upstream=UpstreamSettings(attempts=1, **more))


@pytest.mark.parametrize("fault", ["error-after:1", "cut-after:1", "reset-after:2", "garbage"])
def test_c1_what_fails_after_the_first_bytes_is_not_tried_again(fault: str) -> None:
    """Once bytes have reached the client, a failure is told in the stream, and nobody else is asked."""
    with gateway(keys=("one", "two", "three")) as served:
        reply = chat(served, f"#script:long:4 #script:pace:5 #script:{fault}", stream=True)
        assert reply.status == 200
        assert b'"error"' in reply.content
        assert len(called(served)) == 1


ROTATES = ["429:rate:30", "429:day:1", "429:bare", "401", "400:key", "403:leaked", "403:disabled"]
STAYS = ["500", "502", "503", "504", "529", "408", "reset-after:0", "close-after:0", "html:502"]
ENDS = ["400", "403", "404", "413"]


@pytest.mark.parametrize("fault", [*ROTATES, *STAYS, *ENDS])
def test_c2_only_what_can_succeed_is_tried_again(fault: str) -> None:
    """A failure that may pass, or that another credential may not have, is tried again; no other is."""
    with scripted({"one": [fault], "two": []}) as served:
        reply = chat(served, user=user_of(served.relay.pool, ["one", "two"]))
        assert (reply.status == 200) == (fault not in ENDS), reply.content
        assert reply.status < 500
        asked = called(served)
        assert len(asked) == (1 if fault in ENDS else 2)
        if fault in ROTATES:
            assert asked == ["one", "two"]


@pytest.mark.parametrize("script", ["block:SAFETY", "finish:SAFETY"])
def test_c2_what_the_model_refuses_is_an_answer(script: str) -> None:
    """An answer that was blocked is an answer: nobody else is asked for a better one."""
    with gateway(keys=("one", "two")) as served:
        chat(served, f"#script:{script}")
        assert len(called(served)) == 1


def test_c3_an_outage_gets_no_storm_of_retries() -> None:
    """Retries are a fifth of what runs, and three at least; who finds no place among them fails at once."""
    number = 60
    with gateway(keys=("one", "two")) as served:
        for key in ("one", "two"):
            served.simulator.behave(key, ["503*"])
        # A model of its own for each, so that no cooldown takes the part of the budget.
        found = together(number, lambda each: chat(served, model=f"gemini-2.5-flash-{each}").status)
        assert found == [503] * number
        assert number <= len(called(served)) <= 1.2 * number + 30
        assert served.relay.pool.retries.taken == 0


def test_c4_retries_are_spread_over_their_whole_wait() -> None:
    """The wait before a retry is drawn evenly from nothing to a bound that doubles, 8 seconds at most."""
    policy = RetryPolicy()
    for attempt in range(1, 12):
        bound = min(8.0, 0.25 * 2 ** (attempt - 1))
        drawn = [policy.delay(attempt, jitter=step / 1000) for step in range(1000)]
        assert drawn == pytest.approx([bound * step / 1000 for step in range(1000)])
    waits = []
    for step in range(8):
        call = attempts(Pool([credential("a")]), jitter=lambda step=step: step / 8)
        call.next(0)
        call.failed(0, failure("overload"))
        waits.append(call.delay(0))
    assert len(set(waits)) == len(waits)


@pytest.mark.parametrize(
    ("headers", "detail", "told"),
    [
        ({"retry-after": "0"}, None, None),
        (
            {"retry-after": formatdate(0, usegmt=True), "date": formatdate(9, usegmt=True)},
            None,
            None,
        ),
        (
            {"retry-after": formatdate(36_000, usegmt=True), "date": formatdate(0, usegmt=True)},
            None,
            36000,
        ),
        ({"retry-after": formatdate(0, usegmt=True)}, None, 5),
        ({}, "0.05s", None),
        ({"retry-after": "-1"}, None, 5),
        ({"retry-after": "NaN"}, None, 5),
        ({"retry-after": "soon"}, None, 5),
        ({"retry-after": "1e9"}, None, 5),
        ({"retry-after": "1000000000"}, None, 86400),
        ({"retry-after": "36000"}, None, 36000),
        ({"retry-after": "7.2"}, "90s", 8),
        ({}, "46s", 46),
        ({}, "36605.7s", 36606),
        ({}, "-3s", 5),
        ({}, "soon", 5),
    ],
)
def test_c5_whatever_wait_is_asked_for_it_is_bounded(
    headers: dict[str, str], detail: str | None, told: int | None
) -> None:
    """A wait the upstream asks for is sat out up to 5 seconds, told to the client up to a day, else ignored."""
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": detail}
    error = {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Quota."}
    data = json.dumps({"error": error | ({"details": [info]} if detail else {})}).encode()
    with gateway() as served:
        head = Head(429, headers=tuple(headers.items()), length=len(data))
        served.simulator.enqueue([head, Body(data), Finish()])
        begun = time.monotonic()
        reply = chat(served)
        assert time.monotonic() - begun < 2
        if told is None:
            assert reply.status == 200
            return
        assert reply.status == 429
        assert int(reply.headers["retry-after"]) == told
        assert f"again in {told}s" in reply.error["message"]


def test_c6_a_client_library_comes_back_when_it_is_told_to() -> None:
    """The OpenAI library comes back after the time that `Retry-After` names, and succeeds then."""
    with gateway() as served, openai.OpenAI(base_url=served.url, api_key="x") as client:
        served.simulator.behave("first-key", ["503", "503", "503"])
        messages: Any = [{"role": "user", "content": "hello"}]
        made = client.with_options(max_retries=1).chat.completions.create(
            model=M, messages=messages
        )
        assert made.choices[0].message.content == "hello"
        arrived = [each.arrived for each in served.simulator.requests]
        assert len(arrived) == 4
        assert 1.0 <= arrived[3] - arrived[2] <= 4.0


@pytest.mark.parametrize(
    ("fault", "calls"), [("429:day:2*", 1), ("400:key*", 1), ("403*", 1), ("429:rate:400*", 1)]
)
def test_c6_a_client_library_does_not_multiply_what_is_hopeless(fault: str, calls: int) -> None:
    """What does not pass soon is asked for once, however often the library would try."""
    with gateway() as served, openai.OpenAI(base_url=served.url, api_key="x") as client:
        served.simulator.behave("first-key", [fault])
        messages: Any = [{"role": "user", "content": "hello"}]
        begun = time.monotonic()
        with pytest.raises(openai.APIStatusError) as caught:
            client.with_options(max_retries=1).chat.completions.create(model=M, messages=messages)
        assert int(caught.value.response.headers.get("retry-after", 0)) != 1
        assert len(called(served)) == calls
        assert time.monotonic() - begun < 4


def test_c7_who_asks_while_all_are_cooling_is_told_when_to_come_back() -> None:
    """While every credential cools down the upstream is not asked, and `Retry-After` names the first return."""
    keys = tuple("abcde")
    with gateway(keys=keys) as served:
        for place, key in enumerate(keys):
            served.simulator.behave(key, [f"429:rate:{60 + place}*"])
        found = [chat(served) for _ in range(100)]
        assert len(called(served)) == 5
        assert {reply.status for reply in found} == {429}
        assert 50 <= int(found[-1].headers["retry-after"]) <= 60
        assert found[-1].error["code"] == "rate_limit_exceeded"
        assert served.relay.pool.in_flight == 0


def test_c8_credentials_of_one_project_rest_together() -> None:
    """A limit of one key rests every key of its quota group, for that model and no other."""
    entries = tuple(
        CredentialSettings(key=Secret(key), label=key, quota_group="project") for key in "abc"
    )
    with gateway(Config(credentials=entries)) as served:
        for key in "abc":
            served.simulator.behave(key, [f"429:rate:40@{M}*"])
        assert chat(served).status == 429
        assert len(called(served)) == 1
        assert chat(served).status == 429
        assert len(called(served)) == 1
        assert chat(served, model="gemini-2.5-pro").status == 200


@pytest.mark.parametrize("fault", ["400:key*", "401*"])
def test_c9_a_dead_key_is_asked_once(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    """A key that is refused is asked once, logged once, and out until the settings are loaded again."""
    keys = tuple("abcde")
    with gateway(keys=keys) as served:
        served.simulator.behave("c", [fault])
        assert {chat(served, f"hello {each}").status for each in range(100)} == {200}
        assert Counter(called(served))["c"] == 1
        assert sum("credential c is refused" in each.message for each in caplog.records) == 1


def test_c9_a_denial_is_asked_again_ever_more_rarely() -> None:
    """A denial of one model rests for 5 minutes, and each time it is repeated for longer, up to 6 hours."""
    a = credential("a")
    pool = Pool([a])
    asked = []
    for now in range(0, 2 * 86_400, 60):
        lease = pool.lease(now, Wanted(M))
        if lease is not None:
            asked.append(now)
            with lease:
                lease.report(now, failure("permission", 403))
    gaps = [after - before for before, after in pairwise(asked)]
    assert gaps[:5] == [300, 1800, 7200, 21600, 21600]


def test_c10_when_a_cooldown_ends_one_goes_first() -> None:
    """When a cooldown ends one request goes first; the others wait for what becomes of it."""
    with gateway(one_attempt()) as served:
        served.simulator.behave("first-key", ["429:rate:0.6", "slow:300"])
        assert chat(served).status == 429
        found = together(40, lambda each: chat(served, f"hello {each}").status)
        assert found == [200] * 40
        _, probe, *others = served.simulator.requests
        assert len(others) == 39
        assert min(each.arrived for each in others) >= (probe.ended_at or 1e18)


def test_c12_a_clock_that_jumps_moves_no_cooldown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cooldowns and deadlines go by a clock that does not jump; a day forth or back changes no wait."""
    real = time.time
    with gateway() as served:
        served.simulator.behave("first-key", ["429:rate:60*"])
        for jump in (0.0, DAY, -DAY):
            monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
            begun = time.monotonic()
            reply = chat(served)
            assert time.monotonic() - begun < 1
            assert 50 <= int(reply.headers["retry-after"]) <= 60
        monkeypatch.undo()
        assert len(called(served)) == 1


async def shared_rest(jump: float) -> float:
    a = credential("a")
    first, second = Pool([a]), Pool([a])
    store = MemoryCooldowns()
    spend(first, 0, rate(60), only=a)
    await Sharing(first, store).exchange(0, 1e9)
    await Sharing(second, store).exchange(0, 1e9 + jump)
    return second.outlook(0, M).wait or 0.0


@pytest.mark.parametrize("jump", [DAY, -DAY, 30 * DAY, -30 * DAY])
def test_c12_what_is_shared_between_clocks_that_differ_is_bounded(jump: float) -> None:
    """A rest taken over from a machine whose clock is wrong is never negative and never above a day."""
    assert 0.0 <= asyncio.run(shared_rest(jump)) <= DAY


def test_c13_the_work_is_spread_evenly() -> None:
    """Ten credentials share ten thousand requests to within 5 percent, however long each request takes."""
    draw = random.Random(7)
    pool = Pool([credential(f"key-{number}") for number in range(10)])
    served: Counter[str] = Counter()
    held = []
    for number in range(10_000):
        lease = pool.lease(number / 100, Wanted(M))
        assert lease is not None
        served[lease.credential.account] += 1
        held.append(lease)
        while held and draw.random() < 0.55:
            held.pop(draw.randrange(len(held))).release()
    assert max(served.values()) - min(served.values()) <= 50


def test_c13_whoever_leaves_leaves_no_lease_behind() -> None:
    """A client that leaves, at whatever time, leaves no credential in use."""
    draw = random.Random(3)
    pool = Pool([credential(name) for name in "abc"])
    for number in range(1_000):
        now = float(number)
        try:
            with closing(attempts(pool, models=("m", "n"), deadline=now + 9)) as call:
                for _ in range(draw.randrange(4)):
                    call.next(now)
                    if draw.random() < 0.3:
                        raise KeyboardInterrupt
                    call.failed(now, draw.choice([rate(1), failure("network"), failure("empty")]))
                    call.delay(now)
        except (KeyboardInterrupt, OaicompatError):
            pass
        assert (pool.in_flight, pool.retries.taken) == (0, 0)


def test_c13_connections_that_are_cut_leave_no_lease_behind() -> None:
    """Connections that are cut while the upstream is silent give their credentials back."""
    with gateway(keys=("one", "two")) as served, ThreadPoolExecutor(20) as threads:
        for _ in threads.map(lambda each: cut(served, 0.01 * (each % 5)), range(40)):
            pass
        until = time.monotonic() + 5
        while served.relay.leases and time.monotonic() < until:
            time.sleep(0.01)
        assert served.idle()["leases"] == 0
        assert served.relay.pool.retries.taken == 0


def cut(served: Gateway, after: float) -> None:
    """Begin a request that is not answered, and leave."""
    with openai.OpenAI(base_url=served.url, api_key="x", max_retries=0, timeout=0.1 + after) as one:
        messages: Any = [{"role": "user", "content": "#script:stall-after:0"}]
        with pytest.raises(openai.APITimeoutError):
            one.chat.completions.create(model=M, messages=messages)


@pytest.mark.parametrize("stream", [False, True])
def test_c14_all_attempts_share_one_deadline(stream: bool) -> None:
    """Attempts, their waits and the time in line end with one deadline, not each with its own."""
    settings = UpstreamSettings(
        first_byte_timeout=0.8, total_timeout=1.2, total_timeout_stream=1.2, attempts=3
    )
    with gateway(Config(upstream=settings), keys=("one", "two", "three")) as served:
        for key in ("one", "two", "three"):
            served.simulator.behave(key, ["stall-after:0*"])
        begun = time.monotonic()
        reply = chat(served, stream=stream)
        # Three attempts with a time of their own would take twice as long.
        assert 1.1 <= time.monotonic() - begun < 2.0
        assert reply.status == 504
        assert len(called(served)) == 2

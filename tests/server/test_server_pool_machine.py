"""The pool against a slow model of it, under any order of leases, outcomes, reloads and time (row I4)."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.support.pools import credential, failure

from oaicompat.errors import UpstreamError
from oaicompat_server.pool import Credential, Lease, Pool, Wanted
from oaicompat_server.pool.cells import PROBE_SECONDS

MODELS = ("m", "n")
CREDENTIALS = (
    credential("a"),
    credential("b", quota_group="project"),
    credential("c", quota_group="project", priority=1),
    credential("d", models=("m",), weight=2.0),
)
RATE = {"b": "project", "c": "project"}
STEPS = {"rate": (5, 15, 30, 60), "permission": (300, 1800, 7200, 21600)}
SECONDS = st.sampled_from([0.25, 1.0, 4.0, 5.0, 6.0, 31.0, 300.0, 2000.0])


class Rest:
    """What the model knows of one limit or denial: the same as a cell, kept in the simplest way."""

    def __init__(self) -> None:
        self.until = 0.0
        self.failures = 0
        self.failed = -1
        self.probe: Lease | None = None
        self.probe_ends = 0.0

    def ready(self, now: float) -> bool:
        probed = self.probe is not None and now < self.probe_ends
        return self.until <= now and not probed


class PoolMachine(RuleBasedStateMachine):
    """Plays with a pool; overloads are left out but for their bounds, since they hold no credential."""

    @initialize()
    def begin(self) -> None:
        self.now = 1000.0
        self.events = 0
        self.pool = Pool(CREDENTIALS)
        self.held: dict[Lease, int] = {}
        self.rests: dict[tuple[str, str, str], Rest] = {}
        self.out: set[str] = set()

    def about(self, each: Credential, model: str) -> list[Rest]:
        name = each.account
        keys = [(RATE.get(name, name), "rate", model), (name, "permission", model)]
        return [self.rests[key] for key in keys if key in self.rests]

    def ready(self, each: Credential, model: str) -> bool:
        if each.account in self.out or (each.models and model not in each.models):
            return False
        return all(rest.ready(self.now) for rest in self.about(each, model))

    @rule(model=st.sampled_from(MODELS), sticky=st.sampled_from(["", "x", "y"]))
    def acquire(self, model: str, sticky: str) -> None:
        ready = [each for each in CREDENTIALS if self.ready(each, model)]
        assert (self.pool.outlook(self.now, model).wait == 0) == bool(ready)
        seen = self.pool.peek(self.now, Wanted(model, sticky=sticky))
        lease = self.pool.lease(self.now, Wanted(model, sticky=sticky))
        assert (lease is None) == (not ready), (lease, ready)
        if lease is None:
            assert seen is None
            return
        assert lease.credential == seen
        assert lease.credential in ready
        best = min(each.priority for each in ready)
        assert lease.credential.priority == best
        self.events += 1
        self.held[lease] = self.events
        for rest in self.about(lease.credential, model):
            if rest.until and rest.probe is None:
                rest.probe = lease
                rest.probe_ends = self.now + PROBE_SECONDS

    def take(self, data: st.DataObject) -> Lease:
        return data.draw(st.sampled_from(list(self.held)))

    def give(self, lease: Lease) -> None:
        lease.release()
        del self.held[lease]
        for rest in self.rests.values():
            if rest.probe is lease:
                rest.probe = None

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        lease = self.take(data)
        lease.report(self.now)
        self.events += 1
        name = lease.credential.account
        for key in ((RATE.get(name, name), "rate", lease.model), (name, "permission", lease.model)):
            rest = self.rests.get(key)
            if rest is not None and self.held[lease] > rest.failed:
                del self.rests[key]
        self.give(lease)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), kind=st.sampled_from(["rate", "permission"]))
    def limit(self, data: st.DataObject, kind: str) -> None:
        lease = self.take(data)
        lease.report(self.now, failure(kind, 429 if kind == "rate" else 403))
        self.events += 1
        name = lease.credential.account
        subject = RATE.get(name, name) if kind == "rate" else name
        rest = self.rests.setdefault((subject, kind, lease.model), Rest())
        if self.held[lease] > rest.failed:
            rest.failures += 1
            rest.failed = self.events
        step = STEPS[kind][min(rest.failures, 4) - 1]
        rest.until = max(rest.until, self.now + step)
        rest.probe = None
        self.give(lease)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), error=st.sampled_from([failure("network", 502), failure("request", 400)]))
    def fail_otherwise(self, data: st.DataObject, error: UpstreamError) -> None:
        lease = self.take(data)
        lease.report(self.now, error)
        self.events += 1
        self.give(lease)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.give(self.take(data))

    @precondition(lambda self: self.held and len(self.out) < 2)
    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        lease = self.take(data)
        lease.report(self.now, failure("credential", 401))
        self.events += 1
        self.out.add(lease.credential.account)
        self.give(lease)

    @rule(seconds=SECONDS)
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(model=st.sampled_from(["", *MODELS]))
    def reset(self, model: str) -> None:
        self.pool.reset(model=model)
        self.rests = {key: rest for key, rest in self.rests.items() if model not in ("", key[2])}
        if not model:
            self.out = set()

    @rule()
    def reload(self) -> None:
        """Take new settings: what limits goes on resting, the rest is found out anew."""
        old = self.pool
        self.pool = Pool(CREDENTIALS)
        self.pool.adopt(old.export(self.now), self.now)
        for lease in list(self.held):
            self.give(lease)
        assert old.in_flight == 0
        self.out = set()
        self.events = 0
        self.rests = {
            key: rest
            for key, rest in self.rests.items()
            if key[1] == "rate" and rest.until > self.now
        }
        for rest in self.rests.values():
            rest.failed = 0

    @invariant()
    def leases_are_counted(self) -> None:
        assert self.pool.in_flight == len(self.held)
        rows = self.pool.status(self.now)["credentials"]
        for row in rows:
            held = [lease for lease in self.held if lease.credential.account == row["account"]]
            assert row["in_flight"] == len(held) >= 0

    @invariant()
    def one_probe_at_most(self) -> None:
        probed = [id(cell) for lease in self.held for cell in lease.probes if cell.prober is lease]
        assert len(probed) == len(set(probed))


class OverloadMachine(RuleBasedStateMachine):
    """Plays with failures of the service: they hold off calls and never a retry, for a bounded time."""

    @initialize()
    def begin(self) -> None:
        self.now = 1000.0
        self.pool = Pool(CREDENTIALS)

    def ended(self, error: UpstreamError | None) -> Callable[[Lease], None]:
        return lambda lease: lease.report(self.now, error)

    @rule(status=st.sampled_from([0, 500, 503]), retrying=st.booleans())
    def attempt(self, status: int, retrying: bool) -> None:
        errors = {500: failure("network", 502, upstream_status=500), 503: failure("overload")}
        lease = self.pool.lease(self.now, Wanted("m", retrying=retrying))
        assert lease is not None or not retrying
        if lease is None:
            wait = self.pool.outlook(self.now, "m").wait
            assert wait is not None
            assert 0 < wait <= 30
            return
        with lease:
            self.ended(errors.get(status))(lease)
        if not status:
            assert self.pool.outlook(self.now, "m").wait == 0
        assert self.pool.outlook(self.now, "n").wait == 0

    @rule(seconds=SECONDS)
    def wait(self, seconds: float) -> None:
        self.now += seconds


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=40)
TestOverloads = OverloadMachine.TestCase
TestOverloads.settings = settings(max_examples=25, stateful_step_count=40)

"""Remembered signatures: bounded, owned, and gone in time."""

from __future__ import annotations

from oaicompat.messages import Signature
from oaicompat_server.store import SignatureBounds, SignatureStore

FIRST, SECOND = Signature("c2lnMQ==", "gemini"), Signature("c2lnMg==", "vertex")


def test_a_signature_comes_back_to_its_owner_alone() -> None:
    store = SignatureStore()
    store.remember("mine", "call_1", FIRST, 0.0)
    assert store.find("mine", ["call_1", "call_2"], 1.0) == {"call_1": FIRST}
    assert store.find("theirs", ["call_1"], 1.0) == {}


def test_the_latest_signature_of_a_call_wins() -> None:
    store = SignatureStore()
    store.remember("", "call_1", FIRST, 0.0)
    store.remember("", "call_1", SECOND, 0.0)
    assert store.find("", ["call_1"], 1.0) == {"call_1": SECOND}
    assert len(store) == 1


def test_a_signature_is_forgotten_after_its_lifetime() -> None:
    store = SignatureStore(SignatureBounds(lifetime=10.0))
    store.remember("", "call_1", FIRST, 0.0)
    assert store.find("", ["call_1"], 9.9) == {"call_1": FIRST}
    assert store.find("", ["call_1"], 10.0) == {}
    assert len(store) == 0


def test_the_least_recently_used_goes_first() -> None:
    store = SignatureStore(SignatureBounds(entries=2))
    store.remember("", "call_1", FIRST, 0.0)
    store.remember("", "call_2", FIRST, 0.0)
    store.find("", ["call_1"], 0.0)
    store.remember("", "call_3", FIRST, 0.0)
    assert set(store.find("", ["call_1", "call_2", "call_3"], 0.0)) == {"call_1", "call_3"}


def test_the_size_of_what_is_kept_is_bounded() -> None:
    store = SignatureStore(SignatureBounds(size=100))
    for number in range(50):
        store.remember("", f"call_{number}", Signature("x" * 30), 0.0)
    assert len(store) == 3
    store.remember("", "huge", Signature("x" * 101), 0.0)
    assert len(store) == 3
    store.remember("", "large", Signature("x" * 100), 0.0)
    assert set(store.find("", ["call_49", "huge", "large"], 0.0)) == {"large"}


def test_what_has_had_its_time_can_be_let_go() -> None:
    store = SignatureStore(SignatureBounds(lifetime=10.0))
    store.remember("", "call_1", FIRST, 0.0)
    store.remember("", "call_2", FIRST, 5.0)
    store.expire(10.0)
    assert len(store) == 1
    assert store.get("", "call_2", 14.9) == FIRST


def test_bounds_of_a_store_hold_for_its_signatures() -> None:
    bounds = SignatureBounds(entries=7, size=100, lifetime=50.0)
    assert bounds.within(1000.0, 10_000) == bounds
    assert bounds.within(20.0, 80) == SignatureBounds(7, 10, 20.0)

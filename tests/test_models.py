"""Model names: the order of the rules, wildcards against an oracle, and what may go upstream."""

from __future__ import annotations

import time
from functools import cache
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oaicompat.errors import ModelNotFoundError
from oaicompat.models import (
    BUILTIN,
    BUILTIN_ALIASES,
    PRESETS,
    ModelMap,
    Resolved,
    name_matcher,
    upstream_name,
)


@pytest.mark.parametrize(
    ("aliases", "default", "name", "model", "rule"),
    [
        ({"a": "x", "*": "y"}, None, "a", "x", "exact"),
        ({"a*": "x"}, None, "ab", "x", "wildcard"),
        ({"a*": "x"}, None, "a*", "x", "exact"),
        ({"a*": "x", "ab": "y"}, None, "ab", "y", "exact"),
        ({"gpt-4o": "x"}, None, "gpt-4o", "x", "exact"),
        ({"gpt*": "x"}, None, "gpt-4o", "x", "wildcard"),
        ({}, "d", "gpt-4o", "gemini-2.5-flash", "builtin"),
        ({}, "d", "claude", "d", "default"),
        ({}, None, "claude", "claude", "pass"),
        ({}, "d", "gemini-2.5-pro", "gemini-2.5-pro", "pass"),
        ({}, "d", "tunedModels/x", "tunedModels/x", "pass"),
        ({"A": "x"}, None, "a", "a", "pass"),
        ({"A*": "x"}, None, "ab", "ab", "pass"),
        ({"a": "b", "b": "c"}, None, "a", "b", "exact"),
        ({"a": "gpt-4o"}, None, "a", "gpt-4o", "exact"),
        ({"a": "models/x"}, None, "models/a", "x", "exact"),
        ({"models/a": "x"}, None, "a", "x", "exact"),
        ({}, "models/d", "claude", "d", "default"),
        ({}, None, "models/gemini-2.5-pro", "gemini-2.5-pro", "pass"),
        ({"": "x"}, None, "", "x", "exact"),
        ({"?": "x", "[a]": "y", "a.c": "z"}, None, "abc", "abc", "pass"),
        ({"a[b]*": "x"}, None, "a[b]c", "x", "wildcard"),
    ],
)
def test_rules(
    aliases: dict[str, str], default: str | None, name: str, model: str, rule: Any
) -> None:
    assert ModelMap(aliases, default).resolve(name) == Resolved(name, model, rule)


def test_without_the_builtin_table_only_the_own_one_counts() -> None:
    own = ModelMap({"a": "x"}, "d", builtin=False)
    assert own.resolve("gpt-4o") == Resolved("gpt-4o", "d", "default")
    assert own.resolve("gemini-2.5-pro").rule == "default"
    assert own.aliases() == ("a",)


@pytest.mark.parametrize(
    ("keys", "name", "winner"),
    [
        (["*", "gpt*", "gpt-4*", "gpt-4o*"], "gpt-4o-x", "gpt-4o*"),
        (["claude-opus-*", "claude-opus*thinking"], "claude-opus-thinking", "claude-opus*thinking"),
        (["a*b*c", "ab*c"], "abc", "ab*c"),
        (["a*bc", "ab*c"], "abc", "ab*c"),
        (["a*xb*", "a*bx*"], "axbbx", "a*xb*"),
        (["a*bx*", "a*xb*"], "axbbx", "a*bx*"),
        (["a**b", "ab*"], "ab", "ab*"),
        (["a*b***", "a**b*"], "ab", "a*b***"),
    ],
)
def test_the_most_specific_wildcard_wins(keys: list[str], name: str, winner: str) -> None:
    assert ModelMap({key: key for key in keys}).resolve(name).model == winner


SHORT = st.text("ab-", max_size=8)
PATTERNS = st.text("ab-*", max_size=7)


def matches_slowly(pattern: str, name: str) -> bool:
    @cache
    def match(left: int, right: int) -> bool:
        if left == len(pattern):
            return right == len(name)
        if pattern[left] == "*":
            return match(left + 1, right) or (right < len(name) and match(left, right + 1))
        return right < len(name) and pattern[left] == name[right] and match(left + 1, right + 1)

    return match(0, 0)


def specificity(pattern: str) -> tuple[int, int, int]:
    while "**" in pattern:
        pattern = pattern.replace("**", "*")
    return -len(pattern.replace("*", "")), pattern.count("*"), -pattern.index("*")


def spellings(alphabet: str, longest: int) -> list[str]:
    lengths = range(longest + 1)
    return ["".join(letters) for size in lengths for letters in product(alphabet, repeat=size)]


def test_every_short_pattern_matches_what_the_oracle_says() -> None:
    names = spellings("ab", 5)
    for pattern in spellings("ab*", 5):
        own = ModelMap({pattern: "x"}, "no", builtin=False)
        matched = [name for name in names if own.resolve(name).model == "x"]
        assert matched == [name for name in names if matches_slowly(pattern, name)], pattern


@given(st.lists(PATTERNS, max_size=5, unique=True), SHORT)
def test_lookup_equals_the_slow_oracle(keys: list[str], name: str) -> None:
    fitting = [key for key in keys if "*" in key and matches_slowly(key, name)]
    expected = name if name in keys else min(fitting, key=specificity, default="nothing")
    own = ModelMap({key: key or "empty" for key in keys}, "nothing", builtin=False)
    assert own.resolve(name).model == (expected or "empty")


@given(
    st.lists(PATTERNS, max_size=5, unique_by=lambda key: specificity(key + "*")),
    SHORT,
    st.randoms(),
)
def test_the_order_of_entries_decides_only_ties(keys: list[str], name: str, random: Any) -> None:
    starred = [key + "*" for key in keys]
    shuffled = random.sample(starred, len(starred))
    first, second = (ModelMap({key: key for key in order}) for order in (starred, shuffled))
    assert first.resolve(name) == second.resolve(name)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("*a" * 5_000, "a" * 9_999 + "b"),
        ("*a" * 5_000 + "*c", "a" * 10_000),
        ("*" + "a" * 50 + "b*", "a" * 10_000),
        ("*ab" * 3_000, "a" * 10_000),
        ("*" * 10_000 + "x", "a" * 10_000),
    ],
)
def test_pathological_patterns_are_fast(pattern: str, name: str) -> None:
    own = ModelMap({pattern: "x"})
    started = time.process_time()
    assert own.resolve(name).rule == "pass"
    assert time.process_time() - started < 0.02


@pytest.mark.parametrize(
    ("targets", "model", "fallbacks"),
    [
        ("x", "x", ()),
        (("x",), "x", ()),
        (["x", "y", "z"], "x", ("y", "z")),
        (["models/x", "models/y", "x"], "x", ("y",)),
        (["y", "x", "y", "x"], "y", ("x",)),
    ],
)
def test_a_name_may_stand_for_several_models(
    targets: Any, model: str, fallbacks: tuple[str, ...]
) -> None:
    own = ModelMap({"a": targets, "b*": targets}, "d")
    assert own.resolve("a") == Resolved("a", model, "exact", fallbacks)
    assert own.resolve("models/a") == Resolved("models/a", model, "exact", fallbacks)
    assert own.resolve("bc") == Resolved("bc", model, "wildcard", fallbacks)
    assert own.resolve("c").fallbacks == own.resolve("gpt-4o").fallbacks == ()


@pytest.mark.parametrize("targets", ["", [], [""], ["x", ""], ["models/"], ["x", "models/"]])
def test_an_alias_that_names_no_model_is_refused(targets: Any) -> None:
    with pytest.raises(ValueError, match="'a' names no model"):
        ModelMap({"a": targets})


def test_fallbacks_are_not_looked_up_again() -> None:
    own = ModelMap({"a": ["b", "gpt-4o"], "b": "c"})
    assert own.resolve("a") == Resolved("a", "b", "exact", ("gpt-4o",))


@given(st.lists(PATTERNS, max_size=4), SHORT, st.booleans())
def test_names_are_matched_as_the_slow_oracle_does(
    patterns: list[str], name: str, prefixed: bool
) -> None:
    fits = name_matcher(patterns)(f"models/{name}" if prefixed else name)
    assert fits == any(matches_slowly(pattern, name) for pattern in patterns)


@pytest.mark.parametrize(
    ("patterns", "name", "fits"),
    [
        ((), "x", False),
        (("*",), "", True),
        (("models/x",), "x", True),
        (("models/x*",), "xy", True),
        (("x",), "models/x", True),
        (("x?",), "xy", False),
        (("[x]",), "x", False),
        (("X",), "x", False),
        (("a", "b*"), "bc", True),
        (("a*", "b*"), "c", False),
    ],
)
def test_which_names_match(patterns: tuple[str, ...], name: str, fits: bool) -> None:
    assert name_matcher(patterns)(name) is fits


def test_a_map_is_immutable_and_keeps_its_own_copy() -> None:
    aliases = {"a": "x"}
    own = ModelMap(aliases)
    aliases["a"] = "y"
    assert own.resolve("a").model == "x"
    with pytest.raises(AttributeError):
        own.default = "x"
    with pytest.raises(AttributeError):
        del own._table


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("gpt-4o", "gemini-2.5-flash"),
        ("gpt-4o-2024-11-20", "gemini-2.5-flash"),
        ("gpt-4o-mini", "gemini-2.5-flash-lite"),
        ("gpt-4o-mini-2024-07-18", "gemini-2.5-flash-lite"),
        ("gpt-3.5-turbo-0125", "gemini-2.5-flash"),
        ("gpt-4", "gemini-2.5-flash"),
        ("gpt-4-0613", "gemini-2.5-flash"),
        ("gpt-4-turbo-preview", "gemini-2.5-flash"),
        ("gpt-4.1", "gemini-2.5-pro"),
        ("gpt-4.1-mini-2025-04-14", "gemini-2.5-flash"),
        ("gpt-4.1-nano", "gemini-2.5-flash-lite"),
        ("gpt-5", "gemini-3.1-pro-preview"),
        ("gpt-5.5", "gemini-3.1-pro-preview"),
        ("gpt-5-pro", "gemini-3.1-pro-preview"),
        ("gpt-5-mini", "gemini-3.8-flash"),
        ("gpt-5.4-nano-2026-01-01", "gemini-3.5-flash-lite"),
        ("gpt-5.3-codex", "gemini-3.1-pro-preview"),
        ("gpt-5.1-codex-mini", "gemini-3.8-flash"),
        ("codex-mini-latest", "gemini-3.8-flash"),
        ("o1", "gemini-3.1-pro-preview"),
        ("o1-pro", "gemini-3.1-pro-preview"),
        ("o3-mini", "gemini-3.8-flash"),
        ("o3-deep-research", "gemini-3.1-pro-preview"),
        ("o4-mini", "gemini-3.8-flash"),
        ("chatgpt-4o-latest", "gemini-2.5-flash"),
        ("gemini-3-flash", "gemini-3-flash-preview"),
        ("gemini-3-pro", "gemini-3.1-pro-preview"),
        ("models/gemini-3.1-pro", "gemini-3.1-pro-preview"),
    ],
)
def test_builtin_names(name: str, model: str) -> None:
    assert BUILTIN.resolve(name) == Resolved(name, model, "builtin")


# The ids the service knows, gemini-wire section 8.
KNOWN = frozenset(
    [
        *(
            "gemini-3.8-flash",
            "gemini-3.5-flash-lite",
            "gemini-3.1-pro-preview",
            "gemini-3-flash-preview",
        ),
        *("gemini-2.5-pro", "gemini-2.5-flash", "gemini-2.5-flash-lite", "gemini-4-argon"),
        *("gemini-pro-latest", "gemini-flash-latest", "gemini-flash-lite-latest"),
    ]
)


@pytest.mark.parametrize("table", [BUILTIN_ALIASES, *PRESETS.values()])
def test_every_target_is_a_known_name_that_may_go_upstream(table: dict[str, str]) -> None:
    assert set(table.values()) <= KNOWN
    assert {upstream_name(target) for target in table.values()} == set(table.values())


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_known_names_pass_unchanged(name: str) -> None:
    assert BUILTIN.resolve(name) == Resolved(name, name, "pass")


def test_presets_merge_with_own_entries() -> None:
    assert set(PRESETS) == {"default", "performance", "cost-effective", "balanced"}
    for preset in PRESETS.values():
        own = ModelMap(preset | {"gpt-4o*": "mine"})
        assert own.resolve("gpt-4o").model == "mine"
        for name in (
            "gpt-4.1",
            "gpt-5",
            "o4-mini",
            "gpt-5.3-codex",
            "gpt-3.5-turbo",
            "gpt-4o-mini",
        ):
            assert own.resolve(name).rule == "wildcard"


def test_aliases_are_sorted_names_without_patterns() -> None:
    names = ModelMap({"zeta": "x", "alpha": "y", "al*": "z", "models/gpt-4o": "w"}).aliases()
    assert names == tuple(sorted(set(names)))
    assert {"alpha", "zeta", "gpt-4o", "gemini-3-flash"} <= set(names)
    assert not any("*" in name or "/" in name for name in names)


@pytest.mark.parametrize(
    "name",
    [
        "gemini-2.5-flash", "a", "A.b_c-9", "x" * 128, "a..b", "tunedModels/my-model-1",
        "publishers/google/models/gemini-2.5-pro", "endpoints/1234567890",
    ],
)  # fmt: skip
def test_names_that_may_go_upstream(name: str) -> None:
    assert upstream_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "", " ", ".", "..", "-a", "../../v1/x", "g?key=", "g#", "g%2f..", "//evil/x", "a\\..\\b", "a/b", "a:b",
        "a b", "gémini", "\uff41", "x" * 129, "x" * 10_000, "a\n", "a\r\nX: y", "a\0", "models/a",
        "tunedModels/", "endpoints/",
        "tunedModels/../x", "publishers/meta/models/x", "publishers/google/models/", "endpoints/a/b", "\ud800",
        "https://evil/", "@evil", "a@b", "\u202egemini", "tunedModels/a\n", "tunedmodels/a", "+", "*",
    ],
)  # fmt: skip
def test_names_that_may_not(name: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        upstream_name(name)
    error = caught.value
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
    assert error.message.isprintable()
    assert len(error.message) <= 200
    assert error.message.endswith("` does not exist or you do not have access to it.")


def test_the_message_names_the_model() -> None:
    with pytest.raises(ModelNotFoundError, match=r"^The model `a/b` does not exist or"):
        upstream_name("a/\x1bb")

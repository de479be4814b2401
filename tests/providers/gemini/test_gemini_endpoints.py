"""Where calls go: hosts and paths by backend, hostile names, and the credential's header."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oaicompat.errors import InvalidRequestError, ModelNotFoundError, OaicompatError, UpstreamError
from oaicompat.providers.gemini.endpoints import (
    GEMINI_API,
    Target,
    count_tokens_url,
    generate_url,
    headers,
    method_url,
    models_url,
    origin,
)

GEMINI = "https://generativelanguage.googleapis.com/v1beta"
MODEL = "gemini-2.5-flash"


def vertex(**fields: str) -> Target:
    values = {"model": MODEL, "project": "my-project", "location": "us-central1"} | fields
    return msgspec.structs.replace(
        Target(backend="vertex", project=values["project"], location=values["location"]),
        model=values["model"],
        base_url=values.get("base_url", ""),
        version=values.get("version", ""),
    )


def test_gemini_api_urls() -> None:
    target = msgspec.structs.replace(GEMINI_API, model=MODEL)
    assert generate_url(target, False) == f"{GEMINI}/models/{MODEL}:generateContent"
    assert generate_url(target, True) == f"{GEMINI}/models/{MODEL}:streamGenerateContent?alt=sse"
    assert count_tokens_url(target) == f"{GEMINI}/models/{MODEL}:countTokens"
    assert method_url(target, "batchEmbedContents") == f"{GEMINI}/models/{MODEL}:batchEmbedContents"
    assert models_url(target) == f"{GEMINI}/models?pageSize=1000"


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("global", "https://aiplatform.googleapis.com"),
        ("us", "https://aiplatform.us.rep.googleapis.com"),
        ("eu", "https://aiplatform.eu.rep.googleapis.com"),
        ("us-central1", "https://us-central1-aiplatform.googleapis.com"),
        ("europe-west12", "https://europe-west12-aiplatform.googleapis.com"),
        ("northamerica-northeast1", "https://northamerica-northeast1-aiplatform.googleapis.com"),
        ("asia-southeast1", "https://asia-southeast1-aiplatform.googleapis.com"),
    ],
)
def test_vertex_hosts(location: str, host: str) -> None:
    path = f"/v1beta1/projects/my-project/locations/{location}/publishers/google/models/{MODEL}"
    assert generate_url(vertex(location=location), False) == f"{host}{path}:generateContent"


def test_vertex_has_no_model_list_in_this_shape() -> None:
    assert models_url(vertex()) is None


def test_express_mode_has_no_project() -> None:
    target = Target(backend="vertex", express=True, model=MODEL)
    assert generate_url(target, True) == (
        "https://aiplatform.googleapis.com/v1/publishers/google/models/"
        f"{MODEL}:streamGenerateContent?alt=sse"
    )


def test_another_address_and_version() -> None:
    target = Target(base_url="http://127.0.0.1:9099/", version="v1", model=MODEL)
    assert generate_url(target, False) == f"http://127.0.0.1:9099/v1/models/{MODEL}:generateContent"
    assert origin(Target(base_url="http://[::1]:80")) == "http://[::1]:80"


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("models/gemini-2.5-pro", "/v1beta/models/gemini-2.5-pro"),
        ("publishers/google/models/gemini-2.5-pro", "/v1beta/models/gemini-2.5-pro"),
        ("tunedModels/mine-1", "/v1beta/tunedModels/mine-1"),
    ],
)
def test_prefixed_names_on_the_gemini_api(model: str, path: str) -> None:
    url = generate_url(Target(model=model), False)
    assert urlsplit(url).path == f"{path}:generateContent"


def test_prefixed_names_on_vertex() -> None:
    place = "/v1beta1/projects/my-project/locations/us-central1"
    for model, path in (
        ("publishers/google/models/gemini-2.5-pro", "/publishers/google/models/gemini-2.5-pro"),
        ("endpoints/123456", "/endpoints/123456"),
    ):
        assert urlsplit(generate_url(vertex(model=model), False)).path == (
            f"{place}{path}:generateContent"
        )


def test_names_of_the_other_backend_are_not_found() -> None:
    """A path of the wrong front door would be answered 404 upstream anyway (gemini-wire section 1)."""
    with pytest.raises(ModelNotFoundError):
        generate_url(Target(model="endpoints/123"), False)
    with pytest.raises(ModelNotFoundError):
        generate_url(vertex(model="tunedModels/mine"), False)
    with pytest.raises(ModelNotFoundError):
        generate_url(Target(backend="vertex", express=True, model="endpoints/1"), False)


HOSTILE_MODELS = (
    "", ".", "..", "../../v1/x", "models/../../x", "g?key=", "g#", "g%2f..", "//evil/x", "a\\..\\b",
    "modèle", "g h", "g\r\nx: y", "g:generateContent", "a/b/c", "x" * 10_000, "@evil", "-g", "g;a=b",
    "publishers/google/models/", "publishers/evil/models/x", "endpoints/../x", "tunedModels/a/b",
    "http://evil/", "g\x00", "\uff47emini",
)  # fmt: skip


@pytest.mark.parametrize("model", HOSTILE_MODELS)
def test_hostile_model_names_never_reach_a_url(model: str) -> None:
    for target in (Target(model=model), vertex(model=model)):
        with pytest.raises(ModelNotFoundError):
            generate_url(target, True)


@given(
    st.text(max_size=30) | st.sampled_from(HOSTILE_MODELS), st.sampled_from(["gemini", "vertex"])
)
def test_any_model_name_gives_our_path_or_our_error(
    model: str, backend: Literal["gemini", "vertex"]
) -> None:
    target = Target(model=model) if backend == "gemini" else vertex(model=model)
    try:
        url = generate_url(target, True)
    except ModelNotFoundError:
        return
    parts = urlsplit(url)
    assert f"{parts.scheme}://{parts.netloc}" == origin(target)
    assert parts.path.rsplit("/", 1)[-1].endswith(":streamGenerateContent")
    assert ".." not in parts.path.split("/")
    assert (parts.query, parts.fragment) == ("alt=sse", "")


@pytest.mark.parametrize(
    "location",
    ["", "x#", "us-central1#", "us-central1.evil.com", "US-CENTRAL1", "us central1", "..", "evil",
     "us-central1/", "us-central1\n", "@evil.com", "us-central", "moon-east1", "us-central1234"],
)  # fmt: skip
def test_hostile_locations_are_refused(location: str) -> None:
    """Portkey#1596: `x#` in a region moved the key to another host."""
    with pytest.raises(InvalidRequestError) as caught:
        Target(backend="vertex", project="my-project", location=location)
    assert caught.value.param == "location"


@pytest.mark.parametrize(
    "project",
    ["", "abc", "1project", "My-project", "my_project", "my-project/locations/x", "a" * 63,
     "my-project?", "my-project#", "../project", "my project", "my-project\n", "projét-x"],
)  # fmt: skip
def test_hostile_projects_are_refused(project: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Target(backend="vertex", project=project, location="global")
    assert caught.value.param == "project"


@pytest.mark.parametrize(
    "base_url",
    ["ftp://host", "host", "http://u:p@host", "http://host/path", "http://host?x", "http://host#",
     "http://host\n", "http://ho st", "//host"],
)  # fmt: skip
def test_addresses_with_more_than_an_origin_are_refused(base_url: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Target(base_url=base_url)
    assert caught.value.param == "base_url"


@pytest.mark.parametrize("version", ["1", "v1/../x", "v1beta1?", "v", "v1beta1\n", "latest"])
def test_other_versions_are_refused(version: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Target(version=version)
    assert caught.value.param == "version"


def test_the_credential_stands_in_a_header_only() -> None:
    secret = "s3cret-value"
    express = Target(backend="vertex", express=True, model=MODEL)
    for target, name, value in (
        (msgspec.structs.replace(GEMINI_API, model=MODEL), "x-goog-api-key", secret),
        (express, "x-goog-api-key", secret),
        (vertex(), "authorization", f"Bearer {secret}"),
    ):
        sent = dict(headers(target, secret))
        assert sent == {
            "content-type": "application/json",
            "accept-encoding": "identity",
            name: value,
        }
        assert "key=" not in generate_url(target, True)


def test_a_quota_project_goes_with_a_token_only() -> None:
    express = Target(backend="vertex", express=True, model=MODEL)
    assert dict(headers(vertex(), "token", "my-payer"))["x-goog-user-project"] == "my-payer"
    for target, payer in (
        (GEMINI_API, "my-payer"),
        (express, "my-payer"),
        (vertex(), ""),
        (vertex(), "my-payer\r\nx-evil: 1"),
    ):
        assert "x-goog-user-project" not in dict(headers(target, "token", payer))


@pytest.mark.parametrize("secret", ["", "abc\n", "a\r\nx: y", "a b", "ключ", "a\x00", "x" * 9000])
def test_a_credential_that_is_no_header_value_is_not_shown(secret: str) -> None:
    """httpcore would put the whole key into its own error text (reliability G2)."""
    with pytest.raises(UpstreamError) as caught:
        headers(GEMINI_API, secret)
    assert caught.value.cause == "credential"
    assert caught.value.should_retry is False
    assert not secret or secret not in str(caught.value)


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_targets_are_valid_or_refused(project: str, location: str, base_url: str) -> None:
    try:
        target = Target(backend="vertex", project=project, location=location, base_url=base_url)
    except OaicompatError:
        return
    assert urlsplit(origin(target)).hostname

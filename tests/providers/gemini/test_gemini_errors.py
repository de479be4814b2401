"""Failures upstream: recorded bodies, one table of kinds, secrets, and arbitrary bytes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oaicompat.errors import (
    ModelNotFoundError,
    OaicompatError,
    UpstreamError,
    UpstreamProtocolError,
)
from oaicompat.providers.gemini.errors import Failure, decode_error, decode_status, scrub
from oaicompat.providers.gemini.parameters import client_parameter
from oaicompat.retry import GiveUp, Retry, RetryPolicy

SHARED = Path(__file__).resolve().parents[4] / "shared"
RECORDED = sorted((SHARED / "gemini" / "recorded").glob("*error*.json"))
CHECKER = SHARED / "openai" / "check_openai.py"

MODEL = "gpt-4o"
KEY = "AIza" + "S" * 35


def status(code: int, message: str, name: str = "", details: object = None) -> bytes:
    error = {"code": code, "message": message, "status": name, "details": details or []}
    return json.dumps({"error": error}).encode()


def reason(text: str) -> list[dict[str, object]]:
    return [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": text}]


def decoded(code: int, body: bytes, **headers: str) -> Failure:
    return decode_error(code, headers, body, model=MODEL)


def upstream(code: int, body: bytes, **headers: str) -> UpstreamError:
    error = decoded(code, body, **headers)
    assert isinstance(error, UpstreamError)
    return error


def refused(message: str, name: str = "INVALID_ARGUMENT", details: object = None) -> UpstreamError:
    return upstream(400, status(400, message, name, details))


def as_client_sees_it(error: OaicompatError) -> dict[str, object]:
    return {
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.code,
        }
    }


CREDENTIALS = [
    (400, status(400, "API key not valid. Please pass a valid API key.", "INVALID_ARGUMENT",
                 reason("API_KEY_INVALID"))),
    (400, status(400, "API key expired. Please renew the API key.", "INVALID_ARGUMENT")),
    (401, status(401, "Request had invalid authentication credentials.", "UNAUTHENTICATED")),
    (401, b""),
    (403, status(403, "Your API key was reported as leaked. Please use another API key.",
                 "PERMISSION_DENIED")),
    (403, status(403, f"Permission denied: Consumer 'api_key:{KEY}' has been suspended.",
                 "PERMISSION_DENIED", reason("CONSUMER_SUSPENDED"))),
    (403, status(403, "Method doesn't allow unregistered callers (callers without established "
                 "identity).", "PERMISSION_DENIED")),
]  # fmt: skip


@pytest.mark.parametrize(("code", "body"), CREDENTIALS)
def test_bug_70_a_bad_credential_is_never_the_clients_error(code: int, body: bytes) -> None:
    error = upstream(code, body)
    assert (error.cause, error.retryable, error.upstream_status) == ("credential", True, code)
    assert (error.status, error.type, error.should_retry) == (503, "server_error", False)
    assert "AIza" not in error.message
    assert error.message == "The upstream service refused the credential it was called with."


PLACE, API, BILLING, ACCESS = (
    "unsupported_country_region_territory",
    "upstream_api_disabled",
    "upstream_billing_required",
    "upstream_access_denied",
)
PERMISSIONS = [
    (400, PLACE, status(400, "User location is not supported for the API use.",
                        "FAILED_PRECONDITION")),
    (400, PLACE, status(400, "Gemini API free tier is not available in your country. Please enable "
                        "billing on your project.", "FAILED_PRECONDITION")),
    (403, API, status(403, "Generative Language API has not been used in project 123456789 before or "
                      "it is disabled.", "PERMISSION_DENIED", reason("SERVICE_DISABLED"))),
    (403, ACCESS, status(403, "Your project has been denied access.", "PERMISSION_DENIED")),
    (403, ACCESS, status(403, "Requests to this API generativelanguage.googleapis.com method x are "
                         "blocked.", "PERMISSION_DENIED", reason("API_KEY_SERVICE_BLOCKED"))),
    (403, ACCESS, status(403, "Requests from referer <empty> are blocked.", "PERMISSION_DENIED")),
    (403, BILLING, status(403, "This API method requires billing to be enabled.",
                          "PERMISSION_DENIED")),
    (403, BILLING, status(403, "x", "PERMISSION_DENIED", reason("BILLING_DISABLED"))),
]  # fmt: skip


@pytest.mark.parametrize(("code", "named", "body"), PERMISSIONS)
def test_bug_97_no_permission_is_a_class_of_its_own(code: int, named: str, body: bytes) -> None:
    error = upstream(code, body)
    assert (error.cause, error.retryable, error.status) == ("permission", True, 403)
    assert (error.type, error.code) == ("request_forbidden", named)
    assert error.should_retry is False
    assert "123456789" not in error.message


MODEL_NOT_FOUND = ("invalid_request_error", "model_not_found", "model")
DENIALS = [
    ("You do not have permission to access tuned model tunedModels/other-1.", MODEL_NOT_FOUND),
    ("Permission 'aiplatform.endpoints.predict' denied on resource '//aiplatform.googleapis.com/"
     "projects/p/locations/l/publishers/google/models/gemini-9' (or it may not exist).",
     MODEL_NOT_FOUND),
    ("service-1@x.iam.gserviceaccount.com does not have storage.objects.get access to the Google "
     "Cloud Storage object.", ("invalid_request_error", None, None)),
    ("You do not have permission to access the File abc or it may not exist.",
     ("invalid_request_error", None, None)),
    ("The caller does not have permission", ("invalid_request_error", None, None)),
    ("", ("invalid_request_error", None, None)),
]  # fmt: skip


@pytest.mark.parametrize(("message", "shown"), DENIALS)
def test_a_denial_of_one_thing_leaves_the_credential_alone(
    message: str, shown: tuple[str, str | None, str | None]
) -> None:
    error = upstream(403, status(403, message, "PERMISSION_DENIED"))
    assert (error.status, error.cause, error.retryable) == (403, "request", False)
    assert (error.type, error.code, error.param) == shown


def test_a_403_without_a_reason_leaves_the_credential_alone() -> None:
    error = upstream(403, b"no")
    assert (error.status, error.cause, error.retryable) == (403, "request", False)


@pytest.mark.parametrize(
    ("code", "message", "kind", "shown"),
    [
        (400, "Image generation is not available in your country.",
         "request_forbidden", "unsupported_country_region_territory"),
        (403, "Gemini 3 Pro is not available in your region.",
         "request_forbidden", "unsupported_country_region_territory"),
        (400, "Gemini 3 Pro is not available in the free tier.",
         "invalid_request_error", "model_not_found"),
        (403, "models/gemini-3-pro doesn't have a free tier.",
         "invalid_request_error", "model_not_found"),
    ],
)  # fmt: skip
def test_a_model_one_project_may_not_use_is_tried_with_another(
    code: int, message: str, kind: str, shown: str
) -> None:
    error = upstream(code, status(code, message, "FAILED_PRECONDITION"))
    assert (error.status, error.type, error.code) == (403, kind, shown)
    assert (error.cause, error.param) == ("model_permission", "model")
    decide = RetryPolicy().decide
    assert decide(1, error, others=True, budget=60, jitter=0.5) == Retry(0.0, True)
    assert decide(1, error, others=False, budget=60, jitter=0.5) == GiveUp()


@pytest.mark.parametrize("code", [400, 403])
@pytest.mark.parametrize(
    "message",
    [
        "Unsupported MIME type: API_KEY_INVALID",
        "Permission denied on resource models/API key not valid",
        "Invalid value at 'labels': 'Your API key was reported as leaked'",
        "Permission denied on resource 'x has been suspended'",
        "Invalid name: This API method requires billing",
    ],
)
def test_what_the_client_wrote_never_rules_a_credential_out(code: int, message: str) -> None:
    error = upstream(code, status(code, message, "INVALID_ARGUMENT"))
    assert (error.cause, error.retryable) == ("request", False)


@pytest.mark.parametrize(
    "message",
    [
        "models/gemini-9 is not found for API version v1beta, or is not supported for "
        "generateContent. Call ModelService.ListModels to see the list of available models.",
        "Publisher Model `projects/secret-project/locations/us-central1/publishers/google/models/x`"
        " not found.",
        "Publisher Model projects/1234567/x was not found or your project does not have access.",
    ],
)
def test_an_unknown_model_is_worded_as_openai_does(message: str) -> None:
    error = decoded(404, status(404, message, "NOT_FOUND"))
    assert isinstance(error, ModelNotFoundError)
    assert error.message == "The model `gpt-4o` does not exist or you do not have access to it."
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
    assert error.type == "invalid_request_error"


def test_another_missing_thing_is_not_a_missing_model() -> None:
    error = upstream(404, status(404, "Requested entity was not found.", "NOT_FOUND"))
    assert (error.status, error.type, error.code) == (400, "invalid_request_error", None)


def test_context_length_is_worded_as_openai_does() -> None:
    error = refused(
        "The input token count (1250074) exceeds the maximum number of tokens allowed (1048576)."
    )
    assert (error.status, error.code, error.param) == (400, "context_length_exceeded", "messages")
    assert error.message.startswith("This model's maximum context length is 1048576 tokens.")
    assert "1250074 tokens" in error.message
    assert not error.retryable


def test_context_length_without_numbers() -> None:
    error = refused("The input token count exceeds the maximum number of tokens allowed.")
    assert error.code == "context_length_exceeded"
    assert error.message == "Your input exceeds the context window of this model."


@pytest.mark.parametrize(
    "message",
    [
        "Function call is missing a thought_signature in functionCall parts. This is required.",
        "Invalid thought signature.",
        "Corrupted thought signature.",
    ],
)
def test_signatures_are_retried(message: str) -> None:
    error = refused(message)
    assert (error.cause, error.retryable, error.status) == ("signature", True, 400)


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ("Cannot fetch content from the provided URL. Status: URL_ROBOTED-ROBOTED_DENIED", True),
        ("Invalid or unsupported file uri: http://x", True),
        ("Unsupported MIME type: text/x-strange", False),
        ("Unable to process input image. Please retry or report", False),
    ],
)
def test_bug_92_media_that_cannot_be_used(message: str, hint: bool) -> None:
    error = refused(message)
    assert (error.status, error.code, error.param) == (400, "invalid_image_url", "messages")
    assert ("data: URL" in error.message) is hint
    assert error.message.startswith(message)


def test_the_hint_survives_a_long_upstream_text() -> None:
    error = refused("Cannot fetch content from the provided URL " + "x " * 900)
    assert len(error.message) <= 500
    assert error.message.endswith("as a data: URL.")


@pytest.mark.parametrize(
    ("message", "field", "param"),
    [
        ("Invalid JSON payload received.", "generation_config.top_p", "top_p"),
        ("x", "generationConfig.temperature", "temperature"),
        ("x", "tools[0].functionDeclarations[2].parameters", "tools"),
        ("x", "tools[0].function_declarations[2].parameters.properties[0].value", "tools"),
        ("x", "contents[3].parts[0]", "messages"),
        ("x", "GenerateContentRequest.generation_config.stop_sequences", "stop"),
        ("x", "generation_config._response_json_schema", "response_format"),
        ("x", "unheard_of", None),
        ("* GenerateContentRequest.contents[1].parts: contents.parts must not be empty.", "",
         "messages"),
        ("Invalid value at 'generation_config.seed' (TYPE_INT32), 3", "", "seed"),
        ("Unable to submit request because it has a temperature value of 1000 but the supported "
         "range is from 0 (inclusive) to 2.0001 (exclusive).", "", "temperature"),
        ("the number of stop_sequences must not exceed 5", "", "stop"),
        ("Multiple candidates is not enabled for this model", "", "n"),
        ("Penalty is not enabled for models/gemini-2.5-pro", "", "frequency_penalty"),
        ("Logprobs is not enabled for models/gemini-2.5-pro", "", "logprobs"),
        ("Thinking is not enabled for this model", "", "reasoning_effort"),
        ("Requests ending with a model turn are not supported.", "", "messages"),
        ("Function calling with a response mime type: 'application/json' is unsupported", "",
         "response_format"),
        ("Tool use with function calling is unsupported", "", "tools"),
        ("Request contains an invalid argument.", "", None),
    ],
)  # fmt: skip
def test_other_refusals_name_the_clients_parameter(
    message: str, field: str, param: str | None
) -> None:
    details = [{"fieldViolations": [{"field": field}]}] if field else []
    error = refused(message, details=details)
    assert (error.status, error.type, error.param) == (400, "invalid_request_error", param)
    assert error.message == " ".join(message.split())
    assert (error.cause, error.retryable) == ("request", False)


def test_a_dialect_may_name_parameters_itself() -> None:
    error = decode_error(
        400,
        {},
        status(400, "x", details=[{"fieldViolations": [{"field": "contents[0]"}]}]),
        model=MODEL,
        parameter=lambda path: {"contents[0]": "input"}.get(path),
    )
    assert error.param == "input"


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        ("The specified schema produces a constraint that has too many states for serving.",
         "invalid_json_schema", "response_format"),
        ("A schema in GenerationConfig in the request exceeds the maximum allowed nesting depth.",
         "invalid_json_schema", "response_format"),
        ("A FunctionDeclaration in the request exceeds the maximum allowed nesting depth.",
         "invalid_function_parameters", "tools"),
    ],
)  # fmt: skip
def test_schemas_that_are_too_complex(message: str, code: str, param: str) -> None:
    error = refused(message)
    assert (error.code, error.param) == (code, param)


def test_a_missing_cache_is_the_clients_error_although_it_is_a_403() -> None:
    error = upstream(403, status(403, "CachedContent not found (or permission denied)"))
    assert (error.status, error.cause) == (400, "request")
    assert error.param == "extra_body.google.cached_content"


def quota(*ids: str, message: str = "You exceeded your current quota.", value: str = "5") -> bytes:
    violations = [{"quotaId": one, "quotaValue": value} for one in ids]
    details = [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": violations},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "48s"},
    ]
    return status(429, message, "RESOURCE_EXHAUSTED", details)


def test_a_rate_limit_says_when_to_come_back() -> None:
    """CLIProxyAPI#449: RetryInfo is honoured; Codex reads the delay from the message."""
    error = upstream(429, quota("GenerateRequestsPerMinutePerProjectPerModel"))
    assert (error.status, error.type, error.code) == (
        429,
        "rate_limit_error",
        "rate_limit_exceeded",
    )
    assert (error.cause, error.retryable, error.should_retry) == ("rate", True, None)
    assert error.retry_after == 48
    assert error.message.endswith("Please try again in 48s.")


@pytest.mark.parametrize(
    "body",
    [
        quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier"),
        quota("GenerateRequestsPerMinute-FreeTier", "GenerateRequestsPerDay-FreeTier"),
        quota("GenerateRequestsPerMinute-FreeTier", value="0"),
        quota("GenerateRequestsPerMinute", message="Quota exceeded for metric: x, limit: 0, model"),
        status(429, "Quota exceeded for quota metric 'Generate requests per day'"),
        status(429, "Your prepayment credits are depleted."),
    ],
)
def test_bug_95_a_daily_quota_is_not_a_rate(body: bytes) -> None:
    error = upstream(429, body)
    assert (error.status, error.type, error.code) == (
        429,
        "insufficient_quota",
        "insufficient_quota",
    )
    assert (error.cause, error.retryable, error.should_retry) == ("quota", True, False)


def test_a_bare_429_is_a_rate_limit() -> None:
    error = upstream(429, status(429, "Resource exhausted. Please try again later."))
    assert (error.cause, error.retry_after) == ("rate", None)
    assert error.message == "Rate limit reached upstream for gpt-4o."


def test_the_delay_of_a_header() -> None:
    error = decode_error(429, {"retry-after": "7"}, b"", model=MODEL)
    assert error.retry_after == 7
    assert error.message.endswith("Please try again in 7s.")


@pytest.mark.parametrize(
    ("code", "answer", "kind", "error_code", "cause", "retryable"),
    [
        (500, 500, "server_error", None, "network", True),
        (502, 502, "server_error", None, "network", True),
        (503, 503, "service_unavailable_error", "server_is_overloaded", "overload", True),
        (529, 503, "service_unavailable_error", "server_is_overloaded", "overload", True),
        (504, 504, "server_error", None, "network", True),
        (499, 504, "server_error", None, "network", True),
        (408, 504, "server_error", None, "network", True),
        (501, 502, "server_error", None, "network", False),
        (599, 502, "server_error", None, "network", False),
        (413, 413, "invalid_request_error", None, "request", False),
        (409, 400, "invalid_request_error", None, "request", False),
    ],
)
@pytest.mark.parametrize("body", [b"", b"\xff\x00garbage", status(0, "An internal error.")])
def test_other_statuses(
    code: int,
    answer: int,
    kind: str,
    error_code: str | None,
    cause: str,
    retryable: bool,
    body: bytes,
) -> None:
    error = upstream(code, body)
    assert (error.status, error.type, error.code) == (answer, kind, error_code)
    assert (error.cause, error.retryable, error.upstream_status) == (cause, retryable, code)
    assert "garbage" not in error.message


def test_a_payload_too_large_comes_as_400() -> None:
    error = refused("Request payload size exceeds the limit: 20971520 bytes.")
    assert (error.status, error.type) == (413, "invalid_request_error")


@pytest.mark.parametrize("code", [301, 302, 307, 200, 204])
def test_redirects_and_successes_are_protocol_errors(code: int) -> None:
    error = decoded(code, b"")
    assert isinstance(error, UpstreamProtocolError)
    assert (error.status, error.retryable) == (502, False)


PAGE = b"""<!DOCTYPE html><html><head><title>Error</title><style>b{}</style></head>
<body><script>steal('x')</script><p>Bad <b>gateway</b>&nbsp;here</p></body></html>"""


@pytest.mark.parametrize(
    ("code", "retryable", "cause"),
    [(404, False, "network"), (429, True, "rate"), (502, True, "network"), (503, True, "overload")],
)
def test_bug_71_a_page_is_a_502_with_an_excerpt(code: int, retryable: bool, cause: str) -> None:
    error = decoded(code, PAGE)
    assert isinstance(error, UpstreamProtocolError)
    assert (error.status, error.retryable, error.cause) == (502, retryable, cause)
    assert error.message.endswith(": Bad gateway here")
    assert "<" not in error.message
    assert "steal" not in error.message


def test_a_404_that_google_did_not_write_is_a_wrong_address_not_a_missing_model() -> None:
    error = decoded(404, b"")
    assert isinstance(error, UpstreamProtocolError)
    assert error.status == 502


def test_a_huge_page_is_cut() -> None:
    error = decoded(500, b"<p>" + b"word " * 1_000_000)
    assert len(error.message) < 400


@pytest.mark.parametrize("template", ['{"error":%s}', '[{"error":%s}]', "[%s]", "%s", "\n%s\r\n"])
def test_bug_72_every_shape_of_a_status(template: str) -> None:
    error = '{"code": 429, "message": "slow", "status": "RESOURCE_EXHAUSTED"}'
    body = (template % error).encode()
    assert upstream(429, body).cause == "rate"
    assert decode_status(body, model=MODEL).status == 429


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        ({"code": 503, "message": "overloaded"}, 503),
        ({"status": "UNAVAILABLE", "message": "x"}, 503),
        ({"status": "INVALID_ARGUMENT", "message": "x"}, 400),
        ({"code": "invalid_request", "message": "x"}, 500),
        ({"code": 0, "message": "x"}, 500),
        ({"message": "x"}, 500),
    ],
)
def test_errors_inside_a_stream_carry_their_own_status(
    error: dict[str, object], answer: int
) -> None:
    assert decode_status(json.dumps({"error": error}).encode(), model=MODEL).status == answer


def test_an_error_that_is_a_text() -> None:
    assert decode_status(b'{"error":"boom"}', model=MODEL).status == 500


def test_what_is_no_error_inside_a_stream_is_a_protocol_error() -> None:
    assert isinstance(decode_status(b"{}", model=MODEL), UpstreamProtocolError)


SECRETS = [
    (f"key {KEY} is bad", "AIza"),
    ("Consumer 'api_key:AIzaShort' has been suspended.", "AIzaShort"),
    ("token ya29.a0AfH6SMB-x_y.z expired", "ya29"),
    ("Authorization: Bearer abc.def-123", "abc.def"),
    ("https://x/v1?key=hunter2&alt=sse", "hunter2"),
    ("https://console.example/overview?project=123456", "123456"),
    ("-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----", "MIIE"),
    ("-----BEGIN PRIVATE KEY-----\nMIIE", "MIIE"),
    ("for consumer 'project_number:297700366322'.", "297700366322"),
    ("denied on resource '//aiplatform.googleapis.com/projects/my-proj/locations/x'", "my-proj"),
    ("Permission denied on resource project my-proj.", "my-proj"),
    ("API has not been used in project 895908428397 before", "895908428397"),
    ("robot@my-proj.iam.gserviceaccount.com lacks access", "robot@"),
    ("sk-abcdefghijkl", "sk-abc"),
    ("AQ.Ab8RN6Kxxxxxxxxx refused", "Ab8RN6"),
    ("eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJ4In0.c2ln", "eyJ"),
    ("metric: generativelanguage.googleapis.com/requests", "googleapis"),
]


@pytest.mark.parametrize(("text", "secret"), SECRETS)
def test_scrub_takes_secrets_out(text: str, secret: str) -> None:
    assert secret in text
    assert secret not in scrub(text)
    error = refused(text)
    assert secret not in error.message


def test_scrub_leaves_ordinary_texts() -> None:
    for text in (
        "Invalid value at 'generation_config.temperature' (TYPE_FLOAT), \"hot\"",
        "Unknown name \"const\" at 'tools[0].function_declarations[0].parameters': Cannot find field.",
        "A function call turn comes immediately after a user turn.",
    ):
        assert scrub(text) == text


@given(st.text(max_size=200) | st.lists(st.sampled_from([one for one, _ in SECRETS])).map(" ".join))
def test_scrub_is_short_single_line_and_settled(text: str) -> None:
    once = scrub(text)
    assert len(once) <= 500
    assert once == "" or once.isprintable()
    assert scrub(once) == once


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["error", "code", "message", "status", "details", "reason", "violations",
             "fieldViolations", "field", "quotaId", "quotaValue", "retryDelay", "@type"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=15,
)  # fmt: skip


@given(
    st.integers(100, 700),
    st.binary(max_size=60) | _JSON.map(lambda value: json.dumps(value).encode()),
    st.text(max_size=10),
)
def test_any_bytes_give_an_error_and_nothing_else(code: int, body: bytes, model: str) -> None:
    error = decode_error(code, {}, body, model=model)
    assert isinstance(error, OaicompatError)
    assert 400 <= error.status <= 599
    assert error.message
    assert error.message.isprintable()


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"error":' * 5000, b'{"error":{"details":[null']
)
def test_deep_and_broken_json(body: bytes) -> None:
    assert upstream(503, body).cause == "overload"


@given(st.text(max_size=40))
def test_any_path_has_a_parameter_or_none(path: str) -> None:
    found = client_parameter(path)
    assert found is None or found


def _checker() -> ModuleType | None:
    if not CHECKER.exists():
        return None
    spec = importlib.util.spec_from_file_location("check_openai", CHECKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RECORDED_ANSWERS = {
    "004": (429, "rate_limit_exceeded"),
    "005": (503, None),
    "007": (400, "context_length_exceeded"),
    "008": (429, "rate_limit_exceeded"),
    "010": (400, None),
    "011": (400, "invalid_image_url"),
    "016": (400, None),
    "017": (400, None),
    "019": (503, None),
    "020": (503, None),
}


@pytest.mark.skipif(not RECORDED, reason="the recorded interactions are not beside the repository")
def test_recorded_errors_become_openai_errors() -> None:
    checker = _checker()
    seen = 0
    for path in RECORDED:
        recorded = json.loads(path.read_text(encoding="utf-8"))
        if recorded["status"] < 400:
            continue
        seen += 1
        body = json.dumps(recorded["response"]).encode()
        error = decode_error(recorded["status"], {}, body, model=MODEL)
        expected = RECORDED_ANSWERS.get(path.name[:3], (404, "model_not_found"))
        assert (error.status, error.code) == expected, path.name
        if checker is not None:
            raw = json.dumps(as_client_sees_it(error)).encode()
            report = checker.run("error", raw, None, True, False, False, error.status, None)
            assert report.items == [], path.name
    assert seen >= 16

"""Every failure the library can report, told apart by whose fault it is.

One rule: only the text of an `OaicompatError` may reach a client. Each error knows the HTTP status, type,
code and parameter that OpenAI's error object wants (openai-wire section 8); writing that object down is the
dialect's job, because each dialect frames an error in its own way.
"""

from __future__ import annotations

from typing import ClassVar


class OaicompatError(Exception):
    """Base of all errors of this library.

    `param` is the client's own name of the field at fault, `retry_after` a wait in seconds, and
    `should_retry` overrules what a client would conclude from the status (`x-should-retry`).
    """

    default_status: ClassVar[int] = 500
    default_type: ClassVar[str] = "server_error"
    default_code: ClassVar[str | None] = None

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        type: str | None = None,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        should_retry: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = self.default_status if status is None else status
        self.type = self.default_type if type is None else type
        self.code = self.default_code if code is None else code
        self.param = param
        self.retry_after = retry_after
        self.should_retry = should_retry


class InvalidRequestError(OaicompatError):
    """The request cannot be served as it stands: the client's 400, with `param` where one field is at fault."""

    default_status = 400
    default_type = "invalid_request_error"


class UnsupportedFeatureError(InvalidRequestError):
    """The request is valid OpenAI but cannot be expressed upstream, and strict mode refuses to approximate."""

    default_code = "unsupported_parameter"


class AuthenticationError(OaicompatError):
    """The client showed no key, or a wrong one."""

    default_status = 401
    default_type = "invalid_request_error"
    default_code = "invalid_api_key"


class ModelNotFoundError(OaicompatError):
    """The model does not exist upstream, or not for these credentials."""

    default_status = 404
    default_type = "invalid_request_error"
    default_code = "model_not_found"


class UpstreamError(OaicompatError):
    """The provider refused or failed.

    `retryable` says whether the same call may succeed elsewhere or later; `cause` is the class the pool acts
    on: `rate` or `quota` (cools the credential), `overload` (cools the model), `credential` (out until
    reload), `permission` (out, with its reason), `model_permission` (another credential's project may use
    the model, this one stays good for others), `signature` (retry once with the sentinel), `network`,
    `empty` (no candidates), `malformed` (a call the model garbled), or `request` (the client's own).
    """

    default_status = 502

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        type: str | None = None,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        should_retry: bool | None = None,
        retryable: bool = False,
        cause: str = "request",
        upstream_status: int | None = None,
    ) -> None:
        super().__init__(
            message,
            status=status,
            type=type,
            code=code,
            param=param,
            retry_after=retry_after,
            should_retry=should_retry,
        )
        self.retryable = retryable
        self.cause = cause
        self.upstream_status = upstream_status


class UpstreamProtocolError(UpstreamError):
    """The provider sent bytes that could not be parsed, or a stream that ended early."""

    default_status = 502


class PoolExhaustedError(OaicompatError):
    """No credential can serve the request now; tells when one can, and the last real reason."""

    default_status = 429
    default_type = "rate_limit_error"
    default_code = "rate_limit_exceeded"

"""From a request to the steps that answer it: credential, route, rules, script, framing.

The one rule: everything here is a pure function of the request and the simulator's settings; time passes
only in `connection`. Every refusal is written in one place, `_refused`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from . import embedding, script
from .answers import Scene
from .bodies import encode, prompt_tokens, stream_bodies, unary_body
from .catalogue import NEWEST, Model, find_model, listed_models
from .faults import Finish, Head, Plan, Step, steps
from .outages import KeyBook, outage
from .records import HttpRequest, Record, credential, fingerprint
from .routes import Route, find_route
from .rules import check_count, check_embed, check_generate
from .status import (
    JSON,
    Refusal,
    bad_key,
    bad_token,
    no_key,
    no_token,
    unknown_model,
    unknown_publisher_model,
)
from .target import Target
from .turns import Turn, read_directives, read_turn

_QUIET = Turn(text="", directives={})
_STREAM_TYPE = "text/event-stream"
_TOO_DEEP = "A schema in GenerationConfig in the request exceeds the maximum allowed nesting depth."


class Settings(msgspec.Struct, frozen=True):
    """How the simulated service is set up; see `Simulator` for the meaning of each field."""

    foreign_signatures: bool = False
    any_model: bool = False
    helpful: bool = False


class Service:
    """Answers requests; `keys` scripts the behaviour of single credentials."""

    def __init__(self, settings: Settings, keys: Mapping[str, list[str]]) -> None:
        self.settings = settings
        self.keys = KeyBook(keys)
        self.serial = 0

    def key_name(self, request: HttpRequest) -> str:
        """Name the credential of a request without giving it away; scripted keys keep their name."""
        _, secret = credential(request)
        if not secret:
            return ""
        return secret if secret in self.keys else fingerprint(secret)

    def answer(self, request: HttpRequest, record: Record) -> list[Step]:
        """Return the steps that answer `request`; the decoded body is put into `record`."""
        self.serial += 1
        route = find_route(request.method, request.path)
        if route is None:
            return steps(Plan(None, ()), _behaviour("html:404"))
        record.model = route.model
        is_stream = route.operation == "streamGenerateContent"
        try:
            record.body = _decode(request.body)
            return self._answer(request, route, record.body)
        except Refusal as refusal:
            return _refused(refusal, request, is_stream=is_stream)
        except RecursionError:
            return _refused(Refusal(_TOO_DEEP), request, is_stream=is_stream)

    def _answer(self, request: HttpRequest, route: Route, body: Any) -> list[Step]:
        _authenticate(request, route)
        behaviour = self.keys.take(credential(request)[1], route.model)
        turn = _QUIET
        if behaviour is not None:
            turn = _behaviour(behaviour)
            _raise_scripted(turn, route.model)
        if route.operation in ("generateContent", "streamGenerateContent"):
            return self._generate(request, route, body, turn)
        return steps(_unary(self._other(request, route, body)), turn)

    def _model(self, route: Route) -> Model:
        model = find_model(route.model)
        if model is None and self.settings.any_model:
            model = msgspec.structs.replace(NEWEST, name=route.model)
        wanted = route.operation.replace("streamG", "g").replace(
            "batchEmbedContents", "embedContent"
        )
        is_embedding = wanted in ("embedContent", "predict")
        if model is None or (
            wanted != "countTokens" and is_embedding != (model.kind == "embedding")
        ):
            if route.backend == "vertex":
                raise unknown_publisher_model(route.resource)
            raise unknown_model(route.model, version=route.version, method=wanted)
        return model

    def _target(self, route: Route) -> Target:
        return Target(
            model=self._model(route),
            backend=route.backend,
            streaming=route.operation == "streamGenerateContent",
            foreign_signatures=self.settings.foreign_signatures,
        )

    def _generate(
        self, request: HttpRequest, route: Route, body: Any, behaviour: Turn
    ) -> list[Step]:
        target = self._target(route)
        canonical = check_generate(body, target)
        turn = read_turn(canonical.get("contents") or [])
        _raise_scripted(turn, route.model)
        scene = Scene(canonical, target, turn, self.settings.helpful)
        said = script.answer(scene)
        if target.streaming:
            bodies = stream_bodies(scene, said, self.serial)
            plan = _stream(bodies, sse=request.query.get("alt") == "sse")
        else:
            plan = _unary(unary_body(scene, said, self.serial))
        plan = msgspec.structs.replace(plan, model=route.model)
        directives = {**turn.directives, **behaviour.directives}
        return steps(plan, msgspec.structs.replace(turn, directives=directives))

    def _other(self, request: HttpRequest, route: Route, body: Any) -> JSON:
        match route.operation:
            case "listModels":
                return _list_models(request.query)
            case "getModel":
                return _get_model(route)
            case "countTokens":
                return _count(body, self._target(route))
            case "predict":
                self._model(route)
                return embedding.predict(body)
            case _:
                return _embed(route, body, self._target(route))


def _decode(body: bytes) -> Any:
    if not body:
        return None
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Refusal(f"Invalid JSON payload received. {error}") from None


def _authenticate(request: HttpRequest, route: Route) -> None:
    kind, secret = credential(request)
    if route.backend == "vertex" and not route.express:
        if kind != "bearer":
            raise no_token(api_key=kind == "key", method=route.operation)
    elif not kind:
        raise no_key()
    if "invalid" in secret:
        raise bad_token() if kind == "bearer" else bad_key()


def _behaviour(step: str) -> Turn:
    text = f"error:{step}" if step[:3].isdecimal() else step
    return Turn(text="", directives=read_directives("#script:" + text))


def _raise_scripted(turn: Turn, model: str) -> None:
    arguments = turn.directives.get("error")
    if arguments is None:
        return
    code = int(arguments[0]) if arguments and arguments[0].isdecimal() else 500
    variant = arguments[1] if len(arguments) > 1 else ""
    seconds = arguments[2] if len(arguments) > 2 else ""
    raise outage(code, variant, seconds, model=model)


def _refused(refusal: Refusal, request: HttpRequest, *, is_stream: bool) -> list[Step]:
    is_sse = is_stream and request.query.get("alt") == "sse"
    body: Any = refusal.body()
    if is_stream and not is_sse:
        body = [body]
    content_type = _STREAM_TYPE if is_sse else Head().content_type
    head = Head(status=refusal.code, content_type=content_type)
    return steps(Plan(head, (encode(body) + b"\n",), ending=Finish()))


def _unary(body: JSON) -> Plan:
    return Plan(Head(), (encode(body) + b"\n",))


def _stream(bodies: list[JSON], *, sse: bool) -> Plan:
    if sse:
        pieces = [b"data: " + encode(body, pretty=False) + b"\r\n\r\n" for body in bodies]
        head = Head(content_type=_STREAM_TYPE, framing="chunked")
        return Plan(head, tuple(pieces), streaming=True)
    written = [encode(body) for body in bodies]
    pieces = [(b"[" if at == 0 else b"\n,\r\n") + piece for at, piece in enumerate(written)]
    pieces[-1] += b"\n]"
    return Plan(Head(framing="chunked"), tuple(pieces), streaming=True)


def _list_models(query: Mapping[str, str]) -> JSON:
    models = listed_models()
    size = query.get("pageSize", "50")
    start = query.get("pageToken") or "0"
    if not size.isdecimal() or not start.isdecimal():
        raise Refusal("Request contains an invalid argument.")
    first = int(start)
    after = first + min(int(size) or 50, 1000)
    page: JSON = {"models": [model.describe() for model in models[first:after]]}
    if after < len(models):
        page["nextPageToken"] = str(after)
    return page


def _get_model(route: Route) -> JSON:
    model = find_model(route.model)
    if model is None:
        raise Refusal(
            f"Model is not found: models/{route.model} for api version {route.version}", code=404
        )
    return model.describe()


def _count(body: Any, target: Target) -> JSON:
    total = prompt_tokens(check_count(body, target))
    return {
        "totalTokens": total,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": total}],
    }


def _embed(route: Route, body: Any, target: Target) -> JSON:
    batch = route.operation == "batchEmbedContents"
    requests = check_embed(body, target, batch=batch)
    made = [embedding.embed(request) for request in requests]
    answer: JSON = {"embeddings": made} if batch else {"embedding": made[0]}
    return answer | embedding.usage(requests, target.model)

"""Decodes request bodies into typed structs: one decode where the client sends only known fields.

One rule: whatever the bytes are, only `InvalidRequestError` escapes, naming the field as the client wrote it.
Structs forbid unknown fields; where a body has some, the slow path takes them out level by level, every other
value keeping its bytes, and files a note for each. What a struct keeps as `Raw` is untyped data of the
client's: `sound` and `json_object` check it before it goes anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from typing import Any, TypeVar

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from oaicompat.errors import InvalidRequestError
from oaicompat.notes import Notes
from oaicompat.wire_errors import Shape, clipped, shape_of, translated, unreadable

T = TypeVar("T")

DEPTH = 128
BRACKETS = 100_000
NULL = Raw(b"null")
UNDEFINED = Raw(b'"[undefined]"')

_OBJECT, _ARRAY = b"{["
_NOT_JSON = (msgspec.DecodeError, UnicodeError, RecursionError)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STRING = re.compile(rb'"(?:[^"\\]+|\\.)*"', re.DOTALL)

_decoders: dict[type[Any], msgspec.json.Decoder[Any]] = {}
_object_level = msgspec.json.Decoder(dict[str, Raw]).decode
_array_level = msgspec.json.Decoder(list[Raw]).decode


def as_bytes(body: bytes | bytearray | memoryview | str | Mapping[str, Any]) -> bytes:
    """Return a request body as JSON bytes, encoding text and mappings; never changes what it is given.

    Raises `InvalidRequestError` for text that is not Unicode and for values JSON does not have.
    """
    try:
        match body:
            case bytes():
                return body
            case bytearray() | memoryview():
                return bytes(body)
            case str():
                return body.encode()
            case _:
                return msgspec.json.encode(body, enc_hook=_plain)
    except UnicodeError as error:
        raise InvalidRequestError("The request holds text that is not valid Unicode.") from error
    except RecursionError as error:
        raise unreadable(error) from error
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidRequestError(f"The request is not JSON: {clipped(str(error))}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"values of type {type(value).__name__} are not JSON")


def decode_body(
    body: bytes,
    kind: type[T],
    notes: Notes,
    content: Set[str] = frozenset(),
    *,
    verbatim: bool = False,
) -> T:
    """Decode a request body to the struct `kind`, noting the fields the struct does not have.

    Parameters whose value is the text "[undefined]", which one client sends for absent ones, are taken out
    (gateway section 2.4); fields named in `content`, all where `verbatim` is true, hold what people wrote and
    stay as they are. Raises `InvalidRequestError` in OpenAI's wording, with the `param` and `code` of
    openai-wire section 8; then no note is left.
    """
    decoder = _decoders.get(kind) or _decoder_of(kind)
    try:
        found: T = decoder.decode(body)
        return found
    except msgspec.ValidationError as error:
        failure = error
    except _NOT_JSON as error:
        raise unreadable(error) from error
    pruner = _Pruner(content)
    try:
        known = pruner.value(body.strip(b" \t\r\n"), shape_of(kind), "", verbatim)
        decoded: T = decoder.decode(known)
    except msgspec.ValidationError as error:
        failure = error
    except _NOT_JSON as error:
        raise unreadable(error) from error
    else:
        pruner.tell(notes)
        return decoded
    try:
        raise translated(failure, known, kind)
    finally:
        # It holds this frame by its traceback; held here, it would keep the body until it is collected.
        del failure


def _decoder_of(kind: type[T]) -> msgspec.json.Decoder[T]:
    return _decoders.setdefault(kind, msgspec.json.Decoder(kind))


def decode_part(raw: Raw, kind: Any, path: str, notes: Notes, *, verbatim: bool = False) -> Any:
    """Decode a value kept as `Raw` to what stands at `path` after all; `None` where the client sent none.

    Notes and errors are those of `decode_body`, with `path` in front.
    """
    if not given(raw):
        return None
    inner = Notes()
    try:
        decoded = decode_body(bytes(raw), kind, inner, verbatim=verbatim)
    except InvalidRequestError as error:
        where = f"{path}{_joined(error.param)}"
        message = error.message.replace(f"'{error.param}'", f"'{where}'", 1)
        message = message.replace("Invalid body:", f"Invalid type for '{path}':", 1)
        raise InvalidRequestError(message, param=where, code=error.code) from error
    notes.extend(replace(note, path=f"{path}{_joined(note.path)}") for note in inner)
    return decoded


def _joined(path: str | None) -> str:
    if not path or path[0] == "[":
        return path or ""
    return f".{path}"


class _Pruner:
    """Takes out what a struct type does not have; a value without any of it stays the very same object."""

    def __init__(self, content: Set[str]) -> None:
        self.content = content
        self.dropped: list[tuple[str, str, bool]] = []

    def tell(self, notes: Notes) -> None:
        """Note what was taken out."""
        for path, reason, inert in self.dropped:
            notes.dropped(path, reason, inert=inert)

    def value(self, raw: bytes | Raw, shape: Shape, path: str, verbatim: bool) -> bytes | Raw:
        """Prune one value; where `verbatim` is true, "[undefined]" is a text like any other."""
        head = memoryview(raw)[0] if raw else 0
        if head == _OBJECT and shape.structs:
            return self._object(raw, shape, path, verbatim)
        if head == _ARRAY and shape.item is not None:
            return self._array(raw, shape.item, path, verbatim)
        return raw

    def _object(self, raw: bytes | Raw, shape: Shape, path: str, verbatim: bool) -> bytes | Raw:
        level = _object_level(raw)
        fields = shape.fields(level)
        if fields is None:
            return raw
        known: dict[str, Raw] = {}
        changed = False
        for name, value in level.items():
            where = f"{path}.{clipped(name)}" if path else clipped(name)
            exact = verbatim or (not path and name in self.content)
            if self._drops(name in fields, value, where, exact):
                changed = True
                continue
            inner = fields[name]
            kept = value if inner is None else self.value(value, inner, where, exact)
            changed = changed or kept is not value
            known[name] = kept if isinstance(kept, Raw) else Raw(kept)
        return msgspec.json.encode(known) if changed else raw

    def _drops(self, known: bool, value: Raw, where: str, exact: bool) -> bool:
        if not known:
            self.dropped.append((where, "an unknown field", False))
            return True
        if exact or value != UNDEFINED:
            return False
        self.dropped.append((where, "the text [undefined] stands for an absent value", True))
        return True

    def _array(self, raw: bytes | Raw, item: Shape, path: str, verbatim: bool) -> bytes | Raw:
        level = _array_level(raw)
        known = [
            self.value(value, item, f"{path}[{index}]", verbatim)
            for index, value in enumerate(level)
        ]
        if all(kept is value for kept, value in zip(known, level, strict=True)):
            return raw
        return msgspec.json.encode([each if isinstance(each, Raw) else Raw(each) for each in known])


def given(raw: Raw) -> bool:
    """Tell whether a field kept as `Raw` is there and not null."""
    return bool(raw) and raw != NULL


def sound(raw: Raw, path: str) -> Raw:
    """Return the value if it is Unicode and nested at most 128 deep.

    Raises `InvalidRequestError` with `param` otherwise. The depth is what no recursive walker downstream can
    be harmed by (reliability D8).
    """
    data = bytes(raw)
    brackets = data.count(b"{") + data.count(b"[")
    if brackets > DEPTH:
        _check_nesting(data, brackets, path)
    if not data.isascii() or (b"\\" in data and b"\\u" in data):
        try:
            msgspec.json.decode(data)
        except _NOT_JSON as error:
            message = f"Invalid value for '{path}': it is not valid JSON text."
            raise InvalidRequestError(message, param=path, code="invalid_value") from error
    return raw


def _check_nesting(data: bytes, brackets: int, path: str) -> None:
    if brackets > BRACKETS or _depth(data) > DEPTH:
        message = f"Invalid value for '{path}': it is nested too deeply or too large."
        raise InvalidRequestError(message, param=path, code="invalid_value")


def _depth(data: bytes) -> int:
    """Return how deep a valid JSON text is nested."""
    depth = deepest = 0
    for byte in _STRING.sub(b"", data).translate(None, _NOT_BRACKETS):
        if byte in b"{[":
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest


def json_object(raw: Raw, path: str) -> Raw | None:
    """Return a sound JSON object, or `None` where the client sent none; raises `InvalidRequestError`."""
    if not given(raw):
        return None
    if memoryview(raw)[0] != _OBJECT:
        message = f"Invalid type for '{path}': expected an object."
        raise InvalidRequestError(message, param=path, code="invalid_type")
    return sound(raw, path)

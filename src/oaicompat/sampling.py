"""All scalar generation parameters, declared once.

A dialect spells some of them differently; `respell` builds its wire struct from this one declaration, so a
validation error names the client's own field (`$.n`) and adding a parameter is one line here plus, where a
wire differs, one entry in that wire's spelling map. Ranges are OpenAI's; what a Gemini model takes is asked
of its profile.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Annotated, TypeVar, cast

import msgspec
from msgspec import Meta, Struct


class Sampling(Struct, frozen=True, omit_defaults=True, gc=False):
    """The scalar parameters of one generation; `None` means the client did not ask."""

    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=1)] | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    candidates: Annotated[int, Meta(ge=1, le=128)] | None = None
    seed: int | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None


B = TypeVar("B", bound=Struct)
_values = attrgetter(*Sampling.__struct_fields__)


def respell(base: type[B], spelling: Mapping[str, str | None]) -> type[B]:
    """Build the wire struct of a dialect: the fields of `base` plus the scalar parameters as it spells them.

    `spelling` maps a neutral name to the wire's name, or to `None` where the wire does not have it; a name
    that is missing is spelled alike. The result decodes like `base` and `scalars` reads it; what the wire does
    not have is `None` on it.
    """
    fields = msgspec.structs.fields(Sampling)
    known = [field for field in fields if spelling.get(field.name, "") is not None]
    absent = [
        name for name in spelling if spelling[name] is None and name not in base.__struct_fields__
    ]
    wire = msgspec.defstruct(
        base.__name__,
        [(field.name, field.type, None) for field in known],
        bases=(base,),
        rename={name: wire for name, wire in spelling.items() if wire is not None},
        namespace={"__doc__": base.__doc__, **dict.fromkeys(absent)},
        module=base.__module__,
        frozen=True,
        forbid_unknown_fields=base.__struct_config__.forbid_unknown_fields,
    )
    return cast(type[B], wire)


def scalars(wire: Struct) -> Sampling:
    """Read the scalar parameters of a respelled wire struct."""
    return Sampling(*_values(wire))

"""A Gemini API on loopback that refuses what the real one refuses and answers by script.

Owns the upstream of the tests, of `--demo` and of `oaicompat simulate`. The one rule: it shares no code with
the converters, because it is there to catch their mistakes. How to script it: docs/simulator.md.
"""

from __future__ import annotations

from .catalogue import NEWEST, Model, find_model
from .faults import (
    Body,
    Close,
    Drip,
    Finish,
    HalfClose,
    Head,
    Raw,
    Repeat,
    Reset,
    Stall,
    Step,
    Wait,
)
from .records import Record
from .rules import check_generate
from .server import Simulator, running, serve
from .status import Refusal
from .target import Target

__all__ = [
    "NEWEST",
    "Body",
    "Close",
    "Drip",
    "Finish",
    "HalfClose",
    "Head",
    "Model",
    "Raw",
    "Record",
    "Refusal",
    "Repeat",
    "Reset",
    "Simulator",
    "Stall",
    "Step",
    "Target",
    "Wait",
    "check_generate",
    "find_model",
    "running",
    "serve",
]

"""One target under atheris: `python -m tests.fuzz.led TARGET CORPUS [libFuzzer's flags]`."""

from __future__ import annotations

import sys

import atheris  # type: ignore[import-untyped,import-not-found,unused-ignore]

with atheris.instrument_imports(include=["oaicompat", "oaicompat_server"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Run until the time is over or something is found."""
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

"""Fuzz the decoders, the settings and the HTTP surface for some minutes; print what was found.

    python -m tests.fuzz --minutes 5 --seed 1
    python -m tests.fuzz --minutes 5 --only sse
    python -m tests.fuzz --minutes 5 --atheris      (led by coverage, where atheris is installed)

A find is written to `tests/fuzz/finds/`; what is put into `tests/fuzz/crashes/<target>/` is run by the suite
for ever after.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from tests.fuzz.corpus import corpus, mutated
from tests.fuzz.surface import fuzz_surface
from tests.fuzz.targets import TARGETS

FINDS = Path(__file__).parent / "finds"


def main() -> int:
    """Run, print, and return 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=[*TARGETS, "surface"])
    parser.add_argument("--atheris", action="store_true")
    options = parser.parse_args()
    names = [options.only] if options.only else [*TARGETS, "surface"]
    seconds = options.minutes * 60 / len(names)
    beginnings = corpus(options.seed)
    found = 0
    for name in names:
        if name == "surface":
            print(f"{name:18} {fuzz_surface(seconds, options.seed):9} inputs, 0 finds", flush=True)
        elif options.atheris:
            found += _led_by_coverage(name, beginnings[name], seconds)
        else:
            found += _fuzz(name, list(beginnings[name]), seconds, options.seed)
    return 1 if found else 0


def _fuzz(name: str, seeds: list[bytes], seconds: float, seed: int) -> int:
    chance = random.Random(f"{seed} {name}")
    stop = time.monotonic() + seconds
    count = finds = 0
    while time.monotonic() < stop:
        data = mutated(chance.choice(seeds), chance.choice(seeds), chance) if count else b""
        if chance.random() < 0.02:
            seeds.append(data)
        count += 1
        try:
            TARGETS[name](data)
        except Exception:
            finds += 1
            _keep(name, data)
            traceback.print_exc(limit=-3)
    print(f"{name:18} {count:9} inputs, {finds} finds", flush=True)
    return finds


def _led_by_coverage(name: str, seeds: Sequence[bytes], seconds: float) -> int:
    """Run atheris on one target in a process of its own, which ends at the first find."""
    with tempfile.TemporaryDirectory() as place:
        for number, data in enumerate(seeds):
            Path(place, f"{number}").write_bytes(data)
        FINDS.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "tests.fuzz.led", name, place]
        command += [f"-max_total_time={int(seconds) + 1}", f"-artifact_prefix={FINDS}/{name}-"]
        done = subprocess.run(
            [*command, "-verbosity=0"], capture_output=True, text=True, check=False
        )
    print(f"{name:18} led by coverage, {int(done.returncode != 0)} finds", flush=True)
    if done.returncode:
        print(done.stdout[-2000:] + done.stderr[-2000:])
    return int(done.returncode != 0)


def _keep(name: str, data: bytes) -> None:
    FINDS.mkdir(exist_ok=True)
    (FINDS / f"{name}-{sha256(data).hexdigest()[:16]}").write_bytes(data)


if __name__ == "__main__":
    sys.exit(main())

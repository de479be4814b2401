"""Runs the Codex CLI without a terminal, in a home of its own, against a gateway.

One rule: a run sees no settings, no login and no network but the gateway's; each has a time limit, since Codex
tries a dead service for minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from msgspec import Struct
from tests.support.installed import node_and_npm, npm_packages

_PROVIDER = """
model_provider = "gateway"

[model_providers.gateway]
name = "gateway"
base_url = "{url}"
wire_api = "responses"
env_key = "GATEWAY_KEY"
"""
_NOWHERE = "http://127.0.0.1:9"


class Run(Struct, frozen=True):
    """What a run printed: its events, its last message, the time it took in seconds."""

    status: int
    events: list[Any]
    last: str
    stderr: str

    def items(self, kind: str) -> list[Any]:
        """Return the finished items of a kind."""
        done = [event["item"] for event in self.events if event["type"] == "item.completed"]
        return [item for item in done if item["type"] == kind]

    @property
    def errors(self) -> list[str]:
        """Return what the user was told of failures, in order."""
        return [event["message"] for event in self.events if event["type"] == "error"]

    @property
    def usage(self) -> dict[str, int]:
        """Return the tokens counted, those of earlier turns included."""
        ended = [event for event in self.events if event["type"] == "turn.completed"]
        counted: dict[str, int] = ended[-1]["usage"]
        return counted


class Codex:
    """Codex in a home of its own; `work` is the directory it works in.

    With `built_in` the provider is the one it comes with, at the gateway's address.
    """

    def __init__(self, home: Path, url: str, *, built_in: bool = False) -> None:
        self.home = home
        self.work = home / "work"
        self.work.mkdir(parents=True)
        self._url = url
        self._built_in = built_in

    def exec(
        self,
        prompt: str,
        *arguments: str,
        model: str = "gpt-5.5",
        settings: Sequence[str] = (),
        resume: bool = False,
        limit: float = 60,
    ) -> Run:
        """Run one turn, in a new session or in the last one; `settings` are lines of its configuration."""
        self._configure(model, settings)
        last = self.home / "last.txt"
        last.unlink(missing_ok=True)
        again = ["resume", "--last"] if resume else ["--sandbox", "danger-full-access"]
        fixed = ["--skip-git-repo-check", "--json", "--output-last-message", str(last)]
        ended = subprocess.run(
            [*command(), "exec", *again, *fixed, *arguments, prompt],
            cwd=self.work, env=self._environment(), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=limit,
        )  # fmt: skip
        events = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
        said = last.read_text("utf-8") if last.exists() else ""
        return Run(ended.returncode, events, said, ended.stderr)

    def _configure(self, model: str, settings: Sequence[str]) -> None:
        lines = [f'model = "{model}"', *(line for line in settings if "retries" not in line)]
        if self._built_in:
            lines.append(f'openai_base_url = "{self._url}"')
        else:
            lines.append(_PROVIDER.format(url=self._url))
        lines += [line for line in settings if "retries" in line]
        place = self.home / ".codex"
        place.mkdir(exist_ok=True)
        (place / "config.toml").write_text("\n".join(lines), "utf-8")

    def _environment(self) -> dict[str, str]:
        node, _ = node_and_npm()
        return {
            "PATH": os.pathsep.join([str(Path(node).parent), os.defpath]),
            "HOME": str(self.home),
            "CODEX_HOME": str(self.home / ".codex"),
            "CI": "1",
            "HTTP_PROXY": _NOWHERE,
            "HTTPS_PROXY": _NOWHERE,
            "NO_PROXY": "127.0.0.1,localhost",
            **dict.fromkeys(("GATEWAY_KEY", "OPENAI_API_KEY", "CODEX_API_KEY"), "any"),
        }


@cache
def command() -> tuple[str, ...]:
    """Return the command of Codex, which is installed on the first call."""
    place = npm_packages({"@openai/codex": "latest"})
    node, _ = node_and_npm()
    return node, str(place / "node_modules" / "@openai" / "codex" / "bin" / "codex.js")

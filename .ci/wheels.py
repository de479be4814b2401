"""What has to hold for the built wheels: `contents CORE SERVER`, `core` and `server`.

`contents` looks into the files; the other two run inside an environment that holds the wheels and nothing
else. One rule: the first thing that does not hold ends the run with a sentence. What loads
sockets is imported late, so that it is not taken for the core's doing.
"""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

FORBIDDEN = {
    "asyncio",
    "socket",
    "ssl",
    "starlette",
    "httpcore",
    "anyio",
    "oaicompat_server",
    "hypothesis",
}


def check(holds: object, sentence: str) -> None:
    if not holds:
        raise SystemExit(f"wheels: {sentence}")


def contents(path: str, package: str) -> None:
    """Only the package and its metadata, with licence and type marker, and nothing that runs at start-up."""
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        check(
            all(wheel.read(name) for name in names if name.endswith("METADATA")),
            "METADATA is empty",
        )
    tops = {name.split("/")[0] for name in names}
    check(package in tops, f"{path} lacks {package}")
    check(all(top == package or top.endswith(".dist-info") for top in tops), f"{path} holds {tops}")
    check(f"{package}/py.typed" in names, f"{path} lacks py.typed")
    check(any(name.endswith("licenses/LICENSE") for name in names), f"{path} lacks its licence")
    check(f"{package}/__init__.py" in names, f"{path} lacks {package}/__init__.py")
    odd = [name for name in names if name.endswith((".pth", ".pyc", ".toml")) or "/tests/" in name]
    check(not odd, f"{path} holds {odd}")
    sources = {
        str(source.relative_to("src"))
        for source in Path("src", package).rglob("*.py")
        if "__pycache__" not in source.parts
    }
    check(sources <= set(names), f"{path} lacks {sorted(sources - set(names))}")
    print(f"{Path(path).name}: {len(names)} files")


def core() -> None:
    """The core works with msgspec alone and loads nothing that does I/O."""
    import oaicompat

    found = sorted(FORBIDDEN & set(sys.modules))
    check(not found, f"importing the core loads {found}")
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}
    check(oaicompat.openai_to_gemini(body).model == "gemini-2.5-flash", "the mapper does not map")
    found = sorted(FORBIDDEN & set(sys.modules))
    check(not found, f"converting loads {found}")
    from importlib.metadata import requires

    needed = [one for one in requires("oaicompat") or [] if "extra ==" not in one]
    check([one[:7] for one in needed] == ["msgspec"], f"the core requires {needed}")
    site = Path(oaicompat.__file__).parent.parent
    check("site-packages" in site.parts, f"the core was imported from {site}")
    check(not (site / "oaicompat_server").exists(), "the core installs the server")
    print(f"oaicompat {oaicompat.__version__}: imports none of {', '.join(sorted(FORBIDDEN))}")


def server() -> None:
    """The console script serves one chat on the simulator and tells its version."""
    import subprocess
    import urllib.request
    from importlib.metadata import version

    script = str(Path(sys.executable).with_name("oaicompat"))
    command = [script, "serve", "--demo", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        base = running.stdout.readline().split()[-1]
        try:
            with urllib.request.urlopen(base.removesuffix("/v1") + "/healthz", timeout=10) as reply:
                health = json.load(reply)
            known = {"status": "ok", "version": version("oaicompat-server")}
            check(health == known, f"the gateway's health is {health}")
            body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}
            request = urllib.request.Request(
                f"{base}/chat/completions",
                json.dumps(body).encode(),
                {"content-type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=10) as reply:
                said = json.load(reply)["choices"][0]["message"]["content"]
            check(said == "Hello", f"the demo said {said!r}")
        finally:
            running.terminate()
        running.stdout.read()
    check(running.returncode == 0, f"the gateway ended with {running.returncode}")
    print(f"oaicompat-server {health['version']}: served one chat on the simulator")


def main(arguments: list[str]) -> None:
    match arguments:
        case ["contents", core_wheel, server_wheel]:
            contents(core_wheel, "oaicompat")
            contents(server_wheel, "oaicompat_server")
        case ["core"]:
            core()
        case ["server"]:
            server()
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Certificates for localhost, right and wrong, made by the openssl program."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
_CA = """
[ca]
default_ca = d
[d]
database = index
serial = serial
new_certs_dir = .
default_md = sha256
policy = p
x509_extensions = x
unique_subject = no
[p]
commonName = supplied
[x]
subjectAltName = DNS:{host}
"""
_MADE = (
    ("good", "localhost", "200101000000Z", "491231000000Z"),
    ("other", "other.example", "200101000000Z", "491231000000Z"),
    ("old", "localhost", "200101000000Z", "210101000000Z"),
    ("early", "localhost", "480101000000Z", "491231000000Z"),
    ("unknown", "localhost", "200101000000Z", "491231000000Z"),
)
_TRUSTED = ("good", "other", "old", "early")


def make_certificates(place: Path) -> Path:
    """Write `NAME.pem` and `NAME.key` for `good` and what is wrong otherwise; skips without openssl.

    `other` is for another name, the days of `old` are over, those of `early` have not come, and nobody trusts
    `unknown`.
    """
    if shutil.which("openssl") is None:
        pytest.skip("the openssl program is needed to make certificates")
    (place / "serial").write_text("01")
    (place / "index").touch()
    for name, host, start, end in _MADE:
        (place / "ca.cnf").write_text(_CA.format(host=host))
        key, request = f"{name}.key", f"{name}.csr"
        new = ("req", "-new", *_NEW_KEY, "-subj", f"/CN={host}", "-keyout", key, "-out", request)
        sign = ("ca", "-batch", "-selfsign", "-config", "ca.cnf", "-keyfile", key, "-in", request)
        dates = ("-startdate", start, "-enddate", end, "-notext", "-out", f"{name}.pem")
        for arguments in (new, (*sign, *dates)):
            subprocess.run(["openssl", *arguments], cwd=place, capture_output=True, check=True)
    return place


def serving(place: Path, name: str) -> ssl.SSLContext:
    """Return the context of a server that shows this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / f"{name}.pem", place / f"{name}.key")
    return context


def trusting(place: Path) -> ssl.SSLContext:
    """Return the context of a client that trusts all of them but `unknown`."""
    context = ssl.create_default_context()
    for name in _TRUSTED:
        context.load_verify_locations(place / f"{name}.pem")
    return context


def over_tls(place: Path, name: str) -> Callable[[socket.socket], None]:
    """Return what answers one request of Gemini's with "over TLS", after a handshake with this certificate."""
    context = serving(place, name)
    part = {"role": "model", "parts": [{"text": "over TLS"}]}
    body = json.dumps({"candidates": [{"content": part, "finishReason": "STOP"}]}).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body)

    def serve(plug: socket.socket) -> None:
        with context.wrap_socket(plug, server_side=True) as secured:
            data = b""
            while b"\r\n\r\n" not in data and (piece := secured.recv(65536)):
                data += piece
            secured.sendall(head + body)
            secured.recv(1)

    return serve

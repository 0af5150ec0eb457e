from __future__ import annotations

import io
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from facekit import fetching
from facekit.errors import ImageError
from facekit.fetching import fetch, is_public
from facekit.images import read_image

BODY = b"what the server holds"


class Handler(BaseHTTPRequestHandler):
    pictures: dict[str, bytes] = {}  # noqa: RUF012
    hosts: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.hosts.append(self.headers["Host"])
        getattr(self, "_" + self.path[1:].split("/")[0].split("?")[0], self._missing)()

    def _answer(self, body: bytes, *, announced: int | None = None) -> None:
        self.send_response(200)
        if announced is not None:
            self.send_header("Content-Length", str(announced))
        self.end_headers()
        self.wfile.write(body)

    def _missing(self) -> None:
        self.send_error(404)

    def _ok(self) -> None:
        self._answer(BODY, announced=len(BODY))

    def _unannounced(self) -> None:
        self._answer(BODY)

    def _picture(self) -> None:
        self._answer(self.pictures["png"])

    def _short(self) -> None:
        self._answer(BODY, announced=1000)

    def _announced(self) -> None:
        self._answer(b"", announced=10**9)

    def _endless(self) -> None:
        self._answer(b"")
        try:
            while True:
                self.wfile.write(bytes(100_000))
        except ConnectionError:
            pass

    def _slow(self) -> None:
        self._trickle(b"HTTP/1.0 200 OK\r\n\r\n" + bytes(1000), after=19)

    def _slow_header(self) -> None:
        self._trickle(b"HTTP/1.0 200 OK\r\nX: " + b"x" * 1000, after=0)

    def _trickle(self, data: bytes, after: int) -> None:
        self.wfile.write(data[:after])
        try:
            for place in range(after, len(data)):
                self.wfile.write(data[place : place + 1])
                time.sleep(0.05)
        except ConnectionError:
            pass

    def _to(self) -> None:
        self.send_response(302)
        self.send_header("Location", self.path.split("?", 1)[1])
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        yield f"http://127.0.0.1:{port}"


class serving:  # noqa: N801
    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.server = server
        server.daemon_threads = True

    def __enter__(self) -> int:
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()
        return self.server.server_address[1]

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.mark.parametrize("path", ["ok", "unannounced", "ok?query=a%20b&c=ä", "to?ok", "to?/to?/ok"])
def test_a_body_arrives(server, path):
    assert fetch(f"{server}/{path}", allow_private=True) == BODY


def test_a_picture_is_read_from_its_url(server):
    scene = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    stream = io.BytesIO()
    Image.fromarray(scene).save(stream, "PNG")
    Handler.pictures["png"] = stream.getvalue()
    assert np.array_equal(read_image(f"{server}/picture", allow_private=True), scene)
    with pytest.raises(ImageError, match=f"{server}/ok: not a picture"):
        read_image(f"{server}/ok", allow_private=True)
    with pytest.raises(ImageError, match="--max-pixels"):
        read_image(f"{server}/picture", allow_private=True, max_pixels=19)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nothing", "answered 404 Not Found; expected 200"),
        ("short", "broke off after 21 of 1,000 bytes"),
        ("announced", "more than 20,000,000 bytes"),
        ("endless", "more than 20,000,000 bytes"),
        ("to?/to?/to?/to?/to?/to?/ok", "more than 5 redirects"),
        ("to?file:///etc/passwd", "file:///etc/passwd: expected a URL http"),
        ("to?http://user:secret@127.0.0.1/", "user name"),
    ],
)
def test_what_cannot_be_had_says_why(server, path, message):
    with pytest.raises(ImageError, match=message):
        fetch(f"{server}/{path}", allow_private=True)


@pytest.mark.parametrize("path", ["slow", "slow_header"])
def test_a_trickling_server_is_left_at_the_time_limit(server, monkeypatch, path):
    monkeypatch.setattr(fetching, "TIME_LIMIT", 0.4)
    start = time.monotonic()
    with pytest.raises(ImageError, match=r"no complete answer within 0\.4 s"):
        fetch(f"{server}/{path}", allow_private=True)
    assert 0.3 < time.monotonic() - start < 2


def test_a_name_that_does_not_resolve_in_time(monkeypatch):
    monkeypatch.setattr(fetching, "TIME_LIMIT", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(1))
    with pytest.raises(ImageError, match="no complete answer"):
        fetch("http://slow.example/a.jpg")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://example.com/a.jpg", "expected a URL http"),
        ("http:///a.jpg", "expected a URL http"),
        ("http://host:99999/", "cannot be fetched: Port"),
        ("http://[::1/a.jpg", "cannot be fetched"),
        (f"http://{'a' * 70}.example/", "cannot be fetched"),
        ("http://127.0.0.1:9/a.jpg", "127.0.0.1, which is not public; .*--allow-private"),
        ("http://[::1]/a.jpg", "not public"),
        ("http://[::ffff:127.0.0.1]/a.jpg", "not public"),
        ("http://0x7f.1/a.jpg", "127.0.0.1, which is not public"),
        ("http://169.254.169.254/latest/meta-data", "not public"),
        ("http://localhost/a.jpg", "not public"),
    ],
)
def test_a_refused_url_says_why(url, message):
    with pytest.raises(ImageError, match=message):
        fetch(url)


def test_a_refused_connection_is_an_image_error():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(ImageError, match="cannot be fetched"):
            fetch(f"http://127.0.0.1:{free.getsockname()[1]}/", allow_private=True)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
        "::", "::1", "::127.0.0.1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "fe80::1", "fe80::1%1", "fc00::1",
        "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1", "2001::1", "100::1",
        "2002:7f00:1::", "2002:a00:1::1", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "2002:808:808::1", "64:ff9b::8.8.8.8"],
)
def test_addresses_that_are_public(address):
    assert is_public(address)


def test_every_address_of_a_name_must_be_public(monkeypatch):
    entries = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 80)) for ip in ("93.184.216.34", "10.0.0.7")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: entries)
    with pytest.raises(ImageError, match=r"two\.example has the address 10\.0\.0\.7, which is not public"):
        fetch("http://two.example/a.jpg")


def test_redirects_are_checked_again(server, monkeypatch):
    monkeypatch.setattr(fetching, "is_public", lambda address: address == "127.0.0.1")
    assert fetch(f"{server}/to?ok") == BODY
    with pytest.raises(ImageError, match=r"127\.0\.0\.2, which is not public"):
        fetch(f"{server}/to?{server.replace('127.0.0.1', '127.0.0.2')}/ok")


def test_the_address_that_was_checked_is_the_one_connected_to(server, monkeypatch):
    """A name that answers once with a public and then with a private address gains nothing."""
    port = int(server.rsplit(":", 1)[1])
    answers = iter([[(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]])
    real = socket.getaddrinfo

    def rebinding(host, *args, **kwargs):
        return next(answers) if host == "rebinding.example" else real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(fetching, "is_public", lambda address: address == "127.0.0.1")
    Handler.hosts.clear()
    assert fetch(f"http://rebinding.example:{port}/ok") == BODY
    assert Handler.hosts == [f"rebinding.example:{port}"]
    assert next(answers, None) is None


def test_an_address_that_does_not_answer_is_passed_over(server, monkeypatch):
    port = int(server.rsplit(":", 1)[1])
    entries = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ("127.0.0.3", "127.0.0.1")]
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *a, **k: entries if host == "two.example" else real(host, *a, **k)
    )
    assert fetch(f"http://two.example:{port}/ok", allow_private=True) == BODY


def test_proxies_of_the_environment_are_not_used(server, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert fetch(f"{server}/ok", allow_private=True) == BODY


@pytest.fixture
def tls_server(tmp_path) -> Iterator[tuple[str, str]]:
    """An https server for "localhost", and the file of the certificate that it signed itself."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not there to make a certificate")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # clients that refuse the certificate
    with serving(server) as port:
        yield str(port), str(certificate)


def test_tls_is_verified_by_the_name_in_the_url(tls_server, monkeypatch):
    port, certificate = tls_server
    with pytest.raises(ImageError, match="certificate verify failed"):
        fetch(f"https://localhost:{port}/ok", allow_private=True)
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    assert fetch(f"https://localhost:{port}/ok", allow_private=True) == BODY
    with pytest.raises(ImageError, match="cannot be fetched"):  # the certificate is not this host's
        fetch(f"https://127.0.0.1:{port}/ok", allow_private=True)

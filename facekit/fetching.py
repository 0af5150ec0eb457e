"""Fetch a picture from the web without letting its address lead anywhere but to public hosts.

Every address that a name resolves to is checked and the connection goes to the very address that was checked,
so a name that changes its mind in between (DNS rebinding) gains nothing; every redirect is checked alike.
Proxies of the environment are not used, because a proxy would resolve the name a second time.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import socket
import ssl
import threading
import time
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from facekit.errors import ImageError

TIME_LIMIT = 10.0
SIZE_LIMIT = 20_000_000
MAX_REDIRECTS = 5

_REDIRECTS = (301, 302, 303, 307, 308)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")


def fetch(url: str, *, allow_private: bool = False) -> bytes:
    """Get what a URL holds.

    Parameters
    ----------
    url : str
        http or https.
    allow_private : bool
        Let it reach private, loopback, link-local and other addresses that are not public.

    Returns
    -------
    bytes

    Raises
    ------
    ImageError
        Another scheme, an address that is refused, an answer that is not 200, more than SIZE_LIMIT bytes,
        MAX_REDIRECTS redirects or TIME_LIMIT seconds in all.
    """
    deadline = time.monotonic() + TIME_LIMIT
    place = url
    try:
        for _ in range(MAX_REDIRECTS + 1):
            body, redirect = _get(place, allow_private, deadline)
            if redirect is None:
                return body
            place = urljoin(place, redirect)
    except ImageError:
        raise
    except TimeoutError as error:
        raise ImageError(
            f"{url}: no complete answer within {TIME_LIMIT:g} s; download it and give the file"
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ImageError(f"{url}: cannot be fetched: {error or type(error).__name__}") from error
    raise ImageError(f"{url}: more than {MAX_REDIRECTS} redirects, the last to {place}")


def _get(url: str, allow_private: bool, deadline: float) -> tuple[bytes, str | None]:
    """Give the body, or where the answer redirects to."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ImageError(f"{url}: expected a URL http://host/... or https://host/...")
    if "@" in parts.netloc:
        raise ImageError(f"{url}: a user name in a URL is not supported; download it and give the file")
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    connection_class = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = connection_class(parts.hostname, port)
    target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe="/%?:@!$&'()*+,;=~")
    try:
        # With a socket of its own the connection does not look the name up again.
        connection.sock = _connect(url, parts.hostname, port, secure, allow_private, deadline)
        connection.request(
            "GET",
            target,
            headers={"User-Agent": "facekit", "Accept": "image/*", "Accept-Encoding": "identity"},
        )
        response = connection.getresponse()
        if response.status in _REDIRECTS and (redirect := response.getheader("Location")):
            return b"", redirect
        if response.status != 200:
            raise ImageError(
                f"{url}: the server answered {response.status} {response.reason}; expected 200 OK"
            )
        return _read_body(url, response), None
    finally:
        connection.close()


def _read_body(url: str, response: http.client.HTTPResponse) -> bytes:
    announced = response.length or 0
    body = response.read(SIZE_LIMIT + 1) if announced <= SIZE_LIMIT else b""
    if max(announced, len(body)) > SIZE_LIMIT:
        raise ImageError(f"{url}: more than {SIZE_LIMIT:,} bytes; download it and give the file")
    if len(body) < announced:
        raise ImageError(f"{url}: the answer broke off after {len(body):,} of {announced:,} bytes; try again")
    return body


def _connect(
    url: str, host: str, port: int, secure: bool, allow_private: bool, deadline: float
) -> _TimedSocket:
    """Connect to the first address of the host that answers, after all were checked."""
    addresses = _resolve(host, port, deadline)
    for address in addresses:
        if not (allow_private or is_public(address)):
            raise ImageError(
                f"{url}: {host} has the address {address}, which is not public; allow it with allow_private "
                "(--allow-private) if you trust it"
            )
    for address in addresses:
        try:
            connected = socket.create_connection((address, port), timeout=_left(deadline))
        except OSError:
            if address == addresses[-1] or time.monotonic() >= deadline:
                raise
            continue
        if secure:
            connected.settimeout(_left(deadline))
            connected = ssl.create_default_context().wrap_socket(connected, server_hostname=host)
        return _TimedSocket(connected, deadline)
    raise OSError(f"{host} has no address")


def _resolve(host: str, port: int, deadline: float) -> list[str]:
    """Look a name up in a thread of its own, because the system's resolver knows no time limit."""
    found: list[Any] = []

    def look_up() -> None:
        try:
            found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.append(error)

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(_left(deadline))
    if not found:
        raise TimeoutError(f"{host} was not resolved in time")
    if isinstance(found[0], Exception):
        raise found[0]
    return list(dict.fromkeys(str(entry[4][0]) for entry in found[0]))


def is_public(address: str) -> bool:
    """Tell whether an IP address, or the IPv4 address that an IPv6 address stands for, is a public host's."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        return ip.is_global and ip in _GLOBAL_UNICAST
    return ip.is_global and not ip.is_multicast


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time is over")
    return left


class _TimedSocket:
    """What http.client needs of a socket, with one limit over all reads, so that no server can trickle."""

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self._socket, self._deadline = connected, deadline

    def sendall(self, data: bytes) -> None:
        self._socket.settimeout(_left(self._deadline))
        self._socket.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self._socket, self._deadline))

    def close(self) -> None:
        self._socket.close()


class _TimedReader(io.RawIOBase):
    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self._socket, self._deadline = connected, deadline
        self._raw = connected.makefile("rb", buffering=0)  # keeps the socket open until it is closed itself

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket.settimeout(_left(self._deadline))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()

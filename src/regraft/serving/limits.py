"""What a server takes: how much of it, for how long, and from whom."""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from regraft.errors import UsageError

TOKEN = 16  # characters a token has at least: what can be guessed is no token
SHARE = 8  # bodies of the largest size that are in memory at once


@dataclass(frozen=True)
class Limits:
    """Each with its default. Sizes are in bytes, times in seconds."""

    body: int = 32 << 20  # of a request
    files: int = 64  # items a request
    queue: int = 256  # items of all requests that are read, or wait for the model
    seconds: float = 30.0  # for a request's body, and again for its answer
    connections: int = 512  # at once
    most: int | None = None  # the extent of an item, pixels say; None: what its modality thinks usual
    wait: float = 0.005  # a batch waits so long for items that are being read

    @property
    def head_seconds(self) -> float:
        """For a request's headers."""
        return min(10.0, self.seconds)


class Refused(Exception):
    """A request that is not answered: the HTTP status, and the reason in words."""

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, headers or {}


def too_busy(reason: str) -> Refused:
    """Come back in a second."""
    return Refused(429, reason, {"Retry-After": "1"})


class Budget:
    """So many of something at once; for one thread, that of the event loop."""

    def __init__(self, total: int) -> None:
        self.total, self.taken = total, 0

    def take(self, count: int) -> bool:
        """Whether there were so many left; then they are taken."""
        if self.taken + count > self.total:
            return False
        self.taken += count
        return True

    def give(self, count: int) -> None:
        """So many are free again."""
        self.taken -= count


class Taken:
    """What one request has of a budget; it is given back at the end of `with`."""

    def __init__(self, budget: Budget) -> None:
        self.budget, self.count = budget, 0

    def more(self, count: int) -> bool:
        """Whether there were so many more."""
        granted = self.budget.take(count)
        self.count += count * granted
        return granted

    @contextlib.contextmanager
    def kept(self) -> Iterator[Taken]:
        try:
            yield self
        finally:
            self.budget.give(self.count)
            self.count = 0


@dataclass(frozen=True)
class Access:
    """Who is answered: callers that know the `token` (None: all), under the host names `names`."""

    token: str | None = None
    names: frozenset[str] = frozenset()

    def refusal(self, headers: dict[bytes, bytes], is_open: bool) -> Refused | None:
        """Why a request with these headers is not answered; `is_open` are paths that ask for no token."""
        host = headers.get(b"host", b"").decode("latin-1")
        if not self._is_ours(host):
            return Refused(
                421,
                "this server does not go by the name in the Host header: use its address, or start it with "
                "--allow-host NAME",
            )
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and origin.partition("://")[2].lower() != host.lower():
            return Refused(403, "a page of another origin may not ask this server")
        if self.token is None or is_open:
            return None
        given = headers.get(b"authorization", b"")
        kind, _, token = given.partition(b" ")
        wanted = self.token.encode()
        if kind.lower() == b"bearer" and hmac.compare_digest(token.strip(), wanted):
            return None
        return Refused(
            401,
            "this server wants its token in a header: Authorization: Bearer TOKEN",
            {"WWW-Authenticate": "Bearer"},
        )

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header names this server. An address cannot be rebound, so any will do; a name has
        to be known: a page elsewhere could make its own name lead here (DNS rebinding).
        """
        name = name_in(host)
        return is_address(name) or name == "localhost" or name in self.names


def name_in(host: str) -> str:
    """The name or address in a Host header, in lower case, without the port."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def is_address(name: str) -> bool:
    """Whether it is an IP address rather than a name."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what is bound to this host."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def checked_access(host: str, token: str | None, names: list[str]) -> Access:
    """Who is answered by a server on this host. Raises UsageError where it would be open to all, or the
    token can be guessed.
    """
    if token is None and not is_loopback(host):
        raise UsageError(
            f"--host {host} can be reached from other machines, and whoever reaches it could use the models: "
            "give a token too, by --token or in the environment as REGRAFT_TOKEN, "
            "or leave --host out to serve this machine only."
        )
    if token is not None and (len(token) < TOKEN or not token.isascii() or not token.isprintable()):
        raise UsageError(
            f"a token is at least {TOKEN} printable ASCII characters without blanks at its ends, as "
            "`openssl rand -hex 16` makes one."
        )
    return Access(token, frozenset(name_in(name) for name in [*names, host]))

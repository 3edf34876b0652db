"""What a server is started with. It is plain data: Ray Serve sends it to its replicas."""

import hashlib
import ipaddress
from dataclasses import dataclass, field

from pipeline.errors import InputError

TOKEN_VARIABLE = "BLAT_SEARCH_TOKEN"  # noqa: S105  # the name of the variable
MIN_TOKEN = 16  # characters; a shorter one could be guessed


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one server, or one replica, takes on."""

    rate: float = 50.0
    """Requests a second that one client may send, with bursts of ten seconds' worth; 0 sets no limit. A page of twenty
    results takes 21 requests."""
    concurrent: int = 64
    """Requests at a time; others get the answer 503."""
    upload_mb: float = 20.0
    """Largest request, in megabytes of 1,000,000 bytes. A larger one is refused before it is read."""
    upload_s: float = 60.0
    """Longest sound to search with, in seconds."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A server of one index."""

    index: str
    model: str = ""
    """Checkpoint; empty takes the one that the index names."""
    device: str = "cpu"
    limits: Limits = field(default_factory=Limits)
    token_sha256: str = ""
    """Hash of the token, in hexadecimal digits; empty asks for no token. The token itself is not kept."""


def check_limits(limits: Limits) -> None:
    """Raise InputError for a limit that no request could keep."""
    if limits.rate < 0:
        raise InputError("--limits.rate", limits.rate, "use 0 for no limit, or requests a second")
    for name in ("concurrent", "upload_mb", "upload_s"):
        if getattr(limits, name) <= 0:
            raise InputError(f"--limits.{name.replace('_', '-')}", getattr(limits, name), "use more than 0")


def token_hash(host: str, token: str) -> str:
    """Return the hash of the token that requests must have, '' for none.

    Raises:
        InputError: when other machines could reach the server and there is no token, or a short one.
    """
    if token and len(token) < MIN_TOKEN:
        raise InputError(f"${TOKEN_VARIABLE}", "...", f"use {MIN_TOKEN} characters or more: openssl rand -hex 16")
    if not token and not is_loopback(host):
        remedy = f"other machines reach it: export {TOKEN_VARIABLE}=$(openssl rand -hex 16), or use 127.0.0.1"
        raise InputError("--host", host, remedy)
    return hashlib.sha256(token.encode()).hexdigest() if token else ""


def is_loopback(host: str) -> bool:
    """Return whether only programs of this machine reach an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"

"""Where a server listens, and to whom: what can be known before it is loaded."""

import ipaddress
import os
from dataclasses import dataclass, field
from typing import Annotated

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt

from palam.errors import PalamError
from palam.utils.names import NameList

KEY_VARIABLE = "PALAM_API_KEY"


def key_of_environment() -> str | None:
    """The server's key, if one is set in the environment."""
    return os.environ.get(KEY_VARIABLE) or None


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Where a server listens, and to whom.

    Raises:
        PalamError: an address that others reach without a key, or a key that cannot be sent.
    """

    host: str = "127.0.0.1"
    """Address to listen on; any but this machine's own needs a key."""
    port: NonNegativeInt = 8000
    """Port; 0 is any that is free."""
    api_key: Annotated[str | None, Parameter(show_default=False)] = field(
        default_factory=key_of_environment, repr=False
    )
    """Key that clients must send; better set as PALAM_API_KEY, which no list of processes shows."""
    root_path: str = ""
    """Path under which a proxy shows the server, e.g. /palam."""
    allowed_hosts: NameList = None
    """Further names by which clients call it, e.g. palam.example.org. With a key, none given is
    any."""
    log_requests: bool = False
    """Log a line for each request, without anything the client has sent."""

    def __post_init__(self) -> None:
        key = self.api_key
        if key is not None and (not key or not key.isascii() or not key.isprintable()):
            raise PalamError("the API key must be printable ASCII, and not empty")
        if key is not None and key != key.strip():
            raise PalamError("the API key begins or ends with a space")
        if key is None and not is_loopback(self.host):
            raise PalamError(
                f"{self.host} can be reached by others: set a key with {KEY_VARIABLE} or "
                "--api-key, or listen on 127.0.0.1"
            )
        if self.root_path and not self.root_path.startswith("/"):
            raise PalamError(f"root_path is {self.root_path!r}; it must begin with /")


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

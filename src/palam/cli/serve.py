"""`palam serve`."""

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Group, Parameter
from cyclopts.types import NonNegativeInt, PositiveFloat, PositiveInt

from palam.cli._options import LOADING_DEFAULTS, ConfigFile, LoadingOptions, NameList
from palam.cli._serving import check_installed, key_of_environment, serve_bridges
from palam.serving.limits import ServeLimits

Checkpoints = Annotated[list[str], Parameter(help="Bridges: folders or hub ids.")]


@dataclass(frozen=True, kw_only=True)
class ListenConfig:
    """Where the server listens, and to whom."""

    host: str = "127.0.0.1"
    """Address to listen on; any but this machine's own needs a key."""
    port: NonNegativeInt = 8000
    """Port; 0 is any that is free."""
    api_key: str | None = None
    """Key that clients must send; better set as PALAM_API_KEY, which no list of processes shows."""
    root_path: str = ""
    """Path under which a proxy shows the server, e.g. /palam."""
    allowed_hosts: NameList = None
    """Further names by which clients call it, e.g. palam.example.org."""
    log_requests: bool = False
    """Log a line for each request, without anything the client has sent."""


@dataclass(frozen=True, kw_only=True)
class LimitConfig:
    """What a request may ask for."""

    max_text_tokens: PositiveInt = ServeLimits.max_text_tokens
    """Most tokens of a text, or of a whole prompt."""
    max_new_tokens: PositiveInt = ServeLimits.max_new_tokens
    """Most tokens of an answer; also what a request that says none gets."""
    max_queue: PositiveInt = ServeLimits.max_queue
    """Most requests that wait; further ones are told to come back."""
    timeout: PositiveFloat = ServeLimits.timeout
    """Seconds that a request may take."""
    batch_size: PositiveInt = ServeLimits.max_batch
    """Most requests that are read at a time."""


ListenOptions = Annotated[ListenConfig, Parameter(name="*", group=Group("Server", sort_key=1))]
LimitOptions = Annotated[LimitConfig, Parameter(name="*", group=Group("Limits", sort_key=2))]
LISTEN_DEFAULTS = ListenConfig()
LIMIT_DEFAULTS = LimitConfig()


def serve(
    checkpoints: Checkpoints,
    /,
    *,
    listen: ListenOptions = LISTEN_DEFAULTS,
    limits: LimitOptions = LIMIT_DEFAULTS,
    config: ConfigFile = None,
    loading: LoadingOptions = LOADING_DEFAULTS,
) -> None:
    """Answer requests: OpenAI's API, labels, a page.

    Several bridges over the same base models share them. Ends in order on SIGTERM: what was
    accepted is finished first.
    """
    check_installed()
    from palam.serving.server import ServerOptions

    options = ServerOptions(
        host=listen.host,
        port=listen.port,
        api_key=listen.api_key if listen.api_key is not None else key_of_environment(),
        root_path=listen.root_path,
        allowed_hosts=listen.allowed_hosts or (),
        log_requests=listen.log_requests,
    )
    serve_limits = ServeLimits(
        max_text_tokens=limits.max_text_tokens,
        max_new_tokens=limits.max_new_tokens,
        max_queue=limits.max_queue,
        timeout=limits.timeout,
        max_batch=limits.batch_size,
    )
    serve_bridges(checkpoints, loading, serve_limits, options, _say_ready)


def _say_ready(address: str) -> None:
    print(f"palam: ready on {address}", flush=True)

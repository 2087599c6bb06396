"""`palam serve`."""

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Group, Parameter
from cyclopts.types import PositiveFloat, PositiveInt

from palam.cli._engine import check_engine
from palam.cli._options import ENGINE_LOADING_DEFAULTS, ConfigFile, EngineLoadingOptions
from palam.cli._serving import check_installed, serve_bridges
from palam.serving.limits import ServeLimits
from palam.serving.options import ServerOptions

Checkpoints = Annotated[list[str], Parameter(help="Bridges: folders, hub ids or starter:bridge.")]


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


ListenOptions = Annotated[
    ServerOptions | None, Parameter(name="*", group=Group("Server", sort_key=1))
]
LimitOptions = Annotated[LimitConfig, Parameter(name="*", group=Group("Limits", sort_key=2))]
LIMIT_DEFAULTS = LimitConfig()


def serve(
    checkpoints: Checkpoints,
    /,
    *,
    listen: ListenOptions = None,
    limits: LimitOptions = LIMIT_DEFAULTS,
    config: ConfigFile = None,
    loading: EngineLoadingOptions = ENGINE_LOADING_DEFAULTS,
) -> None:
    """Answer requests: OpenAI's API, labels, a page.

    Several bridges over the same base models share them. Ends in order on SIGTERM: what was
    accepted is finished first.
    """
    check_installed()
    check_engine(loading.engine, loading.load_in)
    serve_limits = ServeLimits(
        max_text_tokens=limits.max_text_tokens,
        max_new_tokens=limits.max_new_tokens,
        max_queue=limits.max_queue,
        timeout=limits.timeout,
        max_batch=limits.batch_size,
    )
    serve_bridges(checkpoints, loading, serve_limits, listen or ServerOptions(), _say_ready)


def _say_ready(address: str) -> None:
    print(f"palam: ready on {address}", flush=True)

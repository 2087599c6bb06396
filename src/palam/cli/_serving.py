"""What `palam serve` and `palam demo` share."""

import logging
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from palam.cli._engine import attach_engine
from palam.cli._options import EngineLoadingConfig, silence_libraries
from palam.errors import PalamError

if TYPE_CHECKING:
    from palam.serving.limits import ServeLimits
    from palam.serving.options import ServerOptions

NEEDED = ("fastapi", "uvicorn", "prometheus_client")


def check_installed() -> None:
    """Refuse to serve without the packages for it.

    Raises:
        PalamError: one is missing.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise PalamError(f'serving needs {missing[0]}: pip install "palam[serve]"')


def serve_bridges(
    paths: Sequence[str],
    loading: EngineLoadingConfig,
    limits: "ServeLimits",
    options: "ServerOptions",
    on_ready: Callable[[str], None],
) -> None:
    """Load bridges and serve them until the process is told to stop.

    Args:
        paths: checkpoint folders or hub ids.
        loading: how the models are loaded.
        limits, options: of the server.
        on_ready: called with the address.
    """
    from palam.serving.bridges import load_bridges
    from palam.serving.server import open_socket, run_server

    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("palam.serving").setLevel(logging.INFO)
    listener = open_socket(options.host, options.port)
    with listener:
        silence_libraries()
        bridges = load_bridges(paths, loading.placement(), **loading.base_models())
        attach_engine(
            [bridge.model for bridge in bridges],
            loading.engine,
            max_length=limits.max_text_tokens + limits.max_new_tokens,
            keep_llm=True,  # it scores labels
        )
        run_server(bridges, listener, limits, options, on_ready)

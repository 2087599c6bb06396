"""`palam demo`."""

import webbrowser
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt

from palam.cli._engine import check_engine
from palam.cli._options import ENGINE_LOADING_DEFAULTS, EngineLoadingOptions
from palam.cli._serving import check_installed, serve_bridges
from palam.errors import PalamError

QUICKSTART_BRIDGE = Path("palam-quickstart") / "bridge-mean"


def demo(
    checkpoint: Annotated[
        str | None,
        Parameter(help="A bridge: folder, hub id or starter:bridge; not set is the quickstart's."),
    ] = None,
    /,
    *,
    port: NonNegativeInt = 8000,
    no_browser: bool = False,
    loading: EngineLoadingOptions = ENGINE_LOADING_DEFAULTS,
) -> None:
    """Try a bridge on a page in the browser.

    The page is on this machine alone, and keeps nothing.

    Args:
        port: Port; 0 is any that is free.
        no_browser: Only print the page's address.
    """
    check_installed()
    check_engine(loading.engine, loading.load_in)
    if checkpoint is None:
        if not QUICKSTART_BRIDGE.is_dir():
            raise PalamError(
                f"there is no {QUICKSTART_BRIDGE} here; run palam quickstart first, or name a "
                "bridge: palam demo BRIDGE"
            )
        checkpoint = str(QUICKSTART_BRIDGE)
    from palam.serving.limits import ServeLimits
    from palam.serving.options import ServerOptions

    def open_page(address: str) -> None:
        print(f"palam: the page is at {address}/ (Ctrl-C ends it)", flush=True)
        if not no_browser:
            webbrowser.open(f"{address}/")

    options = ServerOptions(port=port, api_key=None)  # it is on this machine alone
    serve_bridges([checkpoint], loading, ServeLimits(), options, open_page)

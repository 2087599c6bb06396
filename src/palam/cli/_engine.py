"""`--engine`: what makes free answers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from palam.cli._options import EngineLoadingConfig, LoadingConfig
from palam.errors import PalamError

if TYPE_CHECKING:
    from palam.models.modeling import PalamModel


def check_engine(loading: EngineLoadingConfig) -> None:
    """Refuse an engine that cannot be used, before anything is loaded.

    Raises:
        PalamError: vLLM is not installed, or `--load-in` beside it.
    """
    if loading.engine == "palam":
        return
    if loading.load_in is not None:
        raise PalamError("--engine vllm reads whole weights; leave --load-in out")
    from palam.integrations.vllm import check_installed

    check_installed()


def attach_engine(
    models: "Sequence[PalamModel]",
    loading: LoadingConfig,
    *,
    max_length: int | None = None,
    keep_llm: bool = False,
) -> None:
    """Give models the engine that was asked for.

    Args:
        models: with one LLM.
        loading: names the engine, if the command has one.
        max_length, keep_llm: see [`VllmEngine`].

    Raises:
        PalamError: several LLMs, or see [`VllmEngine`].
    """
    if not isinstance(loading, EngineLoadingConfig) or loading.engine == "palam":
        return
    from palam.integrations.vllm import VllmEngine, check_usable

    first, *others = models
    for model in others:
        check_usable(model)
        if model.llm is not first.llm:
            raise PalamError("--engine vllm serves bridges over one LLM; serve these apart")
    engine = VllmEngine(first, max_length=max_length, keep_llm=keep_llm)
    for model in others:
        model.token_engine = engine

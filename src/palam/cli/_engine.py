"""`--engine`: what makes free answers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from palam.errors import PalamError

if TYPE_CHECKING:
    from palam.models.modeling import PalamModel

EngineName = Literal["palam", "vllm"]


def check_engine(engine: EngineName, load_in: str | None) -> None:
    """Refuse an engine that cannot be used, before anything is loaded.

    Args:
        engine: that was asked for.
        load_in: how the LLM is to be quantized, if at all.

    Raises:
        PalamError: vLLM is not installed, or `--load-in` beside it.
    """
    if engine == "palam":
        return
    if load_in is not None:
        raise PalamError("--engine vllm reads whole weights; leave --load-in out")
    from palam.integrations.vllm import check_installed

    check_installed()


def attach_engine(
    models: "Sequence[PalamModel]",
    engine: EngineName,
    *,
    max_length: int | None = None,
    keep_llm: bool = False,
) -> None:
    """Give models the engine that was asked for; for Palam's own, the LLM is packed for reading.

    Args:
        models: with one LLM.
        engine: that was asked for.
        max_length, keep_llm: see [`VllmEngine`].

    Raises:
        PalamError: several LLMs, or see [`VllmEngine`].
    """
    if engine == "palam":
        _pack(models)
        return
    from palam.integrations.vllm import VllmEngine, check_usable

    first, *others = models
    for model in others:
        check_usable(model)
        if model.llm is not first.llm:
            raise PalamError("--engine vllm serves bridges over one LLM; serve these apart")
    token_engine = VllmEngine(first, max_length=max_length, keep_llm=keep_llm)
    for model in others:
        model.token_engine = token_engine


def _pack(models: "Sequence[PalamModel]") -> None:
    from palam.models.backbones.packing import pack_llm

    for model in models:
        if not model.config.adapter:
            pack_llm(model.llm)

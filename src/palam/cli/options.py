"""Options shared by the commands, and options made from a settings class, so that a setting is defined once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from huggingface_hub.utils.tqdm import disable_progress_bars
from transformers.utils import logging

from palam.errors import PalamError
from palam.models.modeling import PalamModel
from palam.training.config import TrainConfig, option, read_settings
from palam.utils.device import resolve_placement
from palam.utils.languages import find_language


def _from_yaml(context: typer.Context, path: Path | None) -> Path | None:
    """Take the command's defaults from a YAML file; options on the command line go before it."""
    if path is not None:
        options = [one for one in context.command.params if one.name not in ("config", "help")]
        names = {
            name.lstrip("-").replace("-", "_"): str(one.name)
            for one in options
            for name in one.opts
        }
        context.default_map = {
            names[key]: ",".join(map(str, value)) if isinstance(value, list) else value
            for key, value in read_settings(path, set(names)).items()
        }
    return path


_YAML = typer.Option(
    help="YAML file with any of these options, `name: value`.", callback=_from_yaml, is_eager=True
)
ConfigOption = Annotated[Path | None, _YAML]
Command = Callable[..., Any]
CheckpointArgument = Annotated[str, typer.Argument(help="A bridge: folder or hub id.")]
_HELP = {one.name: one.metadata["help"] for one in fields(TrainConfig)}


@dataclass
class Loading:
    """How a checkpoint's model is loaded: options of every command that reads."""

    language: str | None = option(
        None, "Language of the texts, e.g. si or sin_Sinh; NLLB-style encoders need it."
    )
    encoder: str | None = option(None, "Where the encoder is, if not where the checkpoint says.")
    llm: str | None = option(None, "Where the LLM is, if not where the checkpoint says.")
    device: str = option("auto", _HELP["device"])
    dtype: str = option("auto", _HELP["dtype"])
    load_in: str | None = option(None, _HELP["load_in"])
    allow_mismatch: bool = option(
        False, "Accept other base models than the bridge was trained with."
    )


def options_of(
    settings: type[Any], names: Collection[str] | None = None
) -> Callable[[Command], Command]:
    """Give a command an option per field of a settings dataclass; the command receives them as keywords.

    A field has its help text in `metadata["help"]`. Only those in `names` are taken; None is all. A class's own come
    before those that it inherits.
    """

    def decorate(command: Command) -> Command:
        given = inspect.signature(command, eval_str=True).parameters.values()
        own = [p.replace(kind=p.KEYWORD_ONLY) for p in given if p.kind is not p.VAR_KEYWORD]
        hints = get_type_hints(settings)
        for one in sorted(
            fields(settings), key=lambda one: one.name not in inspect.get_annotations(settings)
        ):
            if names is None or one.name in names:
                default = typer.Option(one.default, help=one.metadata["help"])
                kind = inspect.Parameter.KEYWORD_ONLY
                own.append(
                    inspect.Parameter(one.name, kind, default=default, annotation=hints[one.name])
                )
        command.__signature__ = inspect.Signature(own)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in own}
        return command

    return decorate


def quiet() -> None:
    """Silence what the libraries print on their own; our own bars and lines say what goes on."""
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    disable_progress_bars()


def load(checkpoint: str, how: Loading) -> PalamModel:
    """The checkpoint's model, in evaluation.

    An unknown language is refused; an encoder that must be told the language knows its own.
    """
    quiet()
    bases = {**resolve_placement(how.device, how.dtype), "load_in": how.load_in}
    model = PalamModel.from_pretrained(
        checkpoint, how.encoder, how.llm, allow_mismatch=how.allow_mismatch, **bases
    )
    told = hasattr(model.processor.encoder_tokenizer, "src_lang")
    if how.language is not None and not told and find_language(how.language) is None:
        raise PalamError(
            f"language is {how.language!r}, which is unknown; give a code such as si or sin_Sinh"
        )
    return model

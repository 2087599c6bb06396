"""Options shared by the commands, and options made from a settings class, so that a setting is defined once.

torch and the models' code are imported where a command uses them: help and mistakes come at once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from palam.settings import option

if TYPE_CHECKING:
    from palam.model import PalamModel


def _from_yaml(context: typer.Context, path: Path | None) -> Path | None:
    """Take the command's defaults from a YAML file; options on the command line go before it."""
    if path is not None:
        from palam.settings import read_settings

        options = [one for one in context.command.params if one.name not in ("config", "help")]
        names = {name.lstrip("-").replace("-", "_"): str(one.name) for one in options for name in one.opts}
        settings = {
            names[key]: ",".join(map(str, value)) if isinstance(value, list) else value
            for key, value in read_settings(path, set(names)).items()
        }
        context.default_map = {**(context.default_map or {}), **settings}
    return path


ConfigOption = Annotated[
    Path | None,
    typer.Option(help="YAML file with any of these options, `name: value`.", callback=_from_yaml, is_eager=True),
]
CheckpointArgument = Annotated[str, typer.Argument(help="A bridge: folder or hub id.")]
DataOption = Annotated[
    Path | None, typer.Option(help="Folder of data, <task>/<split>.<language>.jsonl; else PALAM_DATA, else the hub.")
]
BatchOption = Annotated[int, typer.Option(help="Texts at a time.", min=1)]
TextOption = Annotated[str | None, typer.Option(help="One text.")]
FileOption = Annotated[
    str | None, typer.Option(help="Texts: JSONL, CSV, or plain text with one text a line; - is standard input.")
]
ColumnOption = Annotated[
    str | None, typer.Option(help="The column that holds the text; not set is text, or the columns of the task.")
]
TextColumnOption = Annotated[
    str | None, typer.Option(help="The file's text column, or a template over several; not set is as trained.")
]
LabelColumnOption = Annotated[str, typer.Option(help="The file's label column.")]
OutOption = Annotated[Path | None, typer.Option(help="Where to write, as JSON lines; else standard output.")]


@dataclass
class Loading:
    """How a checkpoint's model is loaded: options of every command that reads."""

    language: str | None = option(None, "Language of the texts, e.g. si or sin_Sinh; NLLB-style encoders need it.")
    encoder: str | None = option(None, "Where the encoder is, if not where the checkpoint says.")
    llm: str | None = option(None, "Where the LLM is, if not where the checkpoint says.")
    device: str = option("auto", "Device: auto, cpu, cuda, cuda:1, mps.")
    dtype: str = option("auto", "Dtype of the base models: auto (measured), fp32, bf16, fp16.")
    allow_mismatch: bool = option(False, "Accept other base models than the bridge was trained with.")


def options_of(
    settings: type[Any], names: Collection[str] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command an option per field of a settings class; the command receives them as keywords.

    Args:
        settings: a dataclass whose fields carry their help text in `metadata["help"]`.
        names: of the fields to take; None is all.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        hints = get_type_hints(settings)
        own = [
            p
            for p in inspect.signature(command, eval_str=True).parameters.values()
            if p.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        made = [
            inspect.Parameter(
                one.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=one.default if one.default is not MISSING else inspect.Parameter.empty,
                annotation=Annotated[hints[one.name], typer.Option(help=one.metadata["help"])],
            )
            for one in fields(settings)
            if names is None or one.name in names
        ]
        keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        command.__signature__ = inspect.Signature([*keyword, *made])  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in [*keyword, *made]}
        return command

    return decorate


def quiet() -> None:
    """Silence what the libraries print on their own; our own bars and lines say what goes on."""
    from huggingface_hub.utils.tqdm import disable_progress_bars
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    disable_progress_bars()


def load(checkpoint: str, **options: Any) -> PalamModel:
    """The checkpoint's model, in evaluation, where and how the options (fields of [`Loading`]) say.

    An unknown language is refused; an encoder that must be told the language knows its own.
    """
    from palam import languages
    from palam.device import pick_attention, pick_device, pick_dtype
    from palam.errors import PalamError
    from palam.model import PalamModel

    quiet()
    how = Loading(**options)
    language, place = how.language, pick_device(how.device)
    model = PalamModel.from_pretrained(
        checkpoint,
        how.encoder,
        how.llm,
        dtype=pick_dtype(how.dtype, place),
        device=place,
        attention=pick_attention(place),
        allow_mismatch=how.allow_mismatch,
    )
    told = hasattr(model.processor.encoder_tokenizer, "src_lang")
    if language is not None and not told and languages.lookup(language) is None:
        raise PalamError(f"language is {language!r}, which is unknown; give a code such as si or sin_Sinh")
    return model

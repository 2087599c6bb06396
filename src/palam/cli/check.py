"""`palam check`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from palam.cli._options import ConfigFile, silence_libraries
from palam.cli._output import print_text
from palam.errors import PalamError
from palam.tasks.readers import RowSource
from palam.training.config import FileFormat
from palam.utils.languages import find_language
from palam.utils.texts import printable

if TYPE_CHECKING:
    from palam.models.processing import PalamProcessor


@dataclass(frozen=True, kw_only=True)
class CheckedDataConfig:
    """What of the file is looked at.

    Raises:
        PalamError: an unknown language.
    """

    text_column: str = "text"
    """The text column, or a template over several: 'Q: {q} A: {a}'."""
    label_column: str | None = None
    """The label column; not set is label, where there is such a column."""
    file_format: Annotated[FileFormat | None, Parameter(name="--format")] = None
    """The file's format; not set is as its name ends."""
    sheet: str | None = None
    """The workbook's sheet; not set is the first."""
    merge_labels: bool = False
    """Of labels that differ only in case or space, make one."""
    language: str | None = None
    """Language of the texts, e.g. si or sin_Sinh; not set is not known."""

    def __post_init__(self) -> None:
        if self.language is not None and find_language(self.language) is None:
            raise PalamError(
                f"language is {self.language!r}, which is unknown; "
                "give a code such as si or sin_Sinh"
            )


CheckedDataOptions = Annotated[
    CheckedDataConfig, Parameter(name="*", group=Group("Data", sort_key=1))
]
WHOLE_FILE = CheckedDataConfig()


def check(
    file: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    encoder: str | None = None,
    config: ConfigFile = None,
    data: CheckedDataOptions = WHOLE_FILE,
) -> None:
    """Look at data before training.

    How many rows and labels there are, how long the texts are and in which scripts, and what is
    doubtful: empty and repeated texts, labels that look alike, too few rows. Lines about problems
    begin with an exclamation mark.

    Args:
        file: Labelled data or texts: .csv, .tsv, .xlsx, .parquet, .jsonl, .json, .txt; - is
            standard input.
        encoder: An encoder, or a bridge: also count the texts that it would cut and the tokens
            that it does not know.
    """
    from palam.tasks.inspection import EncoderView, inspect_file

    source = RowSource(file, file_format=data.file_format, sheet=data.sheet)
    inspected = inspect_file(
        source,
        text_column=data.text_column,
        label_column=data.label_column,
        merge_labels=data.merge_labels,
        language=data.language,
    )
    inspection = inspected.inspection
    if encoder is not None:
        processor = _load_processor(encoder)
        languages = [data.language] * len(inspected.texts)
        processor.encode_texts(inspected.texts, languages)
        inspection.encoder = EncoderView.of(processor.stats.values(), processor.max_length)
    lines = inspection.lines()
    if not inspection.problems():
        lines.append("no problems found")
    for line in lines:
        print_text(f"{printable(line)}\n")


def _load_processor(name: str) -> "PalamProcessor":
    """The processor of a bridge; of an encoder, one that knows its side alone."""
    from palam.models.backbones.loading import load_config, load_tokenizer
    from palam.models.configuration import PalamConfig
    from palam.models.new_processor import longest_text_of
    from palam.models.processing import PalamProcessor

    silence_libraries()
    path, model_config = load_config(name, "encoder", None)
    if isinstance(model_config, PalamConfig):
        return PalamProcessor.from_pretrained(path)
    tokenizer = load_tokenizer(name)
    return PalamProcessor(
        encoder_tokenizer=tokenizer,
        llm_tokenizer=tokenizer,
        encoder=name,
        max_length=longest_text_of(name, tokenizer),
    )

"""`palam lexicon`."""

import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.table import Column, Table

from palam.cli._options import DATA, RUN, ConfigFile, silence_libraries
from palam.cli._output import check_apart, check_file_writable, open_output, print_table
from palam.errors import PalamError
from palam.tasks.lexicon import COLUMNS
from palam.tasks.readers import RowSource, read_texts
from palam.tasks.writers import check_format, output_format, write_rows
from palam.training.config import PlacementConfig

if TYPE_CHECKING:
    from palam.alignment.lexicon_induction import InducedPair

PlacementOptions = Annotated[PlacementConfig, Parameter(name="*", group=RUN)]
PLACEMENT_DEFAULTS = PlacementConfig()
SCORE = "score"
"""The column of how near a word and its translation are."""


def lexicon(
    *,
    text_file: Annotated[Path, Parameter(group=DATA)],
    out: Path,
    text_column: Annotated[str, Parameter(group=DATA)] = "text",
    encoder: str = "starter:encoder",
    encoder_revision: str | None = None,
    prefix: str = "",
    config: ConfigFile = None,
    placement: PlacementOptions = PLACEMENT_DEFAULTS,
) -> None:
    """Find what other languages say for English words.

    The encoder's own vocabulary is the source: it reads each whole word there, and each word of the
    text, alone, and words near each other mean the same. `palam pretrain --lexicon` and `palam
    train --lexicon` then let the encoder read some words of an English text in other languages.

    Args:
        text_file: English; its words are translated, if they stand there three times; there must be
            200 of them.
        out: The lexicon: a word, a translation and its script a row, the script in the column
            `language`; .jsonl, .csv, .tsv, .xlsx, .parquet.
        text_column: The text's column, or a template over several, where the file is a table.
        encoder: Encoder: hub id, folder or starter:encoder.
        encoder_revision: The encoder's revision on the hub.
        prefix: Stands in front of each word, e.g. 'query: ' for E5, which was trained so.
    """
    check_file_writable(out)
    file_format = output_format(out)
    columns = (*COLUMNS, SCORE)
    check_format(file_format, columns)
    source = RowSource(text_file)
    check_apart([out], [text_file])
    from palam.alignment.lexicon_induction import (
        counted_words,
        induce_lexicon,
        words_to_read,
    )
    from palam.models.backbones.encoder import load_encoder
    from palam.models.backbones.loading import load_tokenizer
    from palam.utils.device import resolve_placement
    from palam.utils.progress import progress_bar

    silence_libraries()
    counts = counted_words(read_texts(source, column=text_column, option="--text-column"))
    tokenizer = load_tokenizer(encoder, encoder_revision)
    words, foreign = words_to_read(tokenizer, counts)
    place = resolve_placement(placement.device, placement.dtype, placement.load_in)
    loaded = load_encoder(
        encoder,
        revision=encoder_revision,
        device=place["device"],
        dtype=place["dtype"],
        attention=place["attention"],
        load_in=place["load_in"],
    )
    with progress_bar("the encoder reads words", len(words) + len(foreign)) as advance:
        pairs = list(induce_lexicon(loaded, tokenizer, words, foreign, advance, prefix=prefix))
    if not pairs:
        raise PalamError("no word of the text is near to a word of another language; nothing saved")
    rows = ({**dict(zip(COLUMNS, pair[:3], strict=True)), SCORE: pair.score} for pair in pairs)
    with open_output(out) as file:
        write_rows(rows, columns, file, file_format)
    print_table(_table(pairs, counts))
    print(f"{len(pairs):,} translations saved to {out}", file=sys.stderr)


def _table(pairs: "list[InducedPair]", counts: Mapping[str, int]) -> Table:
    """By script, how many words have a translation, and which share of the text they are."""
    words_by_script: dict[str, set[str]] = defaultdict(set)
    pairs_by_script = Counter(pair.script for pair in pairs)
    for pair in pairs:
        words_by_script[pair.script].add(pair.word)
    names = ("words", "translations", "of the text's words, %")
    columns = [Column(name, justify="right") for name in names]
    table = Table("script", *columns, box=None, padding=(0, 2, 0, 0))
    total = sum(counts.values())
    for script, num_pairs in pairs_by_script.most_common():
        words = words_by_script[script]
        covered = 100 * sum(counts[word] for word in words) / total
        table.add_row(script, f"{len(words):,}", f"{num_pairs:,}", f"{covered:.0f}")
    return table

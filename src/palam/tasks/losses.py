"""What a format of files cannot hold: replaced or cut, counted, and told at the end."""

import re
from dataclasses import dataclass

from palam.utils.notes import tell

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass
class Losses:
    """The values that could not be written as they are.

    Attributes:
        num_replaced: had characters that the format cannot hold.
        num_cut: were longer than the format's cells.
    """

    num_replaced: int = 0
    num_cut: int = 0

    def replaced(self, characters: re.Pattern[str], text: str) -> str:
        """The text with each of the characters replaced by `\\ufffd`, which is counted."""
        if characters.search(text) is None:
            return text
        self.num_replaced += 1
        return characters.sub(REPLACEMENT, text)

    def tell(self, file_format: str) -> None:
        """Say what there was, in a line each.

        Args:
            file_format: for the line, e.g. `.xlsx`.
        """
        if self.num_replaced:
            tell(
                f"cells with characters that {file_format} cannot hold, which are replaced by "
                f"{REPLACEMENT}: {self.num_replaced:,}"
            )
        if self.num_cut:
            tell(
                f"cells with more than the 32,767 characters that {file_format} can hold, after "
                f"which they are cut: {self.num_cut:,} (.csv, .jsonl and .parquet hold them whole)"
            )

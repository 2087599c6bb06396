"""English text for a general bridge: sentences of several kinds, each once, one a line.

A text of the sources that `starter:bridge` was trained on (docs/general_bridge.md), by rules that
are all here: sentences of an encyclopaedia and of web pages, WordNet's examples and definitions,
premises and hypotheses of inference, and sentences of maths questions. Lines that share six words
in a row with a text that the bridge is to be measured on are left out::

    python benchmarks/english_text.py --wiki wiki.txt --web web.txt --wordnet dict \\
        --nli nli.jsonl --maths maths.jsonl --leave-out *.eng_Latn.jsonl --out english.txt

`dict` is the folder of WordNet's `data.noun`, `data.verb`, `data.adj` and `data.adv`.
"""

import argparse
import random
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from palam.tasks.readers import read_texts
from palam.tasks.sampling import sentence_spans
from palam.utils.files import atomic_file

SHORTEST = 5
"""Words of a line, at least."""
LONGEST = 45
"""Words of a line, at most."""
SHARED_WORDS = 6
"""So many words in a row, the same as in a text to measure on, leave a line out."""
NUM_EXAMPLES = 8000
"""Of WordNet."""
NUM_DEFINITIONS = 3000
"""Of WordNet."""
NUM_INFERENCE = 1500
NUM_MATHS = 1500
GLUED = re.compile(r"(?<=[a-z)\]][.!?])(?=[A-Z])")
"""Where two paragraphs were joined without a space."""
WHOLE = re.compile(r"[.!?][\"'”’)\]]*$")
"""How a sentence ends; headings and what was cut do not."""
QUOTED = re.compile(r'"([^"]+)"')
MARKER = re.compile(r"\((a|p|ip)\)$")
"""Where an adjective may stand, behind its word."""
WORD = re.compile(r"\w+")


def sentences(paragraphs: Iterable[str]) -> Iterator[str]:
    """The whole sentences of paragraphs."""
    for paragraph in paragraphs:
        text = GLUED.sub(" ", paragraph)
        for start, end in sentence_spans(text):
            if WHOLE.search(text[start:end]):
                yield text[start:end]


def glosses(folder: Path) -> Iterator[tuple[str, str]]:
    """A word and the gloss of each meaning in WordNet.

    Args:
        folder: of its `data` files.
    """
    for part in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"data.{part}").read_text(encoding="utf-8").splitlines():
            if line.startswith(" "):  # the licence
                continue
            record, _, gloss = line.partition(" | ")
            word = MARKER.sub("", record.split()[4]).replace("_", " ")
            yield word, gloss.strip()


def wordnet_examples(folder: Path) -> Iterator[str]:
    """What stands in quotation marks in WordNet's glosses."""
    for _, gloss in glosses(folder):
        yield from QUOTED.findall(gloss)


def wordnet_definitions(folder: Path) -> Iterator[str]:
    """`word: definition` of WordNet's glosses."""
    for word, gloss in glosses(folder):
        definition = gloss.partition('"')[0].strip().rstrip(";")
        yield f"{word}: {definition}"


def premises_and_hypotheses(path: Path) -> Iterator[str]:
    """The texts of a file of inference."""
    for column in ("premise", "hypothesis"):
        yield from read_texts(path, column=column)


def runs_of_words(text: str) -> set[tuple[str, ...]]:
    """All its `SHARED_WORDS` words in a row, in lower case."""
    words = [word.lower() for word in WORD.findall(text)]
    return {
        tuple(words[start : start + SHARED_WORDS]) for start in range(len(words) - SHARED_WORDS + 1)
    }


class Lines:
    """Lines that are taken, each text once.

    Args:
        left_out: texts with which no line may share six words in a row.
        seed: of what is drawn.
    """

    def __init__(self, left_out: Iterable[str], seed: int) -> None:
        self.lines: list[str] = []
        self.num_shared = 0
        self._forbidden = {run for text in left_out for run in runs_of_words(text)}
        self._seen: set[str] = set()
        self._random = random.Random(seed)

    def take(self, texts: Iterable[str], most: int | None = None) -> tuple[int, int]:
        """Take texts of a source, or a sample of them.

        Args:
            texts: in any form of white space.
            most: so many, drawn; None is all.

        Returns:
            How many lines were taken, and how many words they hold.
        """
        lines = dict.fromkeys(" ".join(text.split()) for text in texts)
        usable = [line for line in lines if self._is_usable(line)]
        if most is not None and most < len(usable):
            usable = self._random.sample(usable, most)
        self.lines += usable
        self._seen.update(usable)
        return len(usable), sum(len(line.split()) for line in usable)

    def _is_usable(self, line: str) -> bool:
        if not SHORTEST <= len(line.split()) <= LONGEST or line in self._seen:
            return False
        if runs_of_words(line) & self._forbidden:
            self.num_shared += 1
            return False
        return True

    def shuffled(self) -> list[str]:
        """All lines, in an order that is drawn."""
        return self._random.sample(self.lines, len(self.lines))


def main() -> None:
    """Write the lines, and say what they are."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--wiki", type=Path, help="text of an encyclopaedia")
    parser.add_argument("--web", type=Path, help="text of web pages")
    parser.add_argument("--wordnet", type=Path, help="WordNet's folder dict")
    parser.add_argument("--nli", type=Path, help="JSON lines with premise and hypothesis")
    parser.add_argument("--maths", type=Path, help="JSON lines with question")
    parser.add_argument("--leave-out", type=Path, nargs="*", default=[], help="JSON lines: text")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    left_out = (text for path in options.leave_out for text in read_texts(path))
    lines = Lines(left_out, options.seed)
    sources: list[tuple[str, Path | None, Callable[[Path], Iterable[str]], int | None]] = [
        ("encyclopaedia", options.wiki, lambda path: sentences(read_texts(path)), None),
        ("web pages", options.web, lambda path: sentences(read_texts(path)), None),
        ("WordNet, examples", options.wordnet, wordnet_examples, NUM_EXAMPLES),
        ("WordNet, definitions", options.wordnet, wordnet_definitions, NUM_DEFINITIONS),
        ("inference", options.nli, premises_and_hypotheses, NUM_INFERENCE),
        (
            "maths",
            options.maths,
            lambda path: sentences(read_texts(path, column="question")),
            NUM_MATHS,
        ),
    ]
    for name, path, texts, most in sources:
        if path is not None:
            num_lines, num_words = lines.take(texts(path), most)
            print(f"{name}: {num_lines:,} lines, {num_words:,} words")
    with atomic_file(options.out) as file:
        file.writelines(line.encode() + b"\n" for line in lines.shuffled())
    print(f"{len(lines.lines):,} lines; {lines.num_shared:,} left out")


if __name__ == "__main__":
    main()

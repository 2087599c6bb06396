"""A lexicon out of the encoder's own vocabulary: no dictionary, no text in another language.

A multilingual encoder's vocabulary holds thousands of whole words of its languages. The encoder
reads each of them, and each English word, alone; words that lie near each other mean the same. What
a script moves all of its words by is taken out first, and near is meant by CSLS (Conneau et al.,
arXiv 1710.04087), which keeps a few words from being near to everything.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from palam.errors import PalamError
from palam.inference.batches import Progress
from palam.models.backbones.encoder import encode, encoder_max_length, mean_over_tokens
from palam.models.finite import check_finite
from palam.tasks.lexicon import parts_of_word, word_key
from palam.tasks.scripts import NO_SCRIPT, script_of

LEAST_COUNT = 3
"""How often a word stands in the text, at least, for translations to be looked for."""
LEAST_LETTERS = 2
"""Of a word in any language."""
MOST_LETTERS = 40
"""Of a word in any language, with their marks. What is longer is no word: a line of a language that
puts no spaces between words, or a row of letters; one would pad all words of its batch."""
LEAST_WORDS = 200
"""Of the text's own, and of a script in the vocabulary: with fewer, what their language or script
moves all of them by is not known, nor what is near."""
NEIGHBOURS = 10
"""By whose mean similarity CSLS lessens that of two words (k in the paper)."""
TRANSLATIONS = 2
"""Most of a word in a script."""
DOUBTFUL = 0.3
"""A pair is kept if it is nearer than this share of those that are nearest to each other."""
BATCH_SIZE = 512
"""Words that the encoder reads at a time."""
CHUNK = 500
"""Words that are compared with all others at a time."""


class InducedPair(NamedTuple):
    """A word and what another language says for it."""

    word: str
    translation: str
    script: str
    """Of the translation: what stands for its language."""
    score: float
    """CSLS: from −2 to 2, larger is nearer."""


def counted_words(texts: Iterable[str]) -> Counter[str]:
    """How often each word of letters stands in the texts, by its [`word_key`]."""
    counts: Counter[str] = Counter()
    for text in texts:
        for token in text.split():
            word = word_key(parts_of_word(token)[1])
            if _is_word(word):
                counts[word] += 1
    return counts


def vocabulary_words(tokenizer: Any) -> list[str]:
    """The whole words that are one token of a tokenizer's vocabulary, by their ids.

    Args:
        tokenizer: any of transformers'. Whether a token is a whole word is seen by tokenising it
            alone, so that no mark of a tokenizer's kind need be known.
    """
    words = []
    ids = []
    special = set(tokenizer.all_special_ids)
    by_id = sorted((token_id, token) for token, token_id in tokenizer.get_vocab().items())
    for token_id, token in by_id:
        word = tokenizer.convert_tokens_to_string([token]).strip()
        if token_id not in special and _is_word(word):
            words.append(word)
            ids.append(token_id)
    if not words:
        return []
    tokenized = tokenizer(words, add_special_tokens=False)["input_ids"]
    whole = []
    for word, token_id, own_ids in zip(words, ids, tokenized, strict=True):
        if own_ids == [token_id]:
            whole.append(word)
    return whole


def word_vectors(
    encoder: PreTrainedModel,
    tokenizer: Any,
    words: Sequence[str],
    progress: Progress | None = None,
    *,
    prefix: str = "",
) -> Tensor:
    """The mean of the encoder's last states of each word alone, special tokens with it.

    Args:
        encoder: of [`load_encoder`].
        tokenizer: its own.
        words: any strings.
        progress: called with how many words have been read.
        prefix: stands in front of each.

    Returns:
        [words, d_enc] in fp32 on the CPU, of as many tokens as the encoder reads.

    Raises:
        PalamError: a prefix that leaves no room for a word, or numbers that are not finite.
    """
    limit = encoder_max_length(encoder, tokenizer)
    if len(tokenizer(prefix)["input_ids"]) >= limit:
        raise PalamError(f"the prefix leaves no room for a word: the encoder reads {limit} tokens")
    vectors = []
    for start in range(0, len(words), BATCH_SIZE):
        texts = [prefix + word for word in words[start : start + BATCH_SIZE]]
        batch = tokenizer(
            texts, padding=True, truncation=True, max_length=limit, return_tensors="pt"
        ).to(encoder.device)
        mask = batch["attention_mask"]
        last = encode(encoder, batch["input_ids"], mask)[-1].float()
        vectors.append(mean_over_tokens(last, mask).cpu())
        if progress is not None:
            progress(len(texts))
    joined = torch.cat(vectors)
    check_finite(joined, "the encoder's states of its own words")
    return joined


def induced_pairs(
    words: Sequence[str], vectors: Tensor, foreign: Sequence[str], foreign_vectors: Tensor
) -> Iterator[InducedPair]:
    """What each script of the vocabulary says for each word, where it is near enough.

    Args:
        words: in whose language the bridge is trained.
        vectors: of each [n, d], see [`word_vectors`].
        foreign: words of other languages.
        foreign_vectors: of each [m, d].

    Yields:
        The pairs, script by script in the order of the alphabet; scripts of fewer than
        `LEAST_WORDS` words are left out.
    """
    for script, places in sorted(_places_by_script(foreign).items()):
        if len(places) < LEAST_WORDS:
            continue
        scores, nearest = nearest_words(vectors, foreign_vectors[places])
        for word, of_word, at in zip(words, scores.tolist(), nearest.tolist(), strict=True):
            for score, index in zip(of_word, at, strict=True):
                if score > -torch.inf:
                    yield InducedPair(word, foreign[places[index]], script, score)


def nearest_words(vectors: Tensor, foreign_vectors: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest words of another language by CSLS, each side's mean taken out.

    Args:
        vectors: [n, d].
        foreign_vectors: [m, d].

    Returns:
        Scores and indices [n, k] of the nearest ones, with k at most `TRANSLATIONS`; −inf are the
        scores of those that are too far: below the quantile `DOUBTFUL` of the scores of words that
        are nearest to each other.
    """
    ours = F.normalize(vectors - vectors.mean(0), dim=-1)
    theirs = F.normalize(foreign_vectors - foreign_vectors.mean(0), dim=-1)
    our_mean = _mean_of_nearest(ours, theirs)
    their_mean = _mean_of_nearest(theirs, ours)
    scores = []
    indices = []
    for rows, means in _parts(ours, our_mean):
        distances = 2 * rows @ theirs.T - means[:, None] - their_mean
        top = distances.topk(min(TRANSLATIONS, len(theirs)), dim=1)
        scores.append(top.values)
        indices.append(top.indices)
    back = []
    for rows, means in _parts(theirs, their_mean):
        back.append((2 * rows @ ours.T - means[:, None] - our_mean).argmax(1))
    all_scores, nearest = torch.cat(scores), torch.cat(indices)
    is_mutual = torch.cat(back)[nearest[:, 0]] == torch.arange(len(ours))
    mutual = all_scores[is_mutual, 0]
    least = mutual.quantile(DOUBTFUL) if len(mutual) else torch.tensor(torch.inf)
    return all_scores.masked_fill(all_scores < least, -torch.inf), nearest


def induce_lexicon(
    encoder: PreTrainedModel,
    tokenizer: Any,
    words: Sequence[str],
    foreign: Sequence[str],
    progress: Progress | None = None,
    *,
    prefix: str = "",
) -> Iterator[InducedPair]:
    """Translations of words by the encoder's own vocabulary.

    Args:
        encoder: of [`load_encoder`].
        tokenizer: its own.
        words, foreign: of [`words_to_read`].
        progress, prefix: see [`word_vectors`].

    Yields:
        The pairs of [`induced_pairs`].

    Raises:
        PalamError: see [`word_vectors`].
    """
    vectors = word_vectors(encoder, tokenizer, words, progress, prefix=prefix)
    foreign_vectors = word_vectors(encoder, tokenizer, foreign, progress, prefix=prefix)
    yield from induced_pairs(words, vectors, foreign, foreign_vectors)


def words_to_read(tokenizer: Any, counts: Mapping[str, int]) -> tuple[list[str], list[str]]:
    """The words to translate, and those to find translations among.

    Args:
        tokenizer: the encoder's.
        counts: of [`counted_words`].

    Returns:
        Words of the text, and those of the vocabulary whose scripts have enough of them there.

    Raises:
        PalamError: too few of either, or an encoder that must be told a text's language, which a
            word of its vocabulary does not have.
    """
    if hasattr(tokenizer, "src_lang"):
        raise PalamError(
            "this encoder must be told the language of what it reads, and its vocabulary does not "
            "say which a word is of; give a lexicon of your own"
        )
    words = [word for word, count in counts.items() if count >= LEAST_COUNT]
    if len(words) < LEAST_WORDS:
        raise PalamError(
            f"only {len(words)} words stand in the text {LEAST_COUNT} times; {LEAST_WORDS} are the "
            "least; give more text"
        )
    new = [word for word in vocabulary_words(tokenizer) if word_key(word) not in counts]
    places_by_script = _places_by_script(new)
    most = max(map(len, places_by_script.values()), default=0)
    if most < LEAST_WORDS:
        raise PalamError(
            f"the encoder's vocabulary has at most {most} whole words of a script that are not in "
            f"the text; {LEAST_WORDS} are the least"
        )
    enough = [places for places in places_by_script.values() if len(places) >= LEAST_WORDS]
    return words, [new[place] for place in sorted(chain.from_iterable(enough))]


def _places_by_script(words: Iterable[str]) -> dict[str, list[int]]:
    """Of each script that words are written in, where its words stand among them."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, word in enumerate(words):
        places[script_of(word)].append(place)
    places.pop(NO_SCRIPT, None)
    return places


def _is_word(word: str) -> bool:
    """Whether it is made of letters, with their marks: of enough, and not of too many of them."""
    if not LEAST_LETTERS <= len(word) <= MOST_LETTERS:
        return False
    return all(map(_is_letter, word)) and word[0].isalpha()


def _is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LM"


def _mean_of_nearest(rows: Tensor, others: Tensor) -> Tensor:
    """The mean similarity of each row with its `NEIGHBOURS` nearest others, [rows]."""
    count = min(NEIGHBOURS, len(others))
    means = []
    for (part,) in _parts(rows):
        means.append((part @ others.T).topk(count, dim=1).values.mean(1))
    return torch.cat(means)


def _parts(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """So many rows of each tensor at a time as are compared at once."""
    for start in range(0, len(tensors[0]), CHUNK):
        yield tuple(tensor[start : start + CHUNK] for tensor in tensors)

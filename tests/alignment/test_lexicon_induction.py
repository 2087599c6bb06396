"""Lexicons out of an encoder's own vocabulary, against a plain computation."""

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from palam import PalamError
from palam.alignment.lexicon_induction import (
    DOUBTFUL,
    LEAST_COUNT,
    LEAST_WORDS,
    MOST_LETTERS,
    NEIGHBOURS,
    TRANSLATIONS,
    counted_words,
    induced_pairs,
    nearest_words,
    vocabulary_words,
    word_vectors,
    words_to_read,
)
from palam.models.backbones.encoder import encoder_max_length, load_encoder
from palam.models.backbones.loading import load_tokenizer
from palam.tasks.scripts import script_of


def some_vectors(rows=260, width=12, noise=0.4, seed=0):
    """Words of one language, and the same ones of another: moved, disturbed, in another order."""
    generator = np.random.default_rng(seed)
    ours = generator.normal(size=(rows, width))
    order = generator.permutation(rows)
    moved = ours[order] + 5 * generator.normal(size=width)
    theirs = moved + noise * generator.normal(size=(rows, width))
    return ours, theirs, np.argsort(order)


def plain_csls(ours, theirs):
    """CSLS of all pairs, word by word."""

    def unit(vectors):
        centred = vectors - vectors.mean(0)
        return centred / np.linalg.norm(centred, axis=1, keepdims=True)

    cosine = unit(ours) @ unit(theirs).T
    scores = np.empty_like(cosine)
    for i in range(len(ours)):
        for j in range(len(theirs)):
            near_i = np.sort(cosine[i])[-NEIGHBOURS:].mean()
            near_j = np.sort(cosine[:, j])[-NEIGHBOURS:].mean()
            scores[i, j] = 2 * cosine[i, j] - near_i - near_j
    return scores


def test_the_nearest_words_are_those_of_a_plain_computation(monkeypatch):
    monkeypatch.setattr("palam.alignment.lexicon_induction.CHUNK", 70)
    ours, theirs, _ = some_vectors(rows=150, noise=1.2)
    scores, nearest = nearest_words(torch.from_numpy(ours), torch.from_numpy(theirs))
    expected = plain_csls(ours, theirs)
    best = np.argsort(-expected, axis=1)[:, :TRANSLATIONS]
    np.testing.assert_array_equal(nearest.numpy(), best)
    best_scores = np.take_along_axis(expected, best, axis=1)
    rows = np.arange(150)
    is_mutual = expected.argmax(0)[best[:, 0]] == rows
    least = np.quantile(best_scores[is_mutual, 0], DOUBTFUL)
    kept = best_scores >= least - 1e-12
    assert 20 < kept.sum() < kept.size
    np.testing.assert_array_equal(torch.isfinite(scores).numpy(), kept)
    np.testing.assert_allclose(scores.numpy()[kept], best_scores[kept], atol=1e-9)


def test_translations_are_found_though_the_other_language_lies_elsewhere():
    ours, theirs, place = some_vectors()
    scores, nearest = nearest_words(torch.from_numpy(ours), torch.from_numpy(theirs))
    kept = torch.isfinite(scores[:, 0]).numpy()
    right = nearest[:, 0].numpy() == place
    assert kept.mean() > 0.6
    assert right[kept].mean() > 0.95


def test_pairs_are_of_scripts_with_enough_words():
    ours, theirs, _ = some_vectors(rows=LEAST_WORDS + 20)
    words = [f"w{number}" for number in range(len(ours))]
    letters = []
    for number in range(len(ours)):
        letters.append(chr(0x0D85 + number % 15) + chr(0x0D9A + number // 15))
    foreign = [*letters, "வீடு", "நீர்"]
    vectors = torch.from_numpy(np.concatenate([theirs, theirs[:2]]))
    pairs = list(induced_pairs(words, torch.from_numpy(ours), foreign, vectors))
    assert {pair.script for pair in pairs} == {"Sinhala"}
    assert {pair.translation for pair in pairs} <= set(letters)
    assert all(-2 <= pair.score <= 2 for pair in pairs)
    assert not list(induced_pairs(words, torch.from_numpy(ours), foreign[-2:], vectors[-2:]))


def test_words_are_counted_in_small_letters_without_signs_and_numbers():
    counts = counted_words(['The "water", the Water;', "a 17th don't — water2 water"])
    assert counts == {"the": 2, "water": 3}
    assert counted_words(["Caf\u00e9 cafe\u0301"]) == {"caf\u00e9": 2}


def test_what_is_longer_than_a_word_is_not_counted():
    longest = "w" * MOST_LETTERS
    chinese = "孩子们在学校读一本好书" * 5
    counts = counted_words([f"{longest} {longest}w", f"{'w' * 300} {chinese}"])
    assert counts == {longest: 1}


@pytest.mark.parametrize("family", ["bert", "t5", "xlmr"])
def test_whole_words_are_one_token_alone(base_folder, family):
    folder = base_folder(family)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    words = vocabulary_words(tokenizer)
    for word in words:
        assert len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1
        assert word == word.strip()
    special = set(tokenizer.all_special_tokens)
    assert not special & set(words)


@pytest.mark.starter
def test_the_starter_encoders_vocabulary_holds_words_of_many_languages():
    words = set(vocabulary_words(load_tokenizer("starter:encoder")))
    assert {"ගෙදර", "வீடு", "ውሃ", "पानी", "maison", "nyumbani"} <= words
    assert len(words) > 100_000


@pytest.mark.starter
def test_the_starter_encoder_knows_what_common_words_mean():
    encoder = load_encoder("starter:encoder")
    tokenizer = load_tokenizer("starter:encoder")
    english = ["water", "war", "morning", "river", "government", "history", "king", "village"]
    hindi = ["पानी", "युद्ध", "सुबह", "नदी", "सरकार", "इतिहास", "राजा", "गांव"]
    _, nearest = nearest_words(
        word_vectors(encoder, tokenizer, english), word_vectors(encoder, tokenizer, hindi)
    )
    assert nearest[:, 0].tolist() == list(range(8))


def test_a_word_is_read_alike_alone_and_among_others(base_folder):
    folder = str(base_folder("bert"))
    encoder, tokenizer = load_encoder(folder), load_tokenizer(folder)
    words = ["water", "unbelievable", "a", "මම"]
    told = []
    together = word_vectors(encoder, tokenizer, words, told.append)
    alone = torch.cat([word_vectors(encoder, tokenizer, [word]) for word in words])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert told == [4]
    prefixed = word_vectors(encoder, tokenizer, words, prefix="a ")
    expected = word_vectors(encoder, tokenizer, [f"a {word}" for word in words])
    torch.testing.assert_close(prefixed, expected)


def test_the_encoder_reads_as_much_of_a_word_as_it_can(base_folder):
    folder = str(base_folder("bert"))
    encoder, tokenizer = load_encoder(folder), load_tokenizer(folder)
    limit = encoder_max_length(encoder, tokenizer)
    vectors = word_vectors(encoder, tokenizer, ["z" * 3 * limit, "z" * 4 * limit])
    torch.testing.assert_close(vectors[0], vectors[1])
    with pytest.raises(PalamError, match=f"no room for a word: the encoder reads {limit} tokens"):
        word_vectors(encoder, tokenizer, ["water"], prefix="z " * limit)


class FakeTokenizer:
    """A vocabulary of so many words."""

    all_special_ids = ()

    def __init__(self, size):
        self.size = size

    def get_vocab(self):
        return {self.word(number): number for number in range(self.size)}

    def word(self, number):
        return "".join(chr(0x0915 + int(digit)) for digit in f"{number:04}")

    def convert_tokens_to_string(self, tokens):
        return "".join(tokens)

    def __call__(self, words, add_special_tokens):
        vocab = self.get_vocab()
        return {"input_ids": [[vocab[word]] for word in words]}


def counted(num_words, count=LEAST_COUNT):
    """So many English words that stand in the text so often."""
    return {f"water{number}": count for number in range(num_words)}


def test_words_that_the_text_has_too_are_no_translations():
    tokenizer = FakeTokenizer(LEAST_WORDS + 5)
    counts = {**counted(LEAST_WORDS), "rare": 2, tokenizer.word(7): 1}
    words, foreign = words_to_read(tokenizer, counts)
    assert words == list(counted(LEAST_WORDS))
    assert len(foreign) == LEAST_WORDS + 4
    assert tokenizer.word(7) not in foreign


class TwoScripts(FakeTokenizer):
    """A vocabulary whose first words are in another script than the rest."""

    others = 0

    def word(self, number):
        word = super().word(number)
        if number >= self.others:
            return word
        return "".join(chr(ord(letter) + 0x80) for letter in word)  # Bengali, by the same letters


def test_words_of_a_script_that_has_too_few_are_not_read():
    tokenizer = TwoScripts(LEAST_WORDS + 50)
    tokenizer.others = 50
    _, foreign = words_to_read(tokenizer, counted(LEAST_WORDS))
    assert set(map(script_of, foreign)) == {"Devanagari"}
    assert len(foreign) == LEAST_WORDS
    tokenizer.others = 51
    with pytest.raises(PalamError, match=f"at most {LEAST_WORDS - 1} whole words of a script"):
        words_to_read(tokenizer, counted(LEAST_WORDS))


def test_what_is_too_little_is_said():
    with pytest.raises(PalamError, match="only 0 words stand in the text 3 times; 200 are"):
        words_to_read(FakeTokenizer(900), counted(300, LEAST_COUNT - 1))
    with pytest.raises(PalamError, match="only 199 words stand in the text"):
        words_to_read(FakeTokenizer(900), counted(LEAST_WORDS - 1))
    with pytest.raises(PalamError, match="at most 20 whole words"):
        words_to_read(FakeTokenizer(20), counted(LEAST_WORDS))
    told = FakeTokenizer(900)
    told.src_lang = "eng_Latn"
    with pytest.raises(PalamError, match="must be told the language"):
        words_to_read(told, counted(LEAST_WORDS))

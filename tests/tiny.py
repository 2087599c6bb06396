"""Tiny random base models with fast tokenizers, written to a folder: what the tests are built on.

Every builder gives the same files each time. Weights are large enough (standard deviation 0.3) for
two inputs to give clearly different outputs. Checkpoints have the form that published ones have: T5
and M2M100 are saved whole, with decoder and head; XLM-R and ModernBERT under a masked-language
head; BERT with a pooler.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers as tf
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

FAMILIES = ("t5", "mt5", "umt5", "m2m100", "nllb", "xlmr", "bert", "modernbert")
LLMS = ("llama", "gemma3", "gpt2", "opt", "qwen")
LANGUAGES = ("eng_Latn", "sin_Sinh", "tam_Taml", "amh_Ethi")
"""The codes that the NLLB tokenizer knows."""
LAYERS = 3
"""Of each encoder; its decoder has 2."""

TEXT = {
    "en": (
        "The quick brown fox jumps over the lazy dog. I am going home. The children read a book"
        " at school. The match was won by the national team. Scientists found water on the Moon."
        " The rice price went up. Premise: the man sleeps. Hypothesis: the man is awake. Label:"
        " entailment, neutral, contradiction. What is the text about? Topic: sports,"
        " science/technology, politics, health, travel, entertainment."
    ),
    "si": (
        "මම ගෙදර යනවා. ළමයි පාසලේදී හොඳ පොතක් කියවති. ජාතික කණ්ඩායම තරගය ජය ගත්තේය. ශ්‍රී ලංකාවේ සහල් මිල ඉහළ ගියා."
    ),
    "ta": ("நான் வீட்டிற்கு செல்கிறேன். குழந்தைகள் பள்ளியில் நல்ல புத்தகம் படிக்கிறார்கள். அரிசி விலை உயர்ந்தது."),
    "am": "ወደ ቤት እሄዳለሁ። ልጆቹ በትምህርት ቤት ጥሩ መጽሐፍ ያነባሉ። የሩዝ ዋጋ ጨመረ።",
    "hi": "मैं घर जा रहा हूँ। बच्चे स्कूल में अच्छी किताब पढ़ते हैं। चावल की कीमत बढ़ गई।",
    "ar": "أنا ذاهب إلى البيت. يقرأ الأطفال كتابا جيدا في المدرسة. ارتفع سعر الأرز.",
    "zh": "我要回家。孩子们在学校读一本好书。米价上涨了。",
}
ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?'\"()/-_"


class Architecture(NamedTuple):
    """How a family is made: its tokenizer, its classes in transformers, its configuration."""

    tokenizer: tf.PreTrainedTokenizerFast
    config_class: str
    model_class: str
    options: dict[str, Any]


# ------------------------------------------------------------------ tokenizers
def pieces(mark: str, size: int) -> list[str]:
    """Every character of TEXT and ALPHABET, then the commonest substrings of its words.

    There are `size` of them. One that begins a word has `mark` in front (SentencePiece's "▁").
    Sorted, so that the order is always the same (the trainers of `tokenizers` give another
    vocabulary in every process).
    """
    characters = sorted(set("".join(TEXT.values()) + ALPHABET) - {" "})
    count: Counter[str] = Counter()
    for text in TEXT.values():
        for word in text.split():
            marked = mark + word
            for end in range(2, len(marked) + 1):
                for start in range(max(0, end - 6), end - 1):
                    count[marked[start:end]] += end - start - 1
    common = sorted(count, key=lambda piece: (-count[piece], piece))
    # A mark of its own, for words whose first character never begins a word of TEXT.
    marks = [mark] if mark else []
    return [*dict.fromkeys([*marks, *characters, *common])][:size]


def unigram(specials: list[str], unk: str, frame: tuple[str, str], size: int = 560) -> Tokenizer:
    """A SentencePiece-like tokenizer; longer pieces score better, as in a trained one."""
    vocabulary = [(special, 0.0) for special in specials]
    vocabulary += [(piece, -12.0 + 1.5 * len(piece)) for piece in pieces("▁", size)]
    unigrams = models.Unigram(vocabulary, unk_id=specials.index(unk), byte_fallback=False)
    tokenizer = Tokenizer(unigrams)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return framed(tokenizer, specials, frame)


def wordpiece(specials: list[str], size: int = 560) -> Tokenizer:
    """A BERT-like tokenizer with accents kept."""
    half = pieces("", size)
    half = half[: len(half) // 2]
    words = specials + half + ["##" + piece for piece in half]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return framed(tokenizer, specials, ("[CLS]", "[SEP]"))


def byte_bpe(specials: list[str], bos: str = "", size: int = 420) -> Tokenizer:
    """A byte-level BPE tokenizer (GPT-2, Llama 3); `bos` is put in front of every text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT.values(), trainer)
    return framed(tokenizer, specials, (bos, ""))


def framed(tokenizer: Tokenizer, specials: list[str], frame: tuple[str, str]) -> Tokenizer:
    """Register the special tokens and put the frame's around every text."""
    tokenizer.add_special_tokens(specials)
    before, after = frame
    single = [part for part in (before, "$A", after) if part]
    if len(single) > 1:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=single,
            pair=[part for part in (before, "$A", after, "$B", after) if part],
            special_tokens=[
                (part, tokenizer.token_to_id(part)) for part in {before, after} if part
            ],
        )
    return tokenizer


def fast(tokenizer: Tokenizer, **names: Any) -> tf.PreTrainedTokenizerFast:
    return tf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def sentencepiece_t5() -> tf.PreTrainedTokenizerFast:
    tokenizer = unigram(["<pad>", "</s>", "<unk>"], "<unk>", ("", "</s>"))
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return fast(tokenizer, model_max_length=512, **names)


def sentencepiece_xlmr() -> tf.PreTrainedTokenizerFast:
    tokenizer = unigram(["<s>", "<pad>", "</s>", "<unk>", "<mask>"], "<unk>", ("<s>", "</s>"))
    return fast(
        tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=128,
    )


def bert_tokenizer() -> tf.PreTrainedTokenizerFast:
    tokenizer = wordpiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    names = {f"{n}_token": f"[{n.upper()}]" for n in ("pad", "unk", "cls", "sep", "mask")}
    return fast(tokenizer, model_max_length=128, **names)


def nllb_tokenizer() -> tf.PreTrainedTokenizerFast:
    """NLLB's own class: `<code> tokens </s>`, where `src_lang` (a property) gives the code."""
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace()
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(vocab_size=520, special_tokens=specials, show_progress=False)
    bpe.train_from_iterator([*TEXT.values(), *ALPHABET], trainer)
    merges = json.loads(bpe.to_str())["model"]["merges"]
    return tf.NllbTokenizer(
        vocab=bpe.get_vocab(),
        merges=[tuple(pair) for pair in merges],
        additional_special_tokens=list(LANGUAGES),
        model_max_length=256,
    )


# ------------------------------------------------------------------ kinds of LLM tokenizers
WORDS_AND_LINES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Llama 3 and its kin split a text: punctuation takes in the line breaks after it."""
LINES = [f"{text.replace('.', '.' + chr(10))} Topic: a.\n" for text in TEXT.values()] * 5
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}"
)
"""A chat template of the kind of Qwen 3's: an answer stands behind an empty thought."""
INSTRUCTION = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}"
    " {{ m['content'] }} {{ eos_token }}{% elif m['role'] == 'user' %}"
    "[INST] {{ m['content'] }} [/INST]{% else %}{{ raise_exception('no system prompt') }}"
    "{% endif %}{% endfor %}"
)
"""One of the kind of Llama 2's, without control tokens around a turn and without system prompts."""


def trained_bpe(tokenizer: Tokenizer, specials: list[str], size: int) -> tuple[dict, list]:
    """Vocabulary and merges of a BPE tokenizer that splits as `tokenizer` does."""
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def merging_lines(specials: list[str], bos: str = "") -> Tokenizer:
    """Byte-level BPE in which a full stop and the line break after it are one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS_AND_LINES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trained_bpe(tokenizer, specials, 600)
    return framed(tokenizer, specials, (bos, ""))


def byte_fallback(legacy: bool) -> Tokenizer:
    """SentencePiece's BPE: a dummy space in front, bytes of characters that it does not know.

    Args:
        legacy: the space is put in front of every stretch between control tokens (as Llama 2's
            first files have it), not of the text alone.
    """
    specials = ["<unk>", "<s>", "</s>"]
    scratch = Tokenizer(models.BPE())
    scratch.pre_tokenizer = pre_tokenizers.Metaspace()
    vocabulary, merges = trained_bpe(scratch, specials, 700)
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    if legacy:
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return framed(tokenizer, specials, ("<s>", ""))


def kind_of_tokenizer(kind: str) -> tf.PreTrainedTokenizerFast:
    """An LLM's tokenizer of one of KINDS.

    merging: byte-level, merges `.` and a line break; BOS; a chat template with an end of turn that
    is not its EOS. thinking: byte-level, its BOS is defined and never put; a thinking chat template
    whose `<think>` is no special token. metaspace, legacy: SentencePiece with a dummy space; a chat
    template of words.
    """
    if kind == "merging":
        roles = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
        names = {"bos_token": "<s>", "eos_token": "</s>"}
        tokenizer = fast(merging_lines(["<s>", "</s>", *roles], bos="<s>"), **names)
        tokenizer.chat_template = CHAT
    elif kind == "thinking":
        specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        names = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
        bpe = merging_lines(specials)
        bpe.add_tokens(["<think>", "</think>"])
        tokenizer = fast(bpe, **names)
        tokenizer.chat_template = THINKING
    else:
        names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        tokenizer = fast(byte_fallback(legacy=kind == "legacy"), **names)
        tokenizer.chat_template = INSTRUCTION
    return tokenizer


KINDS = ("merging", "thinking", "metaspace", "legacy")


# ------------------------------------------------------------------ encoders
def tiny_encoder(folder: str | Path, family: str, seed: int = 0, **settings: Any) -> Path:
    """Write a tiny random encoder of a family, as published ones are, and its tokenizer.

    Width 32, 3 layers, float32.

    Args:
        folder: it is returned.
        family: one of FAMILIES.
        seed: of the weights.
        **settings: of the config.
    """
    torch.manual_seed(seed)
    return build(folder, ENCODERS[family](family), settings)


def t5(family: str) -> Architecture:
    name = {"t5": "T5", "mt5": "MT5", "umt5": "UMT5"}[family]
    options = {
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 64,
        "num_layers": LAYERS,
        "num_decoder_layers": 2,
        "num_heads": 4,
        "relative_attention_num_buckets": 8,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }
    return Architecture(sentencepiece_t5(), name, f"{name}ForConditionalGeneration", options)


def m2m100(family: str) -> Architecture:
    options = {
        "d_model": 32,
        "encoder_layers": LAYERS,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "init_std": 0.3,
        "max_position_embeddings": 128,
        "scale_embedding": family == "nllb",
    }
    return Architecture(nllb_tokenizer(), "M2M100", "M2M100ForConditionalGeneration", options)


def bert_like(positions: int, types: int) -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": positions,
        "initializer_range": 0.3,
        "type_vocab_size": types,
    }


def bert(family: str) -> Architecture:
    return Architecture(bert_tokenizer(), "Bert", "BertModel", bert_like(128, 2))


def xlmr(family: str) -> Architecture:
    special_ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    options = {**bert_like(130, 1), **special_ids}
    return Architecture(sentencepiece_xlmr(), "XLMRoberta", "XLMRobertaForMaskedLM", options)


def modernbert(family: str) -> Architecture:
    options = {
        "hidden_size": 32,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 256,
        "initializer_range": 0.3,
        "initializer_cutoff_factor": 2.0,
        "local_attention": 16,
        "global_attn_every_n_layers": 2,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "cls_token_id": 0,
        "eos_token_id": 2,
        "sep_token_id": 2,
        "reference_compile": False,
    }
    return Architecture(sentencepiece_xlmr(), "ModernBert", "ModernBertForMaskedLM", options)


ENCODERS = {
    "t5": t5,
    "mt5": t5,
    "umt5": t5,
    "m2m100": m2m100,
    "nllb": m2m100,
    "xlmr": xlmr,
    "bert": bert,
    "modernbert": modernbert,
}


# ------------------------------------------------------------------ LLMs
CHAT = (
    "{{ bos_token }}"
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def tiny_llm(folder: str | Path, family: str, seed: int = 0, **settings: Any) -> Path:
    """Write a tiny random decoder-only model of a family and its byte-level tokenizer.

    Width 32 (gemma3 scales its embeddings inside the module), 2 layers, 256 positions, float32.
    llama: BOS, a chat template, EOS and padding of their own. gemma3: BOS. opt: BOS is also its
    EOS. gpt2, qwen: no BOS; gpt2 has no padding token either.

    Args:
        folder: it is returned.
        family: one of LLMS.
        seed: of the weights.
        **settings: of the config.
    """
    torch.manual_seed(seed)
    architecture = DECODERS[family]()
    for special in ("bos", "eos", "pad"):
        name = f"{special}_token_id"
        architecture.options[name] = getattr(architecture.tokenizer, name)
    return build(folder, architecture, settings)


def llama_like() -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 256,
        "initializer_range": 0.3,
    }


def llama() -> Architecture:
    roles = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    bpe = byte_bpe(["<s>", "</s>", "<pad>", *roles], bos="<s>")
    tokenizer = fast(bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    tokenizer.chat_template = CHAT
    return Architecture(tokenizer, "Llama", "LlamaForCausalLM", llama_like())


def gemma3() -> Architecture:
    bpe = byte_bpe(["<pad>", "<eos>", "<bos>"], bos="<bos>")
    tokenizer = fast(bpe, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")
    options = {
        **llama_like(),
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"],
    }
    return Architecture(tokenizer, "Gemma3Text", "Gemma3ForCausalLM", options)


def gpt2() -> Architecture:
    tokenizer = fast(byte_bpe(["<|endoftext|>"]), eos_token="<|endoftext|>")
    options = {
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 256,
        "initializer_range": 0.3,
    }
    return Architecture(tokenizer, "GPT2", "GPT2LMHeadModel", options)


def opt() -> Architecture:
    bpe = byte_bpe(["<pad>", "</s>"], bos="</s>")
    tokenizer = fast(bpe, bos_token="</s>", eos_token="</s>", pad_token="<pad>")
    options = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_dim": 64,
        "max_position_embeddings": 256,
        "word_embed_proj_dim": 32,
        "init_std": 0.3,
    }
    return Architecture(tokenizer, "OPT", "OPTForCausalLM", options)


def qwen() -> Architecture:
    bpe = byte_bpe(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer = fast(bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    options = {**llama_like(), "tie_word_embeddings": True}
    return Architecture(tokenizer, "Qwen2", "Qwen2ForCausalLM", options)


DECODERS = {"llama": llama, "gemma3": gemma3, "gpt2": gpt2, "opt": opt, "qwen": qwen}


def build(folder: str | Path, architecture: Architecture, settings: dict[str, Any]) -> Path:
    """Write a random model and its tokenizer to a folder, which is returned."""
    tokenizer, config_class, model_class, options = architecture
    options = {"vocab_size": len(tokenizer), **options, **settings}
    config = getattr(tf, f"{config_class}Config")(**options)
    model = getattr(tf, model_class)(config).eval()
    # Biases and norms start as zeros and ones, which hide a tensor that is mixed up.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)

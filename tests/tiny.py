"""Tiny random base models with fast tokenizers, written to a folder: what the other tests are built on.

Every builder gives the same files each time. Weights are large enough (standard deviation 0.3) for two
inputs to give clearly different outputs. Checkpoints have the form that published ones have: T5 and M2M100
are saved whole, with decoder and head; XLM-R and ModernBERT under a masked-language head; BERT with a pooler.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

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
LANGUAGES = (
    "eng_Latn",
    "sin_Sinh",
    "tam_Taml",
    "amh_Ethi",
)  # the codes that the NLLB tokenizer knows
LAYERS = 3  # of each encoder; its decoder has 2

TEXT = {
    "en": (
        "The quick brown fox jumps over the lazy dog. I am going home. The children read a book at school."
        " The match was won by the national team. Scientists found water on the Moon. The rice price went up."
        " Premise: the man sleeps. Hypothesis: the man is awake. Label: entailment, neutral, contradiction."
        " What is the text about? Topic: sports, science/technology, politics, health, travel, entertainment."
    ),
    "si": "මම ගෙදර යනවා. ළමයි පාසලේදී හොඳ පොතක් කියවති. ජාතික කණ්ඩායම තරගය ජය ගත්තේය. ශ්‍රී ලංකාවේ සහල් මිල ඉහළ ගියා.",
    "ta": "நான் வீட்டிற்கு செல்கிறேன். குழந்தைகள் பள்ளியில் நல்ல புத்தகம் படிக்கிறார்கள். அரிசி விலை உயர்ந்தது.",
    "am": "ወደ ቤት እሄዳለሁ። ልጆቹ በትምህርት ቤት ጥሩ መጽሐፍ ያነባሉ። የሩዝ ዋጋ ጨመረ።",
    "hi": "मैं घर जा रहा हूँ। बच्चे स्कूल में अच्छी किताब पढ़ते हैं। चावल की कीमत बढ़ गई।",
    "ar": "أنا ذاهب إلى البيت. يقرأ الأطفال كتابا جيدا في المدرسة. ارتفع سعر الأرز.",
    "zh": "我要回家。孩子们在学校读一本好书。米价上涨了。",
}
ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?'\"()/-_"


def pieces(mark: str, size: int) -> list[str]:
    """Every character of TEXT and ALPHABET, then the commonest substrings of its words: `size` pieces.

    A piece that begins a word has `mark` in front (SentencePiece's "▁"). Sorted, so that the order is always
    the same (the trainers of `tokenizers` give another vocabulary in every process).
    """
    characters = sorted(set("".join(TEXT.values()) + ALPHABET) - {" "})
    count: Counter[str] = Counter()
    for text in TEXT.values():
        for word in (mark + w for w in text.split()):
            for end in range(2, len(word) + 1):
                for start in range(max(0, end - 6), end - 1):
                    count[word[start:end]] += end - start - 1
    common = sorted(count, key=lambda piece: (-count[piece], piece))
    # A mark of its own, for words whose first character never begins a word of TEXT.
    return [*dict.fromkeys([mark] * bool(mark) + characters + common)][:size]


def unigram(specials: list[str], unk: str, frame: tuple[str, str], size: int = 560) -> Tokenizer:
    """A SentencePiece-like tokenizer; longer pieces score better, as in a trained one."""
    vocab = [(s, 0.0) for s in specials] + [(p, -12.0 + 1.5 * len(p)) for p in pieces("▁", size)]
    made = Tokenizer(models.Unigram(vocab, unk_id=specials.index(unk), byte_fallback=False))
    made.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    return framed(made, specials, frame)


def wordpiece(specials: list[str], size: int = 560) -> Tokenizer:
    """A BERT-like tokenizer with accents kept."""
    plain = pieces("", size)
    words = specials + plain[: len(plain) // 2] + ["##" + p for p in plain[: len(plain) // 2]]
    made = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    return framed(made, specials, ("[CLS]", "[SEP]"))


def byte_bpe(specials: list[str], bos: str = "", size: int = 420) -> Tokenizer:
    """A byte-level BPE tokenizer (GPT-2, Llama 3); `bos` is put in front of every text."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made.train_from_iterator(
        TEXT.values(),
        trainers.BpeTrainer(
            vocab_size=size, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
        ),
    )
    return framed(made, specials, (bos, ""))


def framed(made: Tokenizer, specials: list[str], frame: tuple[str, str]) -> Tokenizer:
    """Register the special tokens and put the frame's around every text."""
    made.add_special_tokens(specials)
    before, after = frame
    one = [s for s in (before, "$A", after) if s]
    if len(one) > 1:
        made.post_processor = processors.TemplateProcessing(
            single=one,
            pair=[s for s in (before, "$A", after, "$B", after) if s],
            special_tokens=[(s, made.token_to_id(s)) for s in {before, after} if s],
        )
    return made


def fast(made: Tokenizer, **names: Any) -> tf.PreTrainedTokenizerFast:
    return tf.PreTrainedTokenizerFast(tokenizer_object=made, **names)


def sentencepiece_t5() -> tf.PreTrainedTokenizerFast:
    made = unigram(["<pad>", "</s>", "<unk>"], "<unk>", ("", "</s>"))
    return fast(made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512)


def sentencepiece_xlmr() -> tf.PreTrainedTokenizerFast:
    made = unigram(["<s>", "<pad>", "</s>", "<unk>", "<mask>"], "<unk>", ("<s>", "</s>"))
    names = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
    return fast(
        made,
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=128,
        **names,
    )


def bert_tokenizer() -> tf.PreTrainedTokenizerFast:
    made = wordpiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    names = {f"{n}_token": f"[{n.upper()}]" for n in ("pad", "unk", "cls", "sep", "mask")}
    return fast(made, model_max_length=128, **names)


def nllb_tokenizer() -> tf.PreTrainedTokenizerFast:
    """NLLB's own class: `<code> tokens </s>`, where `src_lang` (a property) gives the code."""
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace()
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    bpe.train_from_iterator(
        [*TEXT.values(), *ALPHABET],
        trainers.BpeTrainer(vocab_size=520, special_tokens=specials, show_progress=False),
    )
    vocab = bpe.get_vocab()
    merges = [tuple(m) for m in json.loads(bpe.to_str())["model"]["merges"]]
    return tf.NllbTokenizer(
        vocab=vocab, merges=merges, additional_special_tokens=list(LANGUAGES), model_max_length=256
    )


# --------------------------------------------------------------------------- encoders
def tiny_encoder(folder: str | Path, family: str, seed: int = 0, **settings: Any) -> Path:
    """Write a tiny random encoder of this family (FAMILIES), as published ones are, and its tokenizer.

    Width 32, 3 layers, float32. `settings` go to the config. Returns the folder.
    """
    torch.manual_seed(seed)
    if family in ("t5", "mt5", "umt5"):
        tokenizer = sentencepiece_t5()
        name = {"t5": "T5", "mt5": "MT5", "umt5": "UMT5"}[family]
        options = {
            "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": LAYERS, "num_decoder_layers": 2,
            "num_heads": 4, "relative_attention_num_buckets": 8, "decoder_start_token_id": 0,
            "pad_token_id": 0, "eos_token_id": 1,
        }  # fmt: skip
        kind = f"{name}ForConditionalGeneration"
    elif family in ("m2m100", "nllb"):
        tokenizer, name, kind = nllb_tokenizer(), "M2M100", "M2M100ForConditionalGeneration"
        options = {
            "d_model": 32, "encoder_layers": LAYERS, "decoder_layers": 2, "encoder_attention_heads": 4,
            "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "init_std": 0.3,
            "max_position_embeddings": 128, "scale_embedding": family == "nllb",
        }  # fmt: skip
    elif family in ("xlmr", "bert"):
        name, kind = (
            ("XLMRoberta", "XLMRobertaForMaskedLM") if family == "xlmr" else ("Bert", "BertModel")
        )
        tokenizer = sentencepiece_xlmr() if family == "xlmr" else bert_tokenizer()
        options = {
            "hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "intermediate_size": 64,
            "max_position_embeddings": 130 if family == "xlmr" else 128, "initializer_range": 0.3,
            "type_vocab_size": 1 if family == "xlmr" else 2,
        }  # fmt: skip
        if family == "xlmr":
            options |= {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    elif family == "modernbert":
        tokenizer, name, kind = sentencepiece_xlmr(), "ModernBert", "ModernBertForMaskedLM"
        options = {
            "hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "intermediate_size": 64,
            "max_position_embeddings": 256, "initializer_range": 0.3, "initializer_cutoff_factor": 2.0,
            "local_attention": 16, "global_attn_every_n_layers": 2, "pad_token_id": 1, "bos_token_id": 0,
            "cls_token_id": 0, "eos_token_id": 2, "sep_token_id": 2, "reference_compile": False,
        }  # fmt: skip
    else:
        raise KeyError(family)
    return build(folder, name, kind, tokenizer, options | settings)


# --------------------------------------------------------------------------- LLMs
CHAT = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def tiny_llm(folder: str | Path, family: str, seed: int = 0, **settings: Any) -> Path:
    """Write a tiny random decoder-only model of this family (LLMS) and its byte-level tokenizer.

    Width 32 (gemma3 scales its embeddings inside the module), 2 layers, 256 positions, float32.
    llama: BOS, a chat template, EOS and padding of their own. gemma3: BOS. opt: BOS is also its EOS.
    gpt2, qwen: no BOS; gpt2 has no padding token either. `settings` go to the config. Returns the folder.
    """
    torch.manual_seed(seed)
    options: dict[str, Any] = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 64, "max_position_embeddings": 256, "initializer_range": 0.3,
    }  # fmt: skip
    if family == "llama":
        roles = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
        made = byte_bpe(["<s>", "</s>", "<pad>", *roles], bos="<s>")
        tokenizer = fast(made, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
        tokenizer.chat_template = CHAT
        name, kind = "Llama", "LlamaForCausalLM"
    elif family == "gemma3":
        made = byte_bpe(["<pad>", "<eos>", "<bos>"], bos="<bos>")
        tokenizer = fast(made, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")
        name, kind = "Gemma3Text", "Gemma3ForCausalLM"
        options |= {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16}
        options |= {"layer_types": ["sliding_attention", "full_attention"]}
    elif family == "gpt2":
        tokenizer = fast(byte_bpe(["<|endoftext|>"]), eos_token="<|endoftext|>")
        name, kind = "GPT2", "GPT2LMHeadModel"
        options = {
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 256,
            "initializer_range": 0.3,
        }
    elif family == "opt":
        made = byte_bpe(["<pad>", "</s>"], bos="</s>")
        tokenizer = fast(made, bos_token="</s>", eos_token="</s>", pad_token="<pad>")
        name, kind = "OPT", "OPTForCausalLM"
        options = {
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64,
            "max_position_embeddings": 256, "word_embed_proj_dim": 32, "init_std": 0.3,
        }  # fmt: skip
    elif family == "qwen":
        made = byte_bpe(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
        tokenizer = fast(made, eos_token="<|im_end|>", pad_token="<|endoftext|>")
        name, kind = "Qwen2", "Qwen2ForCausalLM"
        options |= {"tie_word_embeddings": True}
    else:
        raise KeyError(family)
    for special in ("bos", "eos", "pad"):
        options[f"{special}_token_id"] = getattr(tokenizer, f"{special}_token_id")
    return build(folder, name, kind, tokenizer, options | settings)


def build(
    folder: str | Path,
    name: str,
    kind: str,
    tokenizer: tf.PreTrainedTokenizerFast,
    options: dict[str, Any],
) -> Path:
    config = getattr(tf, f"{name}Config")(**{"vocab_size": len(tokenizer)} | options)
    model = getattr(tf, kind)(config).eval()
    with (
        torch.no_grad()
    ):  # biases and norms start as zeros and ones, which hide a tensor that is mixed up
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)

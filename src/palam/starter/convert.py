"""Convert the starter models' files into folders in the hub's format (config, safetensors, tokenizer).

The encoder's file is a small binary format, little-endian: a header, the tokenizer's pieces, then tensors in f32 or
GGUF's Q4_0 (32 weights a block: an f16 scale, 16 bytes of 4-bit values). The LLM's is a GGUF file, for transformers.
"""

from __future__ import annotations

import contextlib
import io
import json
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import torch
from tokenizers import pre_tokenizers as pre
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertModel

from palam.errors import PalamError

Q4_0_BYTES = 18  # of a block
# fmt: off
SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
         "max_position_embeddings", "type_vocab_size")
EMBEDDINGS = {"emb.word": "word_embeddings.weight", "emb.pos": "position_embeddings.weight",
              "emb.type": "token_type_embeddings.weight", "emb.ln.w": "LayerNorm.weight",
              "emb.ln.b": "LayerNorm.bias"}
LAYER = {"q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
         "ao": "attention.output.dense", "aln": "attention.output.LayerNorm",
         "fi": "intermediate.dense", "fo": "output.dense", "oln": "output.LayerNorm"}
# fmt: on


def read_e5(
    data: bytes,
) -> tuple[BertConfig, list[str], list[str], dict[str, npt.NDArray[np.float32]]]:
    """Read the encoder's file.

    Returns:
        Its config, the tokenizer's pieces in the order of their ids, those that are bos, eos, pad and unk,
        and the tensors by `BertModel`'s names, flat.

    Raises:
        PalamError: another magic or version, a truncated file, or a tensor that is neither f32 nor Q4_0.
    """
    at = 4

    def read(layout: str) -> tuple[Any, ...]:
        nonlocal at
        values = struct.unpack_from("<" + layout, data, at)
        at += struct.calcsize("<" + layout)
        return values

    try:
        version, hidden, layers, heads, inner, rows, positions, types, eps, block = read("I7ifi")
        if (data[:4], version, block) != (b"E5S1", 1, 32):
            raise ValueError(
                f"it begins with {data[:4]!r}, version {version}; expected b'E5S1', version 1"
            )
        count, *special = read("5i")
        (size,) = read("Q")
        ends = read(f"{count + 1}I{count}f")  # the scores go unused: tokenizer.json has them
        (blob,) = read(f"{size}s")
        pieces = [blob[ends[i] : ends[i + 1]].decode("utf-8") for i in range(count)]
        read(f"{read('iI')[1]}s")  # the normalisation map: tokenizer.json has it too
        names = {short: f"embeddings.{long}" for short, long in EMBEDDINGS.items()}
        for i in range(layers):
            for short, long in LAYER.items():
                names[f"l{i}.{short}.w"] = f"encoder.layer.{i}.{long}.weight"
                names[f"l{i}.{short}.b"] = f"encoder.layer.{i}.{long}.bias"
        tensors = {}
        for _ in range(read("i")[0]):
            name = read(f"{read('H')[0]}s")[0].decode("utf-8")
            _, elements, offset, size = read("BIQQ")
            if size == 4 * elements:
                values = np.frombuffer(data, "<f4", elements, offset).astype(np.float32)
            elif 32 * size == Q4_0_BYTES * elements:
                blocks = np.frombuffer(data, np.uint8, size, offset)
                values = gguf.dequantize(blocks, gguf.GGMLQuantizationType.Q4_0).reshape(-1)
            else:
                raise ValueError(f"tensor {name} has {size} bytes for {elements} elements")
            tensors[names.get(name, name)] = values
        tokens = [pieces[i] for i in special]
        sizes = zip(SIZES, (rows, hidden, layers, heads, inner, positions, types), strict=True)
        ids = zip(("bos_token_id", "eos_token_id", "pad_token_id"), special, strict=False)
        # eps is stored as f32: 1e-12, not 9.99999996e-13. "gelu" is the exact one, by erf.
        config = BertConfig(
            **dict([*sizes, *ids]), layer_norm_eps=float(f"{eps:.6g}"), hidden_act="gelu"
        )
    except (struct.error, ValueError, IndexError) as error:
        raise PalamError(f"the encoder's file is not as expected, or cut short: {error}") from error
    return config, pieces, tokens, tensors


def convert_encoder(files: list[Path], folder: Path) -> None:
    """Write the encoder's folder: a `BertModel` without pooler in float32, and the tokenizer as given.

    Raises:
        PalamError: a tensor is missing, unexpected or of another size, or the tokenizer's pieces are not
            those of the weights in the same order.
    """
    weights, tokenizer = files
    config, pieces, (bos, eos, pad, unk), tensors = read_e5(weights.read_bytes())
    listed = [piece for piece, _ in json.loads(tokenizer.read_text("utf-8"))["model"]["vocab"]]
    if listed != pieces or len(pieces) > config.vocab_size:  # the embedding has a few rows to spare
        raise PalamError(
            "the encoder's tokenizer.json does not list the pieces that its weights were made for"
        )
    with torch.device("meta"):  # no memory for weights that are replaced at once
        model = BertModel(config, add_pooling_layer=False)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    sizes = {name: shape.numel() for name, shape in shapes.items()}
    if wrong := sorted(
        {name for name, _ in sizes.items() ^ {(n, t.size) for n, t in tensors.items()}}
    ):
        raise PalamError(
            f"the encoder's file has other tensors than a BertModel: {', '.join(wrong[:4])}"
        )
    state = {name: torch.from_numpy(tensors[name]).view(shape) for name, shape in shapes.items()}
    model.load_state_dict(state, strict=True, assign=True)
    model.save_pretrained(folder)
    # The class that takes tokenizer.json as it is; XLMRobertaTokenizer would rebuild parts of it.
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    settings |= {
        "model_max_length": config.max_position_embeddings,
        "mask_token": "<mask>",
        "unk_token": unk,
    }
    settings |= {
        "bos_token": bos,
        "cls_token": bos,
        "eos_token": eos,
        "sep_token": eos,
        "pad_token": pad,
    }
    (folder / "tokenizer_config.json").write_text(
        json.dumps(settings, indent=2) + "\n", encoding="utf-8"
    )
    (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())


def convert_llm(files: list[Path], folder: Path) -> None:
    """Write the LLM's folder from a GGUF file: weights in bfloat16, the tokenizer with its chat template."""
    place, name = files[0].parent, files[0].name
    loaded = AutoModelForCausalLM.from_pretrained(place, gguf_file=name, dtype=torch.float32)
    # A plain model around the same weights: the loaded one counts as quantised and refuses to be saved.
    config = loaded.config
    for key in ("quantization_config", "_model_name_or_path"):
        vars(config).pop(key, None)
    with torch.device("meta"):
        model = type(loaded)(config)
    # The original is published in bfloat16. Rounding to it is small beside the 4-bit error (mean loss on
    # English sentences 3.955 against 3.954 in float32), and the folder is half as large.
    state = {key: value.to(torch.bfloat16) for key, value in loaded.state_dict().items()}
    model.load_state_dict(state, strict=True, assign=True)
    model.tie_weights()
    model.save_pretrained(folder)
    given = AutoTokenizer.from_pretrained(place, gguf_file=name)
    # transformers reads the file's merges but not its "smollm" pre-tokenizer, which parts all digits first.
    digits = pre.Sequence(
        [pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)]
    )
    given.backend_tokenizer.pre_tokenizer = digits
    given.model_max_length = config.max_position_embeddings
    given.save_pretrained(folder)


def convert(name: str, files: list[Path], folder: Path) -> None:
    """Convert one starter model's files; the progress bars that transformers draws are not shown."""
    with contextlib.redirect_stderr(io.StringIO()):
        {"starter:encoder": convert_encoder, "starter:llm": convert_llm}[name](files, folder)

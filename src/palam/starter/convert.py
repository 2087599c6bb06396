"""Converting the starter models' files into folders in the hub's format.

The encoder's file is a small binary format, little-endian: a header, the tokenizer's pieces, then
tensors in f32 or GGUF's Q4_0 (32 weights a block: an f16 scale, 16 bytes of 4-bit values). The
LLM's is a GGUF file, which transformers reads.
"""

import contextlib
import io
import json
import struct
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
import numpy.typing as npt
import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertModel

from palam.errors import PalamError

Tensors = dict[str, npt.NDArray[np.float32]]

MAGIC = b"E5S1"
VERSION = 1
Q4_0_WEIGHTS = 32  # of a block
Q4_0_BYTES = 18  # of a block
EMBEDDINGS = {
    "emb.word": "word_embeddings.weight",
    "emb.pos": "position_embeddings.weight",
    "emb.type": "token_type_embeddings.weight",
    "emb.ln.w": "LayerNorm.weight",
    "emb.ln.b": "LayerNorm.bias",
}
LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


def convert(name: str, files: list[Path], folder: Path) -> None:
    """Convert one starter model's files; the progress bars of transformers are not shown.

    Args:
        name: `starter:encoder` or `starter:llm`.
        files: those of the model's [`Source`], in its order.
        folder: an empty one, to write into.

    Raises:
        PalamError: files that are not the expected ones.
    """
    converters = {"starter:encoder": convert_encoder, "starter:llm": convert_llm}
    with contextlib.redirect_stderr(io.StringIO()):
        converters[name](files, folder)


# ---------------------------------------------------------------------------------- the encoder
class SpecialTokens(NamedTuple):
    """The tokenizer's pieces with a role."""

    bos: str
    eos: str
    pad: str
    unk: str


class EncoderFile(NamedTuple):
    """What the encoder's file holds.

    Attributes:
        config: the model's.
        pieces: the tokenizer's, in the order of their ids.
        special_tokens: those of the pieces that have a role.
        tensors: by `BertModel`'s names, flat [elements].
    """

    config: BertConfig
    pieces: list[str]
    special_tokens: SpecialTokens
    tensors: Tensors


class BinaryReader:
    """Reads little-endian values, one after the other.

    Args:
        data: the whole file.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def read(self, layout: str) -> tuple[Any, ...]:
        """The next values, in a layout of `struct`."""
        values = struct.unpack_from(f"<{layout}", self.data, self.position)
        self.position += struct.calcsize(f"<{layout}")
        return values

    def read_bytes(self, length: int) -> bytes:
        """The next bytes."""
        (value,) = self.read(f"{length}s")
        return bytes(value)


def read_e5(data: bytes) -> EncoderFile:
    """Read the encoder's file.

    Raises:
        PalamError: another magic or version, a truncated file, or a tensor that is neither f32 nor
            Q4_0.
    """
    try:
        return _parse_e5(BinaryReader(data))
    except (struct.error, ValueError, IndexError) as error:
        raise PalamError(f"the encoder's file is not as expected, or cut short: {error}") from error


def _parse_e5(reader: BinaryReader) -> EncoderFile:
    sizes = _read_header(reader)
    count, *special_ids = reader.read("5i")  # bos, eos, pad, unk
    pieces = _read_pieces(reader, count)
    _, map_length = reader.read("iI")
    reader.read_bytes(map_length)  # the normalisation map: tokenizer.json has it too
    tensors = _read_tensors(reader, sizes["num_hidden_layers"])
    bos_id, eos_id, pad_id, unk_id = special_ids
    special_tokens = SpecialTokens(
        bos=pieces[bos_id], eos=pieces[eos_id], pad=pieces[pad_id], unk=pieces[unk_id]
    )
    config = BertConfig(
        **sizes,
        bos_token_id=bos_id,
        eos_token_id=eos_id,
        pad_token_id=pad_id,
        hidden_act="gelu",  # the exact one, by erf
    )
    return EncoderFile(config, pieces, special_tokens, tensors)


def _read_header(reader: BinaryReader) -> dict[str, Any]:
    """The model's sizes, by `BertConfig`'s names."""
    magic = reader.data[:4]
    reader.position = 4
    version, hidden, layers, heads, inner, rows, positions, types, eps, block = reader.read("I7ifi")
    if (magic, version, block) != (MAGIC, VERSION, Q4_0_WEIGHTS):
        raise ValueError(
            f"it begins with {magic!r}, version {version}; expected {MAGIC!r}, version {VERSION}"
        )
    return {
        "vocab_size": rows,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "max_position_embeddings": positions,
        "type_vocab_size": types,
        "layer_norm_eps": float(f"{eps:.6g}"),  # stored as f32: 1e-12, not 9.99999996e-13
    }


def _read_pieces(reader: BinaryReader, count: int) -> list[str]:
    """The tokenizer's pieces; their scores go unused, tokenizer.json has them."""
    (length,) = reader.read("Q")
    ends = reader.read(f"{count + 1}I")
    reader.read(f"{count}f")
    text = reader.read_bytes(length)
    return [text[ends[i] : ends[i + 1]].decode("utf-8") for i in range(count)]


def _read_tensors(reader: BinaryReader, layers: int) -> Tensors:
    """The tensors by `BertModel`'s names; one of an unknown name keeps it."""
    names = _tensor_names(layers)
    (count,) = reader.read("i")
    tensors = {}
    for _ in range(count):
        (name_length,) = reader.read("H")
        name = reader.read_bytes(name_length).decode("utf-8")
        _, elements, offset, size = reader.read("BIQQ")
        values = _read_values(reader.data, name, elements, offset, size)
        tensors[names.get(name, name)] = values
    return tensors


def _tensor_names(layers: int) -> dict[str, str]:
    """`BertModel`'s names by the file's."""
    names = {short: f"embeddings.{long}" for short, long in EMBEDDINGS.items()}
    for layer in range(layers):
        for short, long in LAYER.items():
            names[f"l{layer}.{short}.w"] = f"encoder.layer.{layer}.{long}.weight"
            names[f"l{layer}.{short}.b"] = f"encoder.layer.{layer}.{long}.bias"
    return names


def _read_values(
    data: bytes, name: str, elements: int, offset: int, size: int
) -> npt.NDArray[np.float32]:
    """One tensor's values [elements]; its size in bytes tells whether it is f32 or Q4_0."""
    if size == 4 * elements:
        return np.frombuffer(data, "<f4", elements, offset).astype(np.float32)
    if Q4_0_WEIGHTS * size == Q4_0_BYTES * elements:
        blocks = np.frombuffer(data, np.uint8, size, offset)
        values = gguf.dequantize(blocks, gguf.GGMLQuantizationType.Q4_0)
        return np.asarray(values.reshape(-1), dtype=np.float32)
    raise ValueError(f"tensor {name} has {size} bytes for {elements} elements")


def convert_encoder(files: list[Path], folder: Path) -> None:
    """Write the encoder's folder: a `BertModel` without pooler in float32, and its tokenizer.

    Args:
        files: the weights, and tokenizer.json, which is copied as it is.
        folder: an empty one, to write into.

    Raises:
        PalamError: a tensor is missing, unexpected or of another size, or the tokenizer's pieces
            are not those of the weights in the same order.
    """
    weights_file, tokenizer_file = files
    encoder = read_e5(weights_file.read_bytes())
    _check_pieces(encoder, tokenizer_file)
    with torch.device("meta"):  # no memory for weights that are replaced at once
        model = BertModel(encoder.config, add_pooling_layer=False)
    model.load_state_dict(_state_dict(model, encoder.tensors), strict=True, assign=True)
    model.save_pretrained(folder)
    settings = _tokenizer_settings(encoder, tokenizer_file)
    text = json.dumps(settings, indent=2)
    (folder / "tokenizer_config.json").write_text(f"{text}\n", encoding="utf-8")
    (folder / "tokenizer.json").write_bytes(tokenizer_file.read_bytes())


def _check_pieces(encoder: EncoderFile, tokenizer_file: Path) -> None:
    """Refuse a tokenizer that the weights were not made for."""
    vocabulary = json.loads(tokenizer_file.read_text("utf-8"))["model"]["vocab"]
    pieces = [piece for piece, _ in vocabulary]
    # The embedding has a few rows to spare.
    if pieces != encoder.pieces or len(pieces) > encoder.config.vocab_size:
        raise PalamError(
            "the encoder's tokenizer.json does not list the pieces that its weights were made for"
        )


def _state_dict(model: BertModel, tensors: Tensors) -> dict[str, torch.Tensor]:
    """The tensors in the shapes of a model's parameters."""
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    expected_sizes = {(name, shape.numel()) for name, shape in shapes.items()}
    sizes = {(name, values.size) for name, values in tensors.items()}
    wrong = sorted({name for name, _ in expected_sizes ^ sizes})
    if wrong:
        raise PalamError(
            f"the encoder's file has other tensors than a BertModel: {', '.join(wrong[:4])}"
        )
    return {name: torch.from_numpy(tensors[name]).view(shape) for name, shape in shapes.items()}


def _tokenizer_settings(encoder: EncoderFile, tokenizer_file: Path) -> dict[str, Any]:
    """The content of tokenizer_config.json."""
    tokens = encoder.special_tokens
    added_tokens = json.loads(tokenizer_file.read_text("utf-8"))["added_tokens"]
    return {
        # Takes tokenizer.json as it is; XLMRobertaTokenizer would rebuild parts of it.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": encoder.config.max_position_embeddings,
        "mask_token": "<mask>",
        "unk_token": tokens.unk,
        "bos_token": tokens.bos,
        "cls_token": tokens.bos,
        "eos_token": tokens.eos,
        "sep_token": tokens.eos,
        "pad_token": tokens.pad,
        # Without them, transformers reads all of tokenizer.json once more at every start.
        "added_tokens_decoder": {str(token.pop("id")): token for token in added_tokens},
    }


# -------------------------------------------------------------------------------------- the LLM
def convert_llm(files: list[Path], folder: Path) -> None:
    """Write the LLM's folder: weights in bfloat16, the tokenizer with its chat template.

    Args:
        files: one GGUF file.
        folder: an empty one, to write into.
    """
    (gguf_file,) = files
    quantised = AutoModelForCausalLM.from_pretrained(
        gguf_file.parent, gguf_file=gguf_file.name, dtype=torch.float32
    )
    # A plain model around the same weights: what is loaded counts as quantised and refuses to be
    # saved.
    config = quantised.config
    for key in ("quantization_config", "_model_name_or_path"):
        vars(config).pop(key, None)
    with torch.device("meta"):
        model = type(quantised)(config)
    # The original is published in bfloat16. Rounding to it is small beside the 4-bit error (mean
    # loss on English sentences 3.955 against 3.954 in float32), and the folder is half as large.
    weights = quantised.state_dict()
    state = {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}
    model.load_state_dict(state, strict=True, assign=True)
    model.tie_weights()
    model.save_pretrained(folder)
    tokenizer = _load_tokenizer(gguf_file)
    tokenizer.model_max_length = config.max_position_embeddings
    tokenizer.save_pretrained(folder)


def _load_tokenizer(gguf_file: Path) -> Any:
    """The tokenizer of a GGUF file.

    transformers reads the file's merges but not its pre-tokenizer "smollm", which parts all digits
    first.
    """
    tokenizer = AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    digits_first = pre_tokenizers.Digits(individual_digits=True)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits_first, byte_level])
    return tokenizer

"""Loading a base model's configuration, weights and tokenizer.

What encoder and LLM share: only safetensors are read, no remote code is run, a missing weight is an
error, and a library's error becomes one line.
"""

import importlib.util
import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from huggingface_hub.errors import StrictDataclassError
from huggingface_hub.utils import logging as hub_logging
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file

from palam.errors import PalamError
from palam.starter.resolve import resolve
from palam.utils.hub import HUB, HubFile, HubUnreachable, is_http_error
from palam.utils.texts import first_line

Model = TypeVar("Model", bound=nn.Module)
CONFIG_FILE = "config.json"
LIBRARY_ERRORS = (
    OSError,
    ValueError,
    RuntimeError,
    LookupError,
    TypeError,
    AttributeError,
    ImportError,
)
"""What libraries raise for a folder or a name that is not a usable model."""
LOADING_ERRORS = (*LIBRARY_ERRORS, SafetensorError, StrictDataclassError)
MAX_NUM_LABELS = 100_000
SHARD_NAME = re.compile(r"[\w-][\w.-]*\.safetensors")
SHOWN_KEYS = 3
"""How many missing weights a message names."""
TWO_WORDS = ("one", "two")
TOKENIZER_PACKAGES = {"sentencepiece": "'palam[sentencepiece]'", "google.protobuf": "protobuf"}
"""What some tokenizers need beside their files: modules, and what pip installs for each."""
PACKAGES_READ = {".model", ".spm", ".tiktoken"}
"""The endings of the files that these packages, and tiktoken, read."""


class LocatedConfig(NamedTuple):
    """Where a model is, and what it is."""

    path: str
    """A folder or a hub id."""
    config: PreTrainedConfig


def freeze(model: Model) -> Model:
    """Switch off dropout and gradients; returns the model."""
    model.train(False)
    model.requires_grad_(False)
    return model


def load_config(name_or_path: str, role: str, revision: str | None) -> LocatedConfig:
    """Find a model and read its configuration.

    Args:
        name_or_path: a folder, a hub id or a `starter:` name.
        role: what it is to be, for messages: `"encoder"`.
        revision: of the hub's repository; None is its main branch.

    Raises:
        PalamError: it cannot be found or read.
    """
    path = resolve(name_or_path)
    with readable_errors(name_or_path, role):
        source = source_options(path, revision)
        _check_config_file(path, source)
        config = AutoConfig.from_pretrained(path, trust_remote_code=False, **source)
    return LocatedConfig(path, config)


def source_options(path: str, revision: str | None) -> dict[str, Any]:
    """What transformers is told of where a model is: its revision, and whether to ask the hub.

    The hub is asked here, once; transformers asks it for half a minute a file.

    Args:
        path: a folder or a hub id.
        revision: of the hub's repository; None is its main branch.

    Raises:
        PalamError: no such folder, nor does the hub give it, or the cache have it.
    """
    only_cached = False
    if not Path(path).is_dir():
        only_cached = HUB.is_only_cached(HubFile(path, CONFIG_FILE, revision))
    return {"revision": revision, "local_files_only": only_cached}


def _check_config_file(path: str, source: dict[str, Any]) -> None:
    """Refuse a `config.json` that would cost gigabytes or is no mapping, before it is obeyed.

    Raises:
        PalamError: it is so.
    """
    get_config_dict: Any = PreTrainedConfig.get_config_dict
    content, _ = get_config_dict(path, **source)
    if not isinstance(content, dict):
        raise PalamError("its config.json is no mapping")
    for settings in (content, *content.values()):
        if not isinstance(settings, dict) or "num_labels" not in settings:
            continue
        count = settings["num_labels"]  # transformers makes a name for each of them
        if type(count) is not int or not 0 <= count <= MAX_NUM_LABELS:
            raise PalamError(
                f"num_labels in its config.json is {str(count)[:40]}; "
                f"it must be a number up to {MAX_NUM_LABELS:,}"
            )


def _check_files(path: str, source: dict[str, Any]) -> None:
    """Refuse what transformers would read beside or in place of a model's own safetensors.

    Raises:
        PalamError: an index names another kind of file, or one outside of its folder; or an adapter
            lies there.
    """

    def find(name: str) -> str | None:
        file: str | None = cached_file(
            path,
            name,
            **source,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        return file

    if find("adapter_config.json"):
        raise PalamError(
            "it holds an adapter (adapter_config.json); merge that into its model first"
        )
    index_file = find(SAFE_WEIGHTS_INDEX_NAME)
    if index_file is None:
        return
    weight_map = json.loads(Path(index_file).read_text(encoding="utf-8"))["weight_map"]
    for file in set(weight_map.values()):
        if not SHARD_NAME.fullmatch(file):
            raise PalamError(
                f"its {SAFE_WEIGHTS_INDEX_NAME} names {file[:80]!r}; only safetensors beside it "
                "are read"
            )


def load_weights(
    from_pretrained: Callable[..., Any],
    path: str,
    name: str,
    role: str,
    unused: str = "",
    revision: str | None = None,
    **options: Any,
) -> PreTrainedModel:
    """Load a model, all of whose weights are in its safetensors.

    transformers only warns when weights are missing and leaves them random.

    Args:
        from_pretrained: of a model's class.
        path: where the model is.
        name: what the user calls it.
        role: what it is to be, for messages.
        unused: how the names of weights begin that may be missing; "" is none.
        revision: of the hub's repository; None is its main branch.
        **options: of `from_pretrained`.

    Raises:
        PalamError: it cannot be read, or a weight is missing or of another shape.
    """
    with readable_errors(name, role):
        source = source_options(path, revision)
        _check_files(path, source)
        model, info = from_pretrained(
            path,
            output_loading_info=True,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            **source,
            **options,
        )
    missing = [key for key in info["missing_keys"] if not (unused and key.startswith(unused))]
    reshaped = [key for key, *_ in info["mismatched_keys"]]
    if missing:
        raise PalamError(f"{role} {name!r}: the checkpoint lacks {_listed(missing)}")
    if reshaped:
        raise PalamError(
            f"{role} {name!r}: the checkpoint has another shape than its config says for "
            f"{_listed(reshaped)}"
        )
    loaded: PreTrainedModel = model
    # What the user calls it: a starter model's folder is another on each machine.
    loaded.name_or_path = name
    _keep_weight_layout(loaded)
    return loaded


def _listed(keys: list[str]) -> str:
    """The first names of weights, and how many more there are."""
    shown = ", ".join(sorted(keys)[:SHOWN_KEYS])
    more = len(keys) - SHOWN_KEYS
    return f"{shown} and {more} more" if more > 0 else shown


def _keep_weight_layout(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from rearranging 4-bit weights on CPUs with bf16 units.

    Not every shape survives that.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            vars(module)["support_avx512bf16_for_cpu"] = False


def load_tokenizer(name_or_path: str, revision: str | None = None) -> Any:
    """A base model's tokenizer.

    Args:
        name_or_path: a folder, a hub id, `starter:encoder` or `starter:llm`.
        revision: of the hub's repository; None is its main branch.

    Raises:
        PalamError: there is none, it is damaged, or a package is missing that it needs.
    """
    path = resolve(name_or_path)
    with readable_errors(name_or_path, "tokenizer"):
        source = source_options(path, revision)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, **source)
        if tokenizer.is_fast and _loses_spaces(tokenizer):
            # transformers 5.6 takes some for Llama's, DeepSeek-V3's among them: as its file has it.
            tokenizer = PreTrainedTokenizerFast.from_pretrained(path, **source)
        return tokenizer
    except Exception as error:  # a damaged file raises whatever its reader raises
        advice = _tokenizer_advice(error, Path(path))
        raise PalamError(f"no tokenizer could be loaded from {name_or_path!r}; {advice}") from None


def _loses_spaces(tokenizer: Any) -> bool:
    """Whether words become one."""
    ids = tokenizer(" ".join(TWO_WORDS), add_special_tokens=False)["input_ids"]
    return "".join(TWO_WORDS) in tokenizer.decode(ids)


def _tokenizer_advice(error: BaseException, path: Path) -> str:
    """What can be done about a tokenizer that cannot be loaded.

    Args:
        error: of the library, which names packages also where a folder holds nothing for them.
        path: a folder, or a hub id.
    """
    suffixes = {file.suffix for file in path.iterdir()} if path.is_dir() else PACKAGES_READ
    if not suffixes & PACKAGES_READ:
        return "give a hub id or a folder"
    text = f"{error} {error.__cause__ or error.__context__}".lower()
    named = [name for name in ("sentencepiece", "protobuf", "tiktoken") if name in text]
    missing = [pip for name, pip in TOKENIZER_PACKAGES.items() if not _is_installed(name)]
    if named and missing:  # transformers may name tiktoken where others are missing
        return f"it needs a package that is missing: pip install {' '.join(missing)}"
    if "tiktoken" in named and not _is_installed("tiktoken"):
        return "its files are damaged, or it needs tiktoken: pip install tiktoken"
    return "give a hub id or a folder"


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent is missing
        return False


@contextmanager
def readable_errors(name: str, role: str, fault: str = "cannot be loaded") -> Iterator[None]:
    """Turn a library's errors into one line, and keep its warnings silent meanwhile.

    Args:
        name: what the user calls the model.
        role: what it is to be: `"encoder"`.
        fault: what cannot be done with it.

    Raises:
        PalamError: in place of what a library raises within the block.
    """
    with _quiet_libraries():
        try:
            yield
        except HubUnreachable as error:
            raise HubUnreachable(f"{role} {name!r} {fault}: {error}") from None
        except LOADING_ERRORS as error:
            raise PalamError(f"{role} {name!r} {fault}: {_one_line(error)}") from None
        except Exception as error:
            if not is_http_error(error):
                raise
            reason = f"the hub does not answer any more: {first_line(error)}"
            raise HubUnreachable(f"{role} {name!r} {fault}: {reason}") from None


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Let transformers and huggingface_hub log errors only."""
    levels = {library: library.get_verbosity() for library in (transformers_logging, hub_logging)}
    # Blocks stand within one another, and setting a level goes through all loggers.
    louder = [library for library, level in levels.items() if level != logging.ERROR]
    for library in louder:
        library.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        for library in louder:
            library.set_verbosity(levels[library])


def _one_line(error: BaseException) -> str:
    """A library's message as one line that says what can be done."""
    text = re.sub(r":\s*\n\s*", ": ", str(error).strip()) or type(error).__name__
    if "file named model.safetensors" in text:
        return "it has no model.safetensors (pickled weights, pytorch_model.bin, are never read)"
    if "couldn't connect" in text:
        return "some of its files are not in the cache, and the hub does not answer"
    return text.splitlines()[0]


def probe_ids(model: PreTrainedModel) -> Tensor:
    """Two rows of eight ids [2, 8] that differ in the last one alone, on the model's device."""
    ids = torch.arange(4, 12).repeat(2, 1)
    ids[1, -1] += 1
    size: int = model.config.get_text_config().vocab_size
    return (ids % size).to(model.device)

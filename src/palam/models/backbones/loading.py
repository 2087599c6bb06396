"""Loading a base model's configuration, weights and tokenizer.

What encoder and LLM share: only safetensors are read, no remote code is run, a missing weight is an
error, and a library's error becomes one line.
"""

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub.errors import StrictDataclassError
from huggingface_hub.utils import logging as hub_logging
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file

from palam.errors import PalamError
from palam.starter.resolve import resolve

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


class LocatedConfig(NamedTuple):
    """Where a model is, and what it is."""

    path: str
    """A folder or a hub id."""
    config: PreTrainedConfig


def freeze(model: PreTrainedModel) -> PreTrainedModel:
    """Switch off dropout and gradients; returns the model."""
    model.train(False)
    model.requires_grad_(False)
    return model


def load_config(name_or_path: str, role: str, revision: str | None) -> LocatedConfig:
    """Find a model and read its configuration.

    Args:
        name_or_path: a folder, a hub id, `starter:encoder` or `starter:llm`.
        role: what it is to be, for messages: `"encoder"`.
        revision: of the hub's repository; None is its main branch.

    Raises:
        PalamError: it cannot be found or read.
    """
    path = resolve(name_or_path)
    with readable_errors(name_or_path, role):
        _check_config_file(path, revision)
        config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
    return LocatedConfig(path, config)


def _check_config_file(path: str, revision: str | None) -> None:
    """Refuse a `config.json` that would cost gigabytes or is no mapping, before it is obeyed.

    Raises:
        PalamError: it is so.
    """
    get_config_dict: Any = PreTrainedConfig.get_config_dict
    content, _ = get_config_dict(path, revision=revision)
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


def _check_files(path: str, revision: str | None) -> None:
    """Refuse what transformers would read beside or in place of a model's own safetensors.

    Raises:
        PalamError: an index names another kind of file, or one outside of its folder; or an adapter
            lies there.
    """

    def find(name: str) -> str | None:
        file: str | None = cached_file(
            path,
            name,
            revision=revision,
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
        **options: of `from_pretrained`.

    Raises:
        PalamError: it cannot be read, or a weight is missing or of another shape.
    """
    with readable_errors(name, role):
        _check_files(path, options.get("revision"))
        model, info = from_pretrained(
            path,
            output_loading_info=True,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
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
        PalamError: there is none, or it is damaged.
    """
    path = resolve(name_or_path)
    try:
        return AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
    except Exception:  # a damaged file raises whatever its reader raises
        raise PalamError(
            f"no tokenizer could be loaded from {name_or_path!r}; give a hub id or a folder"
        ) from None


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
        except LOADING_ERRORS as error:
            raise PalamError(f"{role} {name!r} {fault}: {_one_line(error)}") from None


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Let transformers and huggingface_hub log errors only."""
    before = (transformers_logging.get_verbosity(), hub_logging.get_verbosity())
    transformers_logging.set_verbosity(logging.ERROR)
    hub_logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before[0])
        hub_logging.set_verbosity(before[1])


def _one_line(error: BaseException) -> str:
    """A library's message as one line that says what can be done."""
    text = re.sub(r":\s*\n\s*", ": ", str(error).strip()) or type(error).__name__
    if "file named model.safetensors" in text:
        return "it has no model.safetensors (pickled weights, pytorch_model.bin, are never read)"
    not_found = ("Repo id must", "couldn't connect", "not a valid model identifier")
    if any(phrase in text for phrase in not_found):
        return "no such folder, and the model hub does not have it or cannot be reached"
    return text.splitlines()[0]


def probe_ids(model: PreTrainedModel) -> Tensor:
    """Two rows of eight ids [2, 8] that differ in the last one alone, on the model's device."""
    ids = torch.arange(4, 12).repeat(2, 1)
    ids[1, -1] += 1
    size: int = model.config.get_text_config().vocab_size
    return (ids % size).to(model.device)

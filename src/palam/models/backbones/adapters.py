"""LoRA adapters on the frozen LLM, through peft.

A checkpoint's adapter is read by hand and put into an adapter made here: its files may be anyone's,
peft reads pickles, runs regular expressions from them and only warns of weights that are missing.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils.hub import cached_file

from palam.errors import PalamError
from palam.models.backbones.loading import readable_errors, source_options
from palam.models.finite import check_finite

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What peft puts before the names of the LLM's modules."""
MAX_RANK = 4096
MAX_PATTERN = 1000
"""Characters of a pattern of `target_modules`."""
MAX_REPEATS = 3
"""`*`, `+` and `{}` in a pattern; each may make it slower by the length of a module's name."""
REPEATED_GROUP = re.compile(r"\)[*+{]")
PLAIN_SETTINGS = {
    "bias": "none",
    "use_dora": False,
    "modules_to_save": None,
    "layers_to_transform": None,
    "layers_pattern": None,
    "exclude_modules": None,
    "trainable_token_indices": None,
    "layer_replication": None,
}
"""What an adapter of Palam's has; others are not read."""


def with_lora(llm: PreTrainedModel, rank: int, alpha: int, target_modules: Any) -> Any:
    """The LLM inside a peft model with a new, trainable LoRA; see [`PalamModel.add_lora`]."""
    peft = import_peft()
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=target_modules,
        task_type="CAUSAL_LM",
    )
    return peft.get_peft_model(llm, config)


def without_adapter(llm: Any) -> PreTrainedModel:
    """The bare LLM, whether it is inside a peft model or not."""
    bare: PreTrainedModel = llm.get_base_model() if hasattr(llm, "get_base_model") else llm
    return bare


def load_adapter(llm: PreTrainedModel, path: str, folder: str, revision: str | None) -> Any:
    """The LLM inside a peft model with the adapter of a checkpoint, frozen.

    Args:
        llm: the bare LLM.
        path: the checkpoint's folder or hub id.
        folder: where in it the adapter is.
        revision: of the checkpoint on the hub.

    Raises:
        PalamError: peft is not installed; or the adapter has a file that is missing or damaged,
            settings that Palam does not write, weights that are missing, too many, of other shapes
            than its settings say or not finite.
    """
    peft = import_peft()
    name = f"{path}/{folder}"
    with readable_errors(name, "adapter"):
        settings, weights_file = _locate(path, folder, revision)
        targets = target_names(llm, settings["target_modules"])
        shapes = _weight_shapes(weights_file)
        _check_weights(llm, targets, settings["r"], shapes)
        config = peft.LoraConfig(
            r=settings["r"],
            lora_alpha=settings["lora_alpha"],
            use_rslora=settings.get("use_rslora", False),
            fan_in_fan_out=settings.get("fan_in_fan_out", False),
            target_modules=targets,
            task_type="CAUSAL_LM",
            inference_mode=True,
        )
        adapted = peft.get_peft_model(llm, config)
        weights = _read_weights(weights_file)
        peft.set_peft_model_state_dict(adapted, weights)
    # As it was saved: the full names are longer.
    adapted.peft_config["default"].target_modules = settings["target_modules"]
    return adapted


class StoredAdapter(NamedTuple):
    """A checkpoint's LoRA as it is in its files."""

    settings: dict[str, Any]
    weights: dict[str, Tensor]


def read_adapter(path: str, folder: str, revision: str | None = None) -> StoredAdapter:
    """Read a checkpoint's LoRA.

    Args:
        path: the checkpoint's folder or hub id.
        folder: where in it the adapter is.
        revision: of the checkpoint on the hub.

    Raises:
        PalamError: a file that is missing or damaged, settings that Palam does not write, or
            weights that are not finite.
    """
    with readable_errors(f"{path}/{folder}", "adapter"):
        settings, weights_file = _locate(path, folder, revision)
        return StoredAdapter(settings, _read_weights(weights_file))


def take_adapter(llm: Any, stored: StoredAdapter, name: str) -> None:
    """Give an LLM's own LoRA the weights of another, to train it on.

    Args:
        llm: inside a peft model.
        stored: of the same rank, on the same modules.
        name: of the checkpoint that it is from, for messages.

    Raises:
        PalamError: another rank, alpha or scaling, or other modules.
    """
    peft = import_peft()
    ours = llm.peft_config["default"]
    names = {"r": "rank", "lora_alpha": "alpha", "use_rslora": "use_rslora"}
    for setting, in_words in names.items():
        theirs, own = stored.settings.get(setting, False), getattr(ours, setting)
        if theirs != own:
            raise PalamError(
                f"{name} has a LoRA of {in_words} {theirs}, this run one of {own}; "
                "they must be the same"
            )
    expected = peft.get_peft_model_state_dict(llm, save_embedding_layers=False)
    wrong = _shapes(expected).items() ^ _shapes(stored.weights).items()
    if wrong:
        raise PalamError(f"{name} has a LoRA on other modules than this run's: {min(wrong)[0]}")
    peft.set_peft_model_state_dict(llm, stored.weights)


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in weights.items()}


def _check_settings(settings: Any) -> None:
    """Refuse an adapter's settings that are damaged or that Palam does not write.

    Raises:
        PalamError: they are; the message names the setting.
    """
    if not isinstance(settings, dict) or settings.get("peft_type") != "LORA":
        raise PalamError(f"its {ADAPTER_CONFIG} is not that of a LoRA")
    rank = settings.get("r")
    if type(rank) is not int or not 1 <= rank <= MAX_RANK:
        raise PalamError(f"its rank r is {rank!r}; it must be a number from 1 to {MAX_RANK}")
    alpha: Any = settings.get("lora_alpha")
    if type(alpha) not in (int, float):
        raise PalamError(f"its lora_alpha is {alpha!r}; it must be a number")
    check_finite({"lora_alpha": float(alpha)}, f"the numbers in {ADAPTER_CONFIG}")
    for name in ("use_rslora", "fan_in_fan_out"):
        if type(settings.get(name, False)) is not bool:
            raise PalamError(f"its {name} is {settings[name]!r}; it must be true or false")
    for name, plain in PLAIN_SETTINGS.items():
        if settings.get(name, plain) not in (plain, [], {}):
            raise PalamError(f"it has {name}, which Palam does not read")
    if settings.get("rank_pattern") or settings.get("alpha_pattern"):
        raise PalamError("it has ranks by pattern, which Palam does not read")


def target_names(llm: PreTrainedModel, target_modules: Any) -> list[str]:
    """The LLM's modules that an adapter's `target_modules` mean, as peft understands them.

    Args:
        llm: the bare LLM.
        target_modules: `all-linear`, the ends of names, or a pattern.

    Raises:
        PalamError: it is none of these, means no module, or could take very long to match.
    """
    names = [name for name, module in llm.named_modules() if name]
    if isinstance(target_modules, str) and target_modules.lower() == "all-linear":
        head = llm.get_output_embeddings()  # type: ignore[no-untyped-call]
        chosen = [
            name
            for name, module in llm.named_modules()
            if module is not head and _is_linear(module)
        ]
    elif isinstance(target_modules, str):
        pattern = _safe_pattern(target_modules)
        chosen = [name for name in names if pattern.fullmatch(name)]
    elif isinstance(target_modules, list) and all(isinstance(end, str) for end in target_modules):
        ends = set(target_modules)
        chosen = [name for name in names if not ends.isdisjoint(_ends(name))]
    else:
        raise PalamError("its target_modules are neither a text nor a list of texts")
    if not chosen:
        raise PalamError("its target_modules are no modules of this LLM")
    return chosen


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def _ends(name: str) -> Iterable[str]:
    """A name, and what remains of it after each of its dots."""
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def _safe_pattern(pattern: str) -> re.Pattern[str]:
    """A regular expression that cannot take long on names of modules.

    Raises:
        PalamError: it could, or it is none.
    """
    repeats = sum(pattern.count(sign) for sign in "*+{")
    if len(pattern) > MAX_PATTERN or repeats > MAX_REPEATS or REPEATED_GROUP.search(pattern):
        raise PalamError(
            f"its target_modules are a pattern of more than {MAX_PATTERN} characters, more than "
            f"{MAX_REPEATS} repetitions or a repeated group; list the modules' names"
        )
    try:
        return re.compile(pattern)
    except re.error as error:
        raise PalamError(f"its target_modules are no pattern: {error}") from None


def _weight_shapes(file: str) -> dict[str, tuple[int, ...]]:
    with safe_open(file, "pt") as weights:
        return {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118


def _read_weights(file: str) -> dict[str, Tensor]:
    with safe_open(file, "pt") as weights:
        read = {name: weights.get_tensor(name).clone() for name in weights.keys()}  # noqa: SIM118
    check_finite(read, f"the weights in {ADAPTER_WEIGHTS}")
    return read


def _locate(path: str, folder: str, revision: str | None) -> tuple[dict[str, Any], str]:
    """An adapter's settings, checked, and the file of its weights."""
    source = source_options(path, revision)
    config_file = cached_file(path, ADAPTER_CONFIG, subfolder=folder, **source)
    weights_file = cached_file(path, ADAPTER_WEIGHTS, subfolder=folder, **source)
    settings = json.loads(Path(str(config_file)).read_text(encoding="utf-8"))
    _check_settings(settings)
    return settings, str(weights_file)


def _check_weights(
    llm: PreTrainedModel,
    targets: Iterable[str],
    rank: int,
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    """Refuse weights that are not those of a LoRA of this rank on these modules.

    Raises:
        PalamError: one is missing, too many, or of another shape.
    """
    expected: dict[str, int] = {}
    for target in targets:
        for factor, side in (("lora_A", 0), ("lora_B", 1)):  # [rank, in] and [out, rank]
            expected[f"{PREFIX}{target}.{factor}.weight"] = side
    wrong = expected.keys() ^ shapes.keys()
    if wrong:
        name = min(wrong)
        fault = "is missing" if name in expected else "belongs to none of its target_modules"
        raise PalamError(f"the weight {name} {fault} ({len(wrong)} in all)")
    modules = dict(llm.named_modules())
    for name, side in expected.items():
        target = name.removeprefix(PREFIX).rsplit(".", 2)[0]
        matrix: Any = modules[target].weight
        outer = set(matrix.shape) if isinstance(matrix, torch.Tensor) else set()
        shape = shapes[name]
        fits = len(shape) == 2 and shape[side] == rank
        # Weights in fewer bits are packed: their shape does not tell the width.
        packed = not matrix.is_floating_point()
        if not fits or not (packed or shape[1 - side] in outer):
            raise PalamError(f"the weight {name} has the shape {list(shape)}, which does not fit")


def save_adapter(llm: Any, folder: Path) -> None:
    """Write the adapter of an LLM inside a peft model to a folder."""
    # The base's vocabulary is never extended; peft would ask the hub whether it was.
    llm.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # an empty form


def import_peft() -> Any:
    """The peft library.

    Raises:
        PalamError: it is not installed; the message says how to get it.
    """
    try:
        import peft
    except ImportError:
        raise PalamError('LoRA needs peft: pip install "palam[lora]"') from None
    return peft

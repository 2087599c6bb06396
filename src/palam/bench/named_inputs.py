"""The files and bridges that a recipe's settings name, told by their content.

Results are resumed with the same ones alone: a lexicon of another content under the same name would
make other bridges without a word.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from palam.bench.methods import TrainedMethod
from palam.bench.recipe import Recipe
from palam.errors import PalamError
from palam.models.checkpoint import load_start
from palam.training.checksums import file_sha256, tensors_sha256

FILES = ("soft_label_file", "lexicon", "solve_text_file", "prompts_file")
"""Settings that name a file; the training file's rows have hashes of their own."""
BRIDGE = "init_from"
"""The setting that names a bridge."""
DIGITS = 16
"""Of a hash that is kept."""
MARK = ": "
"""Between whose setting it is and its name, in a hash's name: `words: lexicon`."""


class _Setting(NamedTuple):
    """A setting with a value."""

    owner: str
    """The method that has it, or `train` for all of them."""
    name: str
    value: str


def named_input_hashes(recipe: Recipe) -> dict[str, str]:
    """A hash of each file and of each bridge's weights, by whose setting it is and its name.

    Args:
        recipe: whose settings of training, and of its methods, name them.

    Raises:
        PalamError: one that is not there; the message names the method and the setting.
    """
    return {f"{setting.owner}{MARK}{setting.name}": _hash(setting) for setting in _settings(recipe)}


def changed_inputs(previous: Mapping[str, str], present: Mapping[str, str]) -> list[str]:
    """The names of those that both have, with another content."""
    return [name for name, digest in present.items() if previous.get(name, digest) != digest]


def _settings(recipe: Recipe) -> Iterator[_Setting]:
    """Those of the recipe that name a file or a bridge."""
    owners: dict[str, Mapping[str, Any]] = {"train": recipe.train}
    for name, method in recipe.methods.items():
        if isinstance(method, TrainedMethod):
            owners[name] = method.settings
    for owner, settings in owners.items():
        for name in (*FILES, BRIDGE):
            value = settings.get(name)
            if value is not None:
                yield _Setting(owner, name, str(value))


def _hash(setting: _Setting) -> str:
    """Of its content."""
    if setting.name == BRIDGE:
        return tensors_sha256(load_start(setting.value).tensors())[:DIGITS]
    try:
        return file_sha256(Path(setting.value))[:DIGITS]
    except OSError as error:
        reason = error.strerror or str(error)
        raise PalamError(
            f"{setting.owner}: {setting.name} is {setting.value}, which cannot be read: {reason}"
        ) from None

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
ALL = "train"
"""Whose the settings are that the recipe gives to all methods."""
METHOD_TRAIN = "methods/train"
"""Whose those of a method are that is called `train` too; no method's own name has a slash."""


class _Setting(NamedTuple):
    """A setting with a value."""

    owner: str
    """The method that has it, or `train` for all of them; see [`METHOD_TRAIN`]."""
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
    """The names of those that both have, with another content.

    Args:
        previous, present: of [`named_input_hashes`], the former perhaps of an older Palam, to which
            the settings of a method called `train` were those of the recipe's `train`.
    """
    changed = []
    for name, digest in present.items():
        older = name.replace(f"{METHOD_TRAIN}{MARK}", f"{ALL}{MARK}")
        known = name if name in previous or older in present else older
        if previous.get(known, digest) != digest:
            changed.append(name)
    return changed


def _settings(recipe: Recipe) -> Iterator[_Setting]:
    """Those of the recipe that name a file or a bridge."""
    owners: dict[str, Mapping[str, Any]] = {ALL: recipe.train}
    for name, method in recipe.methods.items():
        if isinstance(method, TrainedMethod):
            owners[METHOD_TRAIN if name == ALL else name] = method.settings
    for owner, settings in owners.items():
        for name in (*FILES, BRIDGE):
            value = settings.get(name)
            if value is not None:
                yield _Setting(owner, name, str(value))


def _hash(setting: _Setting) -> str:
    """Of its content."""
    if setting.name == BRIDGE:
        return _bridge_hash(setting)
    try:
        return file_sha256(Path(setting.value))[:DIGITS]
    except OSError as error:
        reason = error.strerror or str(error)
        raise PalamError(
            f"{setting.owner}: {setting.name} is {setting.value}, which cannot be read: {reason}"
        ) from None


def _bridge_hash(setting: _Setting) -> str:
    """Of its bridge's weights."""
    try:
        start = load_start(setting.value)
    except PalamError as error:
        raise PalamError(f"{setting.owner}: {setting.name}: {error}") from None
    return tensors_sha256(start.tensors())[:DIGITS]

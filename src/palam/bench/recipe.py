"""A benchmark's recipe: a YAML file of methods × seeds, one training set, one set to read."""

import dataclasses
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from palam.errors import PalamError
from palam.tasks.registry import get_task
from palam.training.config import TrainConfig, read_settings

FOLDER = Path(__file__).parent / "recipes"
BASELINES: dict[str, dict[str, str]] = {  # and their settings
    "majority": {},
    "direct": {},
    "translate": {"translator": "facebook/nllb-200-distilled-600M"},
    "head": {"layers": "last"},
}
FEATURES = ("last", "mean")  # layers that a head may read
SETTINGS = {one.name for one in dataclasses.fields(TrainConfig)}
READ: dict[str, Any] = {
    "task": None,
    "files": None,
    "split": "test",
    "languages": None,
    "limit": None,
}
READ |= {"batch_size": 32, "parallel": None}


@dataclass
class Recipe:
    """What to compare.

    Attributes:
        train: settings of every run (see [`TrainSettings`]).
        methods: by name, what a method changes of them; `lr` may be a list, of which the best is chosen. Or a
            baseline: `{baseline: majority}`, `direct` (the LLM reads the text itself), `translate` (it reads a
            `translator`'s English) or `head`, with `layers`. Or `{best_of: [names]}`: of these methods, for each seed
            the one with the lowest English validation loss; nothing is run for it, the report looks it up.
        seeds: the first chooses the rate; where results are gone on with, the first that they began with.
        read: the task, split and languages to read, the `limit` of rows of each, the batch size. Or, where a file of
            your own is trained on, `files` by language, with its columns and labels; and `parallel`, if row i says
            the same in each (the tasks know it of theirs).
        curve: step counts at which a run is read too; 0 is its start.
        against: the method that others are tested against; default the first.
        published: by method and language, percent; with a `note` of what is different.
    """

    methods: dict[str, dict[str, Any]]
    train: dict[str, Any] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    read: dict[str, Any] = field(default_factory=dict)
    curve: list[int] = field(default_factory=list)
    against: str | None = None
    title: str = ""
    published: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_mappings(vars(self))
        for name in ("seeds", "curve"):
            numbers = getattr(self, name)
            if not isinstance(numbers, list) or any(
                type(one) is not int or one < 0 for one in numbers
            ):
                raise PalamError(
                    f"{name} is {numbers!r}; it must be a list of whole numbers, such as [0, 1]"
                )
            setattr(self, name, list(dict.fromkeys(numbers)))
        if not self.seeds:
            raise PalamError("a recipe needs methods and seeds")
        if unknown := set(self.train) - SETTINGS:
            raise PalamError(f"train: there is no setting {', '.join(sorted(map(str, unknown)))}")
        if not self.train.get("task") and not self.train.get("file"):
            raise PalamError("train needs a task, or a file of labelled rows")
        for name, own in self.methods.items():
            self.methods[name] = own or {}
            if set(str(name)) & set("/\\,"):
                raise PalamError(f"method {name}: a name holds no comma and no slash")
            (self._check_choice if "best_of" in self.methods[name] else self._check_method)(
                name, self.methods[name]
            )
        self._check_read()
        self.against = self.against or next(iter(self.methods))
        if self.against not in self.methods:
            raise PalamError(
                f"against is {self.against!r}, which is no method: there are {', '.join(self.methods)}"
            )

    def _check_method(self, name: str, own: dict[str, Any]) -> None:
        baseline = own.get("baseline")
        if baseline and str(baseline) not in BASELINES:
            raise PalamError(
                f"method {name}: baseline is {baseline!r}; it must be one of: {', '.join(BASELINES)}"
            )
        defaults = {"baseline": baseline} | BASELINES[baseline] if baseline else {}
        if unknown := set(own) - set(defaults or SETTINGS):
            raise PalamError(
                f"method {name}: there is no setting {', '.join(sorted(map(str, unknown)))}"
            )
        own.update(defaults | own)
        if baseline == "head" and own["layers"] not in FEATURES:
            raise PalamError(
                f"method {name}: layers is {own['layers']!r}; it must be one of: last, mean"
            )
        if not baseline:
            for lr in self.rates(name):
                self.settings(name, lr, self.seeds[0])

    def _check_choice(self, name: str, own: dict[str, Any]) -> None:
        trained = [
            one
            for one, other in self.methods.items()
            if not {"baseline", "best_of"} & set(other or {})
        ]
        names = own["best_of"]
        if (
            len(own) > 1
            or not isinstance(names, list)
            or not names
            or not all(one in trained for one in names)
        ):
            raise PalamError(
                f"method {name}: best_of stands alone and is a list of trained methods, of: {', '.join(trained)}"
            )

    def _check_read(self) -> None:
        """Check what is to be read, and fill it in."""
        if unknown := set(self.read) - set(READ):
            raise PalamError(
                f"read: there is no setting {', '.join(sorted(map(str, unknown)))}; there are {', '.join(READ)}"
            )
        given = {name: value for name, value in self.read.items() if value is not None}
        self.read = READ | {"task": self.train.get("task")} | given
        for name in ("limit", "batch_size"):
            one = self.read[name]
            if one is not None and (type(one) is not int or one < 1):
                raise PalamError(f"read.{name} is {one!r}; it must be a whole number of at least 1")
        if bool(files := self.read["files"]) != bool(self.train.get("file")):
            raise PalamError(
                "train.file and read.files go together: {si: sinhala.csv, ta: tamil.csv}"
            )
        if files and not (
            isinstance(files, dict)
            and all(isinstance(one, str) for one in [*files, *files.values()])
        ):
            raise PalamError(
                f"read.files is {files!r}; it must be a file for each language: {{si: sinhala.csv}}"
            )
        if self.read["parallel"] not in (None, True, False) or (
            self.read["parallel"] is not None and not files
        ):
            raise PalamError(
                "read.parallel is true or false, and stands with read.files: tasks know it of theirs"
            )
        languages = self.read["languages"]
        languages = (
            languages.split(",")
            if isinstance(languages, str)
            else []
            if languages is None
            else languages
        )
        if not isinstance(languages, list) or not all(isinstance(one, str) for one in languages):
            raise PalamError(
                f"read.languages is {languages!r}; it must be a list of codes, such as [si, ta, 'no']"
            )
        known = files or get_task(self.read["task"]).languages
        self.read["languages"] = list(known if files else languages or known)

    def rates(self, method: str = "") -> list[float]:
        """Its learning rates, to choose from."""
        lr = self.methods.get(method, {}).get("lr", self.train.get("lr", TrainConfig.lr))
        try:
            rates = [float(one) for one in (lr if isinstance(lr, list) else [lr])]
        except (TypeError, ValueError):
            rates = []
        if not rates:
            raise PalamError(f"lr is {lr!r}; it must be a number, or a list of some to choose from")
        return rates

    def settings(self, method: str = "", lr: float | None = None, seed: int = 0) -> TrainConfig:
        """Of one run; without a method, and of a baseline, the settings that all share."""
        own = self.methods.get(method, {})
        own = {} if "baseline" in own else own
        return TrainConfig(**self.train | own | {"lr": lr or self.rates(method)[0], "seed": seed})

    def cells(self, first: int) -> list[tuple[str, list[int]]]:
        """Each method with its seeds; a baseline needs one, the `first` of the results, and a choice none."""
        run = {name: own for name, own in self.methods.items() if "best_of" not in own}
        return [(name, [first] if "baseline" in own else self.seeds) for name, own in run.items()]

    def to_dict(self) -> dict[str, Any]:
        """As it is written."""
        return asdict(self)


def load_recipe(name: str, changes: Sequence[str] = ()) -> Recipe:
    """A recipe file, or one that the package has, with changes.

    Args:
        name: a path, or a name in the package's `recipes` folder: `starter/sib200`. A recipe may name another that it
            `extends` (a file beside it, or the like of `name`): what it does not give is that one's, and so are the
            methods that it does not name.
        changes: `setting=value` in YAML: a setting of training, one of the recipe's own fields, or `read.…`.
            `methods=last,mean` keeps these.

    Raises:
        PalamError: no such recipe or setting.
    """
    known = {one.name for one in dataclasses.fields(Recipe)}
    content = _content(name, known)
    _check_mappings(content)
    for change in changes:
        key, sign, text = change.partition("=")
        key = key.strip().replace("-", "_")
        if not sign:
            raise PalamError(f"--set takes setting=value, not {change!r}")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise PalamError(f"--set {key}: {text!r} is not YAML") from None
        if key == "methods":
            names = text.split(",")
            if missing := [one for one in names if one not in content["methods"]]:
                raise PalamError(
                    f"no method {missing[0]!r}: there are {', '.join(content['methods'])}"
                )
            content["methods"] = {one: content["methods"][one] for one in names}
            content["against"] = (
                content.get("against") if content.get("against") in names else names[0]
            )
        elif key.startswith("read."):
            content["read"] = (content.get("read") or {}) | {key.removeprefix("read."): value}
        elif key in known:
            content[key] = value
            _check_mappings(content)
        elif key in SETTINGS:
            content["train"] = (content.get("train") or {}) | {key: value}
            for own in content["methods"].values():
                (own or {}).pop(key, None)
        else:
            raise PalamError(f"there is no setting {key!r}")
    return Recipe(**{name: value for name, value in content.items() if value is not None})


def _check_mappings(content: dict[str, Any]) -> None:
    """That the fields which hold names and values do, and there are methods."""
    methods, published = content.get("methods"), content.get("published")
    for name in ("methods", "train", "read", "published"):
        if not isinstance(content.get(name) or {}, dict):
            raise PalamError(f"{name} is {content[name]!r}; it must be `name: value` lines")
    if not methods:
        raise PalamError("a recipe needs methods and seeds")
    for name, own in [*methods.items(), *(published or {}).items()]:
        if name != "note" and not isinstance(own or {}, dict):
            raise PalamError(f"{name} is {own!r}; it must be `name: value` lines")


def _content(name: str, known: set[str], extended: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A recipe's fields, and those that it does not give itself from the recipe that it `extends`."""
    packaged = FOLDER / f"{name}.yaml"
    path = packaged if packaged.is_file() and not Path(name).is_file() else Path(name)
    if not path.is_file():
        there = sorted(
            one.relative_to(FOLDER).with_suffix("").as_posix() for one in FOLDER.rglob("*.yaml")
        )
        raise PalamError(f"no recipe {name}: give a YAML file, or one of: {', '.join(there)}")
    if path in extended:
        raise PalamError(f"{path} extends itself")
    content = read_settings(path, known | {"extends"})
    base = content.pop("extends", None)
    if base is None:
        return content
    beside = path.parent / str(base)
    inherited = _content(str(beside if beside.is_file() else base), known, (*extended, path))
    both = [one.get("methods") or {} for one in (inherited, content)]
    if all(isinstance(one, dict) for one in both):
        content["methods"] = both[0] | both[1]
    return inherited | content

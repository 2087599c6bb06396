"""A bridge as a scikit-learn classifier of texts: fit on English, predict in every language.

Fitting is a run of [`train`] on texts in memory; what it saves is the checkpoint that `palam train`
makes, and every checkpoint with one text column and labels can be loaded.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from torch import Tensor

from palam.errors import PalamError
from palam.inference.scoring import LabelScorer
from palam.models.checkpoint import (
    CHECKPOINT_MARKER,
    LOG_FILE,
    RESULTS_FILE,
    SETTINGS_FILE,
    find_file,
)
from palam.models.model_card import CARD
from palam.models.model_config import ModelConfig
from palam.models.modeling import PalamModel
from palam.models.task_record import TaskRecord, text_alone
from palam.tasks.loading import CUSTOM_PROMPT
from palam.tasks.task import CUSTOM_FAMILY, Example, Task
from palam.training.config import DataConfig, OptimConfig, TrainConfig, TrainRuntimeConfig
from palam.training.data import training_data_of
from palam.training.run import train
from palam.utils.device import Placement, resolve_placement
from palam.utils.files import atomic_directory
from palam.utils.settings import read_yaml
from palam.utils.texts import checked_texts

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted
except ImportError:
    raise PalamError('PalamClassifier needs scikit-learn: pip install "palam[sklearn]"') from None

TASK_NAME = "texts"
"""What the task of texts in memory is called."""
RECORD_FILES = (CARD, SETTINGS_FILE, RESULTS_FILE, LOG_FILE)
"""What a checkpoint has beside the bridge itself, all of it text."""
MAX_SEED = 2**31 - 1
TRUE_OR_FALSE = {"True": True, "False": False}
LABEL_TYPES: dict[str, Callable[[str], Any]] = {
    "str": str,
    "bool": TRUE_OR_FALSE.__getitem__,
    "int": int,
    "float": float,
}
"""How a label is read back from its text, by what a checkpoint calls its type."""

OWN_PARAMETERS = frozenset({"label_words", "settings", "random_state", "verbose"})
"""Parameters that are no settings of `palam train` of the same name."""
RESERVED_SETTINGS = frozenset({"seed", "task", "file", "text_file", "data"})
"""Settings that a classifier has other words for: random_state, and the texts of fit."""

Languages = str | Sequence[str | None] | None
"""One code for all texts, or a code a text."""


@dataclass(kw_only=True, eq=False, repr=False)
class PalamClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier of texts: a bridge that is trained on texts of one language and reads others.

    Its parameters are settings of `palam train`, with the same names and defaults. A tenth of the
    texts is held out in fitting, to choose the best step by. Fitting draws from, and seeds, the
    random generators of Python, NumPy and torch.

    Attributes:
        classes_: the labels, sorted, [classes]; of the type that they were given in.
        model_: the trained [`PalamModel`], in evaluation.
        results_: what `results.json` of the checkpoint holds, `validation_accuracy` among it.
    """

    encoder: str = ModelConfig.encoder
    """Encoder: hub id, folder or starter:encoder."""
    llm: str = ModelConfig.llm
    """LLM: hub id, folder or starter:llm."""
    fusion: str = ModelConfig.fusion
    """How the encoder's layers are fused."""
    fusion_options: Mapping[str, Any] | None = None
    """The fusion's own options."""
    mapper: str = ModelConfig.mapper
    """How fused states are mapped to the LLM's embedding space."""
    mapper_options: Mapping[str, Any] | None = None
    """The mapper's own options."""
    mode: str = ModelConfig.mode
    """Around the text: nothing (paper), a prompt, or the LLM's chat template (chat)."""
    prompt: str | None = ModelConfig.prompt
    """The prompt, with one {text} slot; None is that of files of one's own."""
    label_words: Mapping[Any, str] | None = None
    """The words that the LLM answers, by label; None is the labels as text."""
    max_length: int | None = ModelConfig.max_length
    """Most encoder tokens of a text."""
    language: str | None = DataConfig.language
    """Language of the training texts; None is English."""
    balance: bool | None = DataConfig.balance
    """Train on equally many rows of each label; None is no."""
    epochs: float = OptimConfig.epochs
    """Passes over the training texts."""
    lr: float = OptimConfig.lr
    """Learning rate."""
    batch_size: int = OptimConfig.batch_size
    """Rows per batch of the training."""
    patience: int = OptimConfig.patience
    """Stop after so many validations without a better loss; 0 never stops."""
    init: str = OptimConfig.init
    """Start of the mapper: solve or random."""
    lora_rank: int | None = OptimConfig.lora_rank
    """Train a LoRA of this rank on the LLM too."""
    device: str = TrainRuntimeConfig.device
    """Device: auto, cpu, cuda, cuda:1, mps."""
    dtype: str = TrainRuntimeConfig.dtype
    """Dtype of the base models: auto (measured), fp32, bf16, fp16."""
    settings: Mapping[str, Any] | None = None
    """Other settings of `palam train` by name, e.g. `{"warmup": 0.1}`."""
    random_state: Any = TrainRuntimeConfig.seed
    """Seed of everything; None or a `numpy.random.RandomState` draws one."""
    verbose: bool = False
    """Show the training's progress on standard error."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags

    # ------------------------------------------------------------------ fitting
    def fit(self, texts: Iterable[str], labels: Iterable[Any]) -> "PalamClassifier":
        """Train a bridge on labelled texts.

        Args:
            texts: strings [texts]: a list, an array, or a column of pandas.
            labels: a label a text, all of them strings, all whole numbers or all booleans.

        Raises:
            PalamError: a parameter, a text or a label that is not right, or too few of them.
        """
        rows = checked_texts(texts)
        targets = checked_labels(labels, len(rows))
        config = self._train_config()
        classes, indices = np.unique(targets, return_inverse=True)
        task = self._task(classes.tolist())
        names = list(task.labels)
        examples = []
        for row, (text, index) in enumerate(zip(rows, indices.tolist(), strict=True)):
            examples.append(Example(row, {"text": text}, names[index]))
        data = training_data_of(task, examples, config.data, seed=config.runtime.seed)
        console = Console(stderr=True) if self.verbose else None
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "bridge"
            model = train(config, out, data=data, console=console)
            record = _read_texts(_record_files(out))
        label_type = type(classes.tolist()[0]).__name__
        model.config.task = replace(_task_of(model), label_type=label_type).to_dict()
        self._take(model, classes, record)
        return self

    def _train_config(self) -> TrainConfig:
        """The run's configuration.

        Raises:
            PalamError: a parameter that is not right, or one that is given twice.
        """
        settings = {
            name: plain_value(value)
            for name, value in self.get_params(deep=False).items()
            if name not in OWN_PARAMETERS
        }
        for name in ("fusion_options", "mapper_options"):
            settings[name] = settings[name] or {}
        for name, value in (self.settings or {}).items():
            if name in settings or name in RESERVED_SETTINGS:
                raise PalamError(
                    f"settings holds {name!r}; parameters are given by their own names, the seed "
                    "as random_state, and the texts to fit"
                )
            settings[name] = plain_value(value)
        return TrainConfig.from_settings({**settings, "task": TASK_NAME, "seed": self._seed()})

    def _seed(self) -> int:
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(MAX_SEED))

    def _task(self, classes: list[Any]) -> Task:
        """The task that the labels make."""
        if len(classes) < 2:
            raise PalamError(f"every text has the label {classes[0]!r}; give two labels or more")
        words = {}
        for label in classes:
            if self.label_words is not None and label not in self.label_words:
                raise PalamError(f"label_words has no words for the label {label!r}")
            own_words = self.label_words[label] if self.label_words else str(label)
            if not isinstance(own_words, str):
                raise PalamError(f"label_words has {own_words!r} for {label!r}, which is no text")
            words[str(label)] = own_words
        for word, count in Counter(words.values()).items():
            if count > 1:
                raise PalamError(f"label_words has {word!r} for {count} labels; each needs its own")
        return Task(
            name=TASK_NAME,
            family=CUSTOM_FAMILY,
            labels=words,
            prompt=self.prompt or CUSTOM_PROMPT,
            paper_text="{text} Label: ",
        )

    def _take(self, model: PalamModel, classes: npt.NDArray[Any], record: dict[str, str]) -> None:
        """Be fitted: with a trained model, its labels, and the text files of its checkpoint."""
        words = _typed_labels(_task_of(model), "the bridge")
        self.classes_ = classes
        self.model_ = model
        self.results_ = json.loads(record.get(RESULTS_FILE, "{}"))
        self._scorer_ = LabelScorer(model, [words[label] for label in classes.tolist()])
        self._record_ = record

    # ------------------------------------------------------------------ predicting
    def predict(self, texts: Iterable[str], languages: Languages = None) -> npt.NDArray[Any]:
        """The most likely label of each text [texts].

        Args:
            texts: strings, as in `fit`, in any language that the encoder reads.
            languages: a code for all of them or one a text; NLLB-style encoders need it.

        Raises:
            PalamError: a text that is no string, or not as many languages as texts.
            sklearn.exceptions.NotFittedError: before `fit`.
        """
        scores = self._scores(texts, languages)
        best: npt.NDArray[Any] = self.classes_[scores.argmax(1).numpy()]
        return best

    def predict_proba(
        self, texts: Iterable[str], languages: Languages = None
    ) -> npt.NDArray[np.float64]:
        """The probability of each label among the labels [texts, classes]; see `predict`."""
        probabilities: npt.NDArray[np.float64] = self._scores(texts, languages).softmax(1).numpy()
        return probabilities

    def predict_log_proba(
        self, texts: Iterable[str], languages: Languages = None
    ) -> npt.NDArray[np.float64]:
        """The natural log of `predict_proba` [texts, classes]."""
        logarithms: npt.NDArray[np.float64] = self._scores(texts, languages).log_softmax(1).numpy()
        return logarithms

    def score(
        self,
        texts: Iterable[str],
        labels: Iterable[Any],
        sample_weight: Sequence[float] | None = None,
        languages: Languages = None,
    ) -> float:
        """The share of texts whose label is predicted.

        Args:
            texts, languages: see `predict`.
            labels: the right ones.
            sample_weight: how much each text counts; None is equally.
        """
        from sklearn.metrics import accuracy_score

        predicted = self.predict(texts, languages)
        return float(accuracy_score(labels, predicted, sample_weight=sample_weight))

    def _scores(self, texts: Iterable[str], languages: Languages) -> Tensor:
        """The log-probability of each label as the answer to each text [texts, classes], fp64."""
        check_is_fitted(self)
        rows = checked_texts(texts)
        codes = [languages] * len(rows) if isinstance(languages, str | None) else list(languages)
        if len(codes) != len(rows):
            raise PalamError(f"there are {len(rows)} texts and {len(codes)} languages")
        task = _task_of(self.model_)
        readable = [text_alone(task, text) for text in rows]
        return self._scorer_.score(readable, codes).double()

    # ------------------------------------------------------------------ saving and loading
    def save(self, folder: str | Path) -> None:
        """Save the fitted classifier as a checkpoint, as `palam train` makes it.

        Args:
            folder: new or empty, or an older checkpoint to replace.

        Raises:
            PalamError: the folder holds something else.
            sklearn.exceptions.NotFittedError: before `fit`.
        """
        check_is_fitted(self)
        with atomic_directory(Path(folder), marker=CHECKPOINT_MARKER) as aside:
            self.model_.write_checkpoint(aside, self._record_.get(CARD))
            for name, content in self._record_.items():
                (aside / name).write_text(content, encoding="utf-8")

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: the bridge's checkpoint in place of the model.

        The base models are not in it; they are loaded again.
        """
        state = dict(super().__getstate__())
        if state.pop("model_", None) is not None:
            del state["_scorer_"]
            with tempfile.TemporaryDirectory() as folder:
                self.save(Path(folder) / "bridge")
                state["_files_"] = read_files(Path(folder) / "bridge")
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """See `__getstate__`."""
        state = dict(state)
        files = state.pop("_files_", {})
        super().__setstate__(state)
        if not files:
            return
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                path = Path(folder) / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
            placement = _placement_of(self)
            model = PalamModel.from_pretrained(
                folder,
                self.encoder,
                self.llm,
                second_encoder=(self.settings or {}).get("second_encoder"),
                **placement,
            )
        self._take(model, self.classes_, self._record_)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        encoder: str | None = None,
        llm: str | None = None,
        second_encoder: str | None = None,
        device: str = TrainRuntimeConfig.device,
        dtype: str = TrainRuntimeConfig.dtype,
    ) -> "PalamClassifier":
        """A fitted classifier from a checkpoint: of `save`, or of `palam train`.

        Args:
            path: folder or hub id.
            encoder, llm, second_encoder: where they are, if not where the checkpoint says.
            device, dtype: see the parameters.

        Raises:
            PalamError: no bridge there, or one without labels, or whose text has several columns.
        """
        placement = resolve_placement(device, dtype, None)
        model = PalamModel.from_pretrained(
            str(path), encoder, llm, second_encoder=second_encoder, **placement
        )
        task = model.config.trained_task
        if task is None or not task.words_by_label or len(task.slots) != 1:
            raise PalamError(f"{path} was not trained to label one text; it is no classifier")
        files = _record_files(path)
        record = _read_texts(files)
        settings = read_yaml(files[SETTINGS_FILE]) if SETTINGS_FILE in files else {}
        if second_encoder is not None:
            settings["second_encoder"] = second_encoder
        parameters = parameters_of(settings)
        parameters["encoder"] = encoder or model.config.encoder
        parameters["llm"] = llm or model.config.llm
        words = _typed_labels(task, path)
        if any(str(label) != words[label] for label in words):
            parameters["label_words"] = words
        classifier = cls(**{**parameters, "device": device, "dtype": dtype})
        classifier._take(model, np.unique(list(words)), record)
        return classifier


def _task_of(model: PalamModel) -> TaskRecord:
    """What a fitted model was trained for."""
    task = model.config.trained_task
    assert task is not None
    return task


def _typed_labels(task: TaskRecord, path: str | Path) -> dict[Any, str]:
    """The words of each label, by labels of the type that they were fitted in."""
    label_type = task.label_type
    if label_type not in LABEL_TYPES:
        known = ", ".join(LABEL_TYPES)
        raise PalamError(f"{path}: label_type is {label_type!r}; it must be one of: {known}")
    read_label = LABEL_TYPES[label_type]
    try:
        return {read_label(label): words for label, words in task.words_by_label.items()}
    except (KeyError, ValueError):
        raise PalamError(f"{path}: its labels are not all of the type {label_type}") from None


def _placement_of(classifier: PalamClassifier) -> Placement:
    """Where its parameters say that the model is to be."""
    load_in = (classifier.settings or {}).get("load_in")
    return resolve_placement(classifier.device, classifier.dtype, load_in)


def parameters_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a classifier that would be trained as a checkpoint was.

    Args:
        settings: of the checkpoint's run; those that there no longer are do not count.
    """
    parameters: dict[str, Any] = {}
    others: dict[str, Any] = {}
    names = {field.name for field in fields(PalamClassifier)} - OWN_PARAMETERS
    defaults = TrainConfig(data=DataConfig(task=TASK_NAME)).settings()
    for name, default in defaults.items():
        value = settings.get(name, default)
        if name in names:
            parameters[name] = None if value == {} else value
        elif name not in RESERVED_SETTINGS and value != default:
            others[name] = value
    parameters["random_state"] = settings.get("seed", TrainRuntimeConfig.seed)
    parameters["settings"] = others or None
    return parameters


def _record_files(path: str | Path) -> dict[str, Path]:
    """The text files of a checkpoint by name; those that it does not have are left out."""
    found = {name: find_file(path, name) for name in RECORD_FILES}
    return {name: file for name, file in found.items() if file is not None}


def _read_texts(files: Mapping[str, Path]) -> dict[str, str]:
    """The content of text files by name."""
    return {name: file.read_text(encoding="utf-8") for name, file in files.items()}


def read_files(folder: Path) -> dict[str, bytes]:
    """All files in a folder by their names relative to it, with `/`."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def checked_labels(labels: Iterable[Any], num_texts: int) -> npt.NDArray[Any]:
    """The labels as an array [texts] of one type.

    Raises:
        PalamError: not as many as texts, a missing one, or labels of several types.
    """
    values = np.asarray(labels if hasattr(labels, "__array__") else list(labels))
    if values.ndim != 1 or len(values) != num_texts:
        raise PalamError(
            f"there are {num_texts} texts and labels of shape {values.shape}; give a label a text"
        )
    kinds = {type(label) for label in values.tolist()}
    if isinstance(labels, list | tuple):  # before NumPy gave them one type
        kinds = {type(plain_value(label)) for label in labels}
    names = sorted(kind.__name__ for kind in kinds)
    if names and (len(names) > 1 or names[0] not in LABEL_TYPES):
        listed = " and ".join(names)
        raise PalamError(
            f"the labels are of the type {listed}; give all as texts, whole numbers or booleans"
        )
    if not num_texts:
        raise PalamError("there are no texts to fit on")
    check_classification_targets(values)
    return values


def plain_value(value: Any) -> Any:
    """A number or text of NumPy as Python's own; other values as they are."""
    return value.item() if isinstance(value, np.generic) else value

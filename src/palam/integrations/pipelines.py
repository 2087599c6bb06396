"""A bridge in `transformers.pipeline`: the tasks `palam-classify` and `palam-generate`.

Importing this module registers them. The library's own batching pads with one tokenizer, and a
bridge has two; so texts are handed on to [`LabelScorer`] and [`generate`], which make the batches.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NoReturn

import torch
from transformers import Pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from palam.errors import PalamError
from palam.inference.generation import generate
from palam.inference.scoring import LabelScorer
from palam.inference.task_prompt import label_template
from palam.models.modeling import PalamModel
from palam.models.task_record import text_alone
from palam.utils.device import resolve_placement
from palam.utils.notes import tell
from palam.utils.texts import checked_texts

CHUNK_SIZE = 1024
"""Texts of a stream that are read at a time."""
DEFAULT_BATCH_SIZE = 32
BRIDGE_OPTIONS = frozenset({"encoder", "llm", "second_encoder", "device_map", "allow_mismatch"})
"""Options of [`PalamModel.from_pretrained`] for `model_kwargs` of `transformers.pipeline`."""
LIBRARY_OPTIONS = frozenset(
    {"config", "trust_remote_code", "local_files_only", "code_revision", "use_safetensors"}
)
"""What `transformers.pipeline` gives to every model that it loads; a bridge has no use for it."""


class BridgeLoader:
    """What `transformers.pipeline` loads a checkpoint with that is given by name."""

    @classmethod
    def from_pretrained(
        cls,
        path: str,
        *,
        dtype: Any = "auto",
        revision: str | None = None,
        token: str | None = None,
        load_in: str | None = None,
        **options: Any,
    ) -> PalamModel:
        """The checkpoint's model.

        Args:
            path: folder or hub id.
            dtype: of the base models; `"auto"` is measured.
            revision: of the checkpoint on the hub.
            token: none can be given here.
            load_in: `"8bit"` or `"4bit"`; this and those of `BRIDGE_OPTIONS` are `model_kwargs` of
                `transformers.pipeline`.
            **options: of [`PalamModel.from_pretrained`], and what the library gives to every model.

        Raises:
            PalamError: no bridge there, or a token.
        """
        given = {name for name in options if not name.startswith("_")}  # those are the library's
        listed = ", ".join(sorted({"load_in", *BRIDGE_OPTIONS}))
        # Not refused: another release of the library may give more of its own.
        for name in sorted(given - LIBRARY_OPTIONS - BRIDGE_OPTIONS):
            tell(f"model_kwargs has {name!r}, which does nothing; for a bridge there are: {listed}")
        if token is not None:
            raise PalamError("a token is taken from `hf auth login` or HF_TOKEN; give none here")
        placement = resolve_placement(load_in=load_in)
        if isinstance(dtype, torch.dtype):
            placement["dtype"] = dtype
        chosen = {name: value for name, value in options.items() if name in BRIDGE_OPTIONS}
        return PalamModel.from_pretrained(path, revision=revision, **{**placement, **chosen})


class PalamPipeline(Pipeline):
    """Texts in, an answer a text out: a text, a list of them, or a stream.

    A list gives a list, and anything else that can be iterated over (a generator, a data set's
    column) an iterator, for which 1,024 texts are read at a time.
    """

    model: Any  # a PalamModel, which is none of the library's models
    answers: Callable[..., list[Any]]
    """Gives an answer for each text of a list; of the task."""

    def __call__(
        self, inputs: Any, *args: Any, batch_size: int | None = None, **options: Any
    ) -> Any:
        """The answers.

        Args:
            inputs: texts; see the class.
            *args: none are taken.
            batch_size: texts in one call of the models; default 32, or that of the pipeline.
            **options: of the task, see its class.
        """
        size = batch_size or self._batch_size or DEFAULT_BATCH_SIZE
        _, given, _ = self._sanitize_parameters(**options)
        parameters = {**self._forward_params, **given, "batch_size": size}
        if isinstance(inputs, str):
            return self.answers([inputs], **parameters)[0]
        if isinstance(inputs, list | tuple):
            return self.answers(inputs, **parameters)
        return self._stream(iter(inputs), parameters)

    def _stream(self, texts: Iterator[str], parameters: dict[str, Any]) -> Iterator[Any]:
        if not isinstance(parameters.get("languages"), str | None):
            raise PalamError("for a stream of texts, give one language for all of them")
        while chunk := list(islice(texts, CHUNK_SIZE)):
            yield from self.answers(chunk, **parameters)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(task={self.task!r}, device={str(self.device)!r})"

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], ...]:
        """All options are those of the forward step."""
        return {}, options, {}

    def preprocess(self, input_: Any, **_: Any) -> NoReturn:
        """Not used: a text is prepared with its batch."""
        raise NotImplementedError

    def _forward(self, input_tensors: Any, **_: Any) -> NoReturn:
        raise NotImplementedError

    def postprocess(self, model_outputs: Any, **_: Any) -> NoReturn:
        """Not used: see `answers`."""
        raise NotImplementedError


class PalamClassifyPipeline(PalamPipeline):
    """`pipeline("palam-classify", model)`: the most likely label of each text, and how likely.

    Options of a call, or of the pipeline, are `labels` (the words of each label, as a list or with
    commas between them; default those that the bridge was trained on), `languages` (a code for all
    texts or one a text; NLLB-style encoders need it) and `top_k` (default the best label, as
    `{"label": ..., "score": ...}`, its probability among the labels; a number, or None for all,
    gives a list of these, the best first).
    """

    def answers(
        self,
        texts: Sequence[str],
        *,
        batch_size: int = DEFAULT_BATCH_SIZE,
        labels: str | Sequence[str] | None = None,
        languages: str | Sequence[str | None] | None = None,
        top_k: int | None = 0,
    ) -> list[Any]:
        """The labels of each text; see the class."""
        names, scorer = self._scorer(labels)
        scores = scorer.score(
            _rendered(self.model, texts), _codes(languages, texts), batch_size=batch_size
        )
        answers = []
        for row in scores.double().softmax(1):
            order = row.argsort(descending=True, stable=True).tolist()
            ranked = [{"label": names[index], "score": row[index].item()} for index in order]
            answers.append(ranked[0] if top_k == 0 else ranked[:top_k])
        return answers

    def _scorer(self, labels: str | Sequence[str] | None) -> tuple[list[str], LabelScorer]:
        """The labels and what scores them; the same scorer as long as the labels are the same.

        Raises:
            PalamError: there are none.
        """
        task = self.model.config.trained_task
        trained = {} if task is None else task.words_by_label
        if isinstance(labels, str):
            labels = [label.strip() for label in labels.split(",")]
        names = list(labels or trained)
        words = list(labels or trained.values())
        if not names:
            raise PalamError("this bridge was not trained on labels; give some, labels=[...]")
        known: LabelScorer | None = getattr(self, "_known_scorer", None)
        if known is None or known.labels != words:
            template = label_template(self.model.processor, self.model.config)
            known = LabelScorer(self.model, words, template=template)
            self._known_scorer = known
        return names, known


class PalamGeneratePipeline(PalamPipeline):
    """`pipeline("palam-generate", model)`: what the LLM answers, as `{"generated_text": ...}`.

    Options of a call, or of the pipeline: `languages`, as for `palam-classify`, and those of
    transformers' `generate`; `max_new_tokens` is 64 by default.
    """

    def answers(
        self,
        texts: Sequence[str],
        *,
        batch_size: int = DEFAULT_BATCH_SIZE,
        languages: str | Sequence[str | None] | None = None,
        **generate_kwargs: Any,
    ) -> list[Any]:
        """What the LLM answers to each text."""
        answers = generate(
            self.model,
            _rendered(self.model, texts),
            _codes(languages, texts),
            batch_size=batch_size,
            **generate_kwargs,
        )
        return [{"generated_text": answer} for answer in answers]


def _rendered(model: PalamModel, texts: Sequence[str]) -> list[str]:
    """What the encoder reads; see [`text_alone`].

    Raises:
        PalamError: something that is no text.
    """
    task = model.config.trained_task
    return [text_alone(task, text) for text in checked_texts(texts)]


def _codes(languages: str | Sequence[str | None] | None, texts: Sequence[str]) -> list[str | None]:
    """A language a text.

    Raises:
        PalamError: not as many as texts.
    """
    if isinstance(languages, str | None):
        return [languages] * len(texts)
    if len(languages) != len(texts):
        raise PalamError(f"there are {len(texts)} texts and {len(languages)} languages")
    return list(languages)


TASKS = {"palam-classify": PalamClassifyPipeline, "palam-generate": PalamGeneratePipeline}
"""The pipelines by task."""

for task, pipeline_class in TASKS.items():
    PIPELINE_REGISTRY.register_pipeline(
        task, pipeline_class, pt_model=BridgeLoader, default=None, type="text"
    )

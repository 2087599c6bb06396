"""The model card: a checkpoint's README.md, from its configuration and its run's results."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from palam.models.card_results import eval_results, results_table
from palam.models.configuration import PalamConfig
from palam.models.fingerprint import ROLES
from palam.models.template import Template
from palam.starter.marker import origin
from palam.starter.sources import SOURCES
from palam.utils.languages import find_language
from palam.utils.settings import dump_yaml
from palam.utils.templating import render

CARD = "README.md"
RELATION = "adapter"
"""A bridge adds weights to models that stay as they are; the hub has no nearer word."""
TAGS = ["palam", "multilingual", "zero-shot"]
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
HUB_CACHE = re.compile(r"(^|[/\\])models--(?P<name>[^/\\]+)[/\\]snapshots([/\\]|$)")
"""A folder of the hub's cache; its name has `--` in place of the id's slash."""
LOCAL_PATH = re.compile(r"[/~.\\]|[A-Za-z]:[/\\]|.*[/\\].*[/\\]|.*\\")
"""How what can be no hub id begins: `/models/x`, `./x`, `C:\\x`, `a/b/c`."""
PATH_SETTINGS = (
    "encoder",
    "second_encoder",
    "llm",
    "file",
    "text_file",
    "soft_label_file",
    "lexicon",
    "data",
    "init_from",
    "solve_text_file",
    "prompts_file",
    "cache_dir",
)
"""Settings of a run that may be folders or files of the machine that it ran on."""
PLACE = "path/or/id"
"""What the card's code calls the checkpoint, until it has a name."""


def public_name(base: str) -> str:
    """What to call a base model elsewhere: its hub id, or its folder's name if that is not known.

    Args:
        base: hub id, folder, `starter:encoder` or `starter:llm`.
    """
    if base in SOURCES:
        return SOURCES[base].hub_id
    hub_id = origin(base) or _cached_id(base)
    if hub_id:
        return hub_id
    return local_name(base) if _is_local(base) else base


def on_hub(base: str) -> bool:
    """Whether a base model's public name is a hub id; the hub refuses a card that names another."""
    if base in SOURCES or origin(base) or _cached_id(base):
        return True
    return HUB_ID.fullmatch(base) is not None and not _is_local(base)


def local_name(path: str) -> str:
    """The last name of a local path, of this system's form or another's."""
    names = [name for name in re.split(r"[/\\]", path) if name]
    return names[-1] if names else path


def _is_local(name: str) -> bool:
    """Whether a model is a folder: there is one, or its name can be no hub id."""
    return LOCAL_PATH.match(name) is not None or Path(name).is_dir()


def _cached_id(path: str) -> str | None:
    """The hub id of a model in a folder of the hub's cache; None for another folder."""
    match = HUB_CACHE.search(path)
    return match["name"].replace("--", "/", 1) if match else None


def model_card(
    config: PalamConfig,
    *,
    parameters: int,
    template: Template,
    max_length: int,
    english: bool = False,
    settings: str | None = None,
    results: Mapping[str, Any] | None = None,
) -> str:
    """The text of a checkpoint's README.md.

    No folder of this machine that holds a base model is named in it.

    Args:
        config: of the bridge.
        parameters: how many the bridge has.
        template, max_length: of its processor.
        english: whether it was trained on English text alone.
        settings: of the run, as YAML; or None.
        results: of the run, by name; nested ones are left out. `validation_accuracy` and the
            `evaluations` of [`record_results`] are also given as the hub's model index has them.
    """
    results = results or {}
    encoders = [public_name(name) for part, name in config.bases.items() if part != "llm"]
    task = config.trained_task
    body = render(
        "palam.models",
        "card.md.j2",
        metadata=_metadata(config, results, _training_language(settings)).to_yaml(),
        config=config,
        encoders=encoders,
        llm=public_name(config.llm),
        unknown_bases=_unknown_bases(config),
        roles=ROLES,
        place=PLACE,
        parameters=f"{parameters:,}",
        english=english,
        task=task,
        labels=[] if task is None else list(task.words_by_label.values()),
        template=template,
        max_length=max_length,
        results=_shown_results(results),
        table=results_table(results.get("evaluations", ())),
        settings=None if settings is None else _public_settings(settings),
    )
    return str(ModelCard(body))


def _metadata(
    config: PalamConfig, results: Mapping[str, Any], language: str | None
) -> ModelCardData:
    """What the hub indexes. The bridge's licence is the user's to choose, and left out."""
    hub_ids = [public_name(base) for base in config.bases.values() if on_hub(base)]
    records = results.get("evaluations", ())
    evaluations = eval_results(records)
    accuracy = results.get("validation_accuracy")
    task = config.trained_task
    if accuracy is not None and task is not None:
        validation = EvalResult(
            task_type="text-classification",
            dataset_type=task.name,
            dataset_name=task.name,
            dataset_split="validation",
            metric_type="accuracy",
            metric_value=round(accuracy, 4),
        )
        evaluations.insert(0, validation)
    codes = [language] if language else []
    codes += [record["language"] for record in records]
    return ModelCardData(
        library_name="palam",
        pipeline_tag=pipeline_tag(config),
        tags=TAGS,
        language=hub_languages(codes) or None,
        base_model=hub_ids or None,
        base_model_relation=RELATION if hub_ids else None,
        model_name=model_name(config) if evaluations else None,
        eval_results=evaluations or None,
    )


def pipeline_tag(config: PalamConfig) -> str:
    """What the hub files the bridge under."""
    task = config.trained_task
    has_labels = task is not None and task.words_by_label
    return "text-classification" if has_labels else "text-generation"


def model_name(config: PalamConfig) -> str:
    """What the bridge is called in the hub's model index."""
    *encoders, llm = map(public_name, config.bases.values())
    return f"{' + '.join(encoders)} → {llm}"


def hub_languages(codes: Iterable[str]) -> list[str]:
    """The languages that codes mean as the hub writes them, ISO 639-1 or -3, each once."""
    written = []
    for code in codes:
        language = find_language(code)
        if language is not None:
            written.append(language.iso1 or language.iso3)
    return list(dict.fromkeys(written))


def _training_language(settings: str | None) -> str | None:
    """The code of the language that a run was trained on; None without settings."""
    if settings is None:
        return None
    return yaml.safe_load(settings).get("language") or "en"


def _unknown_bases(config: PalamConfig) -> dict[str, str]:
    """The names of base models that are not on the hub, as [`PalamConfig.bases`] has them."""
    return {part: public_name(base) for part, base in config.bases.items() if not on_hub(base)}


def _shown_results(results: Mapping[str, Any]) -> dict[str, str]:
    """The results that one cell of a table can hold, in words."""
    shown = {}
    for name, value in results.items():
        if value is not None and not isinstance(value, Mapping | list):
            in_words = name.replace("_", " ")
            shown[in_words] = f"{value:.4g}" if isinstance(value, float) else str(value)
    return shown


def _public_settings(settings: str) -> str:
    """A run's settings as YAML, with folders and files by their public names."""
    values = public_paths(yaml.safe_load(settings), PATH_SETTINGS)
    return dump_yaml(values)


def local_paths(settings: Mapping[str, Any]) -> dict[str, str]:
    """The paths of a machine that a run's settings name, each with its public name.

    Args:
        settings: by name; only those of `PATH_SETTINGS` are looked at.
    """
    public = public_paths(settings, PATH_SETTINGS)
    return {
        settings[name]: public[name]
        for name in PATH_SETTINGS
        if isinstance(settings.get(name), str) and settings[name] != public[name]
    }


def without_paths(text: str, paths: Mapping[str, str]) -> str:
    """A text with the public names of paths in their places.

    Args:
        text: any.
        paths: of [`local_paths`]; the longest are looked for first, as others may begin them.
    """
    for path in sorted(paths, key=len, reverse=True):
        text = text.replace(path, paths[path])
    return text


def public_paths(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Values by name, some of which are paths: these by their public names.

    Args:
        values: of any kind.
        names: of those that may be paths, base models among them.
    """
    public = dict(values)
    for name in names:
        value = public.get(name)
        if isinstance(value, str) and value and value not in SOURCES:
            public[name] = public_name(value)
    return public

"""Publishing a checkpoint on the hub: its own files alone, without paths of its machine."""

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from palam.errors import PalamError
from palam.models.card_results import read_card
from palam.models.checkpoint import (
    ADAPTER_FOLDER,
    LOG_FILE,
    RESULTS_FILE,
    SETTINGS_FILE,
    load_bridge,
)
from palam.models.configuration import PalamConfig
from palam.models.model_card import (
    CARD,
    PATH_SETTINGS,
    PLACE,
    RELATION,
    TAGS,
    hub_languages,
    local_paths,
    on_hub,
    pipeline_tag,
    public_name,
    public_paths,
    without_paths,
)
from palam.utils.hub import is_http_error
from palam.utils.settings import dump_yaml, parse_yaml
from palam.utils.texts import first_line

BASE_NAMES = ("encoder", "second_encoder", "llm")
JSON_FILES = {
    "config.json": (*BASE_NAMES, "_name_or_path"),
    "processor_config.json": BASE_NAMES,
    f"{ADAPTER_FOLDER}/adapter_config.json": ("base_model_name_or_path",),
}
"""JSON files of what is loaded, each with the names of what may be a local path in it."""
OTHER_FILES = (
    "model.safetensors",
    f"{ADAPTER_FOLDER}/adapter_model.safetensors",
    LOG_FILE,
)
"""Those that are published as they are."""
REQUIRED = ("config.json", "model.safetensors", "processor_config.json")
CARD_SETTINGS = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
"""The run's settings in a card."""


@dataclass(frozen=True, kw_only=True)
class CardDetails:
    """What a card says that only the user knows; None, and no names, leave it as it is."""

    license: str | None = None
    """The bridge's licence as the hub writes it, e.g. `apache-2.0`."""
    encoder: str | None = None
    """The encoder's hub id, if the checkpoint names a folder."""
    second_encoder: str | None = None
    """The second encoder's, if the bridge has two."""
    llm: str | None = None
    """The LLM's hub id, likewise."""
    datasets: list[str] = field(default_factory=list)
    """The hub ids of what it was trained on."""
    languages: list[str] = field(default_factory=list)
    """Codes of the languages that it reads, beside those of the recorded results."""


class Publication(NamedTuple):
    """What is published."""

    folder: Path
    """With these files and no others."""
    sizes: dict[str, int]
    """In bytes, by file."""
    card: str
    """The text of its README.md."""

    @property
    def front_matter(self) -> str:
        """The card's metadata, as YAML."""
        return str(read_card(self.card).data.to_yaml())


def publish(
    write: Callable[[Path], None], repo_id: str, details: CardDetails, **options: Any
) -> str:
    """Publish a checkpoint that is not on the disk yet, and return its address.

    Args:
        write: writes the checkpoint's files into an existing folder.
        repo_id, details: see [`prepare_publication`].
        **options: of [`upload`].

    Raises:
        PalamError: see both.
    """
    with tempfile.TemporaryDirectory() as name:
        checkpoint = Path(name) / "checkpoint"
        folder = Path(name) / "publication"
        checkpoint.mkdir()
        folder.mkdir()
        write(checkpoint)
        publication = prepare_publication(checkpoint, folder, repo_id, details)
        return upload(publication, repo_id, **options)


def prepare_publication(
    checkpoint: Path, folder: Path, repo_id: str, details: CardDetails
) -> Publication:
    """Check a checkpoint and copy what is published of it, its card completed.

    Base models that are folders are called by their public names, and other paths by their last
    names.

    Args:
        checkpoint: its folder; it is not changed.
        folder: an empty one, for the copy.
        repo_id: the repository's name on the hub.
        details: for the card.

    Raises:
        PalamError: a name that the hub does not take, no whole checkpoint, or a damaged file.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise PalamError(first_line(error)) from None
    for name in REQUIRED:
        if not (checkpoint / name).is_file():
            raise PalamError(f"{checkpoint} is no folder with a checkpoint: it has no {name}")
    config = load_bridge(checkpoint).config
    paths = _paths_of_its_machine(checkpoint, config)
    card = without_paths(_completed_card(checkpoint, config, repo_id, details), paths)
    config = _with_public_bases(config, details)
    for name in OTHER_FILES:
        if (checkpoint / name).is_file():
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(checkpoint / name, folder / name)
    for name, names in JSON_FILES.items():
        if (checkpoint / name).is_file():
            (folder / name).parent.mkdir(exist_ok=True)
            content = _public_json(checkpoint / name, names, config)
            (folder / name).write_text(content, encoding="utf-8")
    if (checkpoint / RESULTS_FILE).is_file():
        results = _without_paths(_read_json(checkpoint / RESULTS_FILE), paths)
        (folder / RESULTS_FILE).write_text(_json_text(results), encoding="utf-8")
    if (checkpoint / SETTINGS_FILE).is_file():
        content = _public_settings_file(checkpoint / SETTINGS_FILE, config)
        (folder / SETTINGS_FILE).write_text(content, encoding="utf-8")
    (folder / CARD).write_text(card, encoding="utf-8")
    sizes = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    return Publication(folder, sizes, card)


def upload(
    publication: Publication,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    token: str | None = None,
    commit_message: str = "Upload a Palam bridge",
    **options: Any,
) -> str:
    """Upload a publication and return its address.

    Args:
        publication: of [`prepare_publication`].
        repo_id: `name` or `organisation/name`; created if it does not exist.
        private: whether a new repository can be seen by its owner alone.
        revision: a branch, created if it does not exist; None is the main one.
        token: of the hub; None is that of the environment or of `hf auth login`.
        commit_message: its first line.
        **options: others of `HfApi.upload_folder`, e.g. `create_pr`.

    Raises:
        PalamError: no token, no permission, or the hub cannot be reached.
    """
    if token is None and get_token() is None:
        raise PalamError("the hub needs a token: run `hf auth login`, or set HF_TOKEN")
    api = HfApi(token=token)

    def push() -> str:
        created = api.create_repo(repo_id, private=private or None, exist_ok=True).repo_id
        if revision is not None:
            api.create_branch(created, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=created,
            folder_path=str(publication.folder),
            allow_patterns=list(publication.sizes),
            revision=revision,
            commit_message=commit_message,
            **options,
        )
        return str(commit)

    return _in_one_line(push, repo_id)


def _in_one_line(push: Callable[[], str], repo_id: str) -> str:
    """What the upload returns; the hub's errors in one line.

    Raises:
        PalamError: in place of them.
    """
    try:
        return push()
    except OfflineModeIsEnabled:
        raise PalamError("the hub is switched off by HF_HUB_OFFLINE; unset it") from None
    except HfHubHTTPError as error:
        code = error.response.status_code if error.response is not None else None
        if code in (401, 403):
            reason = f"the token may not write to {repo_id}; run `hf auth login` with another"
        else:
            reason = first_line(error)
        raise PalamError(f"the hub refuses {repo_id}: {reason}") from None
    except (OSError, RuntimeError) as error:
        raise _unreachable(error) from None
    except Exception as error:
        if is_http_error(error):
            raise _unreachable(error) from None
        raise


def _unreachable(error: Exception) -> PalamError:
    return PalamError(f"the hub cannot be reached: {first_line(error)}")


def _with_public_bases(config: PalamConfig, details: CardDetails) -> PalamConfig:
    """A configuration whose base models have their public names; starter models keep theirs."""
    for part, base in config.bases.items():
        given = getattr(details, part)
        name = public_paths({part: base}, [part])[part]
        setattr(config, part, given or name)
    return config


def _paths_of_its_machine(checkpoint: Path, config: PalamConfig) -> dict[str, str]:
    """The paths that a run has left in a checkpoint, each with its public name.

    Cards of before named them too.
    """
    settings: list[dict[str, Any]] = [dict(config.bases)]
    if (checkpoint / SETTINGS_FILE).is_file():
        settings.append(_settings_of(checkpoint / SETTINGS_FILE))
    if (checkpoint / CARD).is_file():
        card = (checkpoint / CARD).read_text(encoding="utf-8")
        settings += [_card_settings(block) for block in CARD_SETTINGS.findall(card)]
    paths: dict[str, str] = {}
    for some in settings:
        paths.update(local_paths(some))
    return paths


def _card_settings(block: str) -> dict[str, Any]:
    """The settings in a card; none if the block holds something else."""
    try:
        settings = parse_yaml(block)
    except ValueError:
        settings = None
    return settings if isinstance(settings, dict) else {}


def _public_json(path: Path, names: Iterable[str], config: PalamConfig) -> str:
    """A JSON file with paths by their public names.

    Raises:
        PalamError: it is damaged.
    """
    public = public_paths(_read_json(path), names)
    for part, base in config.bases.items():
        if part in names:
            public[part] = base
    if public.get("base_model_name_or_path"):  # of the adapter
        public["base_model_name_or_path"] = public_name(config.llm)
    return _json_text(public)


def _read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file.

    Raises:
        PalamError: it is damaged.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise PalamError(f"{path} is damaged: it is no JSON mapping")
    return content


def _json_text(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _public_settings_file(path: Path, config: PalamConfig) -> str:
    """The run's settings with paths by their public names, as YAML.

    Raises:
        PalamError: the file is damaged.
    """
    public = public_paths(_settings_of(path), PATH_SETTINGS)
    public.update(config.bases)
    return dump_yaml(public)


def _settings_of(path: Path) -> dict[str, Any]:
    """A run's settings.

    Raises:
        PalamError: the file is damaged.
    """
    try:
        settings = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PalamError(f"{path} is damaged: {error}") from None
    if not isinstance(settings, dict):
        raise PalamError(f"{path} is damaged: it holds no settings by name")
    return settings


def _without_paths(value: Any, paths: Mapping[str, str]) -> Any:
    """A value of JSON with the public names of paths in their places, in all of its texts."""
    if isinstance(value, str):
        return without_paths(value, paths)
    if isinstance(value, list):
        return [_without_paths(element, paths) for element in value]
    if isinstance(value, dict):
        return {key: _without_paths(element, paths) for key, element in value.items()}
    return value


def _completed_card(
    checkpoint: Path, config: PalamConfig, repo_id: str, details: CardDetails
) -> str:
    """The checkpoint's card with all that the hub asks for; what it says already is kept."""
    path = checkpoint / CARD
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    card = read_card(text)
    data: Any = card.data  # a ModelCardData
    bases = [getattr(details, part) or base for part, base in config.bases.items()]
    hub_ids = [public_name(base) for base in bases if on_hub(base)]
    data.library_name = data.library_name or "palam"
    data.pipeline_tag = data.pipeline_tag or pipeline_tag(config)
    data.tags = list(dict.fromkeys([*(data.tags or []), *TAGS]))
    data.license = details.license or data.license
    data.base_model = hub_ids or [name for name in _listed(data.base_model) if on_hub(name)] or None
    data.base_model_relation = data.get("base_model_relation") if data.base_model else None
    if data.base_model and data.base_model_relation is None:
        data.base_model_relation = RELATION
    data.datasets = list(dict.fromkeys([*_listed(data.datasets), *details.datasets])) or None
    languages = [*_listed(data.language), *hub_languages(details.languages)]
    data.language = list(dict.fromkeys(languages)) or None
    card.text = card.text.replace(f'"{PLACE}"', f'"{repo_id}"')
    for part, base in config.bases.items():
        given = getattr(details, part)
        if given is not None:
            card.text = _with_base(card.text, public_name(base), given)
    return str(card)


def _with_base(text: str, old: str, new: str) -> str:
    """A card's text with a base model by another name: that of the hub, where all can load it."""
    lines = []
    for line in text.split("\n"):
        if f"**{old}**, was a local folder" in line:
            continue
        if line.startswith("# A Palam bridge: "):
            line = line.replace(old, new)
        lines.append(line.replace(f"**{old}**", f"**{new}**"))
    return "\n".join(lines)


def _listed(value: str | list[str] | None) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)

"""`palam push`."""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from palam.cli._options import NameList, silence_libraries
from palam.cli._output import print_values
from palam.errors import PalamError


@dataclass(frozen=True, kw_only=True)
class CardConfig:
    """What the card says that the checkpoint does not."""

    license: str | None = None
    """The bridge's licence, e.g. apache-2.0."""
    languages: NameList = None
    """Codes of the languages that it reads, beside those of recorded results."""
    datasets: NameList = None
    """Hub ids of what it was trained on; not set is the task's."""
    encoder: str | None = None
    """The encoder's hub id, if the bridge was trained with a folder."""
    second_encoder: str | None = None
    """The second encoder's hub id, likewise."""
    llm: str | None = None
    """The LLM's hub id, likewise."""


CardOptions = Annotated[CardConfig, Parameter(name="*", group=Group("Card", sort_key=1))]
NO_DETAILS = CardConfig()


def push(
    checkpoint: Annotated[str, Parameter(help="A bridge: a folder, or starter:bridge.")],
    name: str,
    /,
    *,
    private: bool = False,
    revision: str | None = None,
    dry_run: bool = False,
    card: CardOptions = NO_DETAILS,
) -> None:
    """Publish a bridge on the Hugging Face hub.

    Its own files are uploaded, with the card completed: no other files of the folder, nothing of
    the base models, and no path of this machine. The token is that of `hf auth login` or HF_TOKEN.

    Args:
        name: The repository: name or organisation/name; created if it does not exist.
        private: Only its owner can see a new repository.
        revision: A branch, created if it does not exist; not set is the main one.
        dry_run: Show the files and the card's head, and upload nothing.
    """
    silence_libraries()
    from palam.models.publishing import CardDetails, prepare_publication, upload
    from palam.starter.resolve import resolve

    bridge = Path(resolve(checkpoint))
    if not bridge.is_dir():
        raise PalamError(f"{checkpoint} is no folder here; a bridge is pushed from its folder")
    with tempfile.TemporaryDirectory() as folder:
        details = CardDetails(
            license=card.license,
            encoder=card.encoder,
            second_encoder=card.second_encoder,
            llm=card.llm,
            datasets=_training_datasets(bridge) if card.datasets is None else card.datasets,
            languages=card.languages or [],
        )
        publication = prepare_publication(bridge, Path(folder), name, details)
        if "license:" not in publication.front_matter:
            print("the card names no licence; give one, e.g. --license apache-2.0", file=sys.stderr)
        if dry_run:
            print_values({file: f"{size:,} bytes" for file, size in publication.sizes.items()})
            print(f"\n{publication.front_matter}")
            return
        address = upload(publication, name, private=private, revision=revision)
    print(address)


def _training_datasets(checkpoint: Path) -> list[str]:
    """The hub's data set of the task that a bridge was trained on; none of a file of one's own."""
    from palam.models.configuration import PalamConfig
    from palam.tasks.registry import TASKS

    if not (checkpoint / "config.json").is_file():
        return []  # it is refused in a moment
    config = PalamConfig.from_pretrained(checkpoint)
    if config.trained_task is None:
        return []
    task = TASKS.get(config.trained_task.name)
    return [task.hub.id] if task is not None and task.hub is not None else []

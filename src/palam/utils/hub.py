"""Asking the Hugging Face hub for something once, before a library asks for it again and again.

The libraries that load from the hub repeat what fails for half a minute a file, and their errors
are long. One short question tells what is wrong, or that the files in the cache have to do.
"""

import time
from typing import NamedTuple

from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from palam.errors import PalamError
from palam.utils.texts import first_line

ANSWER_SECONDS = 10
"""How long the hub may take to answer."""
SILENT_SECONDS = 60
"""How long a hub that did not answer is not asked again."""
HTTP_LIBRARIES = frozenset({"httpx", "httpx2", "httpcore", "httpcore2", "requests"})
"""Those that huggingface_hub's releases use, whose errors are not its own."""
HUB_ERRORS = (HFValidationError, OfflineModeIsEnabled, HfHubHTTPError)
"""What huggingface_hub itself raises for a question."""
NO_HUB = "what answers is not the hub (HF_ENDPOINT, or a proxy)"
LOGIN = "run `hf auth login`, or set HF_TOKEN"


class HubUnreachable(PalamError):
    """The hub does not answer: what is wrong is not the name that was asked for."""


class HubOffline(HubUnreachable):
    """The hub was not asked: `HF_HUB_OFFLINE` is set."""


class HubFile(NamedTuple):
    """A file of a repository."""

    repo_id: str
    name: str
    revision: str | None = None
    """None is the main branch."""
    repo_type: str = "model"
    """`"model"` or `"dataset"`."""

    @property
    def address(self) -> str:
        """Of the repository's page."""
        folder = "datasets/" if self.repo_type == "dataset" else ""
        return f"https://huggingface.co/{folder}{self.repo_id}"

    @property
    def not_here(self) -> str:
        """That a model's name is not that of a folder either."""
        return "no such folder, and " if self.repo_type == "model" else ""

    @property
    def use_a_folder(self) -> str:
        """What can be done with a model where there is no hub."""
        return ", or give a folder" if self.repo_type == "model" else ""


class Hub:
    """The hub, and how it answered so far."""

    def __init__(self) -> None:
        self._found: set[HubFile] = set()
        self._silent_since = -SILENT_SECONDS - 1.0
        self._silence = ""

    def is_only_cached(self, file: HubFile) -> bool:
        """Whether a repository must be read from the cache, as the hub does not give it.

        Args:
            file: one that the repository has; it is not fetched.

        Raises:
            HubUnreachable: the hub does not answer, and the cache does not have the file.
            PalamError: the hub does not give the repository, nor has the cache the file. The
                message says why: it is not there, gated or private.
        """
        if file in self._found:
            return False
        try:
            self._ask(file)
        except PalamError:
            if self._is_cached(file):
                return True
            raise
        self._found.add(file)
        return False

    def _is_cached(self, file: HubFile) -> bool:
        try:
            place = try_to_load_from_cache(
                file.repo_id, file.name, revision=file.revision, repo_type=file.repo_type
            )
        except HFValidationError:
            return False
        return place is not None  # which may be that the repository has no such file

    def _ask(self, file: HubFile) -> None:
        """Ask for a file's size.

        Raises:
            PalamError: the hub does not give its repository.
        """
        if time.monotonic() - self._silent_since < SILENT_SECONDS:
            raise self._unreachable(self._silence, file)
        try:
            url = hf_hub_url(
                file.repo_id, file.name, revision=file.revision, repo_type=file.repo_type
            )
            metadata = get_hf_file_metadata(url, timeout=ANSWER_SECONDS)
        except EntryNotFoundError:
            return  # the repository is there, and its reader tells what it lacks
        except HUB_ERRORS as error:
            raise _readable(error, file) from None
        except Exception as error:
            if not (isinstance(error, OSError) or is_http_error(error)):
                raise
            self._remember_silence(f"the hub cannot be reached ({first_line(error)})")
            raise self._unreachable(self._silence, file) from None
        if metadata.commit_hash is None:
            raise self._unreachable(NO_HUB, file)

    def _remember_silence(self, reason: str) -> None:
        self._silent_since = time.monotonic()
        self._silence = reason

    def _unreachable(self, reason: str, file: HubFile) -> HubUnreachable:
        return HubUnreachable(f"{file.not_here}{reason}: check the network{file.use_a_folder}")


HUB = Hub()
"""The process's."""


def _readable(error: Exception, file: HubFile) -> PalamError:
    """An error of the hub's library in one line that says what can be done."""
    if isinstance(error, HFValidationError):
        return PalamError(f"{file.not_here}no name that the hub could have")
    if isinstance(error, OfflineModeIsEnabled):
        return HubOffline(
            f"{file.not_here}not in the cache: unset HF_HUB_OFFLINE{file.use_a_folder}"
        )
    if isinstance(error, GatedRepoError):
        return PalamError(f"it is gated: agree to its terms at {file.address}, then {LOGIN}")
    if isinstance(error, RepositoryNotFoundError):
        return PalamError(
            f"{file.not_here}the hub does not have it, or it is private: check the name; if it is "
            f"private, {LOGIN}"
        )
    if isinstance(error, RevisionNotFoundError):
        return PalamError(f"{file.address} has no revision {file.revision or 'main'!r}")
    response = getattr(error, "response", None)
    code = getattr(response, "status_code", None)
    if code in (401, 403):
        return PalamError(f"the hub refuses it ({code}): {LOGIN}, of one who may read it")
    answer = first_line(error) if code is None else f"with error {code}"
    return HubUnreachable(f"the hub answers {answer}: try again later")


def is_http_error(error: BaseException) -> bool:
    """Whether an error is that of a library below huggingface_hub: no network, no answer."""
    return type(error).__module__.partition(".")[0] in HTTP_LIBRARIES

"""The hub is asked once, and what is wrong is one line that says what to do."""

import httpx
import pytest
from huggingface_hub import HfFileMetadata
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from palam import PalamError
from palam.models.backbones.encoder import load_encoder
from palam.models.backbones.loading import load_tokenizer
from palam.utils import hub
from palam.utils.hub import HubFile, HubUnreachable

FILE = HubFile("lab/model", "config.json", "v2")
REQUEST = httpx.Request("HEAD", "https://huggingface.co/lab/model")


def answer(code):
    return httpx.Response(code, request=REQUEST)


@pytest.fixture
def asked(monkeypatch):
    """A hub that gives `asked.answer`, and is asked for the addresses in `asked`."""

    class Asked(list):
        answer = HfFileMetadata(
            commit_hash="1" * 40, etag="2", location="", size=1, xet_file_data=None
        )

        def ask(self, url, **_):
            self.append(url)
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

    asked = Asked()
    monkeypatch.setattr(hub, "get_hf_file_metadata", asked.ask)
    monkeypatch.setattr(hub, "HUB", hub.Hub())
    monkeypatch.setattr("palam.models.backbones.loading.HUB", hub.HUB)
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_, **__: None)
    return asked


def refusal(action, *arguments):
    with pytest.raises(PalamError) as error:
        action(*arguments)
    assert "\n" not in str(error.value)
    return error.value


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (GatedRepoError("no", response=answer(403)), "agree to its terms at https://hugg"),
        (RepositoryNotFoundError("no", response=answer(404)), "check the name; if it is private"),
        (RevisionNotFoundError("no", response=answer(404)), "lab/model has no revision 'v2'"),
        (HfHubHTTPError("no", response=answer(403)), "refuses it (403): run `hf auth login`"),
    ],
)
def test_a_repository_that_the_hub_does_not_give(asked, error, message):
    asked.answer = error
    refused = refusal(hub.HUB.is_only_cached, FILE)
    assert message in str(refused)
    assert not isinstance(refused, HubUnreachable)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (httpx.ConnectError("[Errno 111] refused"), "cannot be reached ([Errno 111] refused)"),
        (httpx.ReadTimeout("timed out"), "cannot be reached (timed out): check the network"),
        (OSError("no route"), "cannot be reached (no route)"),
        (OfflineModeIsEnabled("off"), "unset HF_HUB_OFFLINE, or give a folder"),
        (HfHubHTTPError("busy\nhtml", response=answer(503)), "with error 503: try again later"),
    ],
)
def test_a_hub_that_does_not_answer(asked, error, message):
    asked.answer = error
    refused = refusal(hub.HUB.is_only_cached, FILE)
    assert message in str(refused)
    assert isinstance(refused, HubUnreachable)


def test_a_page_of_a_captive_portal_is_no_hub(asked):
    asked.answer = HfFileMetadata(
        commit_hash=None, etag=None, location="", size=1, xet_file_data=None
    )
    assert "what answers is not the hub" in str(refusal(hub.HUB.is_only_cached, FILE))


def test_a_repository_is_asked_for_once(asked):
    assert [hub.HUB.is_only_cached(FILE) for _ in range(3)] == [False] * 3
    assert len(asked) == 1
    asked.answer = EntryNotFoundError("no")  # the repository is there
    assert not hub.HUB.is_only_cached(HubFile("lab/data", "README.md", repo_type="dataset"))
    assert asked[1] == "https://huggingface.co/datasets/lab/data/resolve/main/README.md"


def test_a_silent_hub_is_left_alone_for_a_while(asked, monkeypatch):
    asked.answer = httpx.ConnectError("down")
    for name in ("model", "other"):
        assert "(down)" in str(refusal(hub.HUB.is_only_cached, FILE._replace(repo_id=name)))
    assert len(asked) == 1
    now = hub.time.monotonic()
    monkeypatch.setattr(hub.time, "monotonic", lambda: now + hub.SILENT_SECONDS + 1)
    refusal(hub.HUB.is_only_cached, FILE)
    assert len(asked) == 2


def test_what_is_in_the_cache_serves_where_the_hub_does_not(asked, monkeypatch):
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_, **__: "/cache/config.json")
    for error in (httpx.ConnectError("down"), GatedRepoError("no", response=answer(403))):
        asked.answer = error
        assert hub.HUB.is_only_cached(FILE)


@pytest.mark.parametrize(("load", "role"), [(load_encoder, "encoder"), (load_tokenizer, "tok")])
def test_a_model_is_named_with_what_is_wrong(asked, load, role):
    asked.answer = GatedRepoError("no", response=answer(403))
    message = str(refusal(load, "lab/model"))
    assert message.startswith(role)
    assert "'lab/model' cannot be loaded: it is gated: agree to its terms at https://" in message


def test_a_name_that_is_none_of_the_hubs_is_not_asked_for(asked):
    assert "no such folder" in str(refusal(load_encoder, "/nowhere/at all"))
    assert asked == []

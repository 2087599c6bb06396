"""Shared fixtures: tiny random base models on disk, and a bridge between two of them.

No network, one thread.
"""

import gc
import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's library is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start

import forked
import pytest
import tiny
import torch
from helpers import FakeHub

from palam import PalamModel
from palam.inference.scoring import LabelScorer
from palam.models import publishing
from palam.scale import workers

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def workers_that_start_at_once():
    """Let workers of this process begin with the libraries imported, see [`forked`].

    Those of a command in a process of its own begin as they do for users.
    """
    workers.START_METHOD = forked.START_METHOD


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk():
    """What is written need not outlive a crash of the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="module", autouse=True)
def collections_that_find_little():
    """Leave what is there by now out of full garbage collections.

    Libraries ask for one after each training and each test statistic. Among all the modules that
    are imported here, one takes seconds.
    """
    gc.freeze()


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory):
    """A tiny base model's folder: `base_folder("llama", seed=1, attention_dropout=0.5)`.

    Takes any of `tiny.FAMILIES` and `tiny.LLMS`. Written once a session: do not change the files.
    """
    folders = {}

    def build(family, **settings):
        key = (family, repr(sorted(settings.items())))
        if key not in folders:
            write = tiny.tiny_llm if family in tiny.LLMS else tiny.tiny_encoder
            folder = tmp_path_factory.mktemp("base") / family
            # A base made just now must not reseed the test that asks for it.
            with torch.random.fork_rng():
                folders[key] = write(folder, family, **settings)
        return folders[key]

    return build


@pytest.fixture(scope="session")
def tiny_model(base_folder):
    """A new bridge between two tiny base models: `tiny_model("bert", "llama", fusion="mean")`.

    Encoder and LLM are families or folders; the other options are those of `PalamModel.from_bases`.
    What is not given is as in the paper: no prompt and no normalisation.
    """
    paper = {"fusion": "global_softmax", "mode": "paper", "normalize": "none"}

    def build(encoder="bert", llm="llama", **options):
        folders = []
        for name in (encoder, llm):
            is_family = name in tiny.FAMILIES or name in tiny.LLMS
            folders.append(str(base_folder(name) if is_family else name))
        return PalamModel.from_bases(*folders, **{**paper, **options})

    return build


@pytest.fixture
def hub(tmp_path_factory, monkeypatch):
    """The model hub, which keeps what is uploaded in `hub.root`; `hub.calls` are its calls."""
    fake = FakeHub()
    fake.root = tmp_path_factory.mktemp("hub")
    fake.calls = []
    monkeypatch.setattr(publishing, "HfApi", lambda token: fake)
    monkeypatch.setattr(publishing, "get_token", lambda: "hf_token")
    return fake


def pytest_collection_modifyitems(items):
    """Tests that fetch published tokenizers run only where they are asked for."""
    if os.environ.get("PALAM_NETWORK_TESTS"):
        return
    skip = pytest.mark.skip(reason="set PALAM_NETWORK_TESTS=1 to fetch published tokenizers")
    for item in items:
        if "network" in item.keywords:
            item.add_marker(skip)


@pytest.fixture
def scored_texts(monkeypatch):
    """All texts that are scored from now on, in their order."""
    texts = []
    score = LabelScorer.score

    def recording_score(self, chunk, *arguments, **options):
        texts.extend(chunk)
        return score(self, chunk, *arguments, **options)

    monkeypatch.setattr(LabelScorer, "score", recording_score)
    return texts

"""Shared fixtures: tiny random base models on disk, and a bridge between two of them. No network, one thread."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's library is imported

import pytest
import tiny
import torch

from palam import PalamModel

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory):
    """`base_folder("bert")`, `base_folder("llama", seed=1, attention_dropout=0.5)`: a tiny base model's folder.

    Takes any of `tiny.FAMILIES` and `tiny.LLMS`. Written once a session: do not change the files.
    """
    made = {}

    def build(family, **settings):
        key = (family, repr(sorted(settings.items())))
        if key not in made:
            write = tiny.tiny_llm if family in tiny.LLMS else tiny.tiny_encoder
            with (
                torch.random.fork_rng()
            ):  # a base made just now must not reseed the test that asks for it
                made[key] = write(tmp_path_factory.mktemp("base") / family, family, **settings)
        return made[key]

    return build


@pytest.fixture(scope="session")
def tiny_model(base_folder):
    """`tiny_model("bert", "llama", fusion="mean", ...)`: a new bridge between two tiny base models, in eval mode.

    Encoder and LLM are families or folders; the other options are those of `PalamModel.from_bases`.
    What is not given is as in the paper: no prompt and no normalisation.
    """
    paper = {"fusion": "global_softmax", "mode": "paper", "normalize": "none"}

    def build(encoder="bert", llm="llama", **options):
        bases = (
            str(base_folder(name) if name in (*tiny.FAMILIES, *tiny.LLMS) else name)
            for name in (encoder, llm)
        )
        return PalamModel.from_bases(*bases, **(paper | options)).eval()

    return build

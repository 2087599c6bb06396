"""A bridge between tiny base models on disk, and files of rows."""

import pytest
from helpers import write_jsonl


@pytest.fixture(scope="session")
def bridge(tiny_model, tmp_path_factory):
    """The folder of a bridge that reads texts; not to be changed."""
    folder = tmp_path_factory.mktemp("scale") / "bridge"
    tiny_model(mode="prompt", prompt="{text}\nTopic:").save_pretrained(folder)
    return folder


@pytest.fixture
def corpus(tmp_path):
    """A folder with three files of JSON lines, six rows each."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(3):
        rows = [{"id": 6 * number + i, "text": f"the fox {6 * number + i}"} for i in range(6)]
        write_jsonl(folder / f"part-{number}.jsonl", rows)
    return folder

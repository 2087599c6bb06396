"""Results of an evaluation in a checkpoint's `results.json` and card."""

import json
import shutil

import pytest
import yaml
from huggingface_hub import ModelCard

from palam import PalamError, PalamModel
from palam.inference.evaluation import Evaluation
from palam.inference.record import record_results


@pytest.fixture(scope="module")
def checkpoint(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("record") / "bridge"
    tiny_model().save_pretrained(folder)
    (folder / "results.json").write_text('{"rows": 7}')
    return folder


@pytest.fixture
def bridge(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / "bridge")


def evaluation(right, language="sin_Sinh", split="dev", task="sib200"):
    result = Evaluation(task, split, "")
    predictions = [{"row": row, "label": "a", "prediction": "b"} for row in range(4)]
    for row in range(right):
        predictions[row]["prediction"] = "a"
    result.add(language, predictions)
    return result


def index(folder):
    """The card's results: by language and split, the accuracy."""
    card = ModelCard.load(folder / "README.md")
    return {
        (entry.dataset_config, entry.dataset_split): entry.metric_value
        for entry in card.data.eval_results
        if entry.metric_type == "accuracy"
    }


def test_results_are_added_and_replaced(bridge):
    record_results(bridge, evaluation(1))
    record_results(bridge, evaluation(2, "tam_Taml"))
    record_results(bridge, evaluation(3))
    assert index(bridge) == {("sin_Sinh", "dev"): 0.75, ("tam_Taml", "dev"): 0.5}
    results = json.loads((bridge / "results.json").read_text())
    assert results["rows"] == 7
    records = results["evaluations"]
    assert [record["language"] for record in records] == ["sin_Sinh", "tam_Taml"]
    assert records[0]["n"] == 4
    assert records[0]["accuracy"] == 0.75
    assert records[0]["dataset"] == "mteb/sib200" or "/" in records[0]["dataset"]
    record_results(bridge, evaluation(4, split="/home/me/letters.csv"))
    assert index(bridge)["sin_Sinh", "letters.csv"] == 1
    card = (bridge / "README.md").read_text(encoding="utf-8")
    assert "/home/me" not in card
    assert card.count("## Results by language") == 1
    assert "| sib200 | dev | Sinhala (sin_Sinh) | 4 | 75.0 % |" in card
    PalamModel.from_pretrained(bridge)


def test_what_a_user_wrote_in_the_card_stays(bridge):
    card = (bridge / "README.md").read_text(encoding="utf-8")
    card = card.replace("---\n", "---\nlicense: apache-2.0\nmine: 3\n", 1)
    (bridge / "README.md").write_text(card + "\nWritten by hand.\n", encoding="utf-8")
    (bridge / "notes.txt").write_text("mine")
    record_results(bridge, evaluation(1))
    written = (bridge / "README.md").read_text(encoding="utf-8")
    assert "Written by hand." in written
    matter = yaml.safe_load(written.split("---\n")[1])
    assert (matter["license"], matter["mine"]) == ("apache-2.0", 3)
    assert (bridge / "notes.txt").read_text() == "mine"


def test_a_checkpoint_without_card_and_results(bridge):
    (bridge / "README.md").unlink()
    (bridge / "results.json").unlink()
    record_results(bridge, evaluation(1))
    assert index(bridge) == {("sin_Sinh", "dev"): 0.25}


@pytest.mark.parametrize("name", ["someone/bridge", "."])
def test_only_a_checkpoints_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PalamError, match="no folder with a checkpoint"):
        record_results(name, evaluation(1))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("file", "content"), [("results.json", "[1]"), ("README.md", "---\na: [\n---\n")]
)
def test_damaged_files_are_left_alone(bridge, file, content):
    (bridge / file).write_text(content)
    before = {path.name: path.read_bytes() for path in bridge.iterdir()}
    with pytest.raises(PalamError, match="damaged"):
        record_results(bridge, evaluation(1))
    assert {path.name: path.read_bytes() for path in bridge.iterdir()} == before
    assert [path.name for path in bridge.parent.iterdir()] == ["bridge"]

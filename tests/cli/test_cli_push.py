"""`palam push` on a fake hub, which keeps what is uploaded in a folder."""

import json

import httpx
import pytest
import yaml
from helpers import write_jsonl
from huggingface_hub.errors import HfHubHTTPError

import palam.models.publishing as publishing
from palam import PalamModel


def front_matter(folder):
    card = (folder / "README.md").read_text(encoding="utf-8")
    return yaml.safe_load(card.split("---\n")[1])


def test_the_checkpoints_files_are_uploaded_and_load(palam, bridge, hub, base_folder):
    (bridge / "notes.txt").write_text("private")
    (bridge / ".env").write_text("SECRET=1")
    before = {path.name: path.read_bytes() for path in bridge.iterdir()}
    result = palam("push", bridge, "lab/letters", "--private", "--license", "apache-2.0")
    assert (result.code, result.err) == (0, "")
    assert result.out.strip() == "https://huggingface.co/lab/letters/tree/main"
    assert hub.calls[0] == ("create_repo", "lab/letters", True, True)
    assert [name for name, *_ in hub.calls] == ["create_repo", "upload_folder"]
    assert {path.name: path.read_bytes() for path in bridge.iterdir()} == before
    uploaded = hub.root / "main"
    names = {path.name for path in uploaded.iterdir()}
    assert names == before.keys() - {"notes.txt", ".env"}
    bases = {"encoder": str(base_folder("bert")), "llm": str(base_folder("llama"))}
    loaded = PalamModel.from_pretrained(uploaded, **bases)
    expected = PalamModel.from_pretrained(bridge)
    for name, weight in loaded.bridge.state_dict().items():
        assert weight.equal(expected.bridge.state_dict()[name])


def test_no_path_of_this_machine_is_uploaded(palam, bridge, hub, base_folder, data):
    assert palam("push", bridge, "letters").code == 0
    folders = {str(base_folder("bert").parent), str(base_folder("llama").parent), str(data)}
    for path in (hub.root / "main").rglob("*"):
        content = path.read_bytes()
        for folder in folders:
            assert folder.encode() not in content, path.name
    config = json.loads((hub.root / "main" / "config.json").read_text())
    assert (config["encoder"], config["llm"]) == ("bert", "llama")


def test_no_path_of_the_file_trained_on_is_uploaded(
    palam, hub, base_options, data, tmp_path, jsonl
):
    """It stands in the settings, in what was found in the data, and in cards of before."""
    rows = jsonl((data / "sib200" / "train.eng_Latn.jsonl").read_text(encoding="utf-8"))[:9]
    label = rows[0]["label"]
    rows += [{"text": "one", "label": label.upper()}, {"text": "two", "label": label.upper()}]
    write_jsonl(tmp_path / "letters.jsonl", rows)
    bridge = tmp_path / "bridge"
    file = ("--file", tmp_path / "letters.jsonl", "--max-steps", 1, "--batch-size", 4)
    assert palam("train", *file, "--out", bridge, *base_options).code == 0
    assert str(tmp_path) in (bridge / "results.json").read_text()  # in a note
    settings = yaml.safe_load((bridge / "settings.yaml").read_text())
    old_card = f"---\nbase_model: {settings['llm']}\n---\nA bridge to **{settings['llm']}**\n\n"
    old_card += f"```yaml\n{(bridge / 'settings.yaml').read_text()}```\n"
    (bridge / "README.md").write_text(old_card)
    assert palam("push", bridge, "lab/letters").code == 0
    folders = {str(tmp_path), settings["encoder"], settings["llm"]}
    for path in (hub.root / "main").iterdir():
        content = path.read_bytes()
        assert not [folder for folder in folders if folder.encode() in content], path.name
    assert "base_model" not in front_matter(hub.root / "main")
    card = (hub.root / "main" / "README.md").read_text()
    assert "A bridge to **llama**" in card
    assert "file: letters.jsonl\n" in card


def test_the_card_is_completed(palam, bridge, hub):
    options = ("--license", "mit", "--languages", "si,ta", "--encoder", "google/mt5-small")
    assert palam("push", bridge, "lab/letters", *options).code == 0
    matter = front_matter(hub.root / "main")
    assert matter["license"] == "mit"
    assert matter["language"] == ["en", "si", "ta"]
    assert matter["base_model"] == ["google/mt5-small"]
    assert matter["base_model_relation"] == "adapter"
    assert matter["pipeline_tag"] == "text-classification"
    assert matter["library_name"] == "palam"
    assert len(matter["datasets"]) == 1  # SIB-200's on the hub
    assert matter["model-index"][0]["results"][0]["metrics"][0]["type"] == "accuracy"
    card = (hub.root / "main" / "README.md").read_text(encoding="utf-8")
    assert 'from_pretrained("lab/letters")' in card
    assert "pip install palam" in card
    assert "# A Palam bridge: google/mt5-small → llama" in card
    assert "**bert**" not in card
    assert "**llama**, was a local folder" in card
    assert json.loads((hub.root / "main" / "config.json").read_text())["encoder"] == (
        "google/mt5-small"
    )


def test_dry_run_shows_and_uploads_nothing(palam, bridge, hub):
    result = palam("push", bridge, "lab/letters", "--dry-run")
    assert result.code == 0
    for path in bridge.iterdir():
        assert path.name in result.out
    assert "library_name: palam" in result.out
    assert "--license" in result.err
    assert hub.calls == []
    assert not list(hub.root.iterdir())


def test_a_branch(palam, bridge, hub):
    assert palam("push", bridge, "lab/letters", "--revision", "v2").code == 0
    assert hub.calls[1] == ("create_branch", "lab/letters", "v2", True)
    assert (hub.root / "v2" / "model.safetensors").is_file()


def response(code):
    return httpx.Response(code, request=httpx.Request("POST", "https://huggingface.co/api"))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (HfHubHTTPError("no", response=response(401)), "may not write"),
        (HfHubHTTPError("no", response=response(403)), "may not write"),
        (HfHubHTTPError("Server\nerror", response=response(500)), "refuses"),
        (httpx.ConnectError("Name or service not known"), "cannot be reached"),
        (OSError("down"), "cannot be reached: down"),
    ],
)
def test_the_hubs_errors_are_one_line(refused, bridge, hub, error, message):
    hub.error = error
    assert message in refused("push", bridge, "lab/letters", "--license", "mit").splitlines()[-1]


def test_without_a_token(palam, bridge, hub, monkeypatch):
    monkeypatch.setattr(publishing, "get_token", lambda: None)
    result = palam("push", bridge, "lab/letters", "--license", "mit")
    assert result.code == 2
    assert "hf auth login" in result.err


def test_mistakes(refused, bridge, hub, tmp_path):
    assert "Repo id" in refused("push", bridge, "a/b/c")
    assert "no folder here" in refused("push", "someone/bridge", "lab/letters")
    (tmp_path / "empty").mkdir()
    assert "no config.json" in refused("push", tmp_path / "empty", "lab/letters")
    for damaged in ("a: [", "- a"):
        (bridge / "settings.yaml").write_text(damaged)
        assert "settings.yaml is damaged" in refused("push", bridge, "lab/letters")
    assert hub.calls == []


def test_damaged_weights_are_refused(refused, bridge, hub):
    (bridge / "model.safetensors").write_bytes(b"x")
    assert "cannot be loaded" in refused("push", bridge, "lab/letters")
    assert hub.calls == []

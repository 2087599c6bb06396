"""A small generated task on disk, tiny bases loaded once, and runs that can be interrupted."""

import json

import pytest
import tiny
from transformers import TrainerCallback

from palam.models.backbones.encoder import load_encoder
from palam.models.backbones.llm import load_llm
from palam.models.bases import Bases
from palam.tasks.registry import get_task
from palam.training.config import TrainConfig
from palam.training.run import train

WORDS = tiny.TEXT["en"].split()


class Stop(TrainerCallback):
    """Ctrl-C at the end of a step, or at the end of the run."""

    def __init__(self, step=None):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt

    def on_train_end(self, args, state, control, **kwargs):
        if self.step is None:
            raise KeyboardInterrupt


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory):
    """`sib200` with 21 training sentences of different lengths and 7 for validation, by topic."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "sib200").mkdir()
    for split, each in (("train", 3), ("dev", 1)):
        lines = []
        for topic, label in enumerate(get_task("sib200").labels):
            for number in range(each):
                start = 5 * topic + number
                text = " ".join(WORDS[start : start + 3 + 4 * number])
                lines.append(json.dumps({"text": text, "label": label}) + "\n")
        (folder / "sib200" / f"{split}.eng_Latn.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture(scope="session")
def text_file(tmp_path_factory):
    """Twenty-two lines of raw text: seven texts, each of them three times or more."""
    path = tmp_path_factory.mktemp("text") / "english.txt"
    lines = [" ".join(WORDS[i : i + 4 + i % 9]) for i in range(0, 63, 9)] * 3
    path.write_text("\n".join([*lines, lines[0]]))
    return path


@pytest.fixture(scope="session")
def soft_labels(tmp_path_factory):
    """Eight texts with two labels each, as `palam classify` writes them."""
    path = tmp_path_factory.mktemp("soft") / "soft.jsonl"
    first, second, *_ = get_task("sib200").labels
    lines = []
    for place in range(8):
        text = " ".join(WORDS[7 * place : 7 * place + 5])
        lines.append(json.dumps({"text": text, "scores": {first: -0.5, second: -1.0}}) + "\n")
    path.write_text("".join(lines))
    return path


@pytest.fixture(scope="session")
def lexicon(tmp_path_factory):
    """Translations of a fifth of the words, in two languages."""
    path = tmp_path_factory.mktemp("lexicon") / "lexicon.csv"
    lines = ["word,translation,language\n"]
    for place, word in enumerate(sorted({word.strip(".,:?").lower() for word in WORDS})[::5]):
        lines += [f"{word},නිවස{place},Sinhala\n", f"{word},வீடு{place},Tamil\n"]
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def bases(base_folder):
    """Encoder and LLM, loaded once: they are frozen."""
    return Bases(load_encoder(str(base_folder("bert"))), load_llm(str(base_folder("llama"))))


@pytest.fixture
def settings(data_folder, text_file, soft_labels, base_folder):
    """`settings(fusion="last", ...)`: the configuration of a run on the small task.

    With `objective="text"` it is one on raw text, with `"soft"` one on soft labels too.
    """
    sources = {
        "answers": {"task": "sib200", "data": data_folder},
        "text": {"text_file": text_file},
        "soft": {"task": "sib200", "data": data_folder, "soft_label_file": soft_labels},
    }
    common = {
        "encoder": str(base_folder("bert")),
        "llm": str(base_folder("llama")),
        "device": "cpu",
        "dtype": "fp32",
        "batch_size": 4,
        "lr": 5e-3,
        "patience": 0,
    }

    def build(objective="answers", **changes):
        return TrainConfig.from_settings({**common, **sources[objective], **changes})

    return build


@pytest.fixture
def stop():
    """`stop(step)`: a callback that stops a run as Ctrl-C does."""
    return Stop


@pytest.fixture
def interrupted(bases, stop):
    """`interrupted(config, out, step)`: start a run, stop it there, and give its working folder."""

    def run(config, out, step=None):
        with pytest.raises(KeyboardInterrupt):
            train(config, out, bases=bases, callbacks=[stop(step)])
        return out.with_name(out.name + ".partial")

    return run

"""What tests share: a batch of four rows, pairs of base models, files of rows."""

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import sys
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from palam import PalamError
from palam.models.task_record import TaskRecord
from palam.tasks.readers import numbered_rows, text_of

TEXTS = [
    "The match was won by the national team. Scientists found water.",
    "මම ගෙදර යනවා.",
    "",
    "I am going home.",
]
ANSWERS = ["sports", "science/technology", "a", "health and travel"]
LANGUAGES = ["en", "si", "en", "en"]
PROMPT = "Read this: {text}\nTopic:"
PAIRS = [
    ("bert", "llama", {"mode": "chat", "prompt": PROMPT}),
    ("xlmr", "gpt2", {"mode": "prompt", "prompt": PROMPT}),
    ("t5", "gemma3", {"mode": "prompt", "prompt": PROMPT}),
    ("m2m100", "opt", {"mode": "prompt", "prompt": PROMPT}),
    ("nllb", "qwen", {"mode": "prompt", "prompt": "{text}\nTopic:"}),
    ("modernbert", "llama", {"mode": "paper"}),
]
pairs = pytest.mark.parametrize(
    ("encoder", "llm", "options"), PAIRS, ids=lambda v: v if isinstance(v, str) else ""
)

FILE_OPERATIONS = (
    "open",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.chmod",
    "os.scandir",
)


def read_rows(path, *, column=None):
    """The rows of a file, each of which must have a text in the column."""
    for place, row in numbered_rows(path, column=column):
        text_of(row, column or "text", place)
        yield row


def benchmark_script(name):
    """A script of the folder `benchmarks` as a module."""
    path = Path(__file__).parents[1] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def batch_of(model):
    return dict(model.processor(TEXTS, ANSWERS, LANGUAGES))


def alone(model, row):
    return dict(model.processor([TEXTS[row]], [ANSWERS[row]], [LANGUAGES[row]]))


def prompts(model, *rows):
    """The texts without their answers, all of them or the given rows."""
    chosen = rows or range(len(TEXTS))
    texts = [TEXTS[row] for row in chosen]
    languages = [LANGUAGES[row] for row in chosen]
    return dict(model.processor(texts, languages=languages))


class CollectingStreamer:
    """Keeps what transformers' `generate` streams."""

    def __init__(self):
        self.ids, self.ended = [], False

    def put(self, value):
        self.ids += value.flatten().tolist()

    def end(self):
        self.ended = True


def task_of(words_by_label, text="{text}"):
    """What the configuration of a bridge that was trained on these labels has as its task."""
    record = TaskRecord(name="x", family="x", text=text, words_by_label=words_by_label)
    return record.to_dict()


def state_hash(module):
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        values = value.contiguous().flatten().view(torch.uint8)
        digest.update(name.encode() + values.numpy().tobytes())
    return digest.hexdigest()


def refusal(action, *args, **kwargs):
    """The one line with which it is refused."""
    with pytest.raises(PalamError) as caught:
        action(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def read_jsonl(path):
    """The rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_jsonl(path, rows):
    """Write rows as JSON lines."""
    lines = [json.dumps(row) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")


class FakeHub:
    """In place of HfApi: repositories are folders."""

    root: Path
    error: Exception | None = None
    calls: list

    def create_repo(self, repo_id, private=None, exist_ok=False):
        if self.error:
            raise self.error
        self.calls.append(("create_repo", repo_id, private, exist_ok))
        return SimpleNamespace(repo_id=repo_id if "/" in repo_id else f"me/{repo_id}")

    def create_branch(self, repo_id, branch, exist_ok=False):
        self.calls.append(("create_branch", repo_id, branch, exist_ok))

    def upload_folder(self, *, repo_id, folder_path, allow_patterns, revision, **options):
        self.calls.append(("upload_folder", options))
        for path in Path(folder_path).rglob("*"):
            name = path.relative_to(folder_path).as_posix()
            if path.is_file() and any(fnmatch(name, pattern) for pattern in allow_patterns):
                target = self.root / (revision or "main") / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
        return f"https://huggingface.co/{repo_id}/tree/{revision or 'main'}"


def killed_at(operation_number, action, *arguments):
    """Run an action in a process that is killed before one of its file operations.

    Returns:
        Whether it was killed; it is not, where it has fewer operations.
    """
    child = os.fork()
    if child == 0:
        count = 0

        def kill(event, details):
            nonlocal count
            if event in FILE_OPERATIONS:
                count += 1
                if count == operation_number:
                    os.kill(os.getpid(), signal.SIGKILL)

        with contextlib.suppress(BaseException):
            sys.addaudithook(kill)
            action(*arguments)
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0
    return False

"""The tasks that Palam knows by name. Adding one is adding one entry here."""

from dataclasses import replace
from pathlib import Path

from palam.errors import PalamError
from palam.languages import languages
from palam.tasks.task import Hub, Task

_TOPICS = ("travel", "politics", "sports", "health", "entertainment", "geography")
_SIB200 = Task(
    name="sib200",
    family="topic",
    labels={label: label for label in _TOPICS} | {"science/technology": "science"},
    prompt="{text}\nTopic:",
    paper_text="Text: {text} Topic: ",
    languages=tuple(language.code for language in languages()),
    parallel=True,
    hub=Hub("Davlan/sib200", columns={"label": "category"}),
)
_DEMO = {path.name.split(".")[1] for path in (Path(__file__).parents[1] / "demo").glob("*.*.jsonl")}
_XNLI = Task(
    name="xnli",
    family="nli",
    labels={label.lower(): label for label in ("Entailment", "Neutral", "Contradiction")},
    prompt="{text}\nLabel:",
    text="Premise: {premise} Hypothesis: {hypothesis}",
    paper_text="Premise: {premise} Hypothesis: {hypothesis} Label: ",
    fields=("premise", "hypothesis"),
    languages=("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh"),
    parallel=True,
    hub=Hub("facebook/xnli"),
)
_NEWS = ("Business", "Entertainment", "Political", "Sports")
_ALL = (
    _SIB200,
    replace(_SIB200, name="demo", languages=tuple(sorted(_DEMO)), hub=None, packaged="demo"),
    _XNLI,
    replace(_XNLI, name="lingnli", languages=("en",), parallel=False, hub=Hub("tasksource/lingnli", config=None)),
    Task(
        name="sinhala_news",
        family="news",
        labels={label: label for label in _NEWS} | {"Science/Technology": "Science"},
        prompt="{text}\nCategory:",
        paper_text="News Sentence: {text} Category: ",
        languages=("en", "si"),
        hub=Hub(
            "Themira/en_si_news_classification_with_label_name",
            config=None,
            splits={"train": "train_{language}", "test": "test_{language}"},
            columns={"text": "sentence"},
        ),
    ),
)

TASKS: dict[str, Task] = {task.name: task for task in _ALL}


def get_task(name: str) -> Task:
    """The registered task of this name; PalamError, listing the names, if there is none."""
    if name not in TASKS:
        raise PalamError(f'unknown task "{name}": one of {", ".join(TASKS)}')
    return TASKS[name]

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
_STARS = ("Very Negative", "Negative", "Neutral", "Positive", "Very Positive")
_INDIC = ("as", "bn", "gu", "hi", "kn", "ml", "mr", "or", "pa", "ta", "te")
_MNLI = {"train": "train", "dev": "validation_matched"}
_TWEETS = ("arabic", "german", "english", "spanish", "french", "hindi", "italian", "portuguese")


def _nli(name: str, hub: Hub | None, *languages: str, parallel: bool = False) -> Task:
    """XNLI's task with other pairs; English unless languages are given."""
    return replace(_XNLI, name=name, languages=languages or ("en",), parallel=parallel, hub=hub)


_ALL = (
    _SIB200,
    replace(_SIB200, name="demo", languages=tuple(sorted(_DEMO)), hub=None, packaged="demo"),
    _XNLI,
    _nli("indicxnli", Hub("Divyanshu/indicxnli"), *_INDIC, parallel=True),
    _nli("lingnli", Hub("tasksource/lingnli", config=None)),
    _nli("mnli", Hub("nyu-mll/multi_nli", config=None, splits=_MNLI)),
    _nli("snli", Hub("stanfordnlp/snli", config=None)),
    _nli("cad_nli", None),
    Task(
        name="sinhala_news",
        family="news",
        labels={label: label for label in _NEWS} | {"Science/Technology": "Science"},
        prompt="{text}\nCategory:",
        paper_text="News Sentence: {text} Category: ",
        passage_words=15,
        languages=("en", "si"),
        hub=Hub(
            "Themira/en_si_news_classification_with_label_name",
            config=None,
            splits={"train": "train_{language}", "test": "test_{language}"},
            columns={"text": "sentence"},
        ),
    ),
    Task(
        name="newsfirst",
        family="newsfirst",
        labels={label: label for label in ("business", "entertainment", "local", "sports", "world")},
        prompt="{text}\nCategory:",
        paper_text="News Sentence: {text} Category: ",
        languages=("en", "si"),
    ),
    Task(
        name="amazon_reviews",
        family="stars",
        labels={str(stars): words for stars, words in enumerate(_STARS, 1)},
        prompt="{text}\nLabel:",
        paper_text="Review: {text} Label: ",
        balance=True,
        languages=("de", "en", "es", "fr", "ja", "zh"),
        hub=Hub("mteb/AmazonReviewsClassification", labels=tuple("12345")),
    ),
    Task(
        name="tweet_sentiment",
        family="sentiment",
        labels={label: label for label in ("negative", "neutral", "positive")},
        prompt="{text}\nSentiment:",
        paper_text="Tweet: {text} Sentiment: ",
        escaped=True,
        languages=("ar", "de", "en", "es", "fr", "hi", "it", "pt"),
        hub=Hub(
            "cardiffnlp/tweet_sentiment_multilingual",
            revision="refs/convert/parquet",  # its main branch is a loading script, which no longer runs
            codes=dict(zip(("ar", "de", "en", "es", "fr", "hi", "it", "pt"), _TWEETS, strict=True)),
        ),
    ),
)

TASKS: dict[str, Task] = {task.name: task for task in _ALL}


def get_task(name: str) -> Task:
    """The registered task of this name; PalamError, listing the names, if there is none."""
    if name not in TASKS:
        raise PalamError(f'unknown task "{name}": one of {", ".join(TASKS)}')
    return TASKS[name]

import pytest
from helpers import refusal

from palam.errors import PalamError
from palam.tasks.loading import load_split
from palam.tasks.registry import TASKS, get_task, register_task
from palam.tasks.task import Task
from palam.utils.languages import languages


def test_the_registry_names_its_tasks():
    known = {
        "sib200",
        "demo",
        "xnli",
        "indicxnli",
        "lingnli",
        "mnli",
        "snli",
        "cad_nli",
        "sinhala_news",
        "newsfirst",
    }
    assert known | {"amazon_reviews", "tweet_sentiment"} <= set(TASKS)
    assert all(get_task(name).name == name for name in TASKS)
    with pytest.raises(PalamError, match=r'unknown task "sib20": one of sib200, demo, xnli'):
        get_task("sib20")


def test_a_family_shares_labels_prompt_and_text():
    for task in TASKS.values():
        for other in (other for other in TASKS.values() if other.family == task.family):
            assert list(task.labels.items()) == list(other.labels.items())
            assert (task.prompt, task.text, task.paper_text) == (
                other.prompt,
                other.text,
                other.paper_text,
            )


def test_languages_are_the_tasks_own_codes():
    assert set(TASKS["sib200"].languages) == {language.code for language in languages()}
    assert len(TASKS["xnli"].languages) == 15
    assert TASKS["sinhala_news"].languages == ("en", "si")


@pytest.fixture
def registry(monkeypatch):
    """The registry's tasks, to which a test may add."""
    monkeypatch.setattr("palam.tasks.registry.TASKS", dict(TASKS))


def mail_task(**options):
    return Task(
        name="mail",
        family="mail",
        labels={"spam": "junk", "ham": "mail"},
        prompt="{text}\nThis is",
        paper_text="{text} Kind: ",
        languages=("en",),
        **options,
    )


@pytest.mark.usefixtures("registry")
def test_a_task_of_ones_own_is_known_by_its_name(tmp_path):
    task = mail_task()
    register_task(task)
    assert get_task("mail") is task
    (tmp_path / "mail").mkdir()
    (tmp_path / "mail" / "test.en.jsonl").write_text('{"text": "Win!", "label": "junk"}\n')
    examples = load_split(get_task("mail"), "test", "en", data_dir=tmp_path)
    assert [example.label for example in examples] == ["spam"]


@pytest.mark.usefixtures("registry")
def test_a_name_that_is_taken_is_refused_unless_it_is_to_be_replaced():
    task = mail_task()
    register_task(task)
    expected = 'there is a task "mail" already; choose another name, or give replace=True'
    assert refusal(register_task, task) == expected
    assert refusal(register_task, mail_task(balance=True)) == expected
    assert get_task("mail") is task
    register_task(mail_task(balance=True), replace=True)
    assert get_task("mail").balance
    register_task(mail_task(), replace=True)
    assert not get_task("mail").balance

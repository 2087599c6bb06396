"""The objective label: rows of tasks, asked for by the tasks' own prompts."""

from collections import Counter

from plain_ridge import TEXTS

from palam.models.template import Template
from palam.tasks.sampling import passage
from palam.tasks.soft_labels import SoftAnswer
from palam.training.noise import WordNoise
from palam.training.objectives.base import LabelledText, RawTexts
from palam.training.objectives.labels import Labels
from palam.training.raw_text import RawTextDataset

TOPIC = "{text}\nTopic:"
FEELING = "{text}\nFeeling:"
LABELLED = [
    LabelledText("The match was won by the national team.", TOPIC, "sports"),
    LabelledText("Scientists found water on another planet.", TOPIC, "science"),
    LabelledText("What a wonderful day this has been.", FEELING, "positive"),
]


def labels(model, labelled, **options):
    return Labels(RawTexts(model.processor, TEXTS, labelled=labelled, **options))


def features_of(model, row, text=None):
    template = Template.build("prompt", row.prompt, model.processor.llm_tokenizer)
    processor = model.processor.with_template(template)
    return processor.features([text or row.text], [row.answer])[0]


def test_each_row_is_one_of_a_task_under_its_own_prompt(tiny_model):
    model = tiny_model("xlmr")
    objective = labels(model, LABELLED)
    expected = [features_of(model, row) for row in LABELLED]
    counts = Counter()
    for epoch in range(20):
        rows = objective.rows(range(len(TEXTS)), epoch)
        assert [row.pop("row") for row in rows] == list(range(len(TEXTS)))
        counts.update(expected.index(row) for row in rows)
    assert min(counts.values()) / counts.total() > 0.2  # all alike, about a third each
    assert objective.rows([3], 5) == objective.rows(range(8), 5)[3:4]


def test_the_encoder_reads_the_text_with_noise(tiny_model):
    model = tiny_model("xlmr")
    row = LABELLED[0]
    (made,) = labels(model, [row], noise=WordNoise(swap=0.5, drop=0.5)).rows([0], 0)
    plain = features_of(model, row)
    assert made["encoder_input_ids"] != plain["encoder_input_ids"]
    assert made["labels"] == plain["labels"]


def test_of_a_long_text_a_passage_is_read(tiny_model):
    model = tiny_model("xlmr")
    article = " ".join(f"This is sentence number {number} of the article." for number in range(30))
    row = LabelledText(article, TOPIC, "news", passage_words=12)
    objective = labels(model, [row])
    passages = {passage(article, 12, number) for number in range(500)}
    expected = [features_of(model, row, text)["encoder_input_ids"] for text in passages]
    read = [objective.rows([0], epoch)[0]["encoder_input_ids"] for epoch in range(12)]
    assert all(ids in expected for ids in read)
    assert len(set(map(tuple, read))) > 3
    assert objective.length(0, 0) < len(article) / 2


def test_rows_of_tasks_stand_in_the_place_of_texts_by_weight(tiny_model):
    data = RawTextDataset(
        tiny_model().processor,
        TEXTS * 10,
        objectives={"repeat": 3, "label": 1},
        labelled=LABELLED,
    )
    names = Counter()
    for epoch in range(4):
        data.set_epoch(epoch)
        names.update(data.objective_of(index) for index in range(len(data)))
    assert abs(names["label"] / names.total() - 0.25) < 0.06
    assert list(data.content())[-1] == (LABELLED[-1].text, FEELING, "positive")


def test_without_rows_of_tasks_only_the_text_is_learned(tiny_model):
    data = RawTextDataset(tiny_model().processor, TEXTS, objectives={"repeat": 1, "label": 1})
    assert {data.objective_of(index) for index in range(len(data))} == {"repeat"}


def test_of_soft_labels_one_is_drawn_in_each_epoch(tiny_model):
    model = tiny_model("xlmr")
    words = ("sports", "health")
    row = LabelledText("The match was won.", TOPIC, SoftAnswer(words, (0.7, 0.3)))
    objective = labels(model, [row])
    expected = [features_of(model, row._replace(answer=word)) for word in words]
    counts = Counter()
    for epoch in range(200):
        (made,) = objective.rows([0], epoch)
        assert objective.rows([0], epoch) == [made]
        del made["row"]
        counts[expected.index(made)] += 1
    assert abs(counts[0] / counts.total() - 0.7) < 0.1

"""The harness's own package on Palam's tasks: its answers are those of `palam evaluate`."""

import json
import shutil
from types import SimpleNamespace

import pytest
import tiny
import torch
from helpers import read_jsonl, write_jsonl

from palam import ModelConfig, PalamModel
from palam.cli.main import run
from palam.errors import PalamError
from palam.inference.evaluation import evaluate, load_languages
from palam.inference.generation import generate
from palam.inference.scoring import score_labels
from palam.models.template import SAME_IN_ENGLISH
from palam.tasks.registry import get_task

lm_eval = pytest.importorskip("lm_eval")
from palam.integrations.lm_eval import PalamLM, harness_tasks, run_harness  # noqa: E402

PROMPT = {"mode": "prompt", "prompt": "{text}\nTopic:"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """`sib200` in Sinhala and English, ten rows each, and `xnli` in Swahili."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "sib200").mkdir()
    (folder / "xnli").mkdir()
    labels = list(get_task("sib200").labels)
    for code, language in (("sin_Sinh", "si"), ("eng_Latn", "en")):
        words = tiny.TEXT[language].split()
        rows = [{"text": " ".join(words[i : i + 5]), "label": labels[i % 7]} for i in range(10)]
        write_jsonl(folder / "sib200" / f"dev.{code}.jsonl", rows)
    pairs = [{"premise": "a b", "hypothesis": "c" * n, "label": "neutral"} for n in range(1, 4)]
    write_jsonl(folder / "xnli" / "dev.sw.jsonl", pairs)
    (folder / "mgsm").mkdir()
    write_jsonl(folder / "mgsm" / "dev.en.jsonl", [{"question": "3 + 4?", "answer": "7"}])
    return folder


def request(context, second, doc=None):
    return SimpleNamespace(args=(context, second), doc=doc)


@pytest.mark.parametrize(
    ("encoder", "options"),
    [
        ("xlmr", PROMPT),
        ("nllb", PROMPT),
        ("xlmr", {"mode": "paper"}),
        ("xlmr", {"mode": "prompt", "prompt": SAME_IN_ENGLISH}),
    ],
)
@pytest.mark.parametrize("llm_only", [False, True])
def test_predictions_are_those_of_evaluate(tiny_model, data, encoder, options, llm_only):
    model = tiny_model(encoder, "llama", **options)
    languages = {"sib200": ["si", "en"], "xnli": ["sw"]}
    if encoder == "nllb":  # this one has no Swahili
        del languages["xnli"]
    lm = PalamLM(model, llm_only=llm_only, batch_size=4)
    for name, codes in languages.items():
        task = get_task(name)
        rows = load_languages(task, "dev", codes, data_dir=data)
        expected = evaluate(model, task, "dev", rows, llm_only=llm_only)
        tasks = harness_tasks([f"palam_{name}"], model.processor.template.mode, data=data)
        results = run_harness(lm, tasks)
        for code in rows:
            harness_name = f"palam_{name}_{code}"
            metrics = results["results"][harness_name]
            assert metrics["acc,none"] == pytest.approx(expected.accuracy(code))
            assert 0 <= metrics["acc_stderr,none"] < 0.5
            predictions = [row for row in expected.predictions if row["language"] == code]
            samples = results["samples"][harness_name]
            samples = sorted(samples, key=lambda sample: sample["doc"]["row"])
            assert len(samples) == len(predictions)
            for sample, prediction in zip(samples, predictions, strict=True):
                scores = [float(response[0][0]) for response in sample["resps"]]
                assert scores == pytest.approx(list(prediction["scores"].values()), abs=1e-4)


def test_readings_are_those_of_evaluate(tiny_model, data):
    model = tiny_model("xlmr", "llama", mode="prompt", prompt="{text}\nThe same in English:")
    task = get_task("reading")
    rows = load_languages(task, "dev", ["si"], data_dir=data)
    expected = evaluate(model, task, "dev", rows)
    tasks = harness_tasks(["palam_reading_si"], "prompt", data=data)
    results = run_harness(PalamLM(model, batch_size=4), tasks)
    (name,) = results["results"]
    metrics = results["results"][name]
    recalls = [row["recall"] for row in expected.predictions if row["recall"] is not None]
    assert metrics["content_word_recall,none"] == pytest.approx(sum(recalls) / len(recalls))
    chrf = [row["chrf"] for row in expected.predictions]
    assert metrics["chrf,none"] == pytest.approx(sum(chrf) / len(chrf))
    samples = sorted(results["samples"][name], key=lambda sample: sample["doc"]["row"])
    answers = [sample["filtered_resps"][0].strip() for sample in samples]
    assert answers == [row["prediction"] for row in expected.predictions]


@pytest.mark.parametrize("prompt", [SAME_IN_ENGLISH, "{text} How many?"])
def test_numbers_are_those_of_evaluate(tiny_model, data, prompt):
    model = tiny_model("xlmr", "llama", mode="prompt", prompt=prompt)
    task = get_task("mgsm")
    rows = load_languages(task, "dev", ["en"], data_dir=data)
    expected = evaluate(model, task, "dev", rows)
    results = run_harness(
        PalamLM(model), harness_tasks(["palam_mgsm_en"], model.processor.template.mode, data=data)
    )
    (samples,) = results["samples"].values()
    answers = [sample["filtered_resps"][0].strip() for sample in samples]
    assert answers == [row["answer"] for row in expected.predictions]


def test_each_question_is_asked(tiny_model):
    model = tiny_model("xlmr", "llama", mode="prompt", prompt="{text}\nThe same in English:")
    task = get_task("questions")
    rows = load_languages(task, "dev", ["en"], limit=None)
    rows = {code: examples[:6] for code, examples in rows.items()}
    expected = evaluate(model, task, "dev", rows)
    results = run_harness(PalamLM(model), harness_tasks(["palam_questions_en"], "prompt"), limit=6)
    (name,) = results["results"]
    (code,) = rows
    assert results["results"][name]["acc,none"] == pytest.approx(expected.accuracy(code))
    samples = sorted(results["samples"][name], key=lambda sample: sample["doc_id"])
    answers = [sample["filtered_resps"][0].strip() for sample in samples]
    assert answers == [row["answer"] for row in expected.predictions]


@pytest.mark.parametrize(
    ("answer", "right"), [("They are 3 + 4 = 7.\nSo 7", 1.0), ("8", 0.0), ("none", 0.0)]
)
def test_a_worked_out_number_is_judged(data, answer, right):
    (task,) = harness_tasks(["palam_mgsm_en"], "prompt", data=data)
    (row,) = task["custom_dataset"]()["test"]
    assert task["process_results"](row, [answer]) == {"acc": right}
    assert task["generation_kwargs"]["until"] == []


def test_a_context_with_spaces_and_a_single_continuation(tiny_model):
    model = tiny_model("xlmr", "llama", **PROMPT)
    lm = PalamLM(model)
    (answer,) = generate(model, ["the rice price  "], max_new_tokens=4)
    requests = [
        request("the rice price  ", " sports"),
        request("the rice", " sports"),
        request("the rice", " politics"),
        request("the rice", "sports"),  # of another document with the same text
    ]
    results = lm.loglikelihood(requests)
    expected = score_labels(model, ["the rice price  "], ["sports"]).item()
    assert results[0][0] == pytest.approx(expected, abs=1e-4)
    assert results[0][1] is (answer == "sports")
    both = score_labels(model, ["the rice"], ["sports", "politics"])[0].tolist()
    assert [score for score, _ in results[1:3]] == pytest.approx(both, abs=1e-4)
    assert results[3] == results[1]


def test_answers_stop_where_the_task_says(tiny_model):
    model = tiny_model("xlmr", "llama", **PROMPT)
    (whole,) = generate(model, ["I am going home."], max_new_tokens=8)
    assert len(whole) > 2
    stop = whole[2]
    greedy = {"temperature": 0.0, "do_sample": False}
    requests = [
        request("I am going home.", {"until": [], "max_gen_toks": 8}),
        request("I am going home.", {"until": [stop], "max_gen_toks": 8, **greedy}),
    ]
    assert PalamLM(model).generate_until(requests) == [whole, whole.split(stop)[0]]
    with pytest.raises(PalamError, match="no likelihood of a text alone"):
        PalamLM(model).loglikelihood_rolling([])


def test_it_is_registered_by_its_name(tiny_model, data, tmp_path):
    tiny_model("xlmr", "llama", **PROMPT).save_pretrained(tmp_path / "bridge")
    tasks = harness_tasks(["palam_sib200_si"], "prompt", data=data)
    settings = {"pretrained": str(tmp_path / "bridge"), "dtype": "fp32", "device": "cpu"}
    results = lm_eval.simple_evaluate(
        model="palam",
        model_args=settings,
        tasks=tasks,
        limit=4,
        bootstrap_iters=0,
        task_manager=lm_eval.tasks.TaskManager(include_defaults=False),
    )
    assert set(results["results"]) == {"palam_sib200_sin_Sinh"}
    assert len(results["samples"]["palam_sib200_sin_Sinh"]) == 4


@pytest.fixture
def command(tiny_model, data, tmp_path):
    """`command("--tasks", ...)`: the exit code of `palam eval-harness` on a small bridge."""
    bridge = tmp_path / "bridge"
    tiny_model("xlmr", "llama", **PROMPT).save_pretrained(bridge)
    common = ("eval-harness", bridge, "--data", data, "--device", "cpu", "--dtype", "fp32")

    def call(*arguments):
        return run([str(argument) for argument in (*common, *arguments)])

    return call


def test_the_command(command, tmp_path, capsys):
    json_file = tmp_path / "results.json"
    samples_file = tmp_path / "rows.jsonl"
    files = ("--json", json_file, "--samples", samples_file)
    assert command(*files, "--tasks", "palam_sib200_si,palam_xnli", "--limit", 3) == 0
    assert "palam_sib200_sin_Sinh" in capsys.readouterr().out
    rows = read_jsonl(samples_file)
    assert [row["task"] for row in rows] == ["palam_sib200_sin_Sinh"] * 3 + ["palam_xnli_sw"] * 3
    results = json.loads(json_file.read_text())["results"]
    assert set(results) == {"palam_sib200_sin_Sinh", "palam_xnli_sw"}


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("palam_sib201", "unknown task"),
        ("palam_sib200_xx", "has no language"),
        ("palam_xnli_fr", "it has dev in sw"),
        ("no_such_task", "no_such_task"),
    ],
)
def test_a_task_that_is_not_there_is_one_line(command, capsys, tasks, message):
    assert command("--tasks", tasks) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("palam: error: ") == 1


def test_a_checkpoint_that_is_none_is_refused(tmp_path):
    with pytest.raises(PalamError, match="cannot be loaded"):
        PalamLM(str(tmp_path))


def test_a_second_encoder_may_have_been_moved(base_folder, tmp_path):
    first_place = shutil.copytree(base_folder("t5"), tmp_path / "second")
    names = {"encoder": base_folder("xlmr"), "second_encoder": first_place}
    config = ModelConfig(llm=str(base_folder("llama")), **{k: str(v) for k, v in names.items()})
    model = PalamModel.from_config(config, dtype=torch.float32, device="cpu")
    checkpoint = tmp_path / "bridge"
    model.save_pretrained(checkpoint)
    moved = first_place.rename(tmp_path / "moved")
    cpu = {"device": "cpu", "dtype": "fp32"}
    with pytest.raises(PalamError, match="second"):
        PalamLM(str(checkpoint), **cpu)
    lm = PalamLM(str(checkpoint), second_encoder=str(moved), **cpu)
    requests = [request("The team won.", label) for label in ("sports", "travel")]
    expected = [score for score, _ in PalamLM(model.eval()).loglikelihood(requests)]
    assert [score for score, _ in lm.loglikelihood(requests)] == pytest.approx(expected, rel=1e-5)

"""The harness's own package on Palam's tasks: its answers are those of `palam evaluate`, row by row."""

import json
from types import SimpleNamespace

import pytest
import tiny

from palam.cli import run
from palam.errors import PalamError
from palam.inference import evaluation as evaluate
from palam.inference import generation as generate
from palam.inference.evaluation import load_languages
from palam.inference.scoring import score_labels
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
        (folder / "sib200" / f"dev.{code}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows)
        )
    pairs = [{"premise": "a b", "hypothesis": "c" * n, "label": "neutral"} for n in range(1, 4)]
    (folder / "xnli" / "dev.sw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    return folder


def request(context, second, doc=None):
    return SimpleNamespace(args=(context, second), doc=doc)


@pytest.mark.parametrize(
    ("encoder", "options"), [("xlmr", PROMPT), ("nllb", PROMPT), ("xlmr", {"mode": "paper"})]
)
@pytest.mark.parametrize("direct", [False, True])
def test_predictions_are_those_of_evaluate(tiny_model, data, encoder, options, llm_only):
    model = tiny_model(encoder, "llama", **options)
    for task in map(
        get_task, ("sib200",) if encoder == "nllb" else ("sib200", "xnli")
    ):  # which it has no Swahili for
        rows = load_languages(
            task, "dev", ["si", "en"] if task.name == "sib200" else ["sw"], data_dir=data
        )
        expected = evaluate(model, task, "dev", rows, llm_only=llm_only)
        chosen = harness_tasks([f"palam_{task.name}"], model.processor.template.mode, data=data)
        found = run_harness(PalamLM(model, llm_only=llm_only, batch_size=4), chosen)
        for code in rows:
            name = f"palam_{task.name}_{code}"
            assert found["results"][name]["acc,none"] == pytest.approx(expected.accuracy(code))
            assert 0 <= found["results"][name]["acc_stderr,none"] < 0.5
            wanted = [one["scores"] for one in expected.predictions if one["language"] == code]
            samples = sorted(found["samples"][name], key=lambda one: one["doc"]["row"])
            assert len(samples) == len(wanted)
            for sample, scores in zip(samples, wanted, strict=True):
                said = [float(one[0][0]) for one in sample["resps"]]
                assert said == pytest.approx(list(scores.values()), abs=1e-4)


def test_a_context_with_spaces_and_a_single_continuation(tiny_model):
    model = tiny_model("xlmr", "llama", **PROMPT)
    lm = PalamLM(model)
    (answer,) = generate(model, ["the rice price  "], max_new_tokens=4)
    asked = [
        request("the rice price  ", " sports"),
        request("the rice", " sports"),
        request("the rice", " politics"),
    ]
    found = lm.loglikelihood(asked)
    assert found[0][0] == pytest.approx(
        score_labels(model, ["the rice price  "], ["sports"]).item(), abs=1e-4
    )
    assert found[0][1] is (answer == "sports")
    both = score_labels(model, ["the rice"], ["sports", "politics"])[0].tolist()
    assert [score for score, _ in found[1:]] == pytest.approx(both, abs=1e-4)


def test_answers_stop_where_the_task_says(tiny_model):
    model = tiny_model("xlmr", "llama", **PROMPT)
    (whole,) = generate(model, ["I am going home."], max_new_tokens=8)
    assert len(whole) > 2
    asked = [
        request("I am going home.", {"until": [], "max_gen_toks": 8}),
        request(
            "I am going home.",
            {"until": [whole[2]], "max_gen_toks": 8, "temperature": 0.0, "do_sample": False},
        ),
    ]
    assert PalamLM(model).generate_until(asked) == [whole, whole.split(whole[2])[0]]
    with pytest.raises(PalamError, match="no likelihood of a text alone"):
        PalamLM(model).loglikelihood_rolling([])


def test_it_is_registered_by_its_name(tiny_model, data, tmp_path):
    tiny_model("xlmr", "llama", **PROMPT).save_pretrained(tmp_path / "bridge")
    tasks = harness_tasks(["palam_sib200_si"], "prompt", data=data)
    settings = {"pretrained": str(tmp_path / "bridge"), "dtype": "fp32", "device": "cpu"}
    found = lm_eval.simple_evaluate(
        model="palam", model_args=settings, tasks=tasks, limit=4, bootstrap_iters=0
    )
    assert set(found["results"]) == {"palam_sib200_sin_Sinh"}
    assert len(found["samples"]["palam_sib200_sin_Sinh"]) == 4


def test_the_command(tiny_model, data, tmp_path, capsys):
    tiny_model("xlmr", "llama", **PROMPT).save_pretrained(tmp_path / "bridge")
    files = {"--json": tmp_path / "found.json", "--samples": tmp_path / "rows.jsonl"}
    arguments = [
        "eval-harness",
        tmp_path / "bridge",
        "--data",
        data,
        "--device",
        "cpu",
        "--dtype",
        "fp32",
    ]
    arguments += [part for pair in files.items() for part in pair]
    assert (
        run(
            [
                str(one)
                for one in (*arguments, "--tasks", "palam_sib200_si,palam_xnli", "--limit", 3)
            ]
        )
        == 0
    )
    assert "palam_sib200_sin_Sinh" in capsys.readouterr().out
    rows = [json.loads(line) for line in files["--samples"].read_text().splitlines()]
    assert [row["task"] for row in rows] == ["palam_sib200_sin_Sinh"] * 3 + ["palam_xnli_sw"] * 3
    assert set(json.loads(files["--json"].read_text())["results"]) == {
        "palam_sib200_sin_Sinh",
        "palam_xnli_sw",
    }
    for tasks, line in {
        "palam_sib201": "unknown task", "palam_sib200_xx": "has no language", "palam_xnli_fr": "it has dev in sw",
        "no_such_task": "no_such_task",
    }.items():  # fmt: skip
        assert run([str(one) for one in (*arguments, "--tasks", tasks)]) == 2
        error = capsys.readouterr().err
        assert line in error
        assert error.count("palam: error: ") == 1


def test_a_checkpoint_that_is_none_is_refused(tmp_path):
    with pytest.raises(PalamError, match="cannot be loaded"):
        PalamLM(str(tmp_path))

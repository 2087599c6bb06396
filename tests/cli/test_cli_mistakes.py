"""Every mistake is one line on standard error and exit code 2, and nothing is left behind."""

import json
from pathlib import Path

import pytest
import tiny

HERE = Path(__file__).parent
"""A folder without tables."""

CPU = ("--device", "cpu", "--dtype", "fp32")


@pytest.fixture
def training(data, base_options, tmp_path):
    return ("train", "--task", "sib200", "--data", data, "--out", tmp_path / "out", *base_options)


@pytest.fixture
def reading(trained, data):
    return ("evaluate", trained, "--task", "sib200", "--data", data, "--languages", "en", *CPU)


# --------------------------------------------------------------------------- the command line
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("trian",), 'Unknown command "trian". Did you mean "train"?'),
        (("train",), "--out is missing"),
        (("train", "--task", "sib200"), "--out is missing"),
        (("train", "--task", "sib200", "--out"), "--out requires an argument"),
        (
            ("train", "--out", "x", "--bach-size", "3"),
            "Unknown option: --bach-size. Did you mean --batch-size?",
        ),
        (("train", "--out", "x", "--epochs", "many"), "Invalid value for --epochs"),
        (("train", "--out", "x", "demo"), "unexpected argument 'demo'"),
        (("train", "--out", "x", "--no-compile"), "Unknown option: --no-compile"),
        (("classify",), "CHECKPOINTS is missing"),
        (
            ("classify", "x", "--text", "a", "--batch-size", "0"),
            'Invalid value "0" for --batch-size',
        ),
        (("inspect", "x"), "--text is missing"),
    ],
)
def test_a_wrong_command_line(refused, arguments, message):
    line = refused(*arguments)
    assert message in line
    names = [name for name in arguments[:1] if name != "trian"]
    assert line.endswith(f"(see {' '.join(['palam', *names])} --help)")


def test_without_arguments_it_shows_the_help(palam):
    assert palam() == palam("--help")
    assert "Usage: palam" in palam().out


# --------------------------------------------------------------------------- train
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--fusion", "first"),
            'Invalid value "first" for --fusion. Choose from: "last", "mean", "global_softmax", '
            '"transformer_softmax"',
        ),
        (("--mapper", "conv"), 'Invalid value "conv" for --mapper. Choose from: "linear", "mlp"'),
        (("--task", "sib"), 'unknown task "sib": one of sib200, demo, xnli'),
        (("--language", "xx"), 'sib200 has no language "xx"'),
        (("--device", "tpu"), "there is no device 'tpu' here"),
        (
            ("--dtype", "int4"),
            'Invalid value "int4" for --dtype. Choose from: "auto", "fp32", "bf16", "fp16"',
        ),
        (("--mode", "poem"), 'Invalid value "poem" for --mode'),
        (("--mode", "prompt", "--prompt", "no slot"), "must hold the slot {text} exactly once"),
        (("--data", "nowhere"), 'no folder "sib200" in the data folder nowhere'),
        (
            ("--encoder", "nobody/nothing"),
            "no such folder, and not in the cache: unset HF_HUB_OFFLINE",
        ),
        (("--llm", "nobody/nothing"), "no such folder, and not in the cache: unset HF_HUB_OFFLINE"),
        (("--lr", "0"), "lr is 0.0; it must be above 0"),
        (("--max-train-samples", "0"), "max_train_samples is 0; it must be at least 1"),
        (("--max-length", "4000"), "the encoder takes at most 128 tokens"),
        (("--file", "x.csv"), "give exactly one of --task, --file and --text-file"),
        (("--resume",), "there is nothing to resume"),
        (
            ("--fusion-options.rank", "3"),
            "'rank' is no option of mean; its options are: first_layer",
        ),
        (("--report-to", "paper"), "report_to is 'paper'"),
    ],
)
def test_a_setting_that_is_wrong(refused, training, options, message):
    assert message in refused(*training, *options)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("fusoin: last", "there is no setting 'fusoin'; the settings are: "),
        ("fusion: [last", "cannot be read as YAML"),
        ("- fusion", "must hold settings as `name: value` lines"),
        ("config: other.yaml", "there is no setting 'config'"),
        ("epochs: many", "Invalid value for [epochs] from "),
        ("fusion: nope", 'Invalid value "nope" for [fusion] from '),
        (b"fusion: \xff", "cannot be read as YAML"),
    ],
)
def test_a_yaml_file_that_is_wrong(refused, training, tmp_path, content, message):
    path = tmp_path / "run.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert message in refused(*training, "--config", path)
    path.unlink()
    assert str(path) in refused(*training, "--config", path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"text,label\ngood,a\nbad \xff,b\n", "line 3: not UTF-8"),
        (b"head,label\ngood,a\nbad,b\n", 'no column "text"'),
        (b"text,kind\ngood,a\nbad,b\n", 'no column "label"'),
    ],
)
def test_a_file_that_cannot_be_trained_on(refused, base_options, tmp_path, content, message):
    path = tmp_path / "own.csv"
    path.write_bytes(content)
    assert message in refused("train", "--file", path, "--out", tmp_path / "out", *base_options)


def test_a_place_that_cannot_be_written_to(refused, training, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("mine")
    assert "file is a file; give a folder that is new or empty" in refused(
        *training, "--out", tmp_path / "file"
    )
    assert "folder holds other files" in refused(*training, "--out", tmp_path / "folder")
    for below in ("out", "new/out"):
        assert "cannot be written" in refused(*training, "--out", tmp_path / "file" / below)
    assert (tmp_path / "file").read_text() == "mine"


# --------------------------------------------------------------------------- evaluate
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--task", "sib"), 'unknown task "sib"'),
        (("--languages", "en,xx"), 'sib200 has no language "xx"'),
        (("--languages", "ta"), 'no split "dev" of sib200 in Tamil (tam_Taml)'),
        (("--languages", ","), "give --languages"),
        (("--split", "exam"), 'no split "exam" of sib200'),
        (
            ("--method", "guess"),
            'Invalid value "guess" for --method. Choose from: "score", "generate"',
        ),
        (("--limit", "0"), "limit is 0; it must be at least 1"),
        (("--data", "nowhere"), "nowhere"),
        (("--device", "tpu"), "there is no device 'tpu'"),
        (("--dtype", "int4"), 'Invalid value "int4" for --dtype'),
        (("--encoder", "nobody/nothing"), "'nobody/nothing'"),
    ],
)
def test_an_evaluation_that_cannot_be(refused, reading, options, message):
    assert message in refused(*reading, *options)


def test_a_task_of_another_family(refused, trained, data, tmp_path):
    (tmp_path / "xnli").mkdir()
    row = {"premise": "a", "hypothesis": "b", "label": "neutral"}
    (tmp_path / "xnli" / "dev.en.jsonl").write_text(json.dumps(row) + "\n")
    options = ("--task", "xnli", "--data", tmp_path, "--json", tmp_path / "results.json")
    line = refused("evaluate", trained, *options, *CPU)
    assert "this bridge was trained for topic (sib200); xnli is nli" in line


@pytest.mark.parametrize("option", ["--json", "--predictions"])
def test_results_that_cannot_be_written_are_told_before_the_models_are_loaded(
    refused, reading, tmp_path, option, monkeypatch
):
    def load_models(*arguments):
        pytest.fail("the models were loaded")

    monkeypatch.setattr("palam.cli.evaluate.load_models", load_models)
    (tmp_path / "file").write_text("mine")
    assert "is a folder" in refused(*reading, option, tmp_path)
    assert "cannot be written" in refused(*reading, option, tmp_path / "file" / "r.json")


# --------------------------------------------------------------------------- texts
@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        (None, None, ("--text", "a", "--file", "b"), "give either --text or --file"),
        (None, None, (), "give either --text or --file"),
        (
            None,
            None,
            ("--file", "nowhere.txt"),
            "cannot read nowhere.txt: No such file or directory",
        ),
        (None, None, ("--file", str(HERE)), "holds none of these files: .parquet"),
        ("a.txt", b"", (), "is empty"),
        ("a.jsonl", b"", (), "is empty"),
        ("a.csv", b"text\n", (), "is empty"),
        ("a.txt", b"good\nbad \xff\n", (), "line 2: not UTF-8 (byte 5)"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "b"\n', (), "line 2: not JSON"),
        (
            "a.jsonl",
            b'{"head": "a"}\n',
            (),
            'line 1: no column "text" among head; name one with --column',
        ),
        (
            "a.jsonl",
            b'{"text": "a"}\n',
            ("--column", "head"),
            'line 1: no column "head" among text',
        ),
        ("a.csv", b"head\na\n", ("--column", "text"), 'no column "text" among head'),
        ("a.txt", b"a\n", ("--column", "text"), "plain text has none"),
        ("a.txt", b"a\n", ("--language", "xx"), "language is 'xx', which is unknown"),
        ("a.txt", b"a\n", ("--device", "tpu"), "there is no device 'tpu'"),
        ("a.txt", b"a\n", ("--dtype", "int4"), 'Invalid value "int4" for --dtype'),
    ],
)
def test_a_source_that_is_wrong(refused, trained, tmp_path, name, content, options, message):
    if name:
        (tmp_path / name).write_bytes(content)
        options = ("--file", tmp_path / name, *options)
    command = "classify" if content else "generate"  # which share how they read
    assert message in refused(command, trained, "--out", tmp_path / "out.jsonl", *CPU, *options)


def test_labels_that_are_no_choice(refused, trained):
    for labels in ("good", "good,good", ","):
        line = refused("classify", trained, "--text", "a", "--labels", labels)
        assert "holds fewer than two labels" in line


def test_a_bridge_without_a_task_needs_labels(refused, tiny_model, tmp_path):
    tiny_model().save_pretrained(tmp_path / "raw")
    assert "give --labels" in refused("classify", tmp_path / "raw", "--text", "a", *CPU)


def test_a_prompt_that_is_wrong(refused, trained):
    generating = ("generate", trained, "--text", "a", *CPU)
    for prompt in ("none", "{text} {text}"):
        assert "exactly once" in refused(*generating, "--prompt", prompt)
    assert 'Invalid value "poem" for --mode' in refused(*generating, "--mode", "poem")
    assert "no prompt" in refused(*generating, "--mode", "paper", "--prompt", "{text}")


@pytest.mark.parametrize("name", ["view.gif", "view.png"])
def test_a_view_of_no_known_kind(refused, trained, tmp_path, name):
    line = refused("inspect", trained, "--text", "a", "--out", tmp_path / name, *CPU)
    assert ".html, .json" in line


# --------------------------------------------------------------------------- the checkpoint
@pytest.mark.parametrize(
    "command", [("classify", "--text", "a"), ("inspect", "--text", "a"), ("info",)]
)
def test_what_is_no_checkpoint(refused, bridge, tmp_path, command):
    name, *options = command
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "nowhere", tmp_path / "empty", "nobody/nothing"):
        assert str(place) in refused(name, place, *options)
    weights = (bridge / "model.safetensors").read_bytes()
    for broken in (weights[: len(weights) // 2], b""):
        (bridge / "model.safetensors").write_bytes(broken)
        assert str(bridge) in refused(name, bridge, *options)
    (bridge / "model.safetensors").unlink()
    assert str(bridge) in refused(name, bridge, *options)


def test_other_base_models_are_refused_by_what_differs(refused, trained, base_folder, tmp_path):
    common = ("classify", trained, "--text", "a", "--out", tmp_path / "o.jsonl", *CPU)
    wide = tiny.tiny_llm(tmp_path / "wide", "llama", hidden_size=64)
    qwen, xlmr = base_folder("qwen"), base_folder("xlmr")
    vocabulary = "that this bridge was trained with (another vocabulary)"
    lines = {
        f"is not the LLM {vocabulary}": refused(*common, "--llm", qwen),
        "hidden_size is 64, not 32": refused(*common, "--llm", wide),
        f"is not the encoder {vocabulary}": refused(*common, "--encoder", xlmr),
        "(other weights)": refused(*common, "--encoder", base_folder("bert", seed=1)),
    }
    for message, line in lines.items():
        assert message in line
        assert "--allow-mismatch" in line
    assert "this bridge needs (32, 3, 32)" in refused(*common, "--llm", wide, "--allow-mismatch")


@pytest.mark.parametrize("place", ["/", ".", "", "..", "a\0b"])
@pytest.mark.parametrize(
    "command",
    [
        ("train", "--task", "demo", "--out"),
        ("align", "--task", "demo", "--out"),
        ("classify", "bridge", "--text", "a", "--out"),
        ("generate", "bridge", "--text", "a", "--out"),
        ("bench", "starter/sib200", "--out"),
        ("quickstart", "--short", "--out"),
        ("evaluate", "bridge", "--task", "demo", "--split", "test", "--json"),
        ("evaluate", "bridge", "--task", "demo", "--split", "test", "--predictions"),
        ("evaluate", "bridge", "--task", "demo", "--split", "test", "--html"),
    ],
)
def test_a_place_without_a_name_is_refused_before_any_work(refused, command, place):
    assert "cannot be written" in refused(*command, place)


def test_memory_that_does_not_suffice_is_one_line(refused, trained, monkeypatch):
    def none(*arguments, **options):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("palam.models.modeling.PalamModel.run_llm", none)
    command = ("classify", trained, "--text", "Rice.", "--device", "cpu", "--dtype", "fp32")
    assert "memory does not suffice: a smaller --batch-size needs less" in refused(*command)


@pytest.mark.parametrize("command", ["train", "pretrain", "align", "lexicon"])
def test_raw_text_in_a_table_has_a_column_to_name(refused, base_options, tmp_path, command):
    table = tmp_path / "t.csv"
    table.write_text("Article,n\n" + "one two three,1\n" * 30)
    encoder, llm = base_options[:2], base_options[2:]
    options = (*encoder, *(() if command == "lexicon" else llm), "--out", tmp_path / "out")
    message = 'no column "{}" among Article, n; name one with --text-column'
    line = refused(command, "--text-file", table, *options)
    assert message.format("text") in line
    line = refused(command, "--text-file", table, "--text-column", "Body", *options)
    assert message.format("Body") in line

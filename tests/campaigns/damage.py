"""Ways to damage a file: as bytes, as JSON, as YAML, as safetensors, or in its place."""

import copy
import json
import os
import pickle
import struct

import yaml
from safetensors.torch import load_file, save_file

PLACEHOLDER_TEXT = "{text:>1000000000}"
LONG_LABEL = "word " * 3000
ESCAPES = "\x1b[2J\x1b]0;title\x07name"
CATASTROPHE = "(" + "a|" * 3 + "(.*a){25})+b"
VALUES = (
    None,
    True,
    -1,
    0,
    3,
    10**6,
    10**30,
    -(10**400),
    0.5,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "0",
    ESCAPES,
    "nul\0nul",
    "\ud800",
    PLACEHOLDER_TEXT,
    CATASTROPHE,
    LONG_LABEL,
    "../../../etc/passwd",
    "/dev/zero",
    [],
    [[]],
    ["x", 3, None],
    list(range(20_000)),
    {},
    {"x": {"y": "z"}},
    {"": None},
)
"""What stands in a value's place."""


class Trap:
    """What a pickle can do when it is read: here it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


# ------------------------------------------------------------------ bytes
def remove(path, rng):
    path.unlink()


def empty(path, rng):
    path.write_bytes(b"")


def cut(path, rng):
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content) + 1)])


def flip(path, rng):
    content = bytearray(path.read_bytes() or b"x")
    for _ in range(rng.randint(1, 8)):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def noise(path, rng):
    path.write_bytes(rng.randbytes(rng.randint(1, 5000)))


def not_utf8(path, rng):
    path.write_bytes(b"caf\xe9 \xff\xfe" + path.read_bytes())


def utf16(path, rng):
    path.write_bytes(path.read_bytes().decode("utf-8", "replace").encode("utf-16"))


def byte_order_marks(path, rng):
    path.write_bytes(b"\xef\xbb\xbf\xef\xbb\xbf" + path.read_bytes())


def double(path, rng):
    path.write_bytes(path.read_bytes() * 2)


def brackets(path, rng):
    bracket = rng.choice([b"[", b'{"a":', b"- "])
    path.write_bytes(bracket * 100_000)


def digits(path, rng):
    path.write_bytes(b'{"num_labels": ' + b"9" * 100_000 + b"}")


def as_pickle(path, rng):
    path.write_bytes(pickle.dumps(Trap(path.parent / "trap")))


BYTES = (
    remove,
    empty,
    cut,
    flip,
    noise,
    not_utf8,
    utf16,
    byte_order_marks,
    double,
    brackets,
    digits,
    as_pickle,
)


# ------------------------------------------------------------------ what stands in its place
def folder_in_place(path, rng):
    path.unlink()
    path.mkdir()


def link_to_zeros(path, rng):
    path.unlink()
    path.symlink_to("/dev/zero")


def link_to_itself(path, rng):
    path.unlink()
    path.symlink_to(path.name)


def link_to_nothing(path, rng):
    path.unlink()
    path.symlink_to("/nowhere/at/all")


def link_out_of_the_folder(path, rng):
    outside = path.parent.parent / f"outside-{path.name}"
    path.rename(outside)
    path.symlink_to(outside)


def pipe_in_place(path, rng):
    path.unlink()
    os.mkfifo(path)


PLACES = (
    folder_in_place,
    link_to_zeros,
    link_to_itself,
    link_to_nothing,
    link_out_of_the_folder,
    pipe_in_place,
)


# ------------------------------------------------------------------ values
def positions(content, path=()):
    """The place of every value in nested lists and mappings."""
    found = [path]
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        if isinstance(value, dict | list):
            found += positions(value, (*path, key))
        else:
            found.append((*path, key))
    return found


def change_value(content, rng):
    """A copy in which one value is another, is missing, or is new."""
    changed = copy.deepcopy(content)
    path = rng.choice(positions(changed))
    value = copy.deepcopy(rng.choice(VALUES))
    if not path:
        return value
    holder = changed
    for key in path[:-1]:
        holder = holder[key]
    action = rng.choice(["change", "change", "change", "remove", "add", "deepen"])
    if action == "remove":
        del holder[path[-1]]
    elif action == "add" and isinstance(holder, dict):
        holder[str(value)] = value
    elif action == "deepen":
        for _ in range(rng.choice([3, 30, 200])):
            value = [value]
        holder[path[-1]] = value
    else:
        holder[path[-1]] = value
    return changed


def json_value(path, rng):
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(change_value(content, rng)))


def yaml_value(path, rng):
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    changed = change_value(content, rng)
    try:
        path.write_text(yaml.safe_dump(changed, allow_unicode=True))
    except (ValueError, RecursionError):  # a surrogate; a number of 400 digits
        path.write_text(json.dumps(changed))


def yaml_text(path, rng):
    lines = ["a0: &a0 [1,1,1,1,1,1,1,1,1]"]
    for level in range(1, 12):
        items = ",".join([f"*a{level - 1}"] * 9)
        lines.append(f"a{level}: &a{level} [{items}]")
    texts = (
        "\n".join(lines),
        "x: !!python/object/apply:os.system ['true']",
        "<<: [*x]",
        "? [a, b]\n: c",
        "a: 2024-99-99",
        "lr: 0x" + "f" * 5000,
        "--- 1\n--- 2",
        "\tlr: 1",
        "a: " + "[" * 500,
        "on: off\n1: 2\nnull: 3",
    )
    content = path.read_text(encoding="utf-8")
    new = rng.choice(texts)
    path.write_text(rng.choice([new, content + "\n" + new + "\n"]))


def json_line(path, rng):
    """One line of JSON lines is damaged."""
    lines = path.read_text(encoding="utf-8").splitlines()
    number = rng.randrange(len(lines))
    content = json.loads(lines[number])
    foreign = ("null", "3", "[]", '"x"', "{}", "", "not JSON", '{"method": "last"}', "\x1b[31m")
    changed = json.dumps(change_value(content, rng))
    lines[number] = rng.choice([changed, changed, changed, rng.choice(foreign)])
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


# ------------------------------------------------------------------ safetensors
def header_length(path, rng):
    content = path.read_bytes()
    length = rng.choice([0, 1, 7, 2**31, 2**60, 2**64 - 1, len(content)])
    path.write_bytes(struct.pack("<Q", length) + content[8:])


def header_value(path, rng):
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = change_value(json.loads(content[8 : 8 + length]), rng)
    written = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(written)) + written + content[8 + length :])


def header_entry(path, rng):
    """A tensor's dtype, shape or place in the file is another."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    entry = header[rng.choice([name for name in header if name != "__metadata__"])]
    field, value = rng.choice(
        [
            *(("dtype", dtype) for dtype in ("F64", "I8", "BF16", "F16", "BOOL", "F8_E4M3", "X")),
            *(("shape", shape) for shape in ([], [10**12], [0], [-1], [2**63, 4], ["3"], [1])),
            *(("data_offsets", places) for places in ([0, 0], [8, 4], [0, 2**62], [-4, 4], [1])),
        ]
    )
    entry[field] = value
    written = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(written)) + written + content[8 + length :])


def tensor(path, rng):
    """A tensor is missing, new, renamed, of another shape or type, or not finite."""
    weights = load_file(path)
    name = rng.choice(sorted(weights))
    value = weights.pop(name)
    action = rng.choice(["drop", "rename", "add", "shape", "type", "number", "number", "large"])
    if action == "rename":
        weights[f"{name}.other"] = value
    elif action == "add":
        weights |= {name: value, "other": value.clone()}
    elif action == "shape":
        weights[name] = value.flatten()[:1].clone()
    elif action == "type":
        weights[name] = value.to(rng.choice([value.int().dtype, value.half().dtype]))
    elif action == "number":
        value.view(-1)[0] = rng.choice([float("nan"), float("inf"), -float("inf")])
        weights[name] = value
    elif action == "large":
        weights[name] = value * 1e30
    save_file(weights, path, {"format": "pt"})


def index_instead(path, rng):
    """An index names the weights: in a pickle, or in a file out of the folder."""
    shard = rng.choice(["pytorch_model.bin", "../shard.safetensors", "/tmp/x", "", 3, None])
    index = {"metadata": {}, "weight_map": dict.fromkeys(load_file(path), shard)}
    path.rename(path.parent.parent / "shard.safetensors")
    as_pickle(path.parent / "pytorch_model.bin", rng)
    (path.parent / f"{path.name}.index.json").write_text(json.dumps(index))


def pickle_beside(path, rng):
    path.unlink()
    as_pickle(path.with_name(rng.choice(["pytorch_model.bin", "adapter_model.bin"])), rng)


WEIGHTS = (
    header_length,
    header_value,
    header_entry,
    tensor,
    tensor,
    index_instead,
    pickle_beside,
)

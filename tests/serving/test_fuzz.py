"""Requests drawn from the interface's own schema, and from beside it: never a 5xx, never an end.

`python tests/serving/test_fuzz.py 10000` draws so many.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from palam.serving.api import create_app
from palam.serving.bridges import ServedBridge
from palam.serving.engine import Engine
from palam.serving.limits import ServeLimits

REQUESTS = int(os.environ.get("PALAM_FUZZED_REQUESTS", "100"))
PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/classify", "/v1/layers")
NASTY = [
    "",
    "\0",
    "\ud800",
    "a" * 3000,
    "</s><|end|>",
    "\u202eabc",
    "ශ්‍රී ලංකා",
    "𝔘𝔫𝔦",
    "\ufeff",
    "%s{}",
]
TEXTS = st.one_of(st.sampled_from(NASTY), st.text(st.characters(), max_size=20))
ANYTHING = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.sampled_from([0, 1, -1])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)
ALLOWED = frozenset({200, 400, 404, 413})


class FromSchema:
    """Draws values that a schema allows, and now and then others."""

    def __init__(self, schemas):
        self.schemas = schemas

    def values(self, schema):
        return st.one_of(self.right(schema), self.right(schema), self.right(schema), ANYTHING)

    def right(self, schema):
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            return st.deferred(lambda: self.right(self.schemas[name]))
        for union in ("anyOf", "oneOf"):
            if union in schema:
                return st.one_of([self.right(choice) for choice in schema[union]])
        if "const" in schema:
            return st.just(schema["const"])
        if "enum" in schema:
            return st.sampled_from(schema["enum"])
        return getattr(self, schema.get("type", "anything"))(schema)

    def object(self, schema):
        if "properties" not in schema:
            return st.dictionaries(TEXTS, TEXTS, max_size=2)
        needed = schema.get("required", ())
        fields = {name: self.values(field) for name, field in schema["properties"].items()}
        return st.fixed_dictionaries(
            {name: field for name, field in fields.items() if name in needed},
            optional={name: field for name, field in fields.items() if name not in needed},
        )

    def array(self, schema):
        return st.lists(self.values(schema["items"]), max_size=3)

    def string(self, schema):
        return TEXTS

    def integer(self, schema):
        return st.integers(-1, 8)

    def number(self, schema):
        return st.floats(0, 2)

    def boolean(self, schema):
        return st.booleans()

    def null(self, schema):
        return st.none()

    def anything(self, schema):
        return ANYTHING


def fuzz(client, count):
    schema = client.get("/openapi.json").json()
    draws = FromSchema(schema["components"]["schemas"])
    bodies = {}
    for path in PATHS:
        content = schema["paths"][path]["post"]["requestBody"]["content"]
        bodies[path] = draws.right(content["application/json"]["schema"])
    statuses = set()

    @seed(0)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(PATHS).flatmap(lambda path: st.tuples(st.just(path), bodies[path])))
    def request(drawn):
        path, body = drawn
        raw = json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        response = client.post(path, content=raw, headers=headers)
        assert response.status_code in ALLOWED, (response.status_code, response.text)
        if response.status_code != 200:
            (error,) = response.json().values()
            assert error["message"]
        elif "event-stream" in response.headers["content-type"]:
            assert response.text.endswith("data: [DONE]\n\n"), response.text
        statuses.add(response.status_code)

    request()
    assert client.get("/ready").status_code == 200
    assert {200, 400} <= statuses


def client_of(model, engine_of):
    bridges = [ServedBridge("a", model)]
    engine = engine_of(bridges, ServeLimits(max_new_tokens=6, max_text_tokens=100))
    return TestClient(create_app(engine), base_url="http://127.0.0.1"), engine


@pytest.mark.parametrize("llm", ["llama"])
def test_requests_from_the_schema_never_fail_the_server(tiny_model, llm):
    model = tiny_model("bert", llm, mode="chat", prompt="{text}\nTopic:")
    client, engine = client_of(model, Engine)
    engine.start()
    try:
        fuzz(client, REQUESTS)
    finally:
        engine.close()


def main(count):
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import tiny

    from palam import PalamModel

    with tempfile.TemporaryDirectory() as folder:
        encoder = tiny.tiny_encoder(Path(folder) / "bert", "bert")
        llm = tiny.tiny_llm(Path(folder) / "llama", "llama")
        model = PalamModel.from_bases(str(encoder), str(llm), mode="chat", prompt="{text}\nTopic:")
        client, engine = client_of(model, Engine)
        engine.start()
        fuzz(client, count)
        engine.close()
    print(f"{count} requests: no 5xx, the server lives")


if __name__ == "__main__":
    main(int(sys.argv[1]))

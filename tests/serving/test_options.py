"""Where a server listens, and to whom: refused before anything is loaded."""

import subprocess
import sys

import pytest

from palam.errors import PalamError
from palam.serving.options import KEY_VARIABLE, ServerOptions


def test_the_key_is_that_of_the_environment_unless_one_is_given(monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "s3cret")
    assert ServerOptions(host="0.0.0.0").api_key == "s3cret"
    assert ServerOptions(api_key="other").api_key == "other"
    assert "s3cret" not in repr(ServerOptions())
    monkeypatch.setenv(KEY_VARIABLE, "")  # as compose files leave it
    assert ServerOptions().api_key is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host": "0.0.0.0"}, "can be reached by others: set a key"),
        ({"api_key": ""}, "not empty"),
        ({"api_key": " a"}, "begins or ends with a space"),
        ({"api_key": "clé"}, "printable ASCII"),
        ({"root_path": "palam"}, "must begin with /"),
    ],
)
def test_options_that_are_wrong(monkeypatch, options, message):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with pytest.raises(PalamError, match=message):
        ServerOptions(**options)


def test_they_need_no_server():
    heavy = "print([name for name in ('uvicorn', 'fastapi', 'torch') if name in sys.modules])"
    code = f"import sys, palam.serving.options; {heavy}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""Classes by name, imported when they are used."""

import subprocess
import sys
from fractions import Fraction

import pytest
from helpers import refusal

from palam.utils.registry import Registry


@pytest.fixture
def registry():
    entries = {"decimal": "decimal:Decimal", "lost": "palam.no_such_module:Nothing"}
    return Registry("number", entries)


def test_a_name_is_its_class(registry):
    from decimal import Decimal

    assert registry["decimal"] is registry.lookup("decimal") is Decimal


def test_it_is_a_mapping_that_imports_nothing(registry):
    assert list(registry) == ["decimal", "lost"]
    assert len(registry) == 2
    assert "lost" in registry
    assert "octonion" not in registry
    with pytest.raises(KeyError):
        registry["octonion"]


def test_an_unknown_name_lists_those_there_are(registry):
    message = "number 'octonion' is not known; it must be one of: decimal, lost"
    assert refusal(registry.lookup, "octonion") == message
    assert refusal(registry.check, "octonion") == message
    registry.check("lost")  # without importing it


def test_a_class_is_added_or_replaced(registry):
    registry.register("ratio", Fraction)
    assert registry["ratio"] is Fraction
    assert list(registry) == ["decimal", "lost", "ratio"]
    registry.register("decimal", Fraction)
    assert registry["decimal"] is Fraction
    assert len(registry) == 3


def test_the_names_of_fusions_and_mappers_cost_no_torch():
    code = (
        "import sys; from palam.models.registry import FUSIONS, MAPPERS;"
        "assert list(FUSIONS) and list(MAPPERS) and 'torch' not in sys.modules;"
        "FUSIONS['mean']; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

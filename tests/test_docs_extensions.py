"""What the pages' build does to docstrings and links (docs/_ext)."""

import sys
from pathlib import Path

import pytest

import palam

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module", autouse=True)
def extensions():
    """The build's own modules can be imported."""
    sys.path.insert(0, str(DOCS / "_ext"))
    yield
    sys.path.remove(str(DOCS / "_ext"))


@pytest.fixture(scope="module")
def convert():
    """`convert(docstring)`: as the docstring of `palam.train`."""
    from markdown_docstrings import MarkdownDocstrings

    hook = MarkdownDocstrings()

    def call(docstring, what="function"):
        lines = docstring.split("\n")
        hook(None, what, "palam.train", palam.train, None, lines)
        return "\n".join(lines)

    return call


@pytest.mark.parametrize(
    ("written", "target"),
    [
        ("PalamModel", "palam.PalamModel"),
        ("PalamModel.generate", "palam.PalamModel.generate"),
        ("Fusion.forward", "palam.Fusion.forward"),
        ("palam.models.sequence.build_llm_inputs", "palam.models.sequence.build_llm_inputs"),
        ("FUSIONS", "palam.models.registry.FUSIONS"),
    ],
)
def test_a_reference_leads_to_where_the_name_is_documented(convert, written, target):
    shown = written if written[0].isupper() else written.rpartition(".")[2]
    assert convert(f"See [`{written}`].") == f"See :py:known:`{shown} <{target}>`."


def test_a_reference_to_nothing_is_a_warning(convert, monkeypatch):
    import markdown_docstrings

    warnings = []
    monkeypatch.setattr(markdown_docstrings.logger, "warning", lambda *args: warnings.append(args))
    assert convert("See [`NoSuchName`].") == "See `NoSuchName`."
    assert len(warnings) == 1


def test_code_is_marked_as_code_also_over_two_lines(convert):
    assert convert("Give `a=1`, or `b\nc`.") == "Give ``a=1``, or ``b\nc``."


def test_what_would_be_marks_is_text(convert):
    assert convert("|x| and the **options, `a_` and a_ too") == (
        r"\|x\| and the \*\*options, ``a_`` and a\_ too"
    )


def test_indented_code_is_a_literal_block_and_stays_as_it_is(convert):
    docstring = "A row:\n\n    input_ids  `x`  **p\n\nAfter it `y`."
    assert convert(docstring) == "A row::\n\n    input_ids  `x`  **p\n\nAfter it ``y``."


def test_sections_are_not_taken_for_code(convert):
    docstring = "What it does.\n\nArgs:\n    first: `a`.\n\nReturns:\n    Something."
    assert convert(docstring) == docstring.replace("`a`", "``a``")


def test_a_variables_docstring_has_no_type_in_front(convert):
    assert convert("Steps: all of them.", what="attribute") == ": Steps: all of them."


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("[a](guide.md#resume)", "[a](guide.md#resume)"),
        ("[a](../CONTRIBUTING.md#style)", "[a](contributing.md#style)"),
        ("[m.py](../src/palam/models/mapper.py)", "{py:mod}`m.py <palam.models.mapper>`"),
        ("[f](../src/palam/models/fusion)", "{py:mod}`f <palam.models.fusion>`"),
        ("[results](../benchmarks/results)", "results"),
        ("[paper](https://arxiv.org/abs/2508.09091)", "[paper](https://arxiv.org/abs/2508.09091)"),
        ("[below](#python)", "[below](#python)"),
    ],
)
def test_a_link_leads_to_a_page_of_the_documentation(link, expected):
    from repository_links import LINK, converted_link

    assert converted_link(LINK.fullmatch(link), DOCS, DOCS) == expected


def test_a_link_from_an_included_page_is_of_the_repositorys_front():
    from repository_links import LINK, converted_link

    link = LINK.fullmatch("[guide](docs/guide.md)")
    assert converted_link(link, DOCS.parent, DOCS) == "[guide](guide.md)"


def test_the_help_of_a_command_is_what_the_program_prints():
    from command_help import help_text

    assert "--task" in help_text("train")
    with pytest.raises(ValueError, match="no command"):
        help_text("fly")


def test_a_module_that_its_rooms_page_does_not_list_follows():
    from room_pages import add_missing_modules, room_modules

    modules = room_modules("models")
    assert {"models.modeling", "models.fusion.base", "models.backbones.llm"} <= set(modules)
    source = ["# Models\n\n.. automodule:: palam.models.modeling\n"]
    add_missing_modules(None, "api/models", source)
    assert all(source[0].count(f"automodule:: palam.{name}\n") == 1 for name in modules)
    unchanged = ["# Guide\n"]
    add_missing_modules(None, "guide", unchanged)
    assert unchanged == ["# Guide\n"]


def test_pages_of_source_code_share_the_list_of_pages():
    from source_navigation import SharedNavigation

    made = []

    def list_for(pagename, **options):
        def toctree(**options):
            made.append(pagename)
            return f"{pagename}: {options}"

        context = {"toctree": toctree}
        navigation(None, pagename, "page.html", context, None)
        return context["toctree"](**options)

    navigation = SharedNavigation()
    first = list_for("_modules/palam/models/bridge", maxdepth=-1)
    assert list_for("_modules/palam/bench/plan", maxdepth=-1) == first
    assert list_for("_modules/palam/errors", maxdepth=-1) != first  # its links go up less far
    assert list_for("_modules/palam/models/bridge", maxdepth=1) != first
    assert list_for("api/models", maxdepth=-1).startswith("api/models")
    assert made == [
        "_modules/palam/models/bridge",
        "_modules/palam/errors",
        "_modules/palam/models/bridge",
        "api/models",
    ]

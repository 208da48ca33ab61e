"""GitHub's expression language, by the examples of its own reference."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlp_ci.errors import InputError
from mlp_ci.sandbox.expressions import as_text, evaluate, substitute, truthy

CONTEXTS: dict[str, Any] = {
    "github": {
        "ref": "refs/heads/main",
        "event_name": "push",
        "head_ref": "",
        "event": {"pull_request": {"number": 7, "labels": [{"name": "bug"}], "draft": False}, "inputs": None},
    },
    "vars": {"LABEL": "gpu-small", "LABELS": '["self-hosted", "gpu"]'},
    "inputs": {"stage": ""},
}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("github.ref", "refs/heads/main"),
        ("GitHub.Ref", "refs/heads/main"),
        ("github['ref']", "refs/heads/main"),
        ("github.event.pull_request.number", 7),
        ("github.event.pull_request.labels[0].name", "bug"),
        ("github.event.pull_request.labels[3].name", None),
        ("github.nothing.at.all", None),
        ("nothing", None),
        ("'it''s'", "it's"),
        ("0xff", 255.0),
        ("-1.5e1", -15.0),
        ("null", None),
        ("true && 'a' || 'b'", "a"),
        ("false && 'a' || 'b'", "b"),
        ("vars.RUNNER || 'ubuntu-latest'", "ubuntu-latest"),
        ("inputs.stage || 'production'", "production"),
        ("github.head_ref || github.ref", "refs/heads/main"),
        ("!github.event.pull_request.draft", True),
        ("!!1", True),
        ("github.event_name == 'PUSH'", True),
        ("github.event_name != 'push'", False),
        ("null == 0", True),
        ("'' == 0", True),
        ("true == 1", True),
        ("'abc' == 0", False),
        ("'10' > 9", True),
        ("'abc' < 'abd'", True),
        ("'abc' > 1", False),
        ("1 < 2 == true", True),
        ("1 == 1 && 2 <= 2", True),
        ("(true || false) && false", False),
        ("true || false && false", True),
        ("startsWith(github.ref, 'refs/heads/')", True),
        ("endsWith('a.yml', '.YML')", True),
        ("contains('Hello', 'ell')", True),
        ("contains(fromJSON('[\"a\", \"b\"]'), 'B')", True),
        ("format('{0}-{1} {{x}}', 'a', 2)", "a-2 {x}"),
        ("join(fromJSON('[1, 2]'), '+')", "1+2"),
        ("toJSON(fromJSON('[]'))", "[]"),
    ],
)
def test_values(expression: str, value: Any) -> None:
    assert evaluate(expression, CONTEXTS) == value


def test_text_around_expressions_and_types_without() -> None:
    assert (
        substitute("ci-${{ github.ref }}-${{ github.event.pull_request.number }}", CONTEXTS) == "ci-refs/heads/main-7"
    )
    assert substitute("${{ github.event.pull_request.draft }}", CONTEXTS) is False
    assert substitute(" ${{ fromJSON(vars.LABELS) }} ", CONTEXTS) == ["self-hosted", "gpu"]
    assert substitute("${{ '}}' }} and ${{ 'it''s' }}", CONTEXTS) == "}} and it's"
    assert substitute("nothing to do", CONTEXTS) == "nothing to do"


@pytest.mark.parametrize("expression", ["", "a &&", "(a", "a b", "'open", "a.", "a[1", "f(", "#", "1 +", "a..b"])
def test_what_cannot_be_read_is_refused_with_the_expression(expression: str) -> None:
    with pytest.raises(InputError) as caught:
        evaluate(expression, CONTEXTS)
    assert "cannot be read" in str(caught.value)


def test_an_unknown_function_is_named() -> None:
    with pytest.raises(InputError, match=r"hashFiles\(\)"):
        evaluate("hashFiles('**/x')", CONTEXTS)


@pytest.mark.parametrize("call", ["contains('a')", "fromJSON('{')", "format()", "startsWith('a')"])
def test_a_function_with_wrong_arguments_is_refused(call: str) -> None:
    with pytest.raises(InputError):
        evaluate(call, CONTEXTS)


# Text from the pieces that expressions are made of comes much closer to one than any text does.
PIECES = ["github", ".event", ".ref", "vars.LABEL", "[0]", "['a']", "'x'", "1", "-0x1F", "true", "null", " ", ","]
PIECES += ["(", ")", "!", "&&", "||", "==", "!=", "<", ">=", "contains(", "format(", "fromJSON(", "join(", "}}", "*"]
TEXTS = st.one_of(st.text(max_size=40), st.lists(st.sampled_from(PIECES), max_size=12).map("".join))


@given(TEXTS)
def test_any_text_has_a_value_or_is_refused_by_name(text: str) -> None:
    try:
        value = evaluate(text, CONTEXTS)
    except InputError as error:
        assert text.strip() in error.what
        assert error.fix
        return
    assert value is None or isinstance(value, bool | int | float | str | list | dict)
    if "}}" not in text:
        assert as_text(substitute("${{" + text + "}}", CONTEXTS)) == as_text(value)
        assert substitute("<${{" + text + "}}>", CONTEXTS) == f"<{as_text(value)}>"


@given(st.text(max_size=40).filter(lambda text: "${{" not in text))
def test_text_without_an_expression_stays_as_it_is(text: str) -> None:
    assert substitute(text, CONTEXTS) == text


@given(st.text(alphabet=st.characters(exclude_characters="'")))
def test_a_literal_is_its_own_value(text: str) -> None:
    assert evaluate(f"'{text}'", {}) == text
    assert truthy(text) == bool(text)


def test_text_of_values() -> None:
    values = [None, True, False, 3.0, 3.5, "x", {}, []]
    assert [as_text(value) for value in values] == ["", "true", "false", "3", "3.5", "x", "Object", "Array"]

"""Conditions on kept columns: read, written, asked of Arrow."""

from __future__ import annotations

import datetime

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simdist.errors import ConfigError
from simdist.stages.search.where import Where, read_where

TABLE = pa.table(
    {
        "row": pa.array(range(6)),
        "section": ["net", "net", "mail", None, "x11", 'a "b"'],
        "year": [2019, 2020, 2021, 2022, None, 2024],
        "free": [True, False, True, None, False, True],
        "day": pa.array([datetime.date(2020, 1, day) for day in range(1, 7)]),
        "odd name": [0.5, 1.5, -2.5, 3.0, 4.0, 5.0],
    }
)


def passed(where: object) -> list[int]:
    return TABLE.filter(read_where(where).expression(TABLE.schema))["row"].to_pylist()


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ('section == "net" and year >= 2020', [1]),
        ("section = 'net' or year > 2023", [0, 1, 5]),
        ('not section == "net"', [2, 4, 5]),
        ("section is null", [3]),
        ("year is not null and not (year < 2021 or free == true)", []),
        ("section in ['net', 'mail']", [0, 1, 2]),
        ("section not in ['net', 'mail'] and section is not null", [4, 5]),
        ('section == "a \\"b\\""', [5]),
        ("`odd name` <= -2.5", [2]),
        ("`odd name` == 1.5e0", [1]),
        ('day >= "2020-01-05"', [4, 5]),
        ('section == "net" or section == "mail" and year == 2021', [0, 1, 2]),
        ([["section", "==", "net"], ["year", ">=", 2020]], [1]),
        (["year", "in", [2019, 2024]], [0, 5]),
        ((pc.field("section") == "net") & (pc.field("year") >= 2020), [1]),
        (pc.field("section").isin(["net"]), [0, 1]),
        (pc.starts_with(pc.field("section"), "ma"), [2]),
    ],
)
def test_a_condition_lets_its_rows_pass(where, rows) -> None:
    assert passed(where) == rows
    again = read_where(read_where(where).to_json())
    assert TABLE.filter(again.expression(TABLE.schema))["row"].to_pylist() == rows


@pytest.mark.parametrize(
    "where",
    [
        'section=="net"   and  (year>=2020)',
        "section == 'net' AND year >= 2020",
        [["section", "=", "net"], ["year", ">=", 2020]],
        (pc.field("section") == "net") & (pc.field("year") >= 2020),
    ],
)
def test_one_condition_has_one_form_however_it_is_written(where) -> None:
    assert read_where(where).to_json() == 'section == "net" and year >= 2020'


def test_brackets_that_say_nothing_are_left_out_and_those_that_do_are_kept() -> None:
    assert str(read_where("a == 1 and (b == 2 and c == 3)")) == "a == 1 and b == 2 and c == 3"
    assert str(read_where("(a == 1 or b == 2) and c == 3")) == "(a == 1 or b == 2) and c == 3"


NAMES = st.from_regex(r"\A[a-z_][a-z0-9_]{0,5}\Z") | st.sampled_from(["odd name", "not", "in"])
VALUES = st.integers(-99, 99) | st.booleans() | st.text("ab \"'\\", max_size=4) | st.just(0.25)
TESTS = st.tuples(st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), NAMES, VALUES)
TREES = st.recursive(
    TESTS | st.tuples(st.just("in"), NAMES, st.lists(VALUES, min_size=1, max_size=3).map(tuple)),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["and", "or"]), st.tuples(inner, inner)),
        st.tuples(st.just("not"), inner),
    ),
    max_leaves=6,
)


@given(TREES)
def test_what_is_written_is_read_again(tree) -> None:
    text = str(Where(tree))
    assert str(read_where(text)) == str(read_where(str(read_where(text))))
    assert read_where(text).columns() is not None


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (
            "year ==",
            r"at character 8 expected a number, true, false or \"text\" in quotes, found the",
        ),
        ("year ~ 3", r"at character 6 expected a column, a value or an operator, found '~ 3'"),
        ("year == 3)", r"at character 10 expected 'and', 'or' or the end"),
        ("", "at character 1 expected a column, found the end"),
        ("2020 == year", "at character 1 expected a column, found '2020 == year'"),
        ("(" * 60 + "a == 1" + ")" * 60, "at most 50 conditions inside one another"),
        ([], "an empty list of conditions"),
        ([["year", "~", 3]], "expected \\[column, operator, value\\], the operator one of"),
        ([["year", "in", "net"]], "expected \\[column, operator, value\\]"),
        ([["year", "==", None]], "values are text, numbers, true or false"),
        (7, "where=7: expected a condition as text"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(where, said) -> None:
    with pytest.raises(ConfigError, match=said):
        read_where(where)

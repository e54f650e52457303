"""Conditions on kept columns: which rows of a corpus may be found.

    'section == "net" and year >= 2020'           text, as a flow writes it
    [["section", "==", "net"], ["year", ">=", 2020]]    all of these
    pyarrow.compute.field("section") == "net"     an expression of Arrow
              │ read
              v
    a tree ── text ──> the canonical form, which enters the fingerprint
           └─ expression(schema) ──> what Arrow filters a shard's table with

    condition  := all { "or" all }            all := one { "and" one }
    one        := "not" one | "(" condition ")" | column test
    test       := ("==" | "!=" | "<" | "<=" | ">" | ">=") value
                | ["not"] "in" "[" value { "," value } "]" | "is" ["not"] "null"
    column     := a name of letters, digits, "_", "." and "-", or anything between backquotes
    value      := number | "text" | 'text' | true | false

A row where the condition is null (its column is) does not pass, as in SQL. An Arrow expression that
this language cannot say is kept as Arrow writes it down: its fingerprint is then Arrow's own.
"""

from __future__ import annotations

import base64
import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from simdist.errors import ConfigError, InputError
from simdist.types import Json

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc

    from simdist.store.datasets import Dataset

__all__ = ["Where", "read_where"]

Tree: TypeAlias = tuple[Any, ...]  # ("and" | "or", trees), ("not", tree), (operator, column, value)

OPERATORS = ("==", "!=", "<=", ">=", "<", ">")
WORDS = ("and", "or", "not", "in", "is", "null", "true", "false")
DEEPEST = 50  # conditions inside one another
TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?![\w.])
      | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<quoted>`[^`]+`)
      | (?P<name>[A-Za-z_][\w.-]*)
      | (?P<sign>==|!=|<=|>=|<|>|=|\(|\)|\[|\]|,)
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Where:
    """A condition. tree: as it was read, or none. arrow: base64 of an expression that only Arrow
    can say. `str` gives it back as a person writes it."""

    tree: Tree | None
    arrow: str | None = None

    def __str__(self) -> str:
        return _text(self.tree) if self.tree is not None else str(_restored(self.arrow))

    def to_json(self) -> Json:
        """The canonical form: text, or Arrow's bytes."""
        return str(self) if self.tree is not None else {"arrow": self.arrow}

    def expression(self, schema: pa.Schema) -> pc.Expression:
        """What Arrow filters a table of this schema with; text is read as the column's own type
        where that is a date or a time."""
        return _restored(self.arrow) if self.tree is None else _expression(self.tree, schema)

    def columns(self) -> tuple[str, ...] | None:
        """The columns it asks about, each once; None where only Arrow knows."""
        return None if self.tree is None else tuple(dict.fromkeys(_columns(self.tree)))

    def check(self, corpus: Dataset) -> None:
        """InputError where a column is not among the corpus' own, or cannot be compared so."""
        table = corpus.store.read_table(corpus.shards[0].objects["rows"]).slice(0, 1)
        for name in self.columns() or ():
            if name not in table.schema.names:
                raise InputError(_unknown(name, table.schema.names, corpus))
        self.rows(table, corpus)

    def rows(self, table: pa.Table, corpus: Dataset) -> pa.Table:
        """The rows of a shard's table that pass."""
        import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

        try:
            return table.filter(self.expression(table.schema))
        except (pa.ArrowException, ValueError) as error:
            raise InputError(
                f"where: {self}: Arrow cannot ask this of the columns of {corpus.uri}"
                f" ({', '.join(f'{f.name} {f.type}' for f in table.schema)}): {error}"
            ) from error


def read_where(where: Any) -> Where:
    """A condition from text, a list of [column, operator, value], or an Arrow expression.

    ConfigError where it cannot be read, with the place.
    """
    if isinstance(where, Where):
        return where
    if isinstance(where, str):
        return Where(_flat(_Reader(where).whole()))
    if isinstance(where, dict) and set(where) == {"arrow"}:
        return Where(None, str(where["arrow"]))
    if isinstance(where, (list, tuple)):
        return Where(_flat(_listed(where)))
    import pyarrow.compute as pc  # noqa: PLC0415 - 0.3 s that planning does not need

    if isinstance(where, pc.Expression):
        return _of_arrow(where)
    raise ConfigError(
        f"where={where!r}: expected a condition as text, a list of [column, operator, value], or an"
        " expression of pyarrow.compute"
    )


def _of_arrow(expression: pc.Expression) -> Where:
    """The tree of an expression where reading its text gives the same expression back."""
    import pyarrow as pa  # noqa: PLC0415

    try:
        tree = _Reader(str(expression)).whole()
        if _expression(tree, pa.schema([])).equals(expression):
            return Where(_flat(tree))
    except ConfigError:
        pass  # a function that only Arrow knows
    serialized = expression.__reduce__()[1][0]
    return Where(None, base64.b64encode(memoryview(serialized)).decode())


def _restored(arrow: str | None) -> pc.Expression:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415

    try:
        return pc.Expression._deserialize(pa.py_buffer(base64.b64decode(arrow or "")))
    except (ValueError, pa.ArrowException) as error:
        raise ConfigError(
            f"a condition kept by another version of Arrow cannot be read: {error}"
        ) from error


class _Reader:
    """Text to a tree, by recursive descent."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str, int]] = []
        place = 0
        while text[place:].strip():
            found = TOKEN.match(text, place)
            if found is None:
                start = place + len(text[place:]) - len(text[place:].lstrip())
                raise self._wrong("a column, a value or an operator", start)
            kind = str(found.lastgroup)
            token, start = found.group(kind), found.start(kind)
            if kind == "name" and token.lower() in WORDS:
                kind, token = "word", token.lower()
            self.tokens.append((kind, token, start))
            place = found.end()
        self.at = 0

    def whole(self) -> Tree:
        tree = self._any(0)
        if self.at < len(self.tokens):
            raise self._wrong("'and', 'or' or the end")
        return tree

    def _any(self, depth: int) -> Tree:
        parts = [self._all(depth)]
        while self._took("or"):
            parts.append(self._all(depth))
        return _joined("or", parts)

    def _all(self, depth: int) -> Tree:
        parts = [self._one(depth)]
        while self._took("and"):
            parts.append(self._one(depth))
        return _joined("and", parts)

    def _one(self, depth: int) -> Tree:
        if depth > DEEPEST:
            raise self._wrong(f"at most {DEEPEST} conditions inside one another")
        if self._took("not"):
            return ("not", self._one(depth + 1))
        if self._ahead() == ("name", "invert"):  # as Arrow writes it
            self.at += 1
            self._expect("(")
            tree = self._any(depth + 1)
            self._expect(")")
            return ("not", tree)
        if self._took("("):
            tree = self._any(depth + 1)
            self._expect(")")
            return tree
        return self._test()

    def _test(self) -> Tree:
        kind, token = self._ahead()
        if kind not in ("name", "quoted"):
            raise self._wrong("a column")
        self.at += 1
        column = token.strip("`")
        if self._took("is"):
            negated = self._took("not")
            self._expect("null")
            tree: Tree = ("null", column, None)
            return ("not", tree) if negated else tree
        negated = self._took("not")
        if negated or self._ahead()[1] == "in":
            self._expect("in")
            tree = ("in", column, self._values())
            return ("not", tree) if negated else tree
        kind, token = self._ahead()
        operator = "==" if token == "=" else token
        if kind != "sign" or operator not in OPERATORS:
            raise self._wrong(f"one of {' '.join(OPERATORS)}, 'in' or 'is null'")
        self.at += 1
        return (operator, column, self._value())

    def _values(self) -> tuple[Any, ...]:
        self._expect("[")
        values = [self._value()]
        while self._took(","):
            values.append(self._value())
        self._expect("]")
        return tuple(values)

    def _value(self) -> Any:
        kind, token = self._ahead()
        if kind == "number":
            value: Any = float(token) if re.search(r"[.eE]", token) else int(token)
        elif kind == "text":
            value = re.sub(r"\\(.)", r"\1", token[1:-1])
        elif kind == "word" and token in ("true", "false"):
            value = token == "true"
        else:
            raise self._wrong('a number, true, false or "text" in quotes')
        self.at += 1
        return value

    def _ahead(self) -> tuple[str, str]:
        return self.tokens[self.at][:2] if self.at < len(self.tokens) else ("end", "")

    def _took(self, token: str) -> bool:
        kind, found = self._ahead()
        taken = found == token and kind in ("word", "sign")
        self.at += taken
        return taken

    def _expect(self, token: str) -> None:
        if not self._took(token):
            raise self._wrong(repr(token))

    def _wrong(self, expected: str, place: int | None = None) -> ConfigError:
        if place is None:
            place = self.tokens[self.at][2] if self.at < len(self.tokens) else len(self.text)
        found = repr(self.text[place : place + 20]) if self.text[place:].strip() else "the end"
        return ConfigError(
            f"where: {self.text!r}: at character {place + 1} expected {expected}, found {found}."
            ' Write for example: section == "net" and year >= 2020'
        )


def _listed(conditions: Sequence[Any]) -> Tree:
    """All of some [column, operator, value]; one of them may stand alone."""
    if len(conditions) == 3 and isinstance(conditions[0], str):
        conditions = [conditions]
    parts = []
    for condition in conditions:
        valid = (
            isinstance(condition, (list, tuple))
            and len(condition) == 3
            and isinstance(condition[0], str)
            and condition[1] in (*OPERATORS, "=", "in")
        )
        values = condition[2] if valid and condition[1] == "in" else ()
        if valid and condition[1] != "in":
            values = (condition[2],)
        if not valid or isinstance(values, str) or not values:
            raise ConfigError(
                f"where: {condition!r}: expected [column, operator, value], the operator one of"
                f" {' '.join(OPERATORS)} or in (with a list of values)"
            )
        if not all(isinstance(value, (str, int, float, bool)) for value in values):
            raise ConfigError(f"where: {condition!r}: values are text, numbers, true or false")
        column, operator, value = condition
        if operator == "in":
            value = tuple(value)
        parts.append(("==" if operator == "=" else operator, column, value))
    if not parts:
        raise ConfigError("where: an empty list of conditions; leave it out to search everything")
    return _joined("and", parts)


def _joined(word: str, parts: Sequence[Tree]) -> Tree:
    return parts[0] if len(parts) == 1 else (word, tuple(parts))


def _flat(tree: Tree) -> Tree:
    """The same condition: a and (b and c) is a and b and c."""
    if tree[0] == "not":
        return ("not", _flat(tree[1]))
    if tree[0] not in ("and", "or"):
        return tree
    parts: list[Tree] = []
    for part in map(_flat, tree[1]):
        parts.extend(part[1] if part[0] == tree[0] else [part])
    return (tree[0], tuple(parts))


def _text(tree: Tree) -> str:
    head = tree[0]
    if head in ("and", "or"):
        return f" {head} ".join(_inside(part) for part in tree[1])
    if head == "not" and tree[1][0] in ("null", "in"):
        return _test_text(tree[1], negated="not ")
    return f"not {_inside(tree[1])}" if head == "not" else _test_text(tree)


def _test_text(tree: Tree, negated: str = "") -> str:
    head, column = tree[:2]
    if not re.fullmatch(r"[A-Za-z_][\w.-]*", column) or column.lower() in (*WORDS, "invert"):
        column = f"`{column}`"
    if head == "null":
        return f"{column} is {negated}null"
    if head == "in":
        return f"{column} {negated}in [{', '.join(map(_value_text, tree[2]))}]"
    return f"{column} {head} {_value_text(tree[2])}"


def _inside(tree: Tree) -> str:
    return f"({_text(tree)})" if tree[0] in ("and", "or") else _text(tree)


def _value_text(value: Any) -> str:
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return json.dumps(value)


def _columns(tree: Tree) -> list[str]:
    if tree[0] in ("and", "or"):
        return [name for part in tree[1] for name in _columns(part)]
    return _columns(tree[1]) if tree[0] == "not" else [tree[1]]


def _expression(tree: Tree, schema: pa.Schema) -> pc.Expression:
    import pyarrow.compute as pc  # noqa: PLC0415 - 0.3 s that planning does not need

    head = tree[0]
    if head in ("and", "or"):
        joined, *others = (_expression(part, schema) for part in tree[1])
        for other in others:
            joined = joined & other if head == "and" else joined | other
        return joined
    if head == "not":
        return ~_expression(tree[1], schema)
    field = pc.field(tree[1])
    if head == "null":
        return field.is_null()
    if head == "in":
        return field.isin([_typed(value, tree[1], schema) for value in tree[2]])
    value = _typed(tree[2], tree[1], schema)
    compare = {
        "==": field.__eq__,
        "!=": field.__ne__,
        "<": field.__lt__,
        "<=": field.__le__,
        ">": field.__gt__,
        ">=": field.__ge__,
    }
    compared: pc.Expression = compare[head](value)
    return compared


def _typed(value: Any, column: str, schema: pa.Schema) -> Any:
    """Text beside a date, a time or a decimal as one of these."""
    import pyarrow as pa  # noqa: PLC0415

    if isinstance(value, str) and column in schema.names:
        kind = schema.field(column).type
        if pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
            return pa.scalar(value).cast(kind)
    return value


def _unknown(name: str, names: Sequence[str], corpus: Dataset) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return (
        f"where: {corpus.uri} keeps no column {name!r}.{hint} It has: {', '.join(names)}. Name it"
        " in keep= when the vectors are imported."
    )

"""Arguments checked against a schema."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millhand.core.script import Language
from millhand.core.signature import check_args, parse_signature

SCHEMA = parse_signature(
    Language.PYTHON3,
    """
class Item(TypedDict):
    name: str
    n: NotRequired[int]
def main(a: int, b: Literal["x", "y"] = "x", c: list[Item] = [], d: str | int = 1, e: float | None = None,
         f: dict[str, bool] = {}, g: Any = None, h: bytes = b""): ...
""",
).json_schema()


@pytest.mark.parametrize(
    "args",
    [
        {"a": 1},
        {"a": 1.0},
        {"a": 1, "b": "y", "c": [{"name": "n"}, {"name": "m", "n": 2, "more": None}], "d": "text", "e": None},
        {"a": -5, "e": 2, "f": {"k": True}, "g": [1, "x"], "h": "eA==", "unknown": {}},
    ],
)
def test_arguments_that_fit(args):
    """What fits raises no word; unknown arguments are left alone."""
    assert check_args(SCHEMA, args) == []


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        ([1], "the arguments must be a JSON object, not a list"),
        (None, "the arguments must be a JSON object, not null"),
        ({}, "a is missing: this argument is required"),
        ({"a": "1"}, "a must be a whole number, not a text"),
        ({"a": True}, "a must be a whole number, not true or false"),
        ({"a": 1.5}, "a must be a whole number, not a number"),
        ({"a": None}, "a must be a whole number, not null"),
        ({"a": 1, "b": "z"}, "b must be one of 'x', 'y', not 'z'"),
        ({"a": 1, "c": {}}, "c must be a list, not an object"),
        ({"a": 1, "c": [{"name": "n"}, {}]}, "c[1].name is missing: this field is required"),
        ({"a": 1, "c": [{"name": 1}]}, "c[0].name must be a text, not a whole number"),
        ({"a": 1, "d": []}, "d is of none of its possible types; it is a list"),
        ({"a": 1, "f": {"k": 1}}, "f.k must be true or false, not a whole number"),
    ],
)
def test_arguments_that_do_not_fit(args, problem):
    """Each problem is one plain sentence that says where it is."""
    assert check_args(SCHEMA, args) == [problem]


def test_problems_are_bounded():
    """A list of a million wrong items is not answered with a million sentences."""
    assert len(check_args(SCHEMA, {"a": 1, "c": [1] * 1000})) == 20


NAMES = st.sampled_from(["type", "properties", "a", "string"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | NAMES
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=6
)
WORDS = st.sampled_from(["type", "properties", "required", "enum", "items", "anyOf"])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schema=st.dictionaries(WORDS, JSON), args=JSON)
def test_strange_schemas_are_survived(schema, args):
    """Schemas are what people deploy: nonsense in one is passed over."""
    assert isinstance(check_args(schema, {"a": args}), list)

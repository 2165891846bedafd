"""Signatures of Python scripts."""

import pytest

from millhand.core.errors import BadRequestError
from millhand.core.script import Language
from millhand.core.signature import MissingMainError, Signature, parse_signature


def signature(code: str, entrypoint: str | None = None) -> Signature:
    return parse_signature(Language.PYTHON3, code, entrypoint)


def schema_of(annotation: str, *, before: str = "") -> dict:
    """The schema of a parameter with this annotation."""
    return signature(f"{before}\ndef main(x: {annotation}): ...").json_schema()["properties"]["x"]


def test_schema_of_a_whole_function():
    """Order, types, defaults and the required ones of a function come out as a draft 2020-12 schema."""
    code = "def main(name: str, n: int = 3, ratio: float = 0.5, on: bool = True, rest: dict = {}): ..."
    assert signature(code).json_schema() == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "order": ["name", "n", "ratio", "on", "rest"],
        "properties": {
            "name": {"type": "string"},
            "n": {"type": "integer", "default": 3},
            "ratio": {"type": "number", "default": 0.5},
            "on": {"type": "boolean", "default": True},
            "rest": {"type": "object", "default": {}},
        },
        "required": ["name"],
    }


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        ("bytes", {"type": "string", "contentEncoding": "base64"}),
        ("datetime", {"type": "string", "format": "date-time"}),
        ("datetime.date", {"type": "string", "format": "date"}),
        ("list[int]", {"type": "array", "items": {"type": "integer"}}),
        ("list", {"type": "array", "items": {}}),
        (
            "dict[str, list[str]]",
            {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}},
        ),
        ("Literal['a', 'b']", {"type": "string", "enum": ["a", "b"]}),
        ("Literal[1, None]", {"type": "integer", "enum": [1], "nullable": True}),
        ("str | None", {"type": "string", "nullable": True}),
        ("Optional[list[str]]", {"type": "array", "items": {"type": "string"}, "nullable": True}),
        ("Union[int, str]", {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        ("Annotated[int, 'words']", {"type": "integer"}),
        ("'list[bool]'", {"type": "array", "items": {"type": "boolean"}}),
        ("Any", {}),
        ("lambda: 1", {}),
        ("wmill.S3Object", {"type": "object", "format": "resource-s3_object"}),
        ("postgresql", {"type": "object", "format": "resource-postgresql"}),
    ],
)
def test_types(annotation, schema):
    """Each annotation has its JSON schema; a class nobody knows is a resource."""
    assert schema_of(annotation) == schema


def test_classes_of_the_script():
    """Data classes, typed dictionaries, enums and aliases that the script declares are unfolded."""
    before = """
class Point(TypedDict):
    x: int
    label: NotRequired[str]
@dataclass
class Line:
    start: Point
    width: float = 1.0
class Color(enum.Enum):
    RED = "r"
    BLUE = "b"
class mail(TypedDict):
    host: str
api = dict
Row = dict[str, int]
"""
    point = {
        "type": "object",
        "properties": {"x": {"type": "integer"}, "label": {"type": "string", "nullable": True}},
        "required": ["x"],
    }
    assert schema_of("Line", before=before) == {
        "type": "object",
        "properties": {"start": point, "width": {"type": "number"}},
        "required": ["start"],
    }
    assert schema_of("Color", before=before) == {"type": "string", "enum": ["r", "b"]}
    assert schema_of("mail", before=before)["format"] == "resource-mail"
    assert schema_of("mail", before=before)["required"] == ["host"]
    assert schema_of("api", before=before) == {"type": "object", "format": "resource-api"}
    assert schema_of("Row", before=before) == {"type": "object", "additionalProperties": {"type": "integer"}}


def test_inherited_fields():
    """A record has the fields of the records it is made from."""
    before = "class A(TypedDict):\n    a: int\nclass B(A, total=False):\n    b: str"
    assert schema_of("B", before=before)["required"] == []
    assert list(schema_of("B", before=before)["properties"]) == ["a", "b"]


def test_types_that_hold_themselves_end():
    """Recursive types and types that double at each step are cut off instead of filling the memory."""
    assert (
        schema_of("Node", before="class Node(TypedDict):\n    left: 'Node'\n    right: 'Node'")["properties"]["left"]
        == {}
    )
    doubling = "\n".join(f"T{n} = tuple[T{n + 1}, T{n + 1}] | list[T{n + 1}]" for n in range(60))
    assert len(str(schema_of("T0", before=doubling))) < 100_000


def test_kinds_tell_what_to_convert():
    """Dates and bytes come as JSON texts; the kind says what they have to become."""
    params = signature("def main(a: bytes, b: datetime | None, c: date, d: 'Optional[bytes]' = None): ...").params
    assert [(param.name, param.kind) for param in params] == [
        ("a", "bytes"),
        ("b", "datetime"),
        ("c", "date"),
        ("d", "bytes"),
    ]


def test_defaults():
    """A default that is a constant is known; one that has to be computed only makes the parameter optional."""
    params = signature("def main(a=(1, 2), b=compute(), c=b'x', d=-1.5, *, e=None): ...").params
    assert [(param.name, param.required) for param in params] == [(name, False) for name in "abcde"]
    properties = signature("def main(a=(1, 2), b=compute(), c=b'x', d=-1.5, *, e=None): ...").json_schema()[
        "properties"
    ]
    assert properties["a"] == {"type": "array", "items": {}, "default": [1, 2]}
    assert "default" not in properties["b"]
    assert properties["c"]["default"] == "eA=="
    assert properties["d"] == {"type": "number", "default": -1.5}
    assert properties["e"] == {"default": None, "nullable": True}


def test_what_else_is_known_of_a_function():
    """Async functions, keyword arguments of any name, a preprocessor and other entrypoints are noticed."""
    found = signature("def preprocessor(event): ...\nasync def other(a, /, *args, b, **kwargs): ...", "other")
    assert found.entrypoint == "other"
    assert [param.name for param in found.params] == ["a", "b"]
    assert (found.is_async, found.takes_kwargs, found.has_preprocessor) == (True, True, True)


def test_missing_main():
    """A script without the function says which one is missing and which there are."""
    with pytest.raises(MissingMainError, match=r"no function main \(it has helper\); write `def main"):
        signature("def helper(): ...\nclass A:\n    def main(self): ...")


@pytest.mark.parametrize("code", ["def main(:\n  pass", "x = 1\ndef main()\n", "def main(a, a): ...\n\0"])
def test_syntax_errors_are_bad_requests(code):
    """Code that can't be parsed is the caller's mistake, not ours."""
    with pytest.raises(BadRequestError, match=r"syntax error|can't be read"):
        signature(code)


def test_syntax_errors_name_the_line():
    """The message names the line to look at."""
    with pytest.raises(BadRequestError, match="on line 3"):
        signature("import os\n\ndef main(\n")


@pytest.mark.parametrize("code", ["(" * 500, "x = " + "-" * 100_000 + "1\ndef main(): ...", "[" * 90 + "]" * 90 + "\n"])
def test_deeply_nested_code_is_refused(code):
    """Code nested beyond any sense ends in an error and not in a crash."""
    with pytest.raises(BadRequestError):
        signature(code)

"""Signatures of TypeScript scripts."""

import pytest

from millhand.core.errors import BadRequestError
from millhand.core.script import Language
from millhand.core.signature import MissingMainError, Signature, parse_signature


def signature(code: str, entrypoint: str | None = None) -> Signature:
    return parse_signature(Language.BUN, code, entrypoint)


def schema_of(annotation: str, *, before: str = "") -> dict:
    """The schema of a parameter with this annotation."""
    return signature(f"{before}\nexport async function main(x: {annotation}) {{}}").json_schema()["properties"]["x"]


def test_schema_of_a_whole_function():
    """Order, types, defaults and the required ones of a function come out as a schema, in Deno and Bun alike."""
    code = """
import * as wmill from "windmill-client";
export async function main(a: string, b?: number, c: "x" | "y" = "x", d = { k: [1, true, null] }, ...rest: any[]) {}
"""
    schema = signature(code).json_schema()
    assert schema == parse_signature(Language.DENO, code).json_schema()
    assert schema["order"] == ["a", "b", "c", "d"]
    assert schema["required"] == ["a"]
    assert schema["properties"] == {
        "a": {"type": "string"},
        "b": {"type": "number", "nullable": True},
        "c": {"type": "string", "enum": ["x", "y"], "default": "x"},
        "d": {"type": "object", "default": {"k": [1, True, None]}},
    }


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        ("Date", {"type": "string", "format": "date-time"}),
        ("bigint", {"type": "integer"}),
        ("string[][]", {"type": "array", "items": {"type": "array", "items": {"type": "string"}}}),
        ("Array<boolean>", {"type": "array", "items": {"type": "boolean"}}),
        ("readonly string[]", {"type": "array", "items": {"type": "string"}}),
        ("Record<string, number>", {"type": "object", "additionalProperties": {"type": "number"}}),
        (
            "{ [key: string]: Date }",
            {"type": "object", "additionalProperties": {"type": "string", "format": "date-time"}},
        ),
        ("string | null", {"type": "string", "nullable": True}),
        ("undefined | 1 | 2", {"type": "integer", "enum": [1, 2], "nullable": True}),
        ("string | number", {"anyOf": [{"type": "string"}, {"type": "number"}]}),
        ("(string)", {"type": "string"}),
        ("`a${string}`", {"type": "string"}),
        ("any", {}),
        ("() => void", {}),
        ("wmill.S3Object", {"type": "object", "format": "resource-s3_object"}),
        ("wmill.Base64", {"type": "string", "contentEncoding": "base64"}),
        ('Resource<"postgresql">', {"type": "object", "format": "resource-postgresql"}),
        (
            '{ "a-b": string; c?: number; d: { e: boolean } }',
            {
                "type": "object",
                "properties": {
                    "a-b": {"type": "string"},
                    "c": {"type": "number"},
                    "d": {"type": "object", "properties": {"e": {"type": "boolean"}}, "required": ["e"]},
                },
                "required": ["a-b", "d"],
            },
        ),
    ],
)
def test_types(annotation, schema):
    """Each type has its JSON schema; a type nobody knows is a resource."""
    assert schema_of(annotation) == schema


def test_types_of_the_script():
    """Type aliases, interfaces, enums and intersections that the script declares are unfolded."""
    before = """
type Point = { x: number };
interface Named { name: string }
export interface Pin extends Named { at: Point }
enum Color { Red = "red", Two = 2, Three }
"""
    pin = schema_of("Pin", before=before)
    assert pin["required"] == ["name", "at"]
    assert pin["properties"]["at"] == {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}
    assert schema_of("Point & Named", before=before)["required"] == ["x", "name"]
    assert schema_of("Color", before=before) == {"enum": ["red", 2, 3]}


def test_types_that_hold_themselves_end():
    """Recursive types and types that double at each step are cut off instead of filling the memory."""
    assert schema_of("Json", before="type Json = { a: Json; b: Json[] }")["properties"]["a"] == {}
    doubling = "\n".join(f"type T{n} = {{ a: T{n + 1}; b: T{n + 1} }};" for n in range(60))
    assert len(str(schema_of("T0", before=doubling))) < 100_000


@pytest.mark.parametrize(
    "code",
    [
        "export function main(a: string) {}",
        "export async function* main(a: string) {}",
        "export const main = async (a: string) => a;",
        "export const main = (function (a: string) {}) as any;",
        "export default async function main(a: string) {}",
        "export default (a: string) => a;",
        "const main = (a: string) => a;\nexport default main;",
        "function run(a: string) {}\nexport { run as main };",
        "export function main(a: string): void;\nexport function main(a: string) {}",
    ],
)
def test_ways_to_export_main(code):
    """However a module exports its main function, its parameters are found."""
    assert [(param.name, param.kind) for param in signature(code).params] == [("a", "str")]


def test_parameters_without_a_name():
    """A destructured parameter is named by its place; values are passed by position anyway."""
    params = signature("export function main(first: string, { a, b }: { a: string; b: number }) {}").params
    assert [param.name for param in params] == ["first", "arg2"]


def test_named_entrypoint():
    """Any exported function can be the entry; async ones and a preprocessor are noticed."""
    found = signature("export function preprocessor(e: any) {}\nexport async function other(n: Date) {}", "other")
    assert (found.entrypoint, found.is_async, found.has_preprocessor) == ("other", True, True)
    assert found.params[0].kind == "datetime"


def test_missing_main():
    """A script without the function says what is missing: the function, or the word export."""
    with pytest.raises(MissingMainError, match=r"no function main \(it has other\); write `export async function main"):
        signature("export function other() {}")
    with pytest.raises(MissingMainError, match="not exported"):
        signature("function main() {}")


@pytest.mark.parametrize(
    "code", ["\nexport function main( {", "\nexport function main(a: ) {}", "\nexport functio main() {}"]
)
def test_syntax_errors_name_the_line(code):
    """The head of main has to be understood; the message names the line to look at."""
    with pytest.raises(BadRequestError, match="syntax error on line 2"):
        signature(code)


def test_syntax_newer_than_our_grammar():
    """What stands in bodies is judged by the runtime's own compiler: the signature is found all the same."""
    assert signature("export async function main(a: string) { await using x = @@; }").params[0].name == "a"


def test_escapes_in_defaults():
    """Default texts mean what JavaScript says they mean."""
    default = signature(r'export function main(a = "\u{1F600}\ud83d\ude00\x41\n\'") {}').params[0].default
    assert default == "😀😀A\n'"

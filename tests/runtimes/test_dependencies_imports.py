"""What code imports: other scripts, and packages."""

import pytest

from millhand.core.errors import LockFailedError
from millhand.core.script import Language
from millhand.runtimes.dependencies import imported_scripts
from millhand.runtimes.dependencies.bun import plain_imports, wanted_packages
from millhand.runtimes.dependencies.deno import remote_imports
from millhand.runtimes.dependencies.go import module_imports
from millhand.runtimes.dependencies.npm import package_of
from millhand.runtimes.dependencies.requirements import check_requirement, read_lock, wanted


@pytest.mark.parametrize(
    ("code", "paths"),
    [
        ("from f.tools.db import connect", {"f/tools/db", "f/tools/db/connect"}),
        ("from u.admin import a, b", {"u/admin/a", "u/admin/b"}),
        ("import f.tools.db", {"f/tools/db"}),
        ("def main():\n    from f.tools.db import *", {"f/tools/db"}),
        ("from .other import x", {"f/here/other", "f/here/other/x"}),
        ("from ..there.other import x", {"f/there/other", "f/there/other/x"}),
        ("from . import other", {"f/here/other"}),
        ("import f, os, foo.bar", set()),
        ("from f.here.me import again", {"f/here/me/again"}),
        ("type X = = broken\nfrom f.tools.db import y", {"f/tools/db"}),
    ],
)
def test_python_scripts(code, paths):
    """Absolute and relative imports of other scripts give their paths, also where our Python can't parse the code."""
    assert imported_scripts(Language.PYTHON3, code, "f/here/me") == paths


@pytest.mark.parametrize(
    ("code", "paths"),
    [
        ('import { a } from "/f/tools/db.ts";', {"f/tools/db"}),
        ('export * from "./other";', {"f/here/other"}),
        ('const m = await import("../../u/admin/x.ts");', {"u/admin/x"}),
        ('import type { T } from "../there/types.ts";', {"f/there/types"}),
        ('import "./a.b.js"; require("/u/admin/y")', {"f/here/a.b", "u/admin/y"}),
        ('import "../../../etc/passwd"; import "/etc/passwd/x"; import "lodash"; import(`./${x}`)', set()),
    ],
)
def test_typescript_scripts(code, paths):
    """Absolute and relative imports of other scripts give their paths; nothing leads out of the scripts."""
    assert imported_scripts(Language.BUN, code, "f/here/me") == paths
    assert imported_scripts(Language.DENO, code, "f/here/me") == paths


def test_scripts_without_a_path():
    """A preview has no path: what it imports relative to itself is unknown, the rest isn't."""
    assert imported_scripts(Language.PYTHON3, "from .a import b\nfrom f.x.y import z", None) == {"f/x/y", "f/x/y/z"}
    assert imported_scripts(Language.BUN, 'import "./a"; import "/f/x/y"', None) == {"f/x/y"}
    assert imported_scripts(Language.BASH, "import f.a.b", None) == set()


@pytest.mark.parametrize(
    ("code", "requirements"),
    [
        ("import os, sys\nimport yaml\nfrom PIL import Image", ["pillow", "pyyaml"]),
        ("import cv2, sklearn.metrics, bs4, dateutil.parser", ["beautifulsoup4", "opencv-python-headless", "python-dateutil", "scikit-learn"]),
        ("def main():\n    import requests\nif TYPE_CHECKING:\n    import pandas", ["requests"]),
        ("from google.cloud import storage, bigquery\nimport google.auth", ["google-auth", "google-cloud-bigquery", "google-cloud-storage"]),
        ("from .x import y\nfrom f.a.b import c\nimport u.x.y, wmill", ["wmill"]),
        ("# requirements:\n# six==1.16.0\n#requests[socks]>=2 # words\n\n# not one\nimport numpy", ["requests[socks]>=2", "six==1.16.0"]),
        ("#extra_requirements:\n#openpyxl\nimport pandas", ["openpyxl", "pandas"]),
        ("#requirements:\n#\n#extra_requirements:\n#six\nimport pandas", ["six"]),
        ("import foo  # pin: bar==1\nimport foo.baz", ["bar==1"]),
        ("import foo  # repin: foo==2\nimport foo  # pin: foo==1", ["foo==2"]),
        ('# /// script\n# requires-python = ">=3.11"\n# dependencies = ["six<2"]\n# ///\nimport numpy', ["six<2"]),
        ('# /// script\n# requires-python = ">=3.11"\n# ///\nimport numpy', ["numpy"]),
        ("broken = = 1\nimport yaml\n", ["pyyaml"]),
        ("", []),
    ],
)  # fmt: skip
def test_requirements(code, requirements):
    """Requirements come from a block, from PEP 723 metadata or from imports, in this order."""
    assert list(wanted(code).requirements) == requirements


def test_requirements_of_imported_scripts():
    """What imported scripts need is needed too, each by its own rules."""
    found = wanted("import yaml", ["# requirements:\n# six\nimport numpy", "import requests, yaml"])
    assert found.requirements == ("pyyaml", "requests", "six")
    assert found.inferred == ("pyyaml", "requests")


@pytest.mark.parametrize(
    ("code", "python"),
    [
        ("#py312", "==3.12.*"),
        ("import os\n# py: >=3.11,<3.14", "<3.14,>=3.11"),
        ("# py: 3.12.4", "==3.12.*"),
        ('# /// script\n# requires-python = ">=3.12"\n# dependencies = []\n# ///', ">=3.12"),
        ("# python is nice", ""),
    ],
)
def test_choice_of_a_python(code, python):
    """Annotations choose the Python."""
    assert wanted(code).python == python


@pytest.mark.parametrize(
    "text",
    ["-r /etc/passwd", "--index-url https://x", "./local", "/etc/x", "x @ file:///etc/x", "-e .", "a b", "x @ ./y", "file:///x.whl"],
)  # fmt: skip
def test_requirements_that_are_refused(text):
    """Options and paths would have the resolver read files of the worker."""
    with pytest.raises(LockFailedError):
        check_requirement(text)
    with pytest.raises(LockFailedError):
        read_lock(f"# py: 3.11\n{text}\n")


def test_bad_metadata():
    """Metadata that is no TOML, or no list, is told."""
    with pytest.raises(LockFailedError, match="not TOML"):
        wanted("# /// script\n# dependencies = [\n# ///\n")
    with pytest.raises(LockFailedError, match="must be a list"):
        wanted('# /// script\n# dependencies = "six"\n# ///\n')


def test_reading_locks():
    """Locks of ours and of other tools are read: comments, hashes and old ways to name the Python."""
    lock = read_lock(
        "# py: 3.12.4\nsix==1.17.0 \\\n    --hash=sha256:abc \\\n    --hash=sha256:def\n    # via x\nfoo==1 ; os_name == 'nt'\n"
    )
    assert lock.python == "3.12"
    assert lock.requirements == ("six==1.17.0", 'foo==1; os_name == "nt"')
    assert read_lock("# py311\n").python == "3.11"
    assert read_lock("").python is None


@pytest.mark.parametrize(
    ("specifier", "name", "version", "file"),
    [
        ("lodash", "lodash", "", ""),
        ("lodash@4.17.21/fp", "lodash", "4.17.21", "/fp"),
        ("npm:@scope/pkg@^1.2/sub/x.js", "@scope/pkg", "^1.2", "/sub/x.js"),
        ("@scope/pkg", "@scope/pkg", "", ""),
        ("npm:events", "events", "", ""),
    ],
)
def test_npm_names(specifier, name, version, file):
    """All ways to name a package are understood."""
    package = package_of(specifier)
    assert (package.name, package.version, package.file) == (name, version, file)


@pytest.mark.parametrize(
    "specifier", ["./x", "/f/a/b", "node:fs", "fs/promises", "bun:sqlite", "https://x.y/z", "jsr:@a/b", "", "@x"]
)
def test_what_is_no_package(specifier):
    """Files, addresses and what comes with the runtime are not packages."""
    assert package_of(specifier) is None


def test_packages_of_typescript():
    """Versions are taken from any of the imports; types alone install nothing; two versions are one too many."""
    code = 'import a from "a"; export * from "b@2"; import type { T } from "t"; require("c"); await import("a@1/x")'
    assert wanted_packages([code, 'import "d"']) == {"a": "1", "b": "2", "c": "latest", "d": "latest"}
    with pytest.raises(LockFailedError, match="import one version"):
        wanted_packages(['import "a@1"', 'import "a@2"'])


def test_plain_imports():
    """For Bun, versions and prefixes are taken out of the imports and nothing else is touched."""
    code = 'import é from "npm:a@1/x";\nconst s = "npm:b@2"; import(\'c@3\'); import "d"; import "./e@1"'
    assert plain_imports(code) == 'import é from "a/x";\nconst s = "npm:b@2"; import("c"); import "d"; import "./e@1"'


def test_imports_of_deno():
    """Deno's packages and addresses are found."""
    assert remote_imports(
        ['import "npm:a@1"; import "jsr:@b/c"; import "node:fs"; import "./x"; import "https://x.y/z.ts"']
    ) == [
        "https://x.y/z.ts",
        "jsr:@b/c",
        "npm:a@1",
    ]


def test_imports_of_go():
    """Only imports whose first part looks like a host need a module."""
    code = 'package inner\nimport "fmt"\nimport (\n  "net/http"\n  q "rsc.io/quote/v3"\n)\n'
    assert module_imports([code]) == ["rsc.io/quote/v3"]
    with pytest.raises(LockFailedError, match="names a file"):
        module_imports(['package inner\nimport "../../etc"'])

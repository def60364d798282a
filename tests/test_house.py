"""The house: which row may import which, how long a file may be, and no cycles."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "closeup"
ROWS = (
    {"_types", "errors", "geometry", "config"},
    {"regions", "data", "evaluate"},
    {"models"},
    {"match", "text"},
    {"recipes", "heads"},
    {"viz"},
    {"predict"},
    {"reproduce"},
    {"cli", "web"},
)
ROW_OF = {name: row for row, names in enumerate(ROWS) for name in names}
LONGEST = 500
USUAL = 200
ROOT = {"__init__", "__main__"}

FILES = sorted(SOURCE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    """Return the folder or root file that a module of the package belongs to."""
    return module.split(".")[1] if "." in module else "__init__"


def imports(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            found.add(node.module or "")
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return {name for name in found if name.split(".")[0] == "closeup"}


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_a_file_imports_only_from_its_folder_and_from_lower_rows(path: Path) -> None:
    here = part_of(module_name(path))
    if here in ROOT:
        return
    for name in imports(ast.parse(path.read_text())):
        there = part_of(name)
        assert there not in ROOT, f"{name}: the package root is for users, not for its own files"
        same_folder = there == here or {there, here} <= ROWS[0]
        assert same_folder or ROW_OF[there] < ROW_OF[here], f"{here} (row {ROW_OF[here]}) imports {name}"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_no_import_of_the_package_hides_in_a_function(path: Path) -> None:
    tree = ast.parse(path.read_text())
    hidden = {
        name
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for name in imports(function)
    }
    assert not hidden


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_a_file_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST


def test_most_files_are_short() -> None:
    lengths = sorted(len(path.read_text().splitlines()) for path in FILES)
    assert lengths[int(0.9 * len(lengths))] <= USUAL * 1.5


def test_every_part_of_the_package_has_a_row() -> None:
    parts = {path.name for path in SOURCE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert parts <= set(ROW_OF), f"without a row: {parts - set(ROW_OF)}"


def test_no_cycles() -> None:
    modules = {module_name(path): path for path in FILES}
    edges = {
        name: {found for found in imports(ast.parse(path.read_text())) if found in modules}
        for name, path in modules.items()
        if part_of(name) not in ROOT
    }
    done: set[str] = set()

    def walk(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for following in edges.get(name, ()):
                walk(following, (*trail, name))
            done.add(name)

    for name in edges:
        walk(name, ())


def test_every_public_definition_has_a_docstring() -> None:
    missing = []
    for path in FILES:
        tree = ast.parse(path.read_text())
        if ast.get_docstring(tree) is None:
            missing.append(module_name(path))
        missing += [
            f"{module_name(path)}.{node.name}"
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
            and not node.name.startswith("_")
            and ast.get_docstring(node) is None
        ]
    assert not missing

"""The house keeps its order: rooms that are not crowded and say what they are for, constants and conditions one by one."""

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLOORS = ("router", "deployments", "classifiers")
FILES = sorted(file for floor in FLOORS for file in (ROOT / floor).rglob("*.py"))
MOST_FILES = 20  # of one folder


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def test_no_folder_is_crowded() -> None:
    crowd = Counter(file.parent for file in FILES if file.name != "__init__.py")
    assert {name(folder): n for folder, n in crowd.items() if n > MOST_FILES} == {}


def test_every_room_says_what_it_is_for_and_what_it_must_not_know() -> None:
    rooms = {file.parent for file in FILES} - {
        ROOT / "deployments/ledger/migrations",
        ROOT / "deployments/ledger/migrations/versions",
    }
    silent = []
    for room in sorted(rooms):
        text = ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or ""
        if len(text) < 80 or not ("import" in text.lower() and "know" in text.lower()):
            silent.append(name(room))
    assert silent == []


def constants(body: list[ast.stmt]) -> list[ast.Assign]:
    return [node for node in body if isinstance(node, ast.Assign)]


def tuple_constants(tree: ast.Module) -> list[int]:
    bodies = [tree.body, *(node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]
    return [node.lineno for body in bodies for node in constants(body) if isinstance(node.targets[0], ast.Tuple)]


def bare_conditions(text: str) -> list[int]:
    """Lines of conditional expressions that stand inside another without parentheses of their own."""
    lines = text.split("\n")
    found = []
    for node in ast.walk(ast.parse(text)):
        for inner in (node.body, node.test, node.orelse) if isinstance(node, ast.IfExp) else ():
            before = "\n".join(lines[: inner.lineno - 1]) + "\n" + lines[inner.lineno - 1].encode()[: inner.col_offset].decode()
            if isinstance(inner, ast.IfExp) and not before.rstrip().endswith("("):
                found.append(inner.lineno)
    return found


def test_one_constant_a_line() -> None:
    found = {name(file): tuple_constants(ast.parse(file.read_text())) for file in FILES}
    assert {file: lines for file, lines in found.items() if lines} == {}


def test_a_condition_inside_a_condition_stands_in_parentheses() -> None:
    found = {name(file): bare_conditions(file.read_text()) for file in FILES}
    assert {file: lines for file, lines in found.items() if lines} == {}


def test_the_rules_above_see_what_they_forbid() -> None:
    assert tuple_constants(ast.parse("A, B = 1, 2")) == [1] and tuple_constants(ast.parse("A = 1, 2")) == []
    assert bare_conditions("x = 1 if a else 2 if b else 3") == [1] and bare_conditions("x = 1 if a else (2 if b else 3)") == []

"""README and docs: every command they show parses, and runs here or in the test that is named for it; every path exists."""

import importlib.util
import re
import shlex
import shutil
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import click
import pytest
from answer_rows import answered_rows
from click.testing import CliRunner
from outcome_rows import write_jsonl

from deployments.cli.main import main

ROOT = Path(__file__).parent.parent

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.M | re.S)
SPAN = re.compile(r"`((?:stepdown|make|python -m benchmarks\.)[^`]*)`")
SHELL = ("sh", "bash", "console", "shell")
PROGRAMS = ("stepdown", "make", "python", "pip", "uv", "curl")  # what opens a command line in a block without a language
ASSIGNED = re.compile(r"^[A-Z_]+=\S*$")
ROOTS = ("router", "deployments", "classifiers", "tests", "benchmarks", "docs")
PATH = re.compile(rf"`((?:{'|'.join(ROOTS)})/[^`\s:]*|[\w./-]+\.py)(?::[^`]*)?`")
LINK = re.compile(r"\]\(([^)\s#]*)(?:#([^)\s]*))?\)")
LEFT_OUT = re.compile("NAME|NNNN|^__init__")  # to be filled in; in every room

# Commands that need a running ladder, a network or another tool, by their first words: the test that runs them, or why none
# does. Anything shown that is neither here nor run below fails the tests.
ELSEWHERE = {
    "make serve": "tests/e2e/test_pocket_ladder.py",
    "export OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318": "tests/deployments/monitoring/test_telemetry.py",
    "export OTEL_SERVICE_NAME=our-router": "tests/deployments/monitoring/test_telemetry.py",
    "make test": "runs this test",
    "make install": "what every other target does first",
    "curl": "tests/e2e/test_pocket_ladder.py, with an OpenAI client",
    "serve run": "tests/e2e/test_echo_app.py",
    "stepdown serve": "tests/e2e/test_pocket_ladder.py",
    "stepdown prove": "tests/deployments/cli/test_prove.py, and tests/e2e/test_prove_pocket.py on the pocket ladder",
    "stepdown label": "tests/router/learn/labels/test_labelling.py",
    "make monitoring": "tests/e2e/test_monitoring.py starts the same Prometheus",
    "stepdown costs": "tests/deployments/costs/test_routes.py, on a ledger",
    "stepdown distil": "tests/deployments/cli/test_distil.py, on a ledger",
    "stepdown flywheel": "tests/deployments/cli/test_flywheel.py, on a ledger",
    "stepdown log": "tests/deployments/cli/test_log.py, on a ledger",
    "stepdown replay": "tests/deployments/costs/test_replay.py, on a ledger",
    "stepdown dashboard": "tests/deployments/monitoring/test_grafana.py",
    "make clients": "needs npm and a network: tests/clients/run.py",
    "claude": "tests/clients/claude_code.py",
    "cline": "tests/clients/chat_clients.py",
    "qwen": "tests/clients/chat_clients.py",
    "aider": "tests/clients/chat_clients.py",
    "open-webui": "tests/clients/libraries.py",
    "git clone": "needs a network",
    "pip install": "needs a network",
    "uv pip": "needs a network",
    "ray": "tests/deployments/test_cluster_files.py reads what it is given",
    "docker build": "needs docker",
    "docker push": "needs docker",
    "kubectl": "tests/deployments/test_cluster_files.py reads what it is given",
}


def commands(text: str) -> list[list[str]]:
    """The words of each command in a block, without comments and without assignments before it."""
    found = []
    for line in lines_of(text):
        for joined, part in groupby(shlex.split(line, comments=True), lambda word: word == "&&"):
            words = [] if joined else list(part)
            while words and ASSIGNED.match(words[0]):
                words = words[1:]
            if words and words[0] != "cd":
                found.append([Path(words[0]).name if "/bin/" in words[0] else words[0], *words[1:]])
    return found


def lines_of(text: str) -> list[str]:
    """Lines, those joined that a backslash or an open quotation joins."""
    found, begun = [], ""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        begun = f"{begun}\n{line}" if begun else line
        try:
            shlex.split(begun, comments=True)
        except ValueError:
            continue
        found.append(begun)
        begun = ""
    assert not begun, f"a quotation is not closed: {begun}"
    return found


def blocks() -> list[tuple[str, list[list[str]]]]:
    """Where each block of commands is, and its commands."""
    found = []
    for page in PAGES:
        text = page.read_text("utf-8")
        for block in BLOCK.finditer(text):
            begins = block[2].split(maxsplit=1)[:1]
            if block[1] in SHELL or (not block[1] and begins and begins[0] in PROGRAMS):
                line = text.count("\n", 0, block.start()) + 1
                found.append((f"{page.relative_to(ROOT)}:{line}", commands(block[2])))
    return found


def spans() -> list[tuple[str, str]]:
    """Commands of ours within sentences; what stands in capitals or dots there is to be filled in."""
    texts = [(str(page.relative_to(ROOT)), BLOCK.sub("", page.read_text("utf-8"))) for page in PAGES]
    return [(where, " ".join(span[1].split())) for where, text in texts for span in SPAN.finditer(text)]


SHOWN = blocks()
EACH = [pytest.param(words, id=f"{where} {' '.join(words[:2])}") for where, lines in SHOWN for words in lines]


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The click command that the words after `stepdown` name, and the words left for it."""
    command: click.Command = main
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        named = command.get_command(click.Context(command), words[0])
        assert named is not None, f"there is no command {words[0]!r}"
        command, words = named, words[1:]
    return command, words


def parses(words: list[str], filled_in: bool) -> None:
    """Fail where a command, option or argument does not exist; with `filled_in` also where a value will not do."""
    command, rest = command_of(words)
    assert CliRunner().invoke(command, ["--help"]).exit_code == 0
    rest = rest[: rest.index(">")] if ">" in rest else rest
    if filled_in:
        command.make_context(command.name, list(rest), resilient_parsing=False)
    else:
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word.partition("=")[0] for word in rest if word.startswith("-")} <= known, rest


def targets() -> set[str]:
    return set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))


def exists(words: list[str], filled_in: bool = True) -> None:
    """Fail where a command of this project that is shown does not exist."""
    if words[0] == "stepdown":
        parses(words[1:], filled_in)
    elif words[0] == "make":
        assert {word for word in words[1:] if "=" not in word and not word.startswith("-")} <= targets()
    elif words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2]), words[2]


def told(words: list[str]) -> str | None:
    """What ELSEWHERE says of a command."""
    return ELSEWHERE.get(" ".join(words[:2])) or ELSEWHERE.get(words[0])


def test_commands_are_found():
    shown = [words for _, lines in SHOWN for words in lines]
    assert len(shown) > 20 and ["make", "serve"] in shown
    assert ["stepdown", "evaluate", "my-router", "more-outcomes.jsonl"] in shown


@pytest.mark.parametrize("words", EACH)
def test_a_command_that_is_shown_exists_and_is_run_somewhere(words):
    exists(words)
    why = told(words)
    assert why or words[0] == "stepdown", f"{' '.join(words)}: name in ELSEWHERE the test that runs it, or why none does"
    for file in re.findall(r"tests/\S+\.py", why or ""):
        assert (ROOT / file).exists(), file


@pytest.mark.parametrize("where, text", [pytest.param(*span, id=" ".join(span)) for span in spans()])
def test_a_command_within_a_sentence_exists(where, text):
    exists(shlex.split(text), filled_in=False)


@pytest.mark.parametrize(
    "text, said",
    [
        ("stepdown trian x --tiers a,b -o y", "there is no command 'trian'"),
        ("stepdown train x --tires a,b -o y", "--tires"),
        ("stepdown train x -o y", "--tiers"),
        ("stepdown pocket prompts --kind double", "double"),
    ],
)
def test_a_command_that_does_not_is_noticed(text, said):
    with pytest.raises((AssertionError, click.UsageError)) as caught:
        exists(commands(text)[0])
    caught.match(said) if isinstance(caught.value, AssertionError) else None
    assert said in (caught.value.format_message() if isinstance(caught.value, click.UsageError) else str(caught.value))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with every file that the shown commands read, for a ladder of three tiers."""
    folder = tmp_path_factory.mktemp("shown")
    for seed, name in enumerate(("outcomes", "more-outcomes", "test", "fresh")):
        write_jsonl(folder / f"{name}.jsonl", answered_rows(400, seed))
    data, output = str(folder / "outcomes.jsonl"), str(folder / "router")
    invoke(["train", data, "--tiers", "small,medium,large", "-o", output, "--no-report", "--classifier", "linear"])
    shutil.copytree(folder / "router", folder / "older_router")
    shutil.copytree(ROOT / "deployments" / "pocket" / "router", folder / "deployments" / "pocket" / "router")
    (folder / "docs" / "images").mkdir(parents=True)
    return folder


def invoke(words: list[str]) -> str:
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, (words, result.output, result.exception)
    return result.output


RUN_HERE = [(where, [words for words in lines if not told(words)]) for where, lines in SHOWN]


@pytest.mark.slow
@pytest.mark.parametrize("lines", [pytest.param(lines, id=where) for where, lines in RUN_HERE if lines])
def test_commands_that_are_shown_run(lines, made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    for words in lines:
        words, target = (words[: words.index(">")], words[-1]) if ">" in words else (words, None)
        output = invoke(words[1:])
        if target:
            Path(target).write_text(output, "utf-8")
            assert output


# -- paths ------------------------------------------------------------------------------------------------------------------


def missing_paths(text: str, folders: Sequence[Path]) -> list[str]:
    """Paths in backticks that exist in none of the folders, without those LEFT_OUT."""
    named = [found[1] for found in PATH.finditer(text) if not LEFT_OUT.search(found[1])]
    return [name for name in named if not any((folder / name).exists() for folder in folders)]


def anchors(page: Path) -> set[str]:
    """What links to the headings of a page end in, as GitHub makes it."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    found = []
    for target, anchor in LINK.findall(page.read_text("utf-8")):
        if "://" in target:
            continue
        other = page.parent / target if target else page
        if not other.exists() or (anchor and anchor not in anchors(other)):
            found.append(f"{target}#{anchor}")
    return found


def drawn(page: Path) -> set[str]:
    """The paths in a page's tree: a line names one or several in its first column, indented ones within the line before."""
    tree = next(block[2] for block in BLOCK.finditer(page.read_text("utf-8")) if block[2].startswith(tuple(ROOTS)))
    paths, floor = set(), ""
    for line in tree.splitlines():
        column = line.strip().split("  ")[0].split()
        floor = "" if line[0] != " " else floor
        paths |= {floor + name for name in column}
        floor = floor or column[0]
    return paths


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_path_that_is_named_exists(page):
    folders = [ROOT, ROOT / "tests" / "faults"] if page.name == "faults.md" else [ROOT]
    assert missing_paths(page.read_text("utf-8"), folders) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_leads_somewhere(page):
    assert broken_links(page) == []


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_the_tree_that_is_drawn_has_every_room_and_nothing_else(name):
    paths = drawn(ROOT / name)
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
    rooms = {f"{file.parent.relative_to(ROOT)}/" for floor in ROOTS[:3] for file in (ROOT / floor).glob("*/__init__.py")}
    assert rooms - paths == set()


def test_a_path_that_does_not_exist_is_noticed():
    text = "`router/desk.py`, `router/delegate/shared.py`, `work.py`, `deployments/configs/NAME.yaml`, `router/config.py: Memory`"
    assert missing_paths(text, [ROOT]) == ["router/desk.py", "work.py"]

"""The five READMEs hold what is: their commands parse, their links, flags, folders and names exist."""

import ast
import dataclasses
import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

import pytest

import eval.__main__ as eval_room
import pipeline.__main__ as pipeline_room
import train.__main__ as train_room
from eval import tasks
from pipeline import cli, seeds
from pipeline.audio import REASONS
from pipeline.sources.columns import ROLES
from tests.check_words import SPEECH
from train.models.encoders.configs import AudioConfig

ROOT = Path(__file__).resolve().parent.parent
STAGES = {"pipeline": pipeline_room.STAGES, "train": train_room.STAGES, "eval": eval_room.STAGES}
ROOMS = (*STAGES, "cluster")
READMES = {"README.md": 200, **{f"{room}/README.md": 250 for room in ROOMS}}  # file -> most lines
CHECKED = [*READMES, "BENCHMARKS.md", "SECURITY.md"]
MARKDOWN = sorted(
    [*ROOT.glob("*.md"), *(path for folder in (*ROOMS, "tests") for path in (ROOT / folder).rglob("*.md"))]
)
HEADINGS = [
    "What it does", "Quick example", "The flags that matter", "Formats", "Guarantees and limits", "Decisions",
]  # fmt: skip
PROGRAMS = {"ray", "export", "for", "done", "(umask", "echo"}  # first words of lines that are not this repository's
THEIR_FLAGS = {
    "--dataset-type",
    "--audio-ext",
    "--memory",
    "--help",
    "--size",
}  # of open_clip, Ray, every stage, studies
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
DEMO = (ROOT / "cluster" / "demo.sh").read_text()


class Page(NamedTuple):
    """A Markdown file: its fenced blocks by language, and its prose without them."""

    blocks: list[tuple[str, str]]
    prose: str

    @property
    def spans(self) -> list[str]:
        """The code spans of the prose, with line ends as blanks."""
        return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", self.prose)]

    def section(self, heading: str) -> str:
        """The prose below a heading, up to the next one."""
        return re.split(r"^#+ ", self.prose.split(f"# {heading}\n")[1], flags=re.MULTILINE)[0]


def page(name: str) -> Page:
    text = (ROOT / name).read_text()
    return Page(FENCE.findall(text), FENCE.sub("", text))


def tables(text: str) -> list[list[list[str]]]:
    """Return the tables of a text: rows of cells, without heads."""
    found = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    return [[[cell.strip() for cell in row.split("|")[1:-1]] for row in each.splitlines()[2:]] for each in found]


def spans_of(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def lines_of(script: str) -> list[str]:
    """Return the commands of a script, one a line, without comments."""
    lines = [line.strip() for line in script.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def documented(language: str) -> list[Any]:
    """Return every block of a language, by file and number."""
    return [
        pytest.param(text, id=f"{name}-{number}")
        for name in CHECKED
        for number, (kind, text) in enumerate(page(name).blocks)
        if kind == language
    ]


COMMANDS = sorted(
    {line for name in CHECKED for kind, text in page(name).blocks if kind == "bash" for line in lines_of(text)}
)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_line_of_a_shell_block_is_a_command_of_ours(line: str) -> None:
    check_command(shlex.split(line.replace("$S", "0"), comments=True))  # the seed of the demo


def check_command(words: list[str]) -> None:
    first, *rest = words
    if first == "make":
        assert set(rest) <= TARGETS
    elif first == "python":
        assert rest[0] == "-m"
        check_stage(rest[1:])
    elif first.endswith(".sh"):
        assert (ROOT / first).is_file()
        if first.endswith("submit.sh"):
            check_stage(rest)
    else:
        assert first in PROGRAMS, first


def check_stage(words: list[str]) -> None:
    room, *rest = words
    if room.endswith(".sh"):
        assert (ROOT / room).is_file()
    elif room in STAGES:
        assert cli.parse_runs(room, rest[0], STAGES[room][rest[0]], rest[1:])
    else:
        assert importlib.util.find_spec(room), room


@pytest.mark.parametrize("name", CHECKED)
def test_commands_within_the_text_name_what_there_is(name: str) -> None:
    for span in page(name).spans:
        words = span.split()
        if words[0] == "make" and len(words) > 1:
            assert words[1] in TARGETS, span
        elif words[:2] == ["python", "-m"] and words[2] in STAGES:
            assert words[3] in STAGES[words[2]], span
        elif words[:2] == ["python", "-m"] and re.fullmatch(r"[\w.]+", words[2]):
            assert importlib.util.find_spec(words[2]), span
        elif words[0] in STAGES and len(words) > 1 and re.fullmatch(r"[a-z-]+", words[1]):
            assert words[1] in STAGES[words[0]], span
        elif re.fullmatch(r"[\w/]+\.(sh|yaml|toml|svg|json|py)", words[0]) and "/" in words[0]:
            assert (ROOT / words[0]).exists() or (ROOT / name).parent.joinpath(words[0]).exists(), span


@pytest.mark.parametrize("text", documented("python"))
def test_python_blocks_name_what_there_is(text: str) -> None:
    tree = ast.parse(text)
    compile(tree, "README.md", "exec")
    known: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {each.name: importlib.import_module(each.name) for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            known |= {each.name: getattr(module, each.name) for each in node.names}
    made = {  # variable -> the class of what `Class(...)` or `Class.method(...)` gives
        node.targets[0].id: known[root.id]
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Call)
        if isinstance(root := root_of(node.value.func), ast.Name) and isinstance(known.get(root.id), type)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = (known | made).get(node.value.id)
            assert module is None or hasattr(module, node.attr), ast.unparse(node)


def root_of(node: ast.AST) -> ast.AST:
    return root_of(node.value) if isinstance(node, ast.Attribute) else node


def test_the_demo_in_the_readme_is_the_script() -> None:
    block = (ROOT / "README.md").read_text().split("<!-- demo -->\n```bash\n")[1].split("```")[0]
    assert DEMO.endswith(block)
    assert "python -m" not in DEMO.removesuffix(block)


def test_every_stage_has_its_row() -> None:
    (rows,) = tables(page("README.md").section("The stages"))
    listed: dict[str, list[str]] = {}
    for first, _ in rows:
        if room := re.fullmatch(r"\[(\w+)\]\((\w+)/README\.md\)", first):
            assert room[1] == room[2]
            listed[room[1]] = []
        else:
            listed[list(listed)[-1]] += spans_of(first)
    assert listed == {room: list(stages) for room, stages in STAGES.items()}
    for room, stages in STAGES.items():
        rows = tables(page(f"{room}/README.md").section("What it does"))[0]
        assert [spans_of(row[0]) for row in rows] == [[stage] for stage in stages]


@pytest.mark.parametrize("name", CHECKED)
def test_every_link_resolves(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page(name).prose):
        if "://" not in target:
            assert (ROOT / name).parent.joinpath(target).exists(), target


def packages(folder: Path) -> set[str]:
    """Return the folders inside a room, at any depth: packages, and for cluster any folder of files."""
    inside = {path.parent for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"} - {folder}
    return {f"{path.relative_to(folder)}/" for path in inside}


def test_the_maps_have_every_folder() -> None:
    (rows,) = tables(page("README.md").section("Map of the repository"))
    listed = [re.match(r"\[(\w+/)\]", row[0]) for row in rows]
    assert [each[1] for each in listed if each] == [*(f"{room}/" for room in ROOMS), "tests/"]
    for room in ROOMS:
        (rows,) = tables(page(f"{room}/README.md").section("Map"))
        (*names,) = (spans_of(row[0])[0] for row in rows)
        assert len(names) == len(set(names))
        extra = (
            {"models/"} if room == "train" else set()
        )  # a package whose own files are in the map beside its packages
        assert set(names) - extra == packages(ROOT / room) - extra


@pytest.mark.parametrize("room", ROOMS)
def test_names_in_where_does_a_new_go_are_in_the_linked_files(room: str) -> None:
    (rows,) = tables(page(f"{room}/README.md").section("Where does a new ... go"))
    for row in rows:
        links = [ROOT / room / link for link in re.findall(r"\]\(([^)]+)\)", " ".join(row))]
        words = {word for path in links if path.is_file() for word in re.findall(r"\w+", path.read_text())}
        assert {span for span in spans_of(" ".join(row)) if re.fullmatch(r"\w+", span)} <= words, row


def fields_of(config: Any, prefix: str = "") -> Iterator[str]:
    """Yield the flags of a config, as the command line writes them."""
    hints = get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        marks = getattr(hints[field.name], "__metadata__", ())
        named = [mark.name for mark in marks if getattr(mark, "name", None)]  # by tyro.conf.arg
        name, value = (named or [field.name])[0].replace("_", "-"), getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            kinds = [value, *(kind() for kind in get_args(AudioConfig))] if field.name == "audio" else [value]
            for each in kinds:
                yield from fields_of(each, f"{prefix}{name}.")
        else:
            yield f"--{prefix}{name}"
            if isinstance(value, bool):
                yield f"--{prefix}no-{name}"


@pytest.mark.parametrize("name", CHECKED)
def test_every_flag_exists(name: str) -> None:
    flags = {seeds.FLAG} | {
        flag
        for stages in STAGES.values()
        for stage in stages.values()
        for _, config in stage.configs.values()
        for flag in fields_of(config)
    }
    for span in page(name).spans:
        if span.startswith("--") or span.split()[0] in (*STAGES, "export", "plan", "retry", "caption", "captioner"):
            named = set(re.findall(r"--[\w.-]+", span)) - THEIR_FLAGS
            assert named <= flags, span


def test_every_reason_is_explained() -> None:
    (rows,) = [each for each in tables(page("pipeline/README.md").prose) if each[0][1] in ("failed", "filtered")]
    listed = {reason: row for row in rows for reason in spans_of(row[0])}
    trees = [ast.parse(path.read_text()) for path in (ROOT / "pipeline").rglob("*.py")]
    strings = {node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert set(REASONS) <= set(listed) <= strings
    assert all(status in ("failed", "filtered") and meaning for _, status, meaning in listed.values())


def test_every_task_and_column_is_listed() -> None:
    (rows,) = tables(page("eval/README.md").section("The flags that matter"))
    assert {spans_of(row[0])[0] for row in rows} == set(tasks.TASKS)
    spans = {span for table in tables(page("pipeline/README.md").prose) for row in table for span in spans_of(row[1])}
    assert {name for names in ROLES.values() for name in names} <= spans


@pytest.mark.parametrize("stage", ["captioner", "pretrain"])
def test_every_config_of_training_is_explained(stage: str) -> None:
    text = page("train/README.md").prose.split(f"| config of `{stage}` |")[1].split("\n\n")[0]
    assert {span for row in tables(f"|{text}\n")[0] for span in spans_of(row[0])} == set(STAGES["train"][stage].configs)


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_have_the_same_headings(room: str) -> None:
    assert re.findall(r"^## (.*)$", page(f"{room}/README.md").prose, flags=re.MULTILINE) == HEADINGS


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_lines_are_short(path: Path) -> None:
    assert [line for line in path.read_text().splitlines() if len(line) > 120] == []


@pytest.mark.parametrize("name", READMES)
def test_readmes_are_short_undated_and_plain(name: str) -> None:
    text = (ROOT / name).read_text()
    assert len(text.splitlines()) <= READMES[name]
    assert not re.search(r"\b20\d\d-\d\d", text)  # dated figures are in BENCHMARKS.md
    assert not SPEECH.search(page(name).prose)

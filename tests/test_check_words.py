"""The check of words and of the tree finds each kind of problem, and nothing else."""

from pathlib import Path

import pytest

from tests.check_words import problems

FINE = '"""A siren is heard in some 40 s; clicks are heard; aboutness, ownership and retold are other words."""\n'


def check(root: Path, files: dict[str, str]) -> list[str]:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return list(problems(root, list(files), ["pipeline"]))


def test_a_clean_tree_has_no_problem(tmp_path: Path) -> None:
    files = {"pipeline/a/b.py": FINE, "tests/a.py": FINE, "cluster/a.py": FINE, "README.md": "x" * 120, "a.txt": "told"}
    assert check(tmp_path, files) == []


@pytest.mark.parametrize(
    "line", ["told = 1", "def f(owner): ...", "# in about 40 s", 'x = "the model hears"', "we heard"]
)
def test_a_word_of_the_list_is_found_in_code_comments_and_texts(tmp_path: Path, line: str) -> None:
    (found,) = check(tmp_path, {"pipeline/a.py": f"x = 1\n{line}\n"})
    assert found.startswith("pipeline/a.py:2: ")


@pytest.mark.parametrize("file", ["a.py", "tools/a.py", "pipelines/a.py"])
def test_a_python_file_without_a_contract_is_found(tmp_path: Path, file: str) -> None:
    assert check(tmp_path, {file: FINE}) == [f"{file}:1: no import contract covers a Python file here"]


def test_a_long_line_of_markdown_is_found(tmp_path: Path) -> None:
    assert check(tmp_path, {"docs/a.md": "x\n" + "y" * 121}) == ["docs/a.md:2: 121 characters, at most 120"]

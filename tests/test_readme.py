"""What the documents say exists: blocks of Python run, commands have these options, links lead to files."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer.main

from unsmear.cli import app
from unsmear.models.checkpoints import shipped_checkpoints

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCUMENTS = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("*/README.md")),
             *sorted((ROOT / "docs").glob("*.md"))]  # fmt: skip


def text_of(document):
    return re.sub(r"<!--.*?-->", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)


def blocks(document, language):
    """The fenced blocks of a language, without the indentation of the list they may stand in."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", text_of(document), re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def shell_lines(document):
    """Every command of the sh blocks, and of the prompts ($) in text blocks."""
    for block in blocks(document, "sh"):
        yield from (line.partition(" #")[0].strip() for line in block.splitlines() if line.strip())
    for block in blocks(document, "text"):
        yield from (line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ "))


def parsed(words):
    """Parse `unsmear …` as the program would, without running it; usage errors raise."""
    command, context = typer.main.get_command(app), None
    while True:
        is_group = hasattr(command, "commands")
        context = command.make_context(command.name, list(words), parent=context)
        if not is_group:
            return context
        rest = [*context._protected_args, *context.args]
        assert rest[0] in command.commands, f"no command {rest[0]!r}"
        command, words = command.commands[rest[0]], rest[1:]


COMMANDS = sorted({(d, line) for d in DOCUMENTS[:2] for line in shell_lines(d)}, key=str)


@pytest.mark.parametrize("line", [line for _, line in COMMANDS])
def test_commands_exist_with_these_options(line):
    words = [word for word in shlex.split(line) if not re.fullmatch(r"[A-Z_]+=\S*", word)]
    program, arguments = Path(words[0]).name, words[1:]
    if program == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(arguments) <= set(targets)
    elif program == "unsmear":
        context = parsed(arguments)
        for parameter in context.command.params:
            value = context.params.get(parameter.name)
            if isinstance(value, Path) and value.parts[0] in ("recipes", "examples"):
                assert (ROOT / value).exists()
    elif words[0] == ".":
        assert arguments == [".venv/bin/activate"]
    else:
        assert program in ("python", "python3"), f"the README names {program!r}, which nobody checks"
        assert arguments[0] == "-m" or (ROOT / arguments[0]).exists()


def test_there_are_commands_to_check():
    lines = [line for document, line in COMMANDS if document == README]
    assert {"make demo", "make test", "unsmear doctor"} <= set(lines)
    assert len(lines) > 8


def test_the_environment_is_entered_before_the_first_command_of_its_own():
    lines = [line for block in blocks(README, "sh") for line in block.splitlines()]
    first = next(place for place, line in enumerate(lines) if line.startswith(("unsmear ", "python ")))
    assert ". .venv/bin/activate" in lines[:first]


def test_an_option_that_does_not_exist_is_found():
    with pytest.raises(Exception, match="--sharpen"):
        parsed(["doctor", "--sharpen"])


@pytest.mark.parametrize("number", range(len(blocks(README, "python"))))
def test_python_blocks_of_the_readme_run(number, tmp_path, monkeypatch, capsys):
    code = blocks(README, "python")[number]
    if "deblur(" in code and not shipped_checkpoints():
        pytest.skip("no weights in the package")
    shutil.copy(ROOT / "examples" / "blurred" / "coffee.jpg", tmp_path / "photo.jpg")
    shutil.copytree(ROOT / "examples" / "sharp", tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, f"README.md, Python block {number}", "exec"), {"__name__": "__main__"})
    written = re.findall(r'"(\w+\.jpg)"\)', code)
    assert all((tmp_path / name).stat().st_size for name in written)
    assert "print(" not in code or capsys.readouterr().out


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(document):
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text_of(document))
    local = [target for target in targets if not target.startswith(("https://", "http://", "mailto:"))]
    assert [target for target in local if not (document.parent / target).exists()] == []


def test_the_make_targets_and_the_ci_script_agree_with_the_readme():
    script = (ROOT / ".ci" / "run").read_text()
    for target in ("demo", "test"):
        assert f"make {target}" in text_of(README)
        assert re.search(rf"^in_fresh {target}\b", script, re.MULTILINE)

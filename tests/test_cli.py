"""The command line as a whole; each command's own work is tested beside its stage."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer.main
from typer.testing import CliRunner

import unsmear
from unsmear import doctor
from unsmear.cli import app
from unsmear.errors import UnsmearError
from unsmear.models import NETWORKS
from unsmear.models.checkpoints import shipped_checkpoints

# What a help page must not wait for. (typer loads pydantic for a command's options, not for the first page.)
HEAVY = ("torch", "numpy", "pyvips", "safetensors", "pydantic", "einops", "tqdm", "psutil", "accelerate")

runner = CliRunner()


def commands(group=None, path=()):
    """Every command with the words that call it, the groups themselves included."""
    group = group or typer.main.get_command(app)
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


COMMANDS = dict(commands())


def heavy_modules(code):
    """The heavy modules loaded at each `report(name)` in a fresh process that runs `code`."""
    program = f"""
import json, sys
seen = {{}}
def report(name): seen[name] = [module for module in {HEAVY} if module in sys.modules]
{code}
print(json.dumps(seen))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_loads_nothing_heavy_until_a_name_is_used():
    seen = heavy_modules("import unsmear; report('import'); unsmear.Photo; report('use')")
    assert seen["import"] == []
    assert "numpy" in seen["use"]


def test_help_of_every_command_loads_nothing_heavy():
    seen = heavy_modules(f"""
from unsmear.cli import app
for path in {[list(path) for path in COMMANDS]}:
    assert app([*path, "--help"], standalone_mode=False) in (0, None)
    report(" ".join(path))
app(["--version"], standalone_mode=False)
report("--version")
""")
    assert len(seen) == len(COMMANDS) + 1
    assert seen[""] == []
    assert {name: modules for name, modules in seen.items() if set(modules) - {"pydantic"}} == {}


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_and_parameter_says_what_it_is(path):
    assert COMMANDS[path].help
    for parameter in COMMANDS[path].params:
        assert getattr(parameter, "help", None), parameter.name


def test_help_names_the_commands():
    shown = runner.invoke(app, ["--help"])
    assert shown.exit_code == 0
    assert all(f"  {path[0]}" in shown.output for path in COMMANDS if path)


def test_version_by_the_command_and_by_the_module():
    module = [sys.executable, "-m", "unsmear", "--version"]
    assert subprocess.run(module, capture_output=True, text=True).stdout == f"unsmear {unsmear.__version__}\n"
    assert runner.invoke(app, ["--version"]).output == f"unsmear {unsmear.__version__}\n"


def test_an_unknown_command_is_a_usage_error():
    assert runner.invoke(app, ["sharpen"]).exit_code == 2


def test_what_unsmear_raises_is_printed_as_one_sentence(monkeypatch):
    def fail():
        raise UnsmearError("the reason")

    monkeypatch.setattr(doctor, "examine", fail)
    result = runner.invoke(app, ["doctor"])
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "unsmear: the reason\n")


def test_doctor_finds_what_is_here():
    result = runner.invoke(app, ["doctor"])
    shown = {line[2:14].strip(): line[15:] for line in result.output.splitlines()}
    assert list(shown) == [
        "unsmear", "python", "torch", "libvips", "others", "processor", "threads", "memory", "accelerator",
        "weights", "extra heic", "extra train", "extra onnx", "a try",
    ]  # fmt: skip
    assert shown["unsmear"] == unsmear.__version__
    assert shown["torch"] == torch.__version__
    assert shown["threads"].startswith(f"{torch.get_num_threads()} for ")
    assert shown["extra heic"] == shown["extra train"] == "yes"
    assert "96×64" in shown["a try"]
    assert shown["weights"].startswith(", ".join(shipped_checkpoints()) or "none")
    assert result.exit_code == (0 if shipped_checkpoints() else 1)


def test_models_says_whose_weights_are_in_the_package(monkeypatch):
    names = ("sglrn-t", "uformer-t", "guided-s")
    monkeypatch.setattr("unsmear.models.costs.NETWORKS", {name: NETWORKS[name] for name in names})
    result = runner.invoke(app, ["models"])
    assert result.exit_code == 0, result.output
    head, _, *rows = [line.strip("|").split("|") for line in result.output.splitlines()]
    column = [title.strip() for title in head].index("weights here")
    said = {row[0].strip(): row[column].strip() for row in rows}
    folder = Path(unsmear.__file__).parent / "weights"
    assert said == {name: "yes" if (folder / f"{name}.safetensors").is_file() else "no" for name in names}


def test_doctor_goes_on_after_a_library_that_does_not_load(monkeypatch):
    def broken():
        raise OSError("libvips.so.42: cannot open shared object file")

    looks = {"libvips": broken, "unsmear": doctor._LOOKS["unsmear"]}
    monkeypatch.setattr(doctor, "_LOOKS", looks)
    assert [str(finding) for finding in doctor.examine()] == [
        "! libvips      OSError: libvips.so.42: cannot open shared object file",
        f"  unsmear      {unsmear.__version__}",
    ]
    assert runner.invoke(app, ["doctor"]).exit_code == 1


def test_doctor_tells_a_network_that_gives_nan(monkeypatch):
    from unsmear.models import restoring

    monkeypatch.setattr(restoring, "restore", lambda model, picture, precision: picture / 0 * 0)
    well, text = doctor._try()
    assert not well
    assert "NaN" in text


def test_doctor_names_a_missing_extra():
    assert doctor._extra("heic", "no_such_module") == (True, "no: pip install 'unsmear[heic]'")


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_process_of_several_that_trained_ends_before_python_shuts_down(processes):
    code = (
        "import atexit, sys; atexit.register(print, 'shut down')\n"
        "sys.argv = ['unsmear', 'train', 'recipe.toml']\n"
        "from unsmear import training\n"
        "training.read_recipe = lambda *_, **__: None; training.train = lambda *_, **__: 'last.safetensors'\n"
        "from unsmear.cli import app; app()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"WORLD_SIZE": processes},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == "last.safetensors"
    assert ("shut down" in done.stdout) is (processes == "1")

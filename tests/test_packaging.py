"""What an installation gets: pinned versions, and everything the package needs inside the wheel."""

import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ORACLES = {"spandrel", "deepinv"}  # installed without what they depend on


def pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {requirement.name: requirement.specifier for requirement in wanted}


def own_dependencies():
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(line) for line in [*PROJECT["dependencies"], *(r for extra in extras for r in extra)]]


def needed(requirement):
    """The names that a requirement brings, itself included, by what is installed here."""
    name = canonicalize_name(requirement.name)
    names, extras = {name}, requirement.extras or {""}
    try:
        lines = requires(requirement.name) or []
    except PackageNotFoundError:
        return names
    for further in map(Requirement, lines):
        marker = further.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
            names |= needed(further) if canonicalize_name(further.name) != name else set()
    return names


def test_everything_installed_is_pinned_and_nothing_else():
    names = set().union(*map(needed, own_dependencies())) - {"unsmear"}
    assert names | ORACLES == set(pins())


def test_pins_are_exact_and_within_what_the_package_allows():
    for requirement in own_dependencies():
        if requirement.name == "unsmear":
            continue
        (pin,) = pins()[canonicalize_name(requirement.name)]
        assert pin.operator == "=="
        assert pin.version in requirement.specifier


def test_the_readme_gives_each_dependency():
    text = (ROOT / "README.md").read_text()
    names = [Requirement(line).name for line in PROJECT["dependencies"]]
    assert [name for name in names if f"| {name} |" not in text] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    builder = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(ROOT))
    (path,) = builder.build(directory=str(tmp_path_factory.mktemp("dist")))
    with zipfile.ZipFile(path) as file:
        return set(file.namelist())


def test_the_wheel_holds_the_package_and_only_that(wheel):
    source = ROOT / "src"
    wanted = {
        str(path.relative_to(source))
        for path in (source / "unsmear").rglob("*")
        if path.is_file() and path.suffix in (".py", ".typed", ".safetensors", ".css", ".js")
    }
    assert {name for name in wheel if ".dist-info/" not in name} == wanted
    assert "unsmear/py.typed" in wanted


def test_the_wheel_holds_the_licence_and_the_command(wheel):
    names = {name.split(".dist-info/")[1] for name in wheel if ".dist-info/" in name}
    assert {"licenses/LICENSE", "entry_points.txt", "METADATA"} <= names

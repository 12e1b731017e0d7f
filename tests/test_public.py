"""What `import unsmear` offers: a name here is a promise, so adding or removing one changes this list."""

import ast
import inspect
from pathlib import Path

import pytest

import unsmear

PUBLIC = {
    "KernelBank",
    "Pair",
    "PairSampler",
    "PairSettings",
    "Photo",
    "Recipe",
    "WrittenPairs",
    "blur",
    "create",
    "deblur",
    "evaluate",
    "insert_low_rank",
    "read_photo",
    "read_recipe",
    "train",
    "write_pairs",
    "write_photo",
}


def test_the_public_names_are_these():
    assert set(unsmear.__all__) == PUBLIC
    assert unsmear.__all__ == sorted(unsmear.__all__)
    assert set(unsmear._HOME) == PUBLIC


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(unsmear.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname or alias.name: line.module for line in block.body for alias in line.names}
    assert seen == {name: f"unsmear.{home}" for name, home in unsmear._HOME.items()}


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_each_name_is_there_and_documented(name):
    assert name in dir(unsmear)
    assert inspect.getdoc(getattr(unsmear, name))


def test_helpers_of_the_module_are_not_offered():
    assert {"Any", "TYPE_CHECKING", "import_module"}.isdisjoint(dir(unsmear))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'sharpen'"):
        _ = unsmear.sharpen

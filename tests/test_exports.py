from __future__ import annotations

import ast
import pkgutil
from importlib import import_module
from pathlib import Path

import pytest

import facekit


def names_for_type_checkers() -> dict[str, str]:
    tree = ast.parse(Path(facekit.__file__).read_text())
    guarded = next(
        node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    imports = [node for node in guarded.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname: node.module for node in imports for alias in node.names}


def test_all_exports_and_type_checkers_names_are_the_same():
    assert names_for_type_checkers() == facekit._EXPORTS
    assert set(facekit.__all__) == set(facekit._EXPORTS) <= set(dir(facekit))


@pytest.mark.parametrize("name", facekit._EXPORTS)
def test_every_export_is_the_modules_own(name):
    assert getattr(facekit, name) is getattr(import_module(facekit._EXPORTS[name]), name)


def test_no_export_has_a_submodules_name():
    submodules = {module.name for module in pkgutil.iter_modules(facekit.__path__)}
    assert not submodules & set(facekit._EXPORTS)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        facekit.nonsense  # noqa: B018

"""Tests for the package's public names: each resolves, is documented, and is imported when it is used."""

import importlib.util
import inspect
import re
import subprocess
import sys
import types

import pytest

import kernelgan


@pytest.mark.parametrize("name", kernelgan.__all__)
def test_every_public_name_resolves_and_is_documented(name):
    value = getattr(kernelgan, name)
    assert name in dir(kernelgan)
    if name == "__version__":
        assert re.match(r"\d+\.\d+", value)
    else:
        assert inspect.getdoc(value)


@pytest.mark.parametrize("name", kernelgan.__all__)
def test_no_module_hides_a_public_function(name):
    """The import system binds a submodule to its name in the package, in place of a function of that name."""
    if not isinstance(getattr(kernelgan, name), types.ModuleType):
        assert importlib.util.find_spec(f"kernelgan.{name}") is None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        _ = kernelgan.nonsense


def test_the_package_imports_next_to_nothing():
    program = "import sys; before = set(sys.modules); import kernelgan; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported = {name.partition(".")[0] for name in done.stdout.split()}
    assert imported <= {"kernelgan", "importlib", "warnings", "__future__", "_frozen_importlib"}

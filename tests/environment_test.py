"""Tests for kernelgan.environment: the device and the versions."""

import importlib.metadata
import platform

import jax
import pytest

from kernelgan import environment
from kernelgan.types import UserError


@pytest.fixture
def platforms():
    """What JAX may choose from is put back, for the other tests' sake."""
    before = jax.config.jax_platforms
    yield
    jax.config.update("jax_platforms", before)


def test_any_device_will_do_unless_one_is_asked_for():
    environment.select_device("auto")


def test_the_device_that_is_there_may_be_asked_for(platforms):
    environment.select_device(jax.devices()[0].platform)


def test_a_device_that_is_not_there_is_refused(platforms):
    found = jax.devices()[0].platform
    wanted = "gpu" if found == "cpu" else "cpu"
    with pytest.raises(UserError, match=f"device is '{wanted}', but JAX finds '{found}' here"):
        environment.select_device(wanted)


def test_devices_are_named_and_counted(monkeypatch):
    class Device:
        device_kind = "NVIDIA H100"

    monkeypatch.setattr(jax, "local_devices", lambda: [Device(), Device()])
    assert environment.device_words() == "NVIDIA H100 (2 devices)"
    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    assert environment.device_words() == "NVIDIA H100 (1 device)"


def test_versions_are_those_that_are_installed(monkeypatch):
    def version(package):
        if package == "umap-learn":
            raise importlib.metadata.PackageNotFoundError
        return f"{package} 1"

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = environment.versions()
    assert found["python"] == platform.python_version()
    assert found["jax"] == "jax 1"
    assert set(found) == {"python", *environment.PACKAGES} - {"umap-learn"}

"""Tests for kernelgan.environment: the device and the versions."""

import importlib.metadata
import os
import platform
import subprocess
import sys

import jax
import pytest

from kernelgan import environment, models
from kernelgan.ops import cpu
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
        device_kind, platform = "NVIDIA H100", "gpu"

    monkeypatch.setattr(jax, "devices", lambda: [Device(), Device()])
    assert environment.device_words() == "NVIDIA H100 (2 devices)"
    monkeypatch.setattr(jax, "devices", lambda: [Device()])
    assert environment.device_words() == "NVIDIA H100 (1 device)"
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "devices", lambda: [Device()] * 4)
    assert environment.device_words() == "NVIDIA H100 (4 devices in 2 processes)"


def _configured(**variables):
    """Devices, and where programs are kept, of a new process that has been configured."""
    program = (
        "import jax; from kernelgan import environment; environment.configure('cpu'); "
        "print(len(jax.devices()), jax.config.jax_compilation_cache_dir)"
    )
    left = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    done = subprocess.run(
        [sys.executable, "-c", program], env=left | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(not cpu.is_available(), reason="numba or jaxlib's headers are not here")
def test_every_core_is_a_device_and_programs_are_kept_in_the_users_cache(tmp_path):
    cores = str(len(os.sched_getaffinity(0)))
    assert _configured(XDG_CACHE_HOME=str(tmp_path)) == [cores, str(tmp_path / "kernelgan" / "xla")]


def test_what_the_environment_says_of_devices_and_cache_holds(tmp_path):
    told = {"JAX_NUM_CPU_DEVICES": "3", "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "mine")}
    assert _configured(XDG_CACHE_HOME=str(tmp_path), **told) == ["3", str(tmp_path / "mine")]


def test_where_nothing_can_be_kept_nothing_is(tmp_path):
    (tmp_path / "file").write_text("")
    assert _configured(XDG_CACHE_HOME=str(tmp_path / "file"))[1] == "None"


def test_versions_are_those_that_are_installed(monkeypatch):
    def version(package):
        if package == "umap-learn":
            raise importlib.metadata.PackageNotFoundError
        return f"{package} 1"

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = environment.versions()
    assert found["python"] == platform.python_version()
    assert found["jax"] == "jax 1"
    of_jax = {name for name in found if name.startswith(("JAX_", "XLA_"))}
    assert set(found) - of_jax == {"python", *environment.PACKAGES} - {"umap-learn"}


def test_variables_that_may_change_figures_are_recorded_and_others_are_not(monkeypatch):
    for name, value in {
        "JAX_ENABLE_X64": "1",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": "/here",
        "JAX_NUM_CPU_DEVICES": "3",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2 --xla_cpu_enable_fast_math=true",
    }.items():
        monkeypatch.setenv(name, value)
    found = environment.versions()
    assert found["JAX_ENABLE_X64"] == "1"
    assert found["XLA_FLAGS"] == "--xla_cpu_enable_fast_math=true"
    assert not found.keys() & {"JAX_PLATFORMS", "JAX_COMPILATION_CACHE_DIR", "JAX_NUM_CPU_DEVICES"}


def test_flags_of_the_compiler_are_part_of_the_arithmetic(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    before = models.arithmetic("products")
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    assert models.arithmetic("products") == before
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    assert models.arithmetic("products") == f"{before}, XLA_FLAGS=--xla_cpu_enable_fast_math=true"


SWITCHES = [
    ("jax_enable_x64", True),
    ("jax_default_prng_impl", "rbg"),
    ("jax_threefry_partitionable", False),
    ("jax_default_matmul_precision", "bfloat16"),
    ("jax_numpy_dtype_promotion", "strict"),
    ("jax_numpy_rank_promotion", "raise"),
    ("jax_debug_nans", True),
    ("jax_disable_jit", True),
    ("jax_check_tracer_leaks", True),
    ("jax_transfer_guard", "disallow"),
]


@pytest.mark.parametrize(("switch", "value"), SWITCHES)
def test_switches_that_change_figures_or_end_in_a_traceback_are_set_by_the_run(switch, value, capsys):
    before = getattr(jax.config, switch)
    before = getattr(before, "value", before)
    jax.config.update(switch, value)
    try:
        environment.configure("auto")
        after = getattr(jax.config, switch)
        assert getattr(after, "value", after) == before
        assert f"{switch.upper()}=" in capsys.readouterr().err
        environment.configure("auto")
        assert capsys.readouterr().err == ""
    finally:
        jax.config.update(switch, before)


@pytest.mark.parametrize("platform_name", ["cuda", "no_such_platform"])
def test_a_platform_that_is_not_there_is_named_without_a_traceback(platform_name):
    program = "from kernelgan import environment; environment.select_device('auto')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"JAX_PLATFORMS": platform_name},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        pytest.skip("this machine has one")
    assert done.stderr.splitlines()[-1].startswith("kernelgan.types.UserError")
    assert f"JAX_PLATFORMS={platform_name}" in done.stderr

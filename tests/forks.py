"""Programs in processes of their own, forked from one that has imported the package: an import takes 3 s."""

import atexit
import contextlib
import functools
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]

_SERVER = """
import json, os, runpy, select, signal, sys, types
import jax
from configs import default, tiny
from kernelgan import checkpoint, command, export, generators, pipeline
running = set()
while True:
    if select.select([0], [], [], 0.02 if running else None)[0]:
        line = sys.stdin.readline()
        if not line:
            break
        (program, *flags), folder, variables, outputs = json.loads(line)
        process = os.fork()
        if process == 0:
            for stream, path in zip((0, 1, 2), ("/dev/null", *outputs)):
                os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), stream)
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(variables)
            for name, kind in (("JAX_PLATFORMS", str), ("JAX_NUM_CPU_DEVICES", int)):  # which JAX has read
                jax.config.update(name.lower(), kind(variables[name]))
            sys.argv = [program, *flags]
            if program == "-c":
                sys.argv = ["-c", *flags[1:]]
                sys.modules["__main__"] = types.ModuleType("__main__")
                exec(flags[0], vars(sys.modules["__main__"]))
            elif program.endswith(".py"):
                runpy.run_path(program, run_name="__main__")
            else:
                runpy.run_module(program, run_name="__main__", alter_sys=True)
            sys.exit(0)
        running.add(process)
        print(process, flush=True)
    for process in list(running):
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            running.remove(process)
            print(process, os.waitstatus_to_exitcode(status), flush=True)
for process in running:
    os.kill(process, signal.SIGKILL)
"""


class Ended(NamedTuple):
    """What a program gave."""

    returncode: int
    stdout: str
    stderr: str


class Running:
    """A program at work."""

    def __init__(self, line, folder, variables, *, together):
        self._folder = tempfile.TemporaryDirectory()
        names = ("output", "output") if together else ("output", "errors")
        self._paths = [Path(self._folder.name, name) for name in names]
        given = [[*map(str, line)], str(folder), os.environ | variables, [*map(str, self._paths)]]
        self._server = _server()
        self._process = self._server.ask(json.dumps(given))

    def send_signal(self, number):
        os.kill(self._process, number)

    def wait(self, timeout=600):
        """How it ended."""
        try:
            status = self._server.status(self._process, timeout)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.send_signal(signal.SIGKILL)
            raise
        said = [path.read_text() for path in self._paths]
        self._folder.cleanup()
        return Ended(status, *said)


class _Server:
    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._ended = {}
        atexit.register(self._close)

    def _close(self):
        self._process.stdin.close()
        self._process.wait()

    def _read(self):
        process, *status = map(int, self._process.stdout.readline().split())
        if status:
            (self._ended[process],) = status
        return None if status else process

    def ask(self, line):
        self._process.stdin.write(f"{line}\n".encode())
        while (process := self._read()) is None:
            pass
        return process

    def status(self, process, timeout):
        until = time.monotonic() + timeout
        while process not in self._ended:
            if not select.select([self._process.stdout], [], [], max(0, until - time.monotonic()))[0]:
                raise TimeoutError(f"process {process} has not ended within {timeout} s")
            self._read()
        return self._ended.pop(process)


@functools.cache
def _server():
    return _Server()


def start(*line, folder=ROOT, together=False, **variables):
    """Starts ``("launch.py", flag, ...)``, ``("a.module", flag, ...)`` or ``("-c", program, argument, ...)``.

    With other environment variables, and with both outputs ``together`` in one if you like.
    """
    return Running(line, folder, variables, together=together)


def run(*line, **options):
    """The same to its end."""
    return start(*line, **options).wait()

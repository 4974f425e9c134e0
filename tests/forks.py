"""Commands with many lines of flags, in processes of their own that share the time their imports take."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

_PROGRAM = """
import importlib, json, os, runpy, sys
batches, folder, modules = json.loads(sys.argv[1])
for module in modules:
    importlib.import_module(module)
count = 0
for batch in batches:
    running = {}
    for program, *flags in batch:
        process = os.fork()
        if process == 0:
            for stream, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(f"{folder}/{count}.{name}", os.O_WRONLY | os.O_CREAT), stream)
            sys.argv = [program, *flags]
            run = runpy.run_path if program.endswith(".py") else runpy.run_module
            run(program, run_name="__main__", **({} if program.endswith(".py") else {"alter_sys": True}))
            sys.exit(0)
        running[process] = count
        count += 1
    for process, number in running.items():
        with open(f"{folder}/{number}.status", "w") as file:
            print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), file=file)
"""


class Ended(NamedTuple):
    """What a command gave."""

    returncode: int
    stdout: str
    stderr: str


def run_all(lines, folder, *, modules=("configs.default",)):
    """Of each line, ``("launch.py", flag, ...)`` or ``("a.module", flag, ...)``, how it ended.

    Lines that are in a list of their own run at the same time.
    """
    batches = [line if isinstance(line, list) else [line] for line in lines]
    command = [sys.executable, "-c", _PROGRAM, json.dumps([batches, str(folder), modules])]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return [
        Ended(
            int((folder / f"{number}.status").read_text()),
            *((folder / f"{number}.{name}").read_text() for name in ("stdout", "stderr")),
        )
        for number in range(sum(map(len, batches)))
    ]

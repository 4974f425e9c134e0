"""Commands with many lines of flags, in processes of their own that share the time their imports take."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

_PROGRAM = """
import json, os, runpy, sys
import configs.default
lines, folder = json.loads(sys.argv[1]), sys.argv[2]
for number, (program, *flags) in enumerate(lines):
    process = os.fork()
    if process == 0:
        for stream, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(f"{folder}/{number}.{name}", os.O_WRONLY | os.O_CREAT), stream)
        sys.argv = [program, *flags]
        run = runpy.run_path if program.endswith(".py") else runpy.run_module
        run(program, run_name="__main__", **({} if program.endswith(".py") else {"alter_sys": True}))
        sys.exit(0)
    with open(f"{folder}/{number}.status", "w") as file:
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), file=file)
"""


class Ended(NamedTuple):
    """What a command gave."""

    returncode: int
    stdout: str
    stderr: str


def run_all(lines, folder):
    """Of each line, ``("launch.py", flag, ...)`` or ``("a.module", flag, ...)``, how it ended."""
    command = [sys.executable, "-c", _PROGRAM, json.dumps(lines), str(folder)]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return [
        Ended(
            int((folder / f"{n}.status").read_text()),
            *((folder / f"{n}.{name}").read_text() for name in ("stdout", "stderr")),
        )
        for n in range(len(lines))
    ]

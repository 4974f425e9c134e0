"""Repeat the original: `python -m studies.jain2024 --dir=DIR`. See docs/jain2024.md."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from kernelgan.command import parse_flags
from kernelgan.stopping import outlast_readers
from studies import command

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "The settings; studies/jain2024/config.py:quick takes a tenth of the networks.",
    lock_config=True,
)
_DIR = flags.DEFINE_string("dir", None, "The original's weights and photographs, see docs/jain2024.md.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where all results go; default runs/<config name>.")
_PROCESSES = flags.DEFINE_integer("processes", 0, "Processes that run UMAP; 0: one for each core.", 0)
_COMMAND = shlex.join(["python", "-m", "studies.jain2024", *sys.argv[1:]])


def main(argv: list[str]) -> int:
    """Runs the study; gives the exit status."""
    del argv
    logging.set_verbosity(logging.WARNING)  # JAX lists the devices that it lacks at INFO
    from kernelgan.files import given_path
    from kernelgan.types import UserError  # here, so that --help need not wait for JAX
    from studies.jain2024.study import run

    config = _CONFIG.value
    workdir = Path(_WORKDIR.value or Path("runs") / config.name)

    def work() -> None:
        if not _DIR.value:
            raise UserError("--dir is missing; expected the original's data: --dir=DIR (docs/jain2024.md).")
        own, given = given_path(workdir, "--workdir"), given_path(_DIR.value, "--dir")
        run(config, given, own, processes=_PROCESSES.value, command=_COMMAND)

    return command.status(work, f"finished figures are kept, and the same command continues ({workdir})")


if __name__ == "__main__":
    outlast_readers()
    if not any(argument.lstrip("-").partition("=")[0] == "config" for argument in sys.argv):
        # Not the flag's default: ml_collections reads that before errors can be told in one line.
        sys.argv.insert(1, f"--config={Path(__file__).with_name('config.py')}")
    app.run(main, flags_parser=lambda argv: parse_flags(argv, "studies/jain2024/config.py"))

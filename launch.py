"""Run an experiment: `python launch.py --config=configs/black_cat.py`. See README.md."""

from __future__ import annotations

import shlex
import sys
import traceback
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from kernelgan.command import parse_flags

STAGES = ("data", "zoo", "cyclegan", "opponents", "generate", "evaluate", "report")

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "The experiment, such as configs/black_cat.py or configs/black_cat.py:photos.",
    lock_config=True,
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where checkpoints, results and the report go; default runs/<config name>."
)
_STAGE = flags.DEFINE_enum("stage", "report", STAGES, "Run what is missing up to this stage, then stop.")
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "This is one of several processes that Slurm or Open MPI started for one run."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", "", "The same without Slurm: HOST:PORT of process 0, with --processes and --process."
)
_PROCESSES = flags.DEFINE_integer("processes", 0, "With --coordinator: how many processes there are.")
_PROCESS = flags.DEFINE_integer("process", -1, "With --coordinator: which of them this is, from 0.")
flags.mark_flag_as_required("config")


def main(argv: list[str]) -> int:
    """Calls the pipeline."""
    del argv
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # Orbax reports every file at INFO
    from kernelgan import cluster, environment  # here, so that --help need not wait for JAX
    from kernelgan.pipeline import run
    from kernelgan.types import UserError

    config = _CONFIG.value
    workdir = Path(_WORKDIR.value or Path("runs") / config.name)
    try:
        if _COORDINATOR.value == "" and (_PROCESSES.value or _PROCESS.value >= 0):
            raise UserError("--processes and --process go with --coordinator=HOST:PORT, which was not given.")
        if _DISTRIBUTED.value or _COORDINATOR.value:
            environment.configure(config.device)
            cluster.join(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
            if not cluster.is_first():
                cluster.follow()
                return 0
        run(config, workdir, stage=_STAGE.value, command=shlex.join(["python", *sys.argv]))
        status = 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except OSError as error:
        print(
            f"error: {error}; what was finished is kept, and the same command goes on ({workdir})",
            file=sys.stderr,
        )
        status = 2
    except KeyboardInterrupt:
        print(f"interrupted; the same command goes on where it was ({workdir})", file=sys.stderr)
        status = 130
    except Exception:
        traceback.print_exc()
        status = 1
    cluster.leave(status)
    return status


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)

"""Run an experiment: `python launch.py --config=configs/black_cat.py`. See README.md."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

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
flags.mark_flag_as_required("config")


def main(argv: list[str]) -> int:
    """Parses flags and calls the pipeline."""
    if len(argv) > 1:
        raise app.UsageError(
            f"unexpected arguments: {' '.join(argv[1:])}; fields are set by --config.zoo.models=64"
        )
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # Orbax reports every file at INFO
    from kernelgan import pipeline  # here, so that --help need not wait for JAX
    from kernelgan.types import UserError

    config = _CONFIG.value
    workdir = Path(_WORKDIR.value or Path("runs") / config.name)
    try:
        pipeline.run(config, workdir, stage=_STAGE.value, command=shlex.join(["python", *sys.argv]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"interrupted; the same command goes on where it was ({workdir})", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    app.run(main)

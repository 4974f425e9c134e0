"""One job in a fresh process: `python -m benchmarks.worker JOB OUT`, started by `python -m benchmarks`.

The core is pinned before anything is imported that starts threads; what was found is written to a file, so
that whatever a library prints can do no harm.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import machine, rows
from benchmarks.rows import Row
from benchmarks.suite import Job, Settings

WITH_TORCH = ("zoo", "translators", "evaluation")
"""Sections that have PyTorch's rows; the others would count its import as theirs."""


def measure(settings: Settings, job: Job) -> list[Row]:
    """The rows of a job; each section is imported only where it is measured."""
    if job.section == "limit":
        from benchmarks import limit

        return limit.measure(job.mode, rounds=settings.rounds, lap=settings.lap, matrix=settings.matrix)
    if job.section == "zoo":
        from benchmarks import zoo

        return zoo.measure(settings, job.mode)
    if job.section == "translators":
        from benchmarks import translators

        return translators.measure(settings, job.mode)
    if job.section == "evaluation":
        from benchmarks import evaluation

        return evaluation.measure(settings, job.mode)
    if job.section == "growth":
        from benchmarks import growth

        return growth.measure(settings, job.mode, **job.task)
    if job.section == "start":
        from benchmarks import start

        return start.measure(settings, job.mode, **job.task)
    raise ValueError(f"no section {job.section!r}")


def request(settings: Settings, job: Job, cores: int) -> str:
    """A job as the worker reads it."""
    return json.dumps(
        {"settings": dataclasses.asdict(settings), "job": dataclasses.asdict(job), "cores": cores}
    )


def main(arguments: list[str]) -> None:
    """Does the job and writes its rows."""
    asked: dict[str, Any] = json.loads(arguments[0])
    job = Job(**asked["job"])
    core = machine.pin() if job.mode == rows.ONE_CORE else None
    if job.section == "machine":
        found: dict[str, Any] = machine.describe()
    else:
        settings = Settings(**asked["settings"])
        if job.section in WITH_TORCH:
            _use_threads(1 if job.mode == rows.ONE_CORE else asked["cores"])
        measured = measure(settings, job)
        for row in measured:
            row.details |= {"pinned_core": core} if job.mode == rows.ONE_CORE else {}
        found = {"rows": [row.document() for row in measured], "flags": machine.flags()}
    Path(arguments[1]).write_text(json.dumps(found))


def _use_threads(threads: int) -> None:
    from benchmarks import torch_loops

    if not torch_loops.missing():
        torch_loops.use_threads(threads)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Everything that is claimed about speed, measured by one command.

    python -m benchmarks [--suite cpu|gpu] [--sections zoo,growth] [--quick] [--json FILE] [--plot FILE]

Prints tables with ratios and goals; progress goes to standard error. The exit status is 1 if a contender's
result is wrong or it failed, 2 if an option cannot be. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import goals, machine, rows, start, suite, table, worker
from benchmarks.rows import Row
from benchmarks.stopwatch import say
from benchmarks.suite import Job, Settings

ROOT = Path(__file__).parents[1]
JOB_SECONDS = 900
"""After this long a job is given up."""


class JobError(Exception):
    """A job's process ended without a result."""


def run_job(settings: Settings, job: Job, cores: int) -> dict[str, Any]:
    """What a fresh process found.

    Raises:
      JobError: it ended without a result.
    """
    kept = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    variables = kept | suite.environment(settings, job.mode, cores) | job.environment
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory, "found.json")
        command = [sys.executable, "-m", "benchmarks.worker", worker.request(settings, job, cores), str(out)]
        variables[start.BEGAN] = repr(time.time())
        try:
            status = subprocess.run(
                command, cwd=ROOT, env=variables, stdout=sys.stderr, timeout=JOB_SECONDS, check=False
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise JobError(f"took longer than {JOB_SECONDS} s") from error
        if not out.is_file():
            raise JobError(f"its process ended with status {status}; what it said is above")
        return json.loads(out.read_text())


def measure(settings: Settings, sections: Sequence[str], cores: int) -> tuple[list[Row], dict[str, Any]]:
    """All sections' rows, each table printed as soon as it is there, and the flags by mode."""
    found: list[Row] = []
    flags: dict[str, Any] = {}
    begin = time.monotonic()
    for section in sections:
        of_section: list[Row] = []
        with tempfile.TemporaryDirectory() as cache:
            for job in suite.jobs(settings, section, cores):
                if section == "start":
                    job = dataclasses.replace(job, environment=start.cache_environment(cache))
                say(f"{job.title} (after {time.monotonic() - begin:.0f} s)")
                try:
                    answer = run_job(settings, job, cores)
                except JobError as error:
                    name = " ".join(str(value) for value in job.task.values()) or section
                    of_section.append(
                        Row(section, name, job.mode, "job", status=rows.FAILED, reason=str(error))
                    )
                    continue
                flags[f"{section}, {job.mode}"] = answer["flags"]
                merge(of_section, [rows.from_document(row) for row in answer["rows"]])
        print(table.section(section, of_section), flush=True)
        found += of_section
    return found, flags


def merge(found: list[Row], more: Sequence[Row]) -> None:
    """Adds rows; the rounds of one that is there already, such as a second start, are added to its own."""
    for row in more:
        for old in found:
            if (old.name, old.mode, old.status) == (row.name, row.mode, row.status):
                old.wall_rounds += row.wall_rounds
                old.cpu_rounds += row.cpu_rounds
                break
        else:
            found.append(row)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suite", choices=suite.SUITES, help="default: the device that JAX finds")
    parser.add_argument("--sections", default="", help=f"some of {','.join(suite.SECTIONS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="so small that the figures mean nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything here")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the growth here (.png, .svg, .pdf)")
    parser.add_argument("--rounds", type=int, metavar="N", help="laps of each contender, 1 or more")
    parser.add_argument("--models", type=int, metavar="M", help="networks of the zoo's fast variants")
    options = parser.parse_args(arguments)
    options.sections = [name.strip() for name in options.sections.split(",") if name.strip()] or list(
        suite.SECTIONS
    )
    for name in options.sections:
        if name not in suite.SECTIONS:
            parser.error(
                f"--sections has {name!r}; expected some of {', '.join(suite.SECTIONS)}, with commas"
            )
    for name in ("rounds", "models"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name}={value}; expected 1 or more")
    for name in ("json", "plot"):
        path = getattr(options, name)
        if path is not None and not path.absolute().parent.is_dir():
            parser.error(
                f"--{name}={path}: {path.absolute().parent} is not a directory; make it, or give another"
            )
    if options.plot is not None:
        if "growth" not in options.sections:
            parser.error(f"--plot={options.plot} draws the growth; expected --sections to have it")
        if importlib.util.find_spec("matplotlib") is None:
            parser.error(f"--plot={options.plot} needs matplotlib; install it, or leave --plot out")
        if options.plot.suffix not in (".png", ".svg", ".pdf"):
            parser.error(f"--plot={options.plot}; expected a name that ends in .png, .svg or .pdf")
    return options


def _describe(asked: str | None) -> dict[str, Any]:
    """The machine, with the suite's device or, if none is asked for, the one that JAX finds.

    Raises:
      JobError: that device is not there.
    """
    settings = suite.settings_for(asked or "cpu")
    cores = machine.cores()
    # With no suite asked for, JAX chooses: whatever is set outside stays.
    platforms = {} if asked else {"JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "")}
    return run_job(settings, Job("machine", rows.ALL_CORES, environment=platforms), cores)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, writes; returns the exit status."""
    options = _parse(arguments)
    begin = time.time()
    say("the machine")
    try:
        described = _describe(options.suite)
    except JobError as error:
        say(
            f"error: --suite={options.suite or 'left out'}: {error}. Expected a machine where JAX finds "
            "such a device; for a GPU install requirements-cuda12.txt, or give --suite=cpu."
        )
        return 2
    chosen = options.suite or ("cpu" if described["machine"]["platform"] == "cpu" else "gpu")
    settings = suite.settings_for(chosen, quick=options.quick)
    if options.rounds:
        settings = dataclasses.replace(settings, rounds=options.rounds)
    if options.models:
        settings = dataclasses.replace(settings, networks=settings.networks | {"many": options.models})
    print(table.head(described, chosen, options.quick), flush=True)
    found, flags = measure(settings, options.sections, machine.cores())
    judged = goals.judge(chosen, found)
    print(table.goals(judged))
    document = described | {
        "suite": chosen,
        "quick": options.quick,
        "precision": "float32 products (TF32 only where a row says so)",
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(begin)),
        "seconds": time.time() - begin,
        "settings": dataclasses.asdict(settings),
        "job_flags": flags,
        "rows": [row.document() for row in found],
        "goals": judged,
        "wrong": [f"{row.section}, {row.mode}: {row.name}" for row in found if row.status in rows.BAD],
    }
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    if options.plot:
        from benchmarks import curves

        curves.draw(found, options.plot)
    return report(found)


def report(found: Sequence[Row]) -> int:
    """Names what is wrong, or failed; the exit status."""
    bad = [row for row in found if row.status in rows.BAD]
    for row in bad:
        print(f"{row.status}: {row.section}, {row.mode}: {row.name}: {row.reason}")
    return 1 if bad else 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)

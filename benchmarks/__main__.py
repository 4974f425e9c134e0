"""Everything that is claimed about speed, measured by one command.

    python -m benchmarks [--suite cpu|gpu] [--sections zoo,growth] [--quick] [--json FILE]

Prints tables with ratios and goals; progress goes to standard error. The exit status is 1 if a result is
wrong or a case failed, 2 if an option cannot be. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import cases, goals, rows, start
from benchmarks.cases import Settings
from benchmarks.rows import Row
from benchmarks.stopwatch import say

_PROCESS_SECONDS = 900
"""After this long a process is given up."""


class ProcessError(Exception):
    """A process ended without a result."""


def run_process(request: dict[str, Any], variables: dict[str, str]) -> Any:  # noqa: ANN401
    """What a fresh process writes.

    Args:
      request: see `benchmarks.worker`.
      variables: that it is started with, beside this process's.

    Raises:
      ProcessError: it ended without a result.
    """
    kept = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory, "out.json")
        command = [sys.executable, "-m", "benchmarks.worker", json.dumps(request), str(out)]
        environment = kept | variables | {start.BEGAN: repr(time.time())}
        try:
            status = subprocess.run(
                command,
                cwd=Path(__file__).parents[1],
                env=environment,
                stdout=sys.stderr,
                timeout=_PROCESS_SECONDS,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise ProcessError(f"took longer than {_PROCESS_SECONDS} s") from error
        if not out.is_file():
            raise ProcessError(f"its process ended with status {status}; what it said is above")
        return json.loads(out.read_text())


def processes(settings: Settings, section: str) -> Iterator[tuple[str, str]]:
    """Of a section, the mode of each process and the case that it measures alone, or ""."""
    for mode in (cases.GPU,) if settings.suite == "gpu" else (cases.ONE_CORE, cases.ALL_CORES):
        here = [case for case in cases.cases(settings) if case.section == section and mode in case.modes]
        for case in here:
            yield from [(mode, case.name)] * case.processes
        if any(not case.processes for case in here):
            yield mode, ""


def measure(settings: Settings, sections: Sequence[str], cores: int) -> list[Row]:
    """All sections' rows, each table printed as soon as it is there."""
    found: list[Row] = []
    for section in sections:
        of_section: list[Row] = []
        with tempfile.TemporaryDirectory() as caches:
            for mode, alone in processes(settings, section):
                say(f"{time.strftime('%H:%M:%S')} {', '.join(filter(None, (section, mode, alone)))}")
                environment = cases.environment(settings, mode, section, cores)
                if section == "start":  # the first empty, then with what the first left
                    environment["XDG_CACHE_HOME"] = caches
                request: dict[str, Any] = {"section": section, "mode": mode, "alone": alone}
                request |= {"settings": dataclasses.asdict(settings)}
                try:
                    more = [rows.from_document(row) for row in run_process(request, environment)]
                except ProcessError as error:
                    more = [
                        Row(section, alone or "all", mode, "process", status=rows.FAILED, reason=str(error))
                    ]
                rows.merge(of_section, more)
        rows.compare(of_section)
        print(rows.section(section, of_section), flush=True)
        found += of_section
    return found


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ",".join(cases.SECTIONS)
    parser.add_argument("--suite", choices=cases.SUITES, help="default: the device that JAX finds")
    parser.add_argument("--sections", default=known, help=f"some of {known}; default: all")
    parser.add_argument("--quick", action="store_true", help="so small that the figures mean nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything here")
    parser.add_argument("--rounds", type=int, default=0, metavar="N", help="laps of each case")
    options = parser.parse_args(arguments)
    options.sections = [name.strip() for name in options.sections.split(",")]
    for name in options.sections:
        if name not in cases.SECTIONS:
            parser.error(f"--sections has {name!r}; expected some of {known}")
    if options.json is not None and not options.json.absolute().parent.is_dir():
        directory = options.json.absolute().parent
        parser.error(f"--json={options.json}: {directory} is not a directory; make it, or give another")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, writes; returns the exit status."""
    options = _parse(arguments)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    platforms = {"cpu": "cpu", "gpu": "cuda"}  # with no suite asked for, JAX chooses
    try:
        variables = {"JAX_PLATFORMS": platforms[options.suite]} if options.suite else {}
        described = run_process({"section": ""}, variables)
    except ProcessError as error:
        say(
            f"error: --suite={options.suite or 'left out'}: {error}. Expected a machine where JAX finds "
            "such a device; for a GPU install requirements-cuda12.txt, or give --suite=cpu."
        )
        return 2
    suite = options.suite or ("cpu" if described["platform"] == "cpu" else "gpu")
    settings = cases.settings_for(suite, quick=options.quick, rounds=options.rounds)
    started = time.strftime("%Y-%m-%d %H:%M %Z")
    print(f"suite {suite}, {started}{'; quick: the figures mean nothing' * options.quick}")
    print(described["machine"], ", ".join(" ".join(both) for both in described["versions"].items()), sep="\n")
    print(
        "float32 unless a row says TF32; ratios are medians of the rounds', above 1 is faster\n", flush=True
    )
    found = measure(settings, options.sections, cores)
    judged = goals.judge(suite, found)
    print(goals.table(judged))
    if options.json:
        variables = cases.environment(settings, "all", "", cores)
        document = described | {"started": started, "settings": dataclasses.asdict(settings), "goals": judged}
        document |= {"environment": variables, "rows": [row.document() for row in found]}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    bad = [row for row in found if row.status in rows.BAD]
    for row in bad:
        print(f"{row.status}: {row.section}, {row.mode}: {row.name}: {row.reason}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

"""Everything that is claimed about speed, measured by one command.

    python -m benchmarks [--suite cpu|gpu] [--sections zoo,growth] [--quick] [--json FILE]

Prints tables with ratios and goals; progress goes to standard error. The exit status is 1 if a result is wrong
or a case failed, 2 if an option cannot be. See benchmarks/README.md.
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

ROOT = Path(__file__).parents[1]
_PROCESS_SECONDS = 900
"""After this long a process is given up."""


class ProcessError(Exception):
    """A process ended without a result."""


def run_process(request: dict[str, Any], variables: dict[str, str]) -> dict[str, Any]:
    """What a fresh process measured.

    Args:
      request: see `benchmarks.worker`.
      variables: that it is started with, beside this process's.

    Raises:
      ProcessError: it ended without a result.
    """
    kept = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory, "rows.json")
        command = [sys.executable, "-m", "benchmarks.worker", json.dumps(request), str(out)]
        environment = kept | variables | {start.BEGAN: repr(time.time())}
        try:
            status = subprocess.run(
                command, cwd=ROOT, env=environment, stdout=sys.stderr, timeout=_PROCESS_SECONDS, check=False
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise ProcessError(f"took longer than {_PROCESS_SECONDS} s") from error
        if not out.is_file():
            raise ProcessError(f"its process ended with status {status}; what it said is above")
        return json.loads(out.read_text())


def processes(settings: Settings, section: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Of a section: its mode, the case that it measures alone (or "") and further variables.

    What is alone comes first: a process's peak memory never falls.
    """
    every = [case for case in cases.cases(settings) if case.section == section]
    modes = (cases.GPU,) if settings.suite == "gpu" else (cases.ONE_CORE, cases.ALL_CORES)
    for mode in modes:
        here = [case for case in every if mode in case.modes]
        for case in here:
            for _ in range(case.processes if case.alone else 0):
                yield mode, case.name, case.environment
        if any(not case.alone for case in here):
            yield mode, "", {}


def measure(settings: Settings, sections: Sequence[str], cores: int) -> list[Row]:
    """All sections' rows, each table printed as soon as it is there."""
    found: list[Row] = []
    begin = time.monotonic()
    for section in sections:
        of_section: list[Row] = []
        with tempfile.TemporaryDirectory() as caches:
            for mode, name, variables in processes(settings, section):
                title = ", ".join(filter(None, (section, mode, name)))
                say(f"{title} (after {time.monotonic() - begin:.0f} s)")
                environment = cases.environment(settings, mode, cores) | variables
                if section == "start":  # the first empty, then with what the first left
                    environment["XDG_CACHE_HOME"] = caches
                request = {"settings": dataclasses.asdict(settings), "section": section}
                try:
                    answer = run_process(request | {"mode": mode, "name": name}, environment)
                except ProcessError as error:
                    failed = Row(section, name or "all", mode, "process", status=rows.FAILED)
                    failed.reason = str(error)
                    rows.merge(of_section, [failed])
                    continue
                rows.merge(of_section, [rows.from_document(row) for row in answer["rows"]])
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
    parser.add_argument("--rounds", type=int, default=0, metavar="N", help="laps of each case, 1 or more")
    options = parser.parse_args(arguments)
    options.sections = [name.strip() for name in options.sections.split(",")]
    for name in options.sections:
        if name not in cases.SECTIONS:
            parser.error(f"--sections has {name!r}; expected some of {known}")
    if options.rounds < 0:
        parser.error(f"--rounds={options.rounds}; expected 1 or more")
    if options.json is not None and not options.json.absolute().parent.is_dir():
        directory = options.json.absolute().parent
        parser.error(f"--json={options.json}: {directory} is not a directory; make it, or give another")
    return options


def _head(described: dict[str, Any], settings: Settings) -> str:
    """What the figures belong to."""
    quick = " (quick: the figures mean nothing)" if settings.quick else ""
    return "\n".join(
        [
            f"kernelgan benchmarks, suite {settings.suite}{quick}, {time.strftime('%Y-%m-%d %H:%M %Z')}",
            described["machine"]["words"],
            ", ".join(f"{name} {version}" for name, version in described["versions"].items()),
            "float32 unless a row says TF32; ratios are medians of the rounds', and above 1 is faster",
            "",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, writes; returns the exit status."""
    options = _parse(arguments)
    begin = time.time()
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
    suite = options.suite or ("cpu" if described["machine"]["platform"] == "cpu" else "gpu")
    changes = {"rounds": options.rounds} if options.rounds else {}
    settings = cases.settings_for(suite, quick=options.quick, **changes)
    print(_head(described, settings), flush=True)
    found = measure(settings, options.sections, cores)
    judged = goals.judge(suite, found)
    print(goals.table(judged))
    if options.json:
        document = described | {
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(begin)),
            "seconds": time.time() - begin,
            "settings": dataclasses.asdict(settings),
            "rows": [row.document() for row in found],
            "goals": judged,
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    bad = [row for row in found if row.status in rows.BAD]
    for row in bad:
        print(f"{row.status}: {row.section}, {row.mode}: {row.name}: {row.reason}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

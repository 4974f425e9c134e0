"""Tables, figures and the page, from what a run saved; nothing is computed again here."""

import sys
from pathlib import Path

from kernelgan.progress import Progress
from kernelgan.report.sections import REPORT_FILE, write_report
from kernelgan.report.terminal import table
from kernelgan.results import RESULTS_FILE, read_results

__all__ = ["REPORT_FILE", "show", "table", "write_report"]


def show(workdir: Path, *, writes: bool = True) -> Path:
    """Prints a finished run's table and says where its report is; one older than the results is made anew.

    Args:
      workdir: of the run.
      writes: whether it can be written; if not, the report stays as it is.
    """
    path = workdir / REPORT_FILE
    if writes and (
        not path.exists() or path.stat().st_mtime_ns < (workdir / RESULTS_FILE).stat().st_mtime_ns
    ):
        progress = Progress("report")
        progress.begin()
        path = write_report(workdir)
        progress.close("done")
    print(table(read_results(workdir), color=sys.stdout.isatty()), flush=True)
    print(f"\nreport: {path}" + ("" if path.exists() else f" is missing; {workdir} cannot be written"))
    return path

"""Tables, figures and the page, from what a run saved; nothing is ever computed again here."""

from kernelgan.report.page import REPORT_FILE, show, write_report
from kernelgan.report.terminal import table

__all__ = ["REPORT_FILE", "show", "table", "write_report"]

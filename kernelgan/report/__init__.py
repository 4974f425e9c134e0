"""Tables, figures and the page, from what a run saved; nothing is ever computed again here."""

from kernelgan.report.page import write_report
from kernelgan.report.terminal import table

__all__ = ["table", "write_report"]

"""The report: one HTML file to look at, the verdict first, then the figures behind it, the mistakes and the cost."""

from transferlib.report.html import write_report

__all__ = ["write_report"]

"""Run the notebooks and build the report."""

from xai_utils.workbook import execute, runs

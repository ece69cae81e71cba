"""The report: pages under ``site/`` from the executed notebooks."""

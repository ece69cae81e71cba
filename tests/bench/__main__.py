"""Time the methods: ``python -m tests.bench`` prints one table of ratios, all measured in one run.

Times are seconds of the processor on one thread, medians of runs taken in turn after one warm-up, so that other work on
the machine hardly counts. ``--quick`` makes everything smaller; its ratios are only a rough guide.
"""

from __future__ import annotations

import argparse

import torch

from tests.bench import (
    bench_attention,
    bench_capture,
    bench_diffusion,
    bench_flow,
    bench_gender,
    bench_methods,
    bench_relevance,
)
from xai_utils import runtime

COLUMNS = ("case", "ours", "compared with", "seconds", "theirs (s)", "ratio", "target")


def flow_rows() -> list[dict[str, object]]:
    """Put the rows of :mod:`bench_flow` under the columns of this table."""
    return [
        {
            "case": row["case"],
            "ours": "flow",
            "compared with": "networkx, pair by pair" if row["networkx (s)"] else "",
            "seconds": row["ours (s)"],
            "theirs (s)": row["networkx (s)"],
            "ratio": row["ours (s)"] / row["networkx (s)"] if row["networkx (s)"] else None,  # type: ignore[operator]
        }
        for row in bench_flow.rows()
    ]


def markdown(rows: list[dict[str, object]]) -> str:
    """Write the rows as one table, numbers with three digits and missed targets marked."""
    lines = [" | ".join(COLUMNS), " | ".join("---" for _ in COLUMNS)]
    for row in rows:
        shown = []
        for column in COLUMNS:
            value = row.get(column)
            shown.append("" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value))
        if row.get("target"):
            missed = float(row["ratio"]) > float(row["target"])  # type: ignore[arg-type]
            shown[-1] = f"≤ {row['target']:g}{' (missed)' if missed else ''}"
        lines.append(" | ".join(shown))
    return "\n".join(f"| {line} |" for line in lines)


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller inputs, fewer repeats")
    names = ("capture", "methods", "relevance", "diffusion", "flow", "attention", "gender")
    parser.add_argument("--only", choices=names, help="one part of the table")
    arguments = parser.parse_args()
    runtime.quiet()
    torch.set_num_threads(1)
    parts = {
        "capture": lambda: bench_capture.rows(arguments.quick),
        "methods": lambda: bench_methods.rows(arguments.quick),
        "gender": lambda: bench_gender.rows(arguments.quick),
        "relevance": lambda: bench_relevance.rows(arguments.quick),
        "diffusion": lambda: bench_diffusion.rows(arguments.quick),
        "flow": flow_rows,
        "attention": lambda: bench_attention.rows(arguments.quick),
    }
    chosen = [arguments.only] if arguments.only else list(parts)
    print(markdown([row for name in chosen for row in parts[name]()]))


if __name__ == "__main__":
    main()

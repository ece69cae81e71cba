"""The one command line: ``python -m xai_utils figures | golden | report | sweep | leaderboard | summary | train``.

Every command is a function below that takes the parsed options and returns the exit code: 0 all well, 1 something was
done but not all of it, 2 nothing could be done (one line says why), 130 interrupted. What a command needs is imported
when it runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from xai_utils import files

INTERRUPTED = "\ninterrupted; what had finished is kept, and the same command continues."


def figures(options: argparse.Namespace) -> int:
    """Execute copies of the notebooks under runs/ and write the figures; continues where it stopped."""
    from xai_utils.workbook import execute, runs

    return execute.report(execute.figures(runs.places(), options.run, options.only, options.force))


def golden(options: argparse.Namespace) -> int:
    """Re-execute the committed notebooks in place, with their own parameters, and clean them for git."""
    from xai_utils.workbook import execute, runs

    return execute.report(execute.golden(runs.places(), options.only))


def report(options: argparse.Namespace) -> int:
    """Build the report's pages from the executed notebooks; executes nothing."""
    from xai_utils.workbook.report import build

    begun = time.perf_counter()
    counts = build.build(files.ROOT, options.out.absolute())
    said = ", ".join(f"{number} {name}" for name, number in counts.items() if name != "leaderboard")
    lines = f"{counts['leaderboard']} lines of the leaderboard" if counts["leaderboard"] else "no leaderboard yet"
    print(f"{said}, {lines}; {time.perf_counter() - begun:.1f} s. Open {options.out / 'index.html'}")
    return 0


def sweep(options: argparse.Namespace) -> int:
    """Score what a plan lists, in parts that survive an interruption, and write one table."""
    from xai_utils import runtime
    from xai_utils.sweep import cluster, plan, runner

    runtime.quiet()
    listed = plan.read(options.plan)
    where = cluster.Where(options.workers, options.scheduler, join=options.join)
    outcome = runner.run(listed, where=where, again=options.again, finished_only=options.finished_only)
    file = options.out or runner.FOLDER / f"{listed.name}.parquet"
    runner.collect(outcome, listed, file)
    return runner.report(outcome, file)


def leaderboard(options: argparse.Namespace) -> int:
    """Bundle the tables of finished sweeps as the leaderboard of notebook 09."""
    from xai_utils.sweep import leaderboard

    out = options.out or leaderboard.FILE
    table = leaderboard.bundle(options.tables, out)
    print(f"{len(table)} rows, {out.stat().st_size / 1e6:.1f} MB")
    return 0


def summary(options: argparse.Namespace) -> int:
    """Sum up a sweep's table for readers: NAME.md, NAME.csv and what made them, NAME.json."""
    from xai_utils.sweep import summary

    summary.write(options.table, options.out)
    return 0


def train(options: argparse.Namespace) -> int:
    """Train a bundled model again, or one of its kind on own texts."""
    from xai_utils.train import loop

    card = loop.command(options.name, options.data, options.out, options.steps, options.threads, options.evaluate_every)
    print(json.dumps(card, indent=1))
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = argparse.ArgumentParser(prog="python -m xai_utils", description="Explaining transformers and Mamba, checked.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(run: object) -> argparse.ArgumentParser:
        told = (run.__doc__ or "").strip()
        one = commands.add_parser(run.__name__, help=told.partition(";")[0].rstrip("."), description=told)  # type: ignore[attr-defined]
        one.set_defaults(run_command=run)
        return one

    drawing = add(figures)
    drawing.add_argument("--run", default="default", help="a name in notebooks/runs.yml")
    drawing.add_argument("--force", action="store_true", help="also what is up to date")
    for one in (drawing, add(golden)):
        one.add_argument("--only", default=[], type=_numbers, help="numbers of notebooks, such as 01,03")
    add(report).add_argument(
        "--out", type=Path, default=files.ROOT / "site", help="folder of the pages (default: site)"
    )
    _sweep_arguments(add(sweep))
    bundling = add(leaderboard)
    bundling.add_argument("tables", nargs="+", type=Path, help="what sweep wrote, such as runs/sweeps/NAME.parquet")
    bundling.add_argument("--out", type=Path, help="default: data/sweeps/leaderboard.parquet")
    summing = add(summary)
    summing.add_argument("table", type=Path, help="what sweep wrote")
    summing.add_argument("--out", type=Path, required=True, help="folder and name, without an ending")
    _train_arguments(add(train))
    return top


def _sweep_arguments(one: argparse.ArgumentParser) -> None:
    one.add_argument("plan", help="a .yml file, such as sweeps/small.yml")
    one.add_argument("--workers", type=int, default=1, help="processes on this machine")
    one.add_argument("--scheduler", default="", help="address of a Dask scheduler, such as tcp://10.0.0.1:8786")
    one.add_argument("--join", type=float, default=60.0, help="seconds to wait for its first worker")
    one.add_argument("--again", action="store_true", help="also try what failed before")
    one.add_argument("--finished-only", action="store_true", help="write the table of what is finished, and stop")
    one.add_argument("--out", type=Path, help="the table; runs/sweeps/NAME.parquet by default")


def _train_arguments(one: argparse.ArgumentParser) -> None:
    one.add_argument("name", help="bundled model to train again, such as vit-scenes")
    one.add_argument("--threads", type=int, help="torch threads (default: torch's choice)")
    one.add_argument("--steps", type=int, help="shorter or longer than the recipe")
    one.add_argument("--evaluate-every", type=int, default=0, help="print accuracies every so many steps")
    one.add_argument("--data", help="of attention-sst2 (sst2, imdb, an own file) and minilm-mlm; needs --out")
    one.add_argument("--out", type=Path, help="folder to write (default: data/models/NAME)")


def _numbers(text: str) -> list[str]:
    return text.replace(",", " ").split()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the only place where an error becomes a line and an exit code."""
    options = parser().parse_args(arguments)
    try:
        return int(options.run_command(options))
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

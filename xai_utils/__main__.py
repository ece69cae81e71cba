"""The one command line: ``python -m xai_utils COMMAND``; without one, the list of commands.

Every command is a function below that takes the parsed options and returns the exit code. What a command needs is
imported when it runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
import time
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from xai_utils import files

PROGRAM = "python -m xai_utils"
CODES = "Exit codes: 0 all well; 1 done in part; 2 nothing was done, one line says why; 130 interrupted."


def figures(options: argparse.Namespace) -> int:
    """Execute copies of the notebooks under runs/ and write the figures; continues where it stopped."""
    from xai_utils.workbook import compare, execute, runs

    here = runs.places()
    if options.compare:
        return compare.report(compare.differences(options.compare, here.figures))
    found = execute.figures(here, options.run, options.only, options.force, options.jobs, options.limit)
    return execute.report(found, runs.target(here, options.run))


def golden(options: argparse.Namespace) -> int:
    """Re-execute the committed notebooks in place, with their own parameters, and clean them for git."""
    from xai_utils.workbook import execute, runs

    here = runs.places()
    return execute.report(execute.golden(here, options.only, options.jobs, options.limit), here.figures)


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
    """Bundle the tables of finished sweeps as the leaderboard of notebook 09, and sum it up; without any, sum up."""
    from xai_utils.sweep import leaderboard, standings

    out = options.out or leaderboard.FILE
    if options.tables:
        leaderboard.bundle(options.tables, out)
    found = standings.write(out, out.with_suffix(""))
    print(f"{len(found)} standings in {out.stem}.csv, of {out.name}, {out.stat().st_size / 1e6:.1f} MB")
    return 0


def summary(options: argparse.Namespace) -> int:
    """Sum up a sweep's table for readers: NAME.md, NAME.csv and what made them, NAME.json."""
    from xai_utils.sweep import standings

    standings.write(options.table, options.out, readers=True)
    return 0


def train(options: argparse.Namespace) -> int:
    """Train a bundled model again, or one of its kind on own texts; continues from its last checkpoint."""
    from xai_utils.train import loop

    card = loop.command(
        options.name, options.data, options.out, options.steps, options.threads, options.evaluate_every, options.seed
    )
    print(json.dumps(card, indent=1))
    return 0


def app(options: argparse.Namespace) -> int:
    """Serve the explorer alone, to this machine's browser only; the printed address holds its token."""
    from xai_utils.workbook import serve

    serve.serve(options.port, not options.no_browser, options.notebook or serve.NOTEBOOK)
    return 0


def architectures(options: argparse.Namespace) -> int:
    """Try every method on a tiny model of every family of architectures, and write what works; a few minutes."""
    from xai_utils import runtime
    from xai_utils.survey import architectures as survey

    runtime.quiet()
    found = survey.survey(options.only)
    only = f' --only "{";".join(options.only)}"' if options.only else ""
    survey.written(found, options.out, f"{PROGRAM} architectures{only}")
    counts = ", ".join(f"{count} {result}" for result, count in found["result"].value_counts().items())
    print(f"{found['family'].nunique()} families, {len(found)} rows: {counts}; in {options.out.with_suffix('.csv')}")
    return int((found["result"] == "wrong").any())


COMMANDS = {
    run.__name__: run for run in (figures, golden, report, sweep, leaderboard, summary, train, app, architectures)
}
KEPT = "; what had finished is kept, and the same command continues"
INTERRUPTED = {"figures": KEPT, "sweep": KEPT, "train": "; the same command continues from the last checkpoint, if any"}


class Parser(argparse.ArgumentParser):
    """Leave it to :func:`main` to say what is wrong, in one line."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print."""
        raise ValueError(f"{message}; see `{self.prog} --help`.")


def parser() -> Parser:
    """Return the parser of all commands."""
    top = Parser(prog=PROGRAM, description="Explaining transformers and Mamba, checked.", epilog=CODES)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    made = {}
    for name, run in COMMANDS.items():
        told = (run.__doc__ or "").strip()
        made[name] = commands.add_parser(name, help=told.partition(";")[0].rstrip("."), description=told, epilog=CODES)
        made[name].set_defaults(parser=made[name])
    made["figures"].add_argument("--run", default="default", metavar="NAME", help="a set in notebooks/runs.yml")
    made["figures"].add_argument(
        "--compare", type=Path, metavar="FOLDER", help="draw nothing; list the figures that are not as in FOLDER"
    )
    made["figures"].add_argument("--force", action="store_true", help="also what is up to date")
    for name in ("figures", "golden"):
        made[name].add_argument(
            "--only", default=[], type=_numbers, metavar="NUMBERS", help="of notebooks, such as 01,03 (default: all)"
        )
        made[name].add_argument("--jobs", type=count, metavar="N", help="notebooks at once (default: one a core)")
        made[name].add_argument(
            "--limit", type=float, default=1800.0, metavar="SECONDS", help="that one cell may take (default: 1800)"
        )
    made["report"].add_argument(
        "--out", type=Path, default=files.ROOT / "site", metavar="FOLDER", help="of the pages (default: site)"
    )
    _sweep_arguments(made["sweep"])
    made["leaderboard"].add_argument("tables", nargs="*", type=Path, help="what sweep wrote: runs/sweeps/NAME.parquet")
    made["leaderboard"].add_argument("--out", type=Path, help="the table (default: data/sweeps/leaderboard.parquet)")
    made["summary"].add_argument("table", type=Path, help="what sweep wrote: runs/sweeps/NAME.parquet")
    made["summary"].add_argument("--out", type=Path, required=True, help="folder and name, without an ending")
    _train_arguments(made["train"])
    made["architectures"].add_argument(
        "--only", default=[], type=lambda text: [one.strip() for one in text.split(";")], metavar="NAMES",
        help='of families, such as "BERT;Llama" (default: all)',
    )  # fmt: skip
    made["architectures"].add_argument(
        "--out", type=Path, default=files.DATA / "architectures", help="the table (default: data/architectures.csv)"
    )
    made["app"].add_argument("--port", type=count, default=8866, metavar="N", help="on 127.0.0.1 (default: 8866)")
    made["app"].add_argument("--no-browser", action="store_true", help="print the address only")
    made["app"].add_argument("--notebook", type=Path, help="to show instead of the explorer alone")
    return top


def _sweep_arguments(one: argparse.ArgumentParser) -> None:
    one.add_argument("plan", help="a .yml file, such as sweeps/small.yml")
    one.add_argument("--workers", type=count, default=1, metavar="N", help="processes on this machine (default: 1)")
    one.add_argument("--scheduler", default="", metavar="ADDRESS", help="of Dask, such as tcp://10.0.0.1:8786")
    one.add_argument("--join", type=float, default=60.0, metavar="SECONDS", help="for its first worker (default: 60)")
    one.add_argument("--again", action="store_true", help="also try what failed before")
    one.add_argument("--finished-only", action="store_true", help="write the table of what is finished, and stop")
    one.add_argument("--out", type=Path, help="the table (default: runs/sweeps/NAME.parquet)")


def _train_arguments(one: argparse.ArgumentParser) -> None:
    bundled = sorted(card.parent.name for card in (files.DATA / "models").glob("*/card.json"))
    one.add_argument("name", help=f"bundled model to train again: {', '.join(bundled)}")
    one.add_argument("--threads", type=count, metavar="N", help="of torch (default: torch's choice)")
    one.add_argument("--steps", type=count, metavar="N", help="shorter or longer than the recipe")
    one.add_argument("--seed", type=int, metavar="N", help="another one than the recipe's; needs --out")
    one.add_argument("--evaluate-every", type=count, default=0, metavar="N", help="print accuracies every N steps")
    one.add_argument(
        "--data", help="own texts: attention-sst2 (sst2, imdb or a file), minilm-mlm (a file or folder); needs --out"
    )
    one.add_argument("--out", type=Path, metavar="FOLDER", help="to write (default: data/models/NAME)")


def count(text: str) -> int:
    """Read a number of one or more."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than one")
    return int(text)


def _numbers(text: str) -> list[str]:
    return text.replace(",", " ").split()


def read(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; ``ValueError`` says what is not known and what may have been meant."""
    command = arguments[0]
    if not command.startswith("-") and command not in COMMANDS:
        raise ValueError(f"no command {command!r}.{_meant(command, COMMANDS)} Commands: {', '.join(COMMANDS)}.")
    options, unknown = parser().parse_known_args(arguments)
    if unknown:
        meant = _meant(unknown[0], re.findall(r"--[\w-]+", options.parser.format_usage()))
        raise ValueError(f"{command} does not know {' '.join(unknown)}.{meant} See `{PROGRAM} {command} --help`.")
    return options


def _meant(name: str, there: Iterable[str]) -> str:
    near = get_close_matches(name, list(there), 1)
    return f" Did you mean {near[0]}?" if near else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the only place where an error becomes a line and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that has no ≥ still gets its line
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given:
        parser().print_help()
        return 2
    try:
        options = read(given)
        return COMMANDS[options.command](options)
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        print(f"error: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\ninterrupted{INTERRUPTED.get(given[0], '')}.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

"""The ``pgm-sync`` command. Imports wait until a subcommand needs them, so that ``--help`` is quick."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .tasks.demo import Demo

INTERRUPTED = 130  # what a shell reports for Ctrl-C
BAD_INPUT = 2
OPTIONS = {  # of the demo
    "width": "of the pictures, in pixels (default: 96)",
    "height": "of the pictures, in pixels (default: 24)",
    "stride": "pixels between windows (default: three quarters of a window)",
    "modes": "cosine modes per window and channel that are coupled (default: 4)",
    "steps": "denoising steps (default: 30)",
    "samples": "pictures per method (default: 128)",
    "seed": "of everything random (default: 0)",
    "device": "torch device (default: cpu)",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, 2 after a named error, 130 after Ctrl-C."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except KeyboardInterrupt:
        print("interrupted; files already written are complete", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe, head for example, has seen enough
        sys.stderr.close()
        return 0
    except Exception as error:
        from .errors import PgmSyncError

        if not isinstance(error, PgmSyncError | OSError):
            raise
        print(f"pgm-sync: {' '.join(_message(error).split())}", file=sys.stderr)
        return BAD_INPUT


def _message(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        missing = error.filename or str(error).removeprefix("No such file or directory: ")  # of safetensors
        return f"there is no file {str(missing)!r}"
    return str(error)


class _Version(argparse.Action):
    """Looks the version up when asked, not at start."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"pgm_sync {version('pgm_sync')}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pgm-sync",
        description="Sample several diffusion trajectories together through learned Gaussian potentials.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    demo = commands.add_parser(
        "demo",
        help="learn correlations from photographs and sample wide pictures with them",
        description="Learn the correlations between windows from the embedded photographs; sample wide "
        "pictures from the embedded patch denoiser with the learned potentials, by averaging, and window by "
        "window; measure all three against held-out photographs; write pictures, the fitted graph, the "
        "numbers and a report.",
    )
    folder = Path("pgm_sync_demo")
    what = f"where files go (default: {folder})"
    demo.add_argument("--out", type=Path, default=folder, metavar="DIR", help=what)
    for name, what in OPTIONS.items():
        demo.add_argument(
            f"--{name}",
            type=str if name == "device" else int,
            default=argparse.SUPPRESS,  # the defaults are those of the task, imported only when it runs
            metavar="NAME" if name == "device" else "N",
            help=what,
        )
    wrap = "close the pictures to 360 degrees"
    demo.add_argument("--wrap", action="store_true", default=argparse.SUPPRESS, help=wrap)
    demo.add_argument("--quiet", action="store_true", help="no progress bars")
    demo.set_defaults(run=_demo)

    run = commands.add_parser(
        "run",
        help="sample a task by one method",
        description="Sample a task by one method, ours or published; write a sheet of pictures, the samples and a "
        "record of the run.",
    )
    run.add_argument("task", metavar="TASK", help="wide, ambiguous, motion, ...; an unknown name lists them")
    run.add_argument("--method", default="learned", help="an unknown name lists them (default: learned)")
    _common(run, samples=6, folder="pgm_sync_run")
    run.set_defaults(run=_run)

    compare = commands.add_parser(
        "compare",
        help="measure methods on tasks, from the same seeds",
        description="Sample tasks by ours and by published methods from the same seeds, and measure them: a table "
        "with intervals and costs, a sheet of pictures per task, and ranks. What DIR has already is not run again.",
    )
    compare.add_argument("tasks", nargs="+", metavar="TASK", help="one or more; an unknown name lists them")
    compare.add_argument("--methods", metavar="A,B,...", help="default: all that apply to the task")
    compare.add_argument(
        "--validation", type=int, default=64, metavar="N", help="seeds to tune published methods on (default: 64)"
    )
    _common(compare, samples=200, folder="pgm_sync_compare")
    compare.set_defaults(run=_compare)

    graph = commands.add_parser("graph", help="print a saved graph")
    graph.add_argument("file", type=Path, metavar="FILE", help=".safetensors or .json, written by graph.save")
    graph.set_defaults(run=_graph)

    inspect = commands.add_parser(
        "inspect",
        help="print the correlations of a fitted graph or a run, and write a report",
        description="Print the correlations of a saved graph, and write a report: the graph, what acts at which noise "
        "level, what if a factor were cut, and, of a run, what happened step by step. The report is one file that "
        "needs no network.",
    )
    inspect.add_argument(
        "file", type=Path, metavar="FILE", help="written by graph.save, or the folder of a run, a demo or a recording"
    )
    inspect.add_argument("--compare", type=Path, metavar="OTHER", help="another of these, to compare with")
    inspect.add_argument("--html", type=Path, metavar="OUT", help="where the report goes (default: beside FILE)")
    inspect.add_argument("--open", action="store_true", help="open the report in a browser")
    inspect.set_defaults(run=_inspect)
    return parser


def _common(parser: argparse.ArgumentParser, samples: int, folder: str) -> None:
    """The options of run and compare."""
    add = parser.add_argument
    add("--samples", type=int, default=samples, metavar="N", help=f"joint samples (default: {samples})")
    add("--steps", type=int, default=50, metavar="N", help="denoising steps (default: 50)")
    add("--seed", type=int, default=0, metavar="N", help="of the first sample (default: 0)")
    add("--batch", type=int, metavar="N", help="joint samples at once (default: all)")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the task, such as width=240")
    add("--out", type=Path, default=Path(folder), metavar="DIR", help=f"where files go (default: {folder})")
    add("--quiet", action="store_true", help="no progress bars")


def _settings(given: Sequence[str]) -> dict[str, object]:
    """NAME=VALUE as settings; values are numbers, true, false, null, lists by commas, or words."""
    import json

    from .errors import ParameterError

    def value(text: str) -> object:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return tuple(map(value, text.split(","))) if "," in text else text

    found = {}
    for entry in given:
        name, equals, text = entry.partition("=")
        if not equals:
            raise ParameterError(f"--set {entry}: write NAME=VALUE")
        found[name] = value(text)
    return found


def _run(arguments: argparse.Namespace) -> int:
    from . import tasks
    from .tasks.run import recorder, sample_method, write_run

    task = tasks.load(arguments.task, **_settings(arguments.set))
    recorded = recorder(task, arguments.method)
    watched: dict[str, Any] = {} if recorded is None else {"on_step": recorded}
    made = sample_method(
        task, arguments.method, arguments.samples, arguments.steps, arguments.seed, batch=arguments.batch,
        progress=not arguments.quiet, **watched,
    )  # fmt: skip
    recording = None if recorded is None else recorded.recording
    for path in write_run(task, arguments.method, made, arguments.steps, arguments.out, recording):
        print(path)
    print(f"\npgm-sync inspect {arguments.out} reports what its trajectories knew of each other")
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from . import tasks
    from .evaluation import Scoreboard
    from .tasks.run import compare

    board = Scoreboard(arguments.out / "cells.json")
    chosen = arguments.methods.split(",") if arguments.methods else None
    loaded = [tasks.load(name, **_settings(arguments.set)) for name in arguments.tasks]
    for task in loaded:
        made = compare(
            task, chosen, arguments.samples, arguments.steps, arguments.seed, validation=arguments.validation,
            batch=arguments.batch, board=board, progress=not arguments.quiet,
        )  # fmt: skip
        for path in made.write(arguments.out):
            print(path)
    for path in board.write(arguments.out):
        print(path)
    print(f"\n{board.to_markdown()}")
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from .tasks.demo import SAMPLES, STEPS, run
    from .tasks.wide import Wide

    given = {name: value for name, value in vars(arguments).items() if name in (*OPTIONS, "wrap")}
    steps, samples = given.pop("steps", STEPS), given.pop("samples", SAMPLES)
    task = Wide(**given)

    def keep(stage: str, so_far: Demo) -> None:
        for path in so_far.write(arguments.out, stage):
            print(path)

    made = run(task, steps, samples, task.seed, not arguments.quiet, keep)
    print(f"\n{made.summary()}\n\nopen {arguments.out / 'report.html'} in a browser")
    return 0


def _graph(arguments: argparse.Namespace) -> int:
    from .graph import FactorGraph

    print(FactorGraph.load(arguments.file))
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    from .inspection.inspect import inspect

    path, other = arguments.file, arguments.compare
    command = f"pgm-sync inspect {path.name}" + (f" --compare {other.name}" if other else "")
    names = (path.name, other.name if other else "")
    found = inspect(path, other, names=names, command=command)
    print(found)
    if other:
        print(f"\n{found.tables['difference']}")
    out = arguments.html or (path / "inspection.html" if path.is_dir() else path.with_suffix(".html"))
    print(f"\n{found.save(out)}")
    if arguments.open:
        import webbrowser

        webbrowser.open(out.resolve().as_uri())
    return 0


if __name__ == "__main__":
    sys.exit(main())

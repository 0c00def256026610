"""The ``pgm-sync`` command. Imports wait until a subcommand needs them, so that ``--help`` is quick."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .tasks.demo import WideRun

INTERRUPTED = 130  # what a shell reports for Ctrl-C
BAD_INPUT = 2
OPTIONS = {  # of the demo
    "width": "of the pictures, in pixels (default: 96)",
    "height": "of the pictures, in pixels (default: 24)",
    "stride": "pixels between windows (default: three quarters of a window)",
    "modes": "cosine modes per window and channel that are coupled (default: 4)",
    "steps": "denoising steps (default: 60)",
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
        return f"there is no file {str(error.filename or error)!r}"
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
            dest="num_samples" if name == "samples" else name,
            type=str if name == "device" else int,
            default=argparse.SUPPRESS,  # the defaults are those of WideConfig, imported only when it runs
            metavar="NAME" if name == "device" else "N",
            help=what,
        )
    demo.add_argument("--wrap", action="store_true", help="close the pictures to 360 degrees")
    demo.add_argument("--quiet", action="store_true", help="no progress bars")
    demo.set_defaults(run=_demo)

    graph = commands.add_parser("graph", help="print a saved graph")
    graph.add_argument("file", type=Path, metavar="FILE", help=".safetensors or .json, written by graph.save")
    graph.set_defaults(run=_graph)

    inspect = commands.add_parser("inspect", help="print the correlations of a saved fitted graph")
    inspect.add_argument("file", type=Path, metavar="FILE", help="written by graph.save, or by the demo")
    inspect.add_argument("--html", type=Path, metavar="OUT", help="also write a report with the graph drawn")
    inspect.set_defaults(run=_inspect)
    return parser


def _demo(arguments: argparse.Namespace) -> int:
    from .tasks.demo import WideConfig, run

    fields = {field.name for field in dataclasses.fields(WideConfig)}
    config = WideConfig(**{name: value for name, value in vars(arguments).items() if name in fields})

    def keep(stage: str, so_far: WideRun) -> None:
        for path in so_far.write(arguments.out, stage):
            print(path)

    made = run(config, progress=not arguments.quiet, on_stage=keep)
    print(f"\n{made.summary()}\n\nopen {arguments.out / 'report.html'} in a browser")
    return 0


def _graph(arguments: argparse.Namespace) -> int:
    from .graph import FactorGraph

    print(FactorGraph.load(arguments.file))
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    from .graph import FactorGraph
    from .inspection.correlations import correlations

    graph = FactorGraph.load(arguments.file)
    table = correlations(graph)
    print(table)
    if arguments.html:
        from .graph.serialization import write_atomically
        from .inspection.report import report
        from .learning import Fit

        page = report(
            f"Correlations of {arguments.file.name}",
            graph=graph,
            table=table,
            parameters={"Fit": Fit.of(graph).settings()} if graph.graph.get("fit") else None,
            command=f"pgm-sync inspect {arguments.file.name} --html {arguments.html.name}",
        )
        write_atomically(arguments.html, page.encode())
        print(f"\n{arguments.html}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

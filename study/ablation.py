"""``python -m study.ablation``: run an ablation study and report it."""

import argparse
import sys
from collections.abc import Sequence

from study.command import SLOTS, add_json, count, folder_name, number, positive, start
from study.settings.choices import MOST_SEEDS, NEGLIGIBLE


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Return the exit status."""
    options = _parser().parse_args(argv)
    return start("ablation", options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="python -m study.ablation",
        description="Run an ablation study of sparse transfer learning; run the same command again to resume.",
    )
    parser.add_argument("--preset", default="digits", help="a preset's name or a YAML file (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override, e.g. transfer.tau=2")
    parser.add_argument("--ablate", metavar="AXES", help="axes in addition to the preset's ablations, e.g. tau,lambda")
    help_ = "a custom axis, e.g. transfer.train.learning_rate=0.01,0.02; may be repeated"
    parser.add_argument("--vary", action="append", default=[], metavar="KEY=VALUES", help=help_)
    help_ = "tune each net separately over these values, e.g. transfer.train.learning_rate=0.01,0.02; may be repeated"
    parser.add_argument("--tune", action="append", default=[], metavar="KEY=VALUES", help=help_)
    help_ = "settings that each net tries (default: 8)"
    parser.add_argument("--budget", type=positive, metavar="N", help=help_)
    parser.add_argument("--list-axes", action="store_true", help="print the axes with their points and stop")
    parser.add_argument("--yes", action="store_true", help="run even a very large study without asking")
    parser.add_argument("--seeds", type=positive, metavar="N", help="number of seeds (0 to N-1)")
    parser.add_argument("--until-settled", action="store_true", help="add seeds until S and K are settled")
    parser.add_argument("--most-seeds", type=positive, metavar="N", help=f"but no more (default: {MOST_SEEDS})")
    parser.add_argument("--hours", type=number, metavar="H", help="and start no round that would end later")
    help_ = f"points of accuracy that count as no difference (default: {NEGLIGIBLE}); 0: none do"
    parser.add_argument("--negligible", type=number, metavar="POINTS", help=help_)
    parser.add_argument("--storage", default="results", help="folder or URI of all results (default: %(default)s)")
    parser.add_argument("--name", type=folder_name, help="name of the study's folder (default: the preset's name)")
    parser.add_argument("--slots", type=count, metavar="N", help=SLOTS)
    parser.add_argument("--address", help="address of a running Ray cluster (default: Ray is started here)")
    parser.add_argument("--dashboard", action="store_true", help="start the Ray dashboard too")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and what is stored, and train nothing")
    parser.add_argument("--show-config", action="store_true", help="print every key, its value and meaning, and stop")
    parser.add_argument("--explain", metavar="KEY", help="print what a key means, e.g. transfer.tau, and stop")
    parser.add_argument("--list-presets", action="store_true", help="print the presets and stop")
    add_json(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""``python -m study.show``: the nets of a study, and where a number comes from, down to the stored nets."""

import argparse
import sys
from collections.abc import Sequence

from study.command import add_json, seconds, start


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Return the exit status."""
    parser = _parser()
    options = parser.parse_args(argv)
    if (options.table is None) != (options.row is None):
        parser.error("give STUDY, TABLE and ROW: digits table1 Hybrid-TransferNet")
    return start("show", options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="python -m study.show",
        description="List the studies of a storage, show the nets of a study (also while it runs), or show where a "
        "stored stage or a row of a table comes from: ancestry, settings, accuracies and provenance.",
    )
    parser.add_argument(
        "what", nargs="?", metavar="WHAT", help="a study, STUDY:NET:SEED, or a stage's key or the beginning of one"
    )
    parser.add_argument("table", nargs="?", metavar="TABLE", help="with a study: a table, as its files name it")
    parser.add_argument("row", nargs="?", metavar="ROW", help="what stands first in a row of it, or its number from 1")
    help_ = "show the study again every SECONDS while it runs (default: %(const)s)"
    parser.add_argument("--watch", nargs="?", type=seconds, const=2.0, metavar="SECONDS", help=help_)
    parser.add_argument("--storage", default="results", help="folder or URI of all results (default: %(default)s)")
    add_json(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())

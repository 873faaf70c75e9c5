"""``python -m study.show``: where a stored stage comes from, back to the reference, and what it was made with."""

import argparse
import sys
from collections.abc import Sequence

from study.command import start


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit status."""
    options = _parser().parse_args(argv)
    return start("show", options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m study.show",
        description="Show where a stored stage comes from: its ancestry, settings, accuracies and provenance.",
    )
    parser.add_argument("stage", metavar="KEY", help="a stage's key, the beginning of one, or STUDY:NET:SEED")
    parser.add_argument("--storage", default="results", help="folder or URI of all results (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())

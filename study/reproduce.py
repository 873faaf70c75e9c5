"""``python -m study.reproduce``: run a report's study again, elsewhere, and compare the two stage by stage."""

import argparse
import sys
from collections.abc import Sequence

from study.command import BAD_INPUT, OK, SLOTS, SOME_FAILED, add_json, count, number, positive, start


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Return the exit status."""
    options = _parser().parse_args(argv)
    return start("reproduce", options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="python -m study.reproduce",
        description="Run a report's study again and compare the two stage by stage.",
        epilog=f"Exit status: {OK} the same, or within the noise of seeds; {SOME_FAILED} not; {BAD_INPUT} bad input.",
    )
    parser.add_argument("report", metavar="REPORT", help="folder or URI of a study, or of its report")
    parser.add_argument("--storage", help="where it is run again (default: results/reproduction-NAME)")
    parser.add_argument("--seeds", type=positive, metavar="N", help="only the first N of the report's seeds")
    help_ = "difference that is none, in percentage points, whatever the noise (default: %(default)s)"
    parser.add_argument("--tolerance", type=number, default=0.0, metavar="POINTS", help=help_)
    help_ = "where data and weights lie here, and resources, e.g. data.root=/data"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=help_)
    parser.add_argument("--slots", type=count, metavar="N", help=SLOTS)
    parser.add_argument("--address", help="address of a running Ray cluster (default: Ray is started here)")
    add_json(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())

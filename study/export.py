"""``python -m study.export``: a net of a study as a file that is small and fast, or a table of how small and fast.

Connections that are pruned are not stored, neurons that are cut off are removed, each inner product gets the kernel
that is the fastest on this machine, and the file that was written is checked against the masked net.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import get_args

from study.command import add_json, positive, start
from trainables.export.formats import RUNTIMES, WeightType


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Return the exit status."""
    parser = _parser()
    options = parser.parse_args(argv)
    if (options.stage is None) == (options.compare is None):
        parser.error("give a stage to export, or --compare STUDY")
    return start("export", options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="python -m study.export",
        description="Write a net of a study to a small file that is executed fast; or compare the nets of a study.",
    )
    parser.add_argument(
        "stage", nargs="?", help="a stage's key, the beginning of one, or STUDY:NET:SEED: digits:Sparse-TargetNet_N:0"
    )
    parser.add_argument("--compare", metavar="STUDY", help="print size and speed of a study's nets, and store a table")
    parser.add_argument("--format", choices=list(RUNTIMES), default="safetensors", help="(default: %(default)s)")
    parser.add_argument(
        "--weights",
        choices=get_args(WeightType),
        default="float32",
        help="how weights are stored (default: %(default)s)",
    )
    parser.add_argument("--storage", default="results", help="folder of all results (default: %(default)s)")
    parser.add_argument("--out", metavar="FILE", help="the file (default: exports/ in the storage)")
    parser.add_argument(
        "--batch", type=positive, default=1, help="images of a pass, to choose kernels for (default: 1)"
    )
    parser.add_argument("--threads", type=positive, default=1, help="threads of the arithmetic (default: 1)")
    parser.add_argument(
        "--tolerance", type=float, help="largest difference to the masked net's outputs, as a share of the largest one"
    )
    help_ = "identifier of the net's licence, for its model card (default: %(default)s)"
    parser.add_argument("--license", default="unknown", metavar="ID", help=help_)
    add_json(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""``python -m study.networks NAME``: a network's layers, as N_m, N_e, masks and shares go by them."""

import argparse
import sys
from collections.abc import Sequence

from study.command import add_json, positive, start


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Return the exit status: 0, or 2 if a stage could not use the network."""
    options = _parser().parse_args(argv)
    return start("networks", options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="python -m study.networks",
        description="Show a network's layers, as N_m, N_e and masks go by them.",
    )
    help_ = "small_alexnet, torchvision:NAME, timm:NAME, module:function, ... (see docs/networks.md)"
    parser.add_argument("name", metavar="NAME", help=help_)
    parser.add_argument("--classes", type=positive, default=10, metavar="N", help="outputs (default: %(default)s)")
    add_json(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())

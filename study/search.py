"""``python -m study.search``: search the hyperparameters of a study with Optuna, and test what was found."""

import argparse
import sys
from collections.abc import Sequence
from typing import get_args

from study.command import SLOTS, add_json, count, folder_name, positive, start
from study.settings.choices import Against, SamplerName


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Return the exit status."""
    options = _parser().parse_args(argv)
    return start("search", options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="python -m study.search",
        description="Search a study's hyperparameters with Optuna; run the same command again to resume.",
    )
    parser.add_argument("--preset", default="digits", help="a preset's name or a YAML file (default: %(default)s)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override, e.g. search.tau=[1,8]"
    )
    parser.add_argument("--trials", type=positive, default=40, metavar="N", help="trials in all (default: %(default)s)")
    parser.add_argument("--minutes", type=positive, metavar="N", help="start no new trial after this time")
    parser.add_argument(
        "--against",
        choices=get_args(Against),
        help="weigh accuracy against the share of connections pruned or against latency: the front of both objectives",
    )
    parser.add_argument(
        "--sampler", choices=get_args(SamplerName), default="tpe", help="Optuna sampler (default: %(default)s)"
    )
    parser.add_argument("--seed", type=count, default=0, help="seed of the sampler (default: %(default)s)")
    parser.add_argument("--no-early-stopping", action="store_true", help="train every trial to its last epoch")
    parser.add_argument("--warm-start", metavar="NAME", help="begin with the best settings of an earlier search")
    parser.add_argument(
        "--explain",
        action="store_true",
        help="then change this study's settings into the best ones, one at a time, and test what each step gains",
    )
    parser.add_argument("--storage", default="results", help="folder of all results (default: %(default)s)")
    parser.add_argument("--name", type=folder_name, help="name of the search (default: the preset's name and -search)")
    parser.add_argument("--slots", type=count, metavar="N", help=SLOTS)
    parser.add_argument("--address", help="address of a running Ray cluster (default: Ray is started here)")
    add_json(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""``python -m study.data``: check the data sets of a preset, and decode them before a study does.

``check`` reports for each data set where it was looked for, what is there, missing or broken, and where to get it;
``prepare`` decodes images and videos now, on this node, so that no trial has to; ``fetch`` downloads the data sets that
torchvision can download. No other command downloads any.
"""

import argparse
import sys
from collections.abc import Sequence

from study.command import add_json, start


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Return the exit status: 0 when all is there, 1 when not, 2 for bad input."""
    options = _parser().parse_args(argv)
    return start("data", options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, prog="python -m study.data", description="Check, fetch or prepare a preset's data sets."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser(
        "check", allow_abbrev=False, help="report what is there, missing or broken, and where to get it"
    )
    check.add_argument("--decode", action=argparse.BooleanOptionalAction, default=True, help="open every file")
    check.add_argument("--quick", action="store_true", help="do not open the files of data sets as large as ImageNet")
    check.add_argument("--classes", action="store_true", help="list every class with its numbers")
    prepare = commands.add_parser("prepare", allow_abbrev=False, help="decode images and videos on this node now")
    fetch = commands.add_parser(
        "fetch", allow_abbrev=False, help="download the data sets named torchvision:... into the data root"
    )
    for command in (check, prepare, fetch):
        command.add_argument("preset", help="a preset's name or a YAML file")
        command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override of the preset")
        add_json(command)
        command.add_argument("--data-root", metavar="FOLDER", help="folder that holds a folder for each data set")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""``python -m analysis STUDY``: print the tables and write the report."""

import argparse
import sys
from collections.abc import Sequence

from analysis import StudyError, load, markdown_summary, write_report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code, 2 when the study can't be reported."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis",
        description="Print a study's tables and write its report (tables, figures, one HTML page).",
    )
    parser.add_argument("study", metavar="STUDY", help="folder or URI of the study, e.g. results/studies/digits")
    parser.add_argument("--out", metavar="DIR", help="folder to write the report into (default: STUDY/report)")
    options = parser.parse_args(arguments)
    try:
        results = load(options.study)
        summary, index = markdown_summary(results), write_report(results, options.out)
    except StudyError as error:
        print(f"analysis: {error}", file=sys.stderr)
        return 2
    if hasattr(sys.stdout, "reconfigure"):
        # A screen that has no ± should show a question mark, not a traceback.
        sys.stdout.reconfigure(errors="replace")
    print(summary)
    print(f"Report: {index}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""``python -m analysis STUDY``: print the tables and write the report.

``compare ONE OTHER`` compares two studies. ``import FILE.csv`` makes tables of results from elsewhere.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis import StudyError, load, markdown_summary, write_report
from analysis.between import Between
from analysis.elsewhere import Columns, Elsewhere, read_runs
from analysis.overview import report_targets, summary_of_targets
from analysis.reporting import report_elsewhere, summary_of_elsewhere, write_table
from analysis.tables import writing
from analysis.tables.between import between_settings, between_table
from analysis.targets import is_on_targets, load_targets
from study.stops import nobody_reads


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code, 2 when the study can't be reported."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if hasattr(sys.stdout, "reconfigure"):
        # A screen that has no ± should show a question mark, not a traceback.
        sys.stdout.reconfigure(errors="replace")
    try:
        # A study's folder comes first, so that no verb is needed to report it; one called import is ./import.
        if given[:1] == ["trace"]:
            raise StudyError("`python -m study.show STUDY TABLE ROW` shows where a row of a table comes from")
        verbs = {"import": _import, "compare": _compare}
        status = verbs[given[0]](given[1:]) if given and given[0] in verbs else _report(given)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        return nobody_reads()
    except StudyError as error:
        print(f"analysis: {error}", file=sys.stderr)
        return 2


def _report(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="python -m analysis",
        description="Print a study's tables and write its report (tables, figures, one HTML page).",
        epilog="python -m analysis compare ONE OTHER compares two studies; "
        "python -m analysis import FILE.csv does with results from elsewhere what this does with a study; "
        "python -m study.show STUDY TABLE ROW shows the stages and nets behind a row of a table.",
    )
    parser.add_argument("study", metavar="STUDY", help="folder or URI of the study, e.g. results/studies/digits")
    parser.add_argument("--out", metavar="DIR", help="folder to write the report into (default: STUDY/report)")
    parser.add_argument("--pdf", action="store_true", help="write figures as PDF, too, for a paper")
    options = parser.parse_args(arguments)
    if is_on_targets(options.study):
        study = load_targets(options.study)
        summary, index = summary_of_targets(study), report_targets(study, options.out, pdf=options.pdf)
    else:
        results = load(options.study)
        summary, index = markdown_summary(results), write_report(results, options.out, pdf=options.pdf)
    print(summary)
    print(f"Report: {index}")
    return 0


def _compare(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="python -m analysis compare",
        description="Compare the nets that two studies have in common, paired by seed, and list the settings that "
        "differ.",
    )
    for name, what in (("one", "a study's folder or URI"), ("other", "the study that is compared with it")):
        parser.add_argument(name, metavar=name.upper(), help=what)
    parser.add_argument("--out", metavar="DIR", help="also write the table there, as Markdown, CSV and LaTeX")
    options = parser.parse_args(arguments)
    both = Between(load(options.one), load(options.other))
    table = between_table(both)
    print(writing.section("Settings that differ", between_settings(both)))
    print(writing.markdown(table))
    if options.out:
        print(f"Table: {write_table(table, options.out)}")
    return 0


def _points(text: str) -> float:
    points = float(text)
    if not 0 < points < 100:
        raise argparse.ArgumentTypeError(f"give points of accuracy above 0, not {text}")
    return points


def _import(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="python -m analysis import",
        description="Compare nets on data sets by the runs in a CSV file, whoever trained them: tables, tests, report.",
    )
    parser.add_argument("file", metavar="FILE.csv", type=Path, help="one run a row, with a heading")
    for option, what in {
        "--data-set": "the data set",
        "--net": "the net, or the method that made it",
        "--seed": "the seed, or anything that tells runs apart",
        "--accuracy": "the accuracy, in percent or as a share",
    }.items():
        name = option[2:].replace("-", "_")
        parser.add_argument(option, metavar="COLUMN", default=name, help=f"column of {what} (default: {name})")
    parser.add_argument("--sparsity", metavar="COLUMN", help="column of the sparsity, if there is one")
    parser.add_argument("--baseline", metavar="NET", required=True, help="the net that all others are compared with")
    parser.add_argument(
        "--margin", metavar="POINTS", type=_points, help="also ask whether a net costs less than POINTS"
    )
    parser.add_argument("--out", metavar="DIR", help="folder to write the report into (default: FILE-report)")
    options = parser.parse_args(arguments)
    columns = Columns(options.data_set, options.net, options.seed, options.accuracy, options.sparsity)
    runs = read_runs(options.file, columns)
    results = Elsewhere(options.file.stem.replace("_", " "), runs, options.baseline, options.margin)
    print(summary_of_elsewhere(results))
    print(f"Report: {report_elsewhere(results, options.out or f'{options.file.stem}-report')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

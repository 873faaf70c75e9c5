"""The report of a study on several targets: what is shown over all of them, and the report of each."""

from collections import Counter
from pathlib import Path

from analysis.nets import outcomes
from analysis.questions import MAIN
from analysis.reporting import (
    failures,
    figure_files,
    inline,
    possible_files,
    rendered,
    table_files,
    write_files,
    write_report,
)
from analysis.statistics.significance import ALPHA
from analysis.tables import targets as target_tables
from analysis.tables import writing
from analysis.tables.table import points_of, points_text, seed_list
from analysis.targets import OverTargets, Targets


def findings(study: Targets) -> list[str]:
    """What the study shows, in sentences: how many comparisons are decided, then S and K over the targets."""
    lines = [doubt for results in study.by_target.values() for doubt in results.facts.doubts]
    lines = list(dict.fromkeys(lines))
    found = [one for own in study.comparisons.values() for one in own]
    if not found:
        return lines
    count = Counter(one.verdict for one in found)
    lines.append(
        f"On {len(study.by_target)} targets, {len(found)} comparisons: {count['better']} are shown to be better, "
        f"{count['worse']} worse, {count['within margin']} to cost less than {points_of(study.margin)}; "
        f"{count['open']} are open (p below {ALPHA} after Holm's correction over all {found[0].family} claims)."
    )
    lines += [_over_targets(one) for one in study.over_targets if _is_main(one)]
    if study.over_targets and all(one.difference.n < study.targets_needed for one in study.over_targets):
        lines.append(f"Over targets: {target_tables.too_few_targets(study)}")
    return lines


def _is_main(one: OverTargets) -> bool:
    return next(iter(one.by_target.values())).question.kind == MAIN


def _over_targets(one: OverTargets) -> str:
    each = "; ".join(f"{target} {target_tables.marked(own)}" for target, own in one.by_target.items())
    mean = f"{points_text(one.difference, ' points')} over {one.difference.n} targets"
    shown = "not shown" if one.verdict == "open" else f"shown to be {one.verdict}"
    return f"{one.name}: {mean}, {shown} over targets. On each: {each}."


def summary_of_targets(study: Targets) -> str:
    """What the study shows and its tables, as Markdown."""
    shows = writing.section("What this study shows", findings(study))
    return "\n".join([shows, *(writing.markdown(table) for table in target_tables.tables(study))])


def report_targets(study: Targets, out: str | Path | None = None, *, pdf: bool = False) -> str:
    """Write the report of each target, and the report over all of them.

    Args:
        study: the study.
        out: folder or URI; each target's report is in a folder of the target's name there. None: each in its place in
            the study's folder.
        pdf: write figures as PDF, too.

    Returns:
        The path or URI of the first page.

    Raises:
        StudyError: a report cannot be written.
    """
    from analysis.figures.targets import targets_figure

    pages = {}
    for target, results in study.by_target.items():
        write_report(results, f"{out}/{target}" if out is not None else None, pdf=pdf)
        pages[target] = f"{target}/index.html" if out is not None else f"../{target}/report/index.html"
    made, plot = target_tables.tables(study), targets_figure(study)
    files = table_files(made)
    pictures = {}
    if plot is not None:
        files |= figure_files(plot, pdf=pdf)
        pictures = {plot.name: {"svg": inline(plot.svg(), plot.name), "caption": plot.caption}}
    first = next(iter(study.by_target.values()))
    files["index.html"] = rendered(
        "targets.html.j2",
        title=study.facts.title,
        first=first.facts,
        seeds=seed_list(first.seeds),
        targets=[
            {
                "name": target,
                "facts": results.facts,
                "page": pages[target],
                "failures": len(failures(results, outcomes(results))),
            }
            for target, results in study.by_target.items()
        ],
        findings=findings(study),
        tables={table.name: table for table in made},
        pictures=pictures,
    ).encode()
    return write_files(files, str(out) if out is not None else study.folder.at("report"), possible_files)

"""The report: every table and figure as a file, and one HTML page that holds them all."""

import json
import re
from collections.abc import Callable, Collection, Iterable
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import pandas as pd

from analysis.axes import axes
from analysis.controls import controls_table
from analysis.current import MADE, record, recorded, stamp
from analysis.elsewhere import Elsewhere
from analysis.findings import conclusions, findings, meaning
from analysis.loading import Results, StudyError, load
from analysis.nets import culprits, off_axis, outcomes
from analysis.search import conclusion, final_test
from analysis.tables import elsewhere, writing
from analysis.tables.accuracy import controls, probes, table1, table3
from analysis.tables.axes import axis_table
from analysis.tables.checklist import checklist, operating_points
from analysis.tables.classes import classes_table
from analysis.tables.comparisons import comparisons_table, further_table
from analysis.tables.costs import costs
from analysis.tables.latex import latex
from analysis.tables.layers import ratios, table2
from analysis.tables.neurips import neurips
from analysis.tables.path import path_table
from analysis.tables.search import search_trials, shortened
from analysis.tables.settings import settings, source_nets
from analysis.tables.streams import fusion_notes, table4, table4_differences
from analysis.tables.table import Table, seed_list
from analysis.tables.tuned import tuned_table, tuning_table
from study.files import Folder, StorageError

if TYPE_CHECKING:
    from analysis.figures.paper import Plot

TABLES = {
    "verdicts": controls_table,
    "comparisons": comparisons_table,
    "further": further_table,
    "table1": table1,
    "table2": table2,
    "table3": table3,
    "table4": table4,
    "table4_differences": table4_differences,
    "controls": controls,
    "probes": probes,
    "tuned": tuned_table,
    "tuning": tuning_table,
    "source_nets": source_nets,
    "settings": settings,
    "classes": classes_table,
    "ratios": ratios,
    "operating_points": operating_points,
    "costs": costs,
}
OVER_TARGETS, TARGETS_MAP = ("targets", "target_comparisons", "over_targets"), "targets_map"
"""Tables and figure of a study on several targets (``analysis.overview``)."""
FIGURES = ("forest", "expected_best", "figure2", "figure3", "layers", "learning_curves", "confusion")
ONLY_IN_REPORT = (
    "comparisons",
    "further",
    "tuning",
    "source_nets",
    "settings",
    "classes",
    "ratios",
    "operating_points",
    "costs",
)
PIXELS_PER_POINT = 1.7
"""Of a figure on the page, at most: what the widest ones get on a wide screen."""
TABLE_ENDINGS, FIGURE_ENDINGS = ("md", "csv", "tex"), ("svg", "pdf", "png", "csv")


def tables(results: Results, without: Collection[str] = ()) -> list[Table]:
    """The tables of :data:`TABLES` that have something to show, ``without`` some; a search's; the axes'.

    Each of :data:`TABLES` is made once for the report, the terminal and the trackers.
    """
    cells, makers = outcomes(results), [make for name, make in TABLES.items() if name not in without]
    made = [results.kept(make, partial(make, results, off_axis(cells))) for make in makers]
    made += [path_table(results), search_trials(results)]
    return [table for table in made if table is not None] + [axis_table(results, axis) for axis in axes(cells)]


def tables_as_csv(results: Results) -> dict[str, str]:
    """The report's tables as CSV texts, by name."""
    return {table.name: writing.csv(table) for table in tables(results)}


def markdown_summary(study: str | Path | Results) -> str:
    """What the study shows and its tables as Markdown, to print when it ends.

    The statistics of the comparisons, source nets, settings, classes, loss ratios, operating points, costs and every
    seed's value are left to the report. Of a search's trials only the best are there, after what the search shows.
    """
    results = study if isinstance(study, Results) else load(study)
    shows = findings(results, brief=True)
    texts = [writing.section("What this study shows", shows)] if shows else []
    for table in tables(results, without=ONLY_IN_REPORT):
        if table.name == "search_trials":
            texts.append(writing.section("Search", conclusion(results, outcomes(results))))
            table = shortened(table)
        texts.append(writing.markdown(table, detail=False))
    return "\n".join(texts)


def report(study: str | Path | Results, out: str | Path | None = None) -> Path:
    """Write the report into a folder on a disk, as :func:`write_report` does; return the path of ``index.html``."""
    return Path(write_report(study, out))


def write_report(study: str | Path | Results, out: str | Path | None = None, *, pdf: bool = False) -> str:
    """Write all tables and figures and ``index.html`` into ``out`` (default: the study's ``report``).

    A report that is there already, of the same study and by the same code, stays as it is.

    Args:
        study: the study or its folder.
        out: folder or URI.
        pdf: write figures as PDF, too, which takes as long as all else.

    Returns:
        The path or URI of ``index.html``.

    Raises:
        StudyError: there is no study, it has nothing done yet, or ``out`` can't be written.
    """
    results = study if isinstance(study, Results) else load(study)
    place = str(out) if out is not None else results.folder.at("report")
    ours = all(getattr(make, "__module__", "").startswith("analysis.") for make in TABLES.values())
    if results.content is None or not ours:  # changed in Python, or with tables whose code could be anything
        return write_files(_files(results, pdf), place, possible_files)
    made = stamp(results.content, pdf)
    if (page := _current(place, made)) is not None:
        return page
    files = _files(results, pdf)
    return write_files(files | {MADE: record(files, made)}, place, possible_files)


def _current(out: str, made: str) -> str | None:
    """``index.html`` of the report with the stamp; None if it is not there, or next to what an earlier one left."""
    try:
        folder = Folder(out)
        files = recorded(folder, made)
        is_all = files and possible_files(folder.files()) <= files | {MADE}
    except StorageError:
        return None  # writing there reports what is wrong with the place
    return folder.at("index.html") if is_all else None


def write_files(files: dict[str, bytes], out: str, possible: Callable[[Iterable[str]], set[str]]) -> str:
    """Write a report's files; return the path or URI of ``index.html``.

    Args:
        files: content by name.
        out: folder or URI.
        possible: which of the names that are there an earlier report of this kind may have left.
    """
    try:
        folder = Folder(out)
        # A report that was never finished has no first page; what an earlier one left would pass for a result of this.
        folder.delete("index.html")
        for name in possible(folder.files()) - files.keys():
            folder.delete(name)
        for name in sorted(files, key=lambda name: name == "index.html"):
            folder.write(name, files[name])
    except StorageError as error:
        raise StudyError(
            f"the report cannot be written: {error}\n  `python -m analysis` with --out writes it into another folder"
        ) from error
    return folder.at("index.html")


def _files(results: Results, pdf: bool) -> dict[str, bytes]:
    # Matplotlib takes longer to import than all else together, and the summary needs none of it.
    from analysis.figures.axes import axis_figure
    from analysis.figures.classes import confusion_figure
    from analysis.figures.comparisons import comparisons_figure
    from analysis.figures.layers import layers_figure
    from analysis.figures.paper import figure2, figure3, learning_curves
    from analysis.figures.search import search_figures
    from analysis.figures.tuned import expected_best_figure

    made, cells = tables(results), outcomes(results)
    draws = (
        comparisons_figure,
        figure2,
        figure3,
        layers_figure,
        learning_curves,
        confusion_figure,
        expected_best_figure,
    )
    plots = [draw(results, off_axis(cells)) for draw in draws]
    plots += [axis_figure(results, axis) for axis in axes(cells)]
    plots += search_figures(results)
    shown = [plot for plot in plots if plot is not None]
    files = table_files(made)
    for plot in shown:
        files |= figure_files(plot, pdf=pdf)
    drawings = {plot.name: files[f"{plot.name}.svg"].decode() for plot in shown}
    pictures = {plot.name: {"svg": inline(drawings[plot.name], plot.name), "caption": plot.caption} for plot in shown}
    files["index.html"] = page(results, cells, made, pictures).encode()
    return files


def table_files(made: list[Table]) -> dict[str, bytes]:
    """The tables in each format, by file name."""
    written = zip(TABLE_ENDINGS, (writing.markdown, writing.csv, latex), strict=True)
    return {f"{table.name}.{ending}": write(table).encode() for ending, write in [*written] for table in made}


def write_table(table: Table, out: str | Path) -> str:
    """Write a single table in each format; return the path or URI of its Markdown.

    Raises:
        StudyError: it cannot be written.
    """
    try:
        folder = Folder(str(out))
        for name, content in table_files([table]).items():
            folder.write(name, content)
    except StorageError as error:
        raise StudyError(f"the table cannot be written: {error}\n  give another folder with --out") from error
    return folder.at(f"{table.name}.md")


def figure_files(plot: "Plot", *, pdf: bool = False) -> dict[str, bytes]:
    """A figure in each format, as PDF only if asked, and its numbers, by file name."""
    return {
        **({f"{plot.name}.pdf": plot.pdf()} if pdf else {}),
        f"{plot.name}.svg": plot.svg().encode(),
        f"{plot.name}.png": plot.png(),
        f"{plot.name}.csv": plot.data.to_csv(index=False, lineterminator="\n").encode(),
    }


def possible_files(there: Iterable[str]) -> set[str]:
    """What a report of any study, on one target or several, may have written, of what is there.

    Axes are named by their study.
    """
    names = {MADE, *(f"{name}.{ending}" for name in (*TABLES, *OVER_TARGETS) for ending in TABLE_ENDINGS)}
    names |= {f"{name}.{ending}" for name in (*FIGURES, TARGETS_MAP) for ending in FIGURE_ENDINGS}
    endings = {*TABLE_ENDINGS, *FIGURE_ENDINGS}
    patterns = [f"{kind}_*.{ending}" for kind in ("axis", "search") for ending in endings]
    return {name for name in there if name in names or any(fnmatch(name, pattern) for pattern in patterns)}


def page(results: Results, cells: pd.DataFrame, made: list[Table], pictures: dict[str, dict[str, str]]) -> str:
    """The HTML page: self-contained, nothing is loaded from anywhere."""
    final = final_test(results, cells)
    return rendered(
        "index.html.j2",
        study=results.facts,
        seeds=seed_list(results.seeds),
        n_seeds=len(results.seeds),
        fusion=fusion_notes(results),
        findings=conclusions(results, cells, brief=True),
        meaning=meaning(results),
        sentences=conclusions(results, cells),
        checklist=checklist(results, cells),
        neurips=neurips(results),
        tables={table.name: table for table in made},
        search=conclusion(results, cells),
        final=final,
        axes=[axis for axis in axes(cells) if final is None or axis.name != final.name],
        pictures=pictures,
        failures=failures(results, cells),
        provenance=provenance(results),
    )


def rendered(template: str, **values: Any) -> str:
    """An HTML page of the templates, with these values in it."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("analysis"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return _with_contents(
        environment.get_template(template).render(groups=writing.groups, split=writing.split, **values)
    )


def _with_contents(html: str) -> str:
    """The page with an id for each section that has none, and links to all sections if it has room for them."""
    links: list[str] = []

    def named(heading: re.Match[str]) -> str:
        text = heading[2]
        section = heading[1] or "section-" + re.sub(r"\W+", "-", text.lower())
        links.append(f'<a href="#{section}">{text}</a>')
        return f'<h2 id="{section}">{text}</h2>'

    html = re.sub(r'<h2(?: id="([\w-]+)")?>(.*?)</h2>', named, html)
    return html.replace("<nav></nav>", f"<nav>{' · '.join(links)}</nav>", 1)


def summary_of_elsewhere(results: Elsewhere) -> str:
    """What results from elsewhere show, and their tables but the one of all comparisons, as Markdown."""
    shows = writing.section("What these results show", results.findings())
    made = [writing.markdown(table) for table in elsewhere.tables(results) if table.name != "comparisons"]
    return "\n".join([shows, *made])


def report_elsewhere(results: Elsewhere, out: str | Path) -> str:
    """Write the report of results from elsewhere: tables, the picture of all verdicts, and ``index.html``.

    Returns:
        The path or URI of ``index.html``.

    Raises:
        StudyError: ``out`` cannot be written.
    """
    from analysis.figures.elsewhere import verdicts_figure

    made, plot = elsewhere.tables(results), verdicts_figure(results)
    files = table_files(made) | figure_files(plot)
    files["index.html"] = rendered(
        "elsewhere.html.j2",
        title=results.title,
        baseline=results.baseline,
        findings=results.findings(),
        tables={table.name: table for table in made},
        pictures={plot.name: {"svg": inline(plot.svg(), plot.name), "caption": plot.caption}},
    ).encode()
    # Ranks are not in every report.
    return write_files(files, str(out), {f"ranks.{ending}" for ending in TABLE_ENDINGS}.intersection)


def inline(svg: str, name: str) -> str:
    """An SVG to stand within a page: no prolog, its size left to the page, and ids that no other figure has."""
    body = svg[svg.index("<svg") :]
    # A narrow figure is not blown up to the width of the page: its letters stay as large as those of the others.
    body = re.sub(
        r'(<svg\b[^>]*?) width="([\d.]+)pt"',
        lambda found: f'{found[1]} style="--widest: {PIXELS_PER_POINT * float(found[2]):.0f}px"',
        body,
        count=1,
    )
    body = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", body, count=1)
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", body)


def failures(results: Results, cells: pd.DataFrame) -> list[dict[str, Any]]:
    """Every stage that failed, or was not run though a cell needs it, with its error and the cells it hit."""
    stages = results.stages.set_index("stage")
    hit: dict[str, list[str]] = {str(stage): [] for stage in stages.index[stages["status"] == "failed"]}
    columns = ["net", "stream", "point", "seed", "path", "problem"]
    for net, stream, point, seed, path, problem in zip(*(cells[column] for column in columns), strict=True):
        name = ", ".join([net, *([] if pd.isna(point) else [point]), *([stream] if stream else [])])
        for stage in culprits(path, stages) if problem else []:
            hit.setdefault(stage, []).append(f"{name}, seed {seed}")
    return [_failure(stage, sorted(set(names)), stages) for stage, names in hit.items()]


def _failure(stage: str, hit: list[str], stages: pd.DataFrame) -> dict[str, Any]:
    if stage not in stages.index:
        return {"stage": stage, "kind": "unknown", "status": "missing", "error": "not run yet", "cells": hit}
    row = stages.loc[stage]
    error = str(row["error"]) if pd.notna(row["error"]) else "no error was recorded"
    return {"stage": stage, "kind": row["kind"], "status": row["status"], "error": error, "cells": hit}


def provenance(results: Results) -> dict[str, Any]:
    """What the numbers were made with: data, versions, devices, when, and training time."""
    stages = results.stages
    started = pd.to_datetime(stages["started_at"].dropna(), utc=True)
    data = stages[["data", "data_fingerprint"]].dropna().drop_duplicates()
    packages = {name for text in stages["package_versions"].dropna().unique() for name in _versions(str(text))}
    return {
        "code": sorted(stages["code_version"].dropna().unique()),
        "packages": sorted(packages),
        "devices": sorted(stages["device"].dropna().unique()),
        "data": [f"{name} {fingerprint[:16]}" for name, fingerprint in data.itertuples(index=False)],
        "trained": [f"{time:%Y-%m-%d %H:%M} UTC" for time in (started.min(), started.max())] if len(started) else [],
        "folder": results.folder.at(),
        "stages": len(stages),
        "seconds": float(stages["seconds"].sum()),
    }


def _versions(text: str) -> list[str]:
    try:
        return [f"{name} {version}" for name, version in json.loads(text).items()]
    except (ValueError, AttributeError):
        return [text]

"""What the report answers next to its tables: the checklist, costs, the way back to stored nets, and the page."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import analysis
from analysis.__main__ import main
from analysis.figures.paper import figure3
from analysis.nets import outcomes
from analysis.tables.checklist import NOTES, Item, checklist
from study import schema, show
from tests.analysis_study import CURVE, SEEDS, Study, draw, shown, table, writer
from trainables.architectures import ALIASES, NETWORKS

QUESTION_WORDS = ("architecture", "operating points", "speed-up", "top-5", "seeds", "random", "Raw")
CONVOLUTIONS = ((16 * 25, 24 * 24), (32 * 144, 12 * 12), (48 * 288, 36), (48 * 432, 36), (64 * 432, 36))


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a study with the given changes and returns its folder."""
    return writer(tmp_path / "studies" / "study")


def items(folder: Path) -> dict[str, Item]:
    results = analysis.load(folder)
    found = checklist(results, outcomes(results))
    assert len(found) == len(QUESTION_WORDS)
    return {word: item for word, item in zip(QUESTION_WORDS, found, strict=True) if word in item.question}


def layered(study: Study) -> None:
    """All layers of the small AlexNet in every pruned net: half of each convolution is left, a tenth of fc6."""
    kinds = ("target_prune", "neuron_prune")
    study.rows["layers"] = []
    for stage in (row["stage"] for row in study.rows["stages"] if row["kind"] in kinds):
        sizes = [("convolution", dense, dense // 2, positions) for dense, positions in CONVOLUTIONS]
        sizes.append(("inner_product", 147_460, 14_746, 1))
        for index, (kind, dense, left, positions) in enumerate(sizes, start=1):
            row = {"stage": stage, "layer_index": index, "layer": f"layer{index}", "type": kind, "connections": left}
            row |= {"connections_dense": dense, "connections_before": dense, "neurons_before": 1, "neurons": 1}
            row |= {"positions": positions}
            study.rows["layers"].append(row)


def test_every_network_has_its_note() -> None:
    assert set(NOTES) == {*NETWORKS, *ALIASES}


def test_speedup_is_of_multiply_adds(write: Callable[..., Path]) -> None:
    folder = write(layered)
    row = table(folder, "operating_points").data.set_index("net").loc["Sparse-TargetNet_C90"]
    convolutions = sum(dense * positions for dense, positions in CONVOLUTIONS)
    assert row["theoretical_speedup"] == pytest.approx((convolutions + 147_460) / (convolutions / 2 + 14_746))
    assert row["compression_ratio"] == pytest.approx(10.0)
    assert items(folder)["speed-up"].answer == "yes"


def test_an_unknown_network_has_a_speedup_but_no_note(write: Callable[..., Path]) -> None:
    def other(study: Study) -> None:
        layered(study)
        study.description["network"] = "mine:net"
        for row in study.rows["stages"]:
            row["network"] = "mine:net"

    found = items(write(other))
    assert (found["architecture"].answer, found["speed-up"].answer) == ("no", "yes")


def test_stages_of_an_earlier_version_have_connections_only(write: Callable[..., Path]) -> None:
    def earlier(study: Study) -> None:
        layered(study)
        for row in study.rows["layers"]:
            del row["positions"]

    folder = write(earlier)
    speedup = items(folder)["speed-up"]
    assert (speedup.answer, "only connections are known" in speedup.detail) == ("partly", True)
    assert shown(folder, "operating_points")["Sparse-TargetNet_C90"][2] == "\N{EN DASH}"


def test_checklist_counts_what_is_there(write: Callable[..., Path]) -> None:
    found = items(write())
    assert found["operating points"].answer == "yes"
    assert found["operating points"].detail == f"pruned nets: {len(CURVE) + 1}"
    assert (found["top-5"].answer, found["seeds"].answer, found["Raw"].answer) == ("partly", "yes", "yes")
    assert found["random"].answer == "yes"


def test_checklist_admits_what_lacks(write: Callable[..., Path]) -> None:
    def poor(study: Study) -> None:
        study.only("paper")
        study.fail("Sparse-TargetNet_C90-0", "stopped")

    found = items(write(poor, seeds=(0,)))
    assert (found["seeds"].answer, found["random"].answer, found["Raw"].answer) == ("no", "partly", "partly")
    nets = 2 * len(CURVE) + 1
    assert found["Raw"].detail.startswith(f"{nets - 1} of {nets} ")


def test_costs_say_what_sharing_saved(write: Callable[..., Path]) -> None:
    def gpu(study: Study) -> None:
        for row in study.rows["stages"]:
            if row["kind"] == "neuron_prune":
                row |= {"device": "NVIDIA H100", "workers": 2, "seconds": 1800.0}

    data = table(write(gpu), "costs").data.set_index("kind")
    # Every net's path has the reference of its seed, which took 1.5 s.
    cells = 4 + 2 * len(CURVE) + 1 + 3
    assert data.loc["reference", "uses"] == len(SEEDS) * cells
    assert data.loc["reference", "cpu_hours"] == pytest.approx(len(SEEDS) * 1.5 / 3600)
    assert data.loc["reference", "hours_saved"] == pytest.approx(len(SEEDS) * (cells - 1) * 1.5 / 3600)
    assert (data.loc["neuron_prune", "gpu_hours"], data.loc["neuron_prune", "cpu_hours"]) == (3.0, 0.0)
    saved = data["hours_saved"]
    assert saved["all"] == pytest.approx(3 * saved["reference"])


def test_costs_count_the_axes_too(write: Callable[..., Path]) -> None:
    points = {"tau = 2": 2.0, "tau = 4": 4.0}
    folder = write(lambda study: study.axis("tau", points, "tau = 4", dict.fromkeys(points, 81.0)))
    # Besides tables and figures, one new net a seed; the own point is a net that is there.
    assert table(folder, "costs").data.set_index("kind")["uses"]["reference"] == len(SEEDS) * (4 + 2 * len(CURVE) + 5)


def trace_of(folder: Path, name: str, row: str) -> int:
    """The command that shows where a row comes from."""
    return show.main([folder.name, name, row, "--storage", str(folder.parent.parent)])


def test_trace_leads_to_the_stored_nets(write: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(lambda study: study.fail("Hybrid-TransferNet-1", "no memory"))
    stored = folder.parent.parent / "stages" / "sparse-0"
    stored.mkdir(parents=True)
    (stored / "manifest.json").write_text("{}")
    assert trace_of(folder, "table1", "hybrid-transfernet") == 0
    printed = capsys.readouterr().out
    assert "seed 0 (ablation paper): test ACC 81.6 %" in printed
    assert re.search(
        rf"source_prune +seed 0 +done +val 88\.0 %, test 89\.0 % +{re.escape(str(stored))}$", printed, re.M
    )
    assert re.search(r"transfer +seed 1 +failed \(no memory\) .*Hybrid-TransferNet-1 \(not there\)$", printed, re.M)
    assert trace_of(folder, "comparisons", "1") == 0
    printed = capsys.readouterr().out
    assert "\nHybrid-TransferNet(S+K-)\n" in printed
    assert "\nStandard-TransferNet\n" in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("table9", "1"), "no table 'table9'"),
        (("table1", "x"), "no row 'x'"),
        (("table1", "²"), "no row '²'"),
    ],
)
def test_trace_says_what_there_is(
    arguments: tuple[str, str], words: str, write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert trace_of(write(), *arguments) == 1
    error = capsys.readouterr().err
    assert words in error
    assert "table1" in error


def test_the_former_command_names_the_new_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "results/studies/digits", "table1", "1"]) == 2
    assert "study.show STUDY TABLE ROW" in capsys.readouterr().err


def test_every_table_of_nets_can_be_traced(write: Callable[..., Path]) -> None:
    study = write(lambda study: study.axis("tau", {"tau = 2": 2.0}, "tau = 4", {"tau = 2": 81.0}))
    for name in ("comparisons", "table1", "table2", "table3", "controls", "ratios", "operating_points", "axis_tau"):
        made = table(study, name)
        assert len(made.sources) == len(made.rows), name
    streams = write(lambda study: study.two_stream())
    for name in ("table4", "table4_differences"):
        assert [len(nets) for nets in table(streams, name).sources] == [3, 3, 3]


def test_examples_of_the_documentation_run(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(analysis.__file__).parents[1] / "docs" / "analysis.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(blocks) == 4
    monkeypatch.chdir(tmp_path)
    folder = write()
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block.replace("results/studies/digits", str(folder)), names)
    assert (tmp_path / "differences.png").stat().st_size > 10_000
    assert "Sparsity (S): +0.57 ± 0.63, shown: False" in capsys.readouterr().out
    for name in (*schema.TABLES, *schema.SEARCH_TABLES, *schema.TUNED_TABLES):
        assert f"results.{name}" in text


# The page in a browser -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no chromium with its driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


def test_page_is_quiet_and_loads_nothing(browser: Any, write: Callable[..., Path]) -> None:
    page = analysis.report(write()).resolve().as_uri()
    browser.get_log("performance")
    browser.get(page)
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
    assert asked == {page}


def test_click_sorts_by_number(browser: Any, write: Callable[..., Path]) -> None:
    browser.get(analysis.report(write()).resolve().as_uri())

    def column(place: int) -> list[str]:
        return [
            cell.text for cell in browser.find_elements("css selector", f"#comparisons tbody tr > :nth-child({place})")
        ]

    heading = browser.find_elements("css selector", "#comparisons thead tr:last-child th")[2]
    values = [float(text.partition(" ")[0].replace("\N{MINUS SIGN}", "-")) for text in column(3)]
    for order in ("ascending", "descending"):
        browser.execute_script("arguments[0].click()", heading)
        assert heading.get_attribute("aria-sort") == order
        found = [float(text.partition(" ")[0].replace("\N{MINUS SIGN}", "-")) for text in column(3)]
        assert found == sorted(values, reverse=order == "descending")
    assert sorted(column(1)) == sorted(shown_names(browser))


def shown_names(browser: Any) -> list[str]:
    """Rows keep their names with them: as many, and none twice."""
    names = [cell.text for cell in browser.find_elements("css selector", "#comparisons tbody th")]
    assert len(set(names)) == 8
    return names


def test_figures_are_written_as_pdf_if_asked_and_go_if_not(
    write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write()
    assert main([str(folder), "--pdf"]) == 0
    found = {path.name: path.read_bytes() for path in (folder / "report").glob("*.pdf")}
    assert {"forest.pdf", "figure3.pdf"} <= found.keys()
    assert len(found) == len([*(folder / "report").glob("*.svg")])
    # Letters are letters, in fonts that journals take, and nothing tells when it was written.
    assert all(b"/Type42" in pdf or b"/TrueType" in pdf or b"/CIDFontType2" in pdf for pdf in found.values())
    assert not any(b"/Type3" in pdf or b"CreationDate" in pdf for pdf in found.values())
    plot = draw(figure3, folder)
    assert plot.pdf() == plot.pdf() == found["figure3.pdf"]
    assert main([str(folder)]) == 0
    assert not [*(folder / "report").glob("*.pdf")]


def test_the_contents_lead_to_sections_and_files_are_there(write: Callable[..., Path]) -> None:
    folder = write(lambda study: study.axis("tau", {"tau = 2": 2.0}, "tau = 4", {"tau = 2": 81.0}))
    analysis.report(folder)
    text = (folder / "report" / "index.html").read_text(encoding="utf-8")
    contents = re.findall(r'href="#([\w-]+)"', text[text.index("<nav>") : text.index("</nav>")])
    sections = re.findall(r'<h2 id="([\w-]+)">', text)
    assert contents == sections and len({*sections}) == len(sections) > 5
    ids = re.findall(r'\bid="([\w.-]+)"', text)
    assert len({*ids}) == len(ids)
    files = {name for name in re.findall(r'href="([^"#:]+)"', text) if not name.startswith("#")}
    assert {"table1.csv", "forest.svg", "axis_tau.tex"} <= files
    assert not [name for name in files if not (folder / "report" / name).is_file()]


def test_the_values_of_each_seed_are_a_click_away(write: Callable[..., Path]) -> None:
    folder = write(lambda study: study.simulate({}), seeds=(0, 1, 2))
    page = analysis.report(folder).read_text(encoding="utf-8")
    figure = page.partition('<figure class="table" id="table3">')[2].partition("</figure>")[0]
    shown, _, more = figure.partition("<details><summary>each seed</summary>")
    assert "ACC % minus Standard-TransferNet" in shown and "each seed" not in shown
    assert "--tune</code> tunes each net alone" in page
    assert "ACC %, each seed (0, 1, 2)" in more and "Standard-TransferNet" in more and "paper" not in more

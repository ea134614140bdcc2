"""The report in a real browser: what a click, a key, a slider and a drag do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from evomerge.analysis.front import front
from evomerge.analysis.picking import pick
from evomerge.analysis.report import About, write_report
from evomerge.origins import is_single_model
from evomerge.recipe.path import Hop, path_data
from evomerge.study.records import StudyRecord
from tests.browser import Browser, browser

from ..synthetic import make_study

# Where something is in the window, once it has been scrolled to.
PLACE = """(element => {
    element.scrollIntoView({ block: "center" });
    const box = element.getBoundingClientRect();
    return [box.left + box.width / 2, box.top + box.height / 2];
})"""
SHOWN = "Number(document.getElementById('card').dataset.trial)"
OVERLAPPING = """[...document.querySelectorAll("figure svg")].flatMap(svg => {
    const boxes = [...svg.querySelectorAll(".textpoint text, .ytick text, .xtick text")]
        .map(text => [text.textContent, text.getBoundingClientRect()]);
    return boxes.flatMap(([a, one], i) => boxes.slice(i + 1)
        .filter(([b, two]) => one.left < two.right - 1 && two.left < one.right - 1
            && one.top + 2 < two.bottom - 2 && two.top + 2 < one.bottom - 2)
        .map(([b]) => `${a} on ${b}`));
})"""

LAST_GAP = """Math.max(...[...document.querySelectorAll(".blocks td.summary")]
    .map(cell => cell.getBoundingClientRect().right))"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def study() -> StudyRecord:
    made = make_study(2, n_trials=40, layers=6)
    path = path_data((Hop("math", 0), Hop("list", 1, 0.9), Hop("math", 2)))
    trials = (
        *made.trials[:-5],
        *(replace(t, recipe={**t.recipe, "path": path}) for t in made.trials[-5:]),
    )
    return replace(made, trials=trials)


@pytest.fixture(scope="module")
def page(study: StudyRecord, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "report.html"
    return write_report(study, out, about=About(folder="runs/my study"), inline_js=False)


@pytest.fixture(scope="module")
def opened(chromium: Browser, page: Path) -> Browser:
    chromium.open(page)
    return chromium


@pytest.fixture
def tab(opened: Browser) -> Iterator[Browser]:
    yield opened
    assert opened.errors == []


def merges_of(study: StudyRecord) -> list[int]:
    return [t.number for t in front(study) if not is_single_model(t.origin)]


def test_a_click_on_a_point_shows_its_trial(tab: Browser, study: StudyRecord) -> None:
    number = merges_of(study)[-1]
    place = tab.run(
        f"""(() => {{
            const plot = document.querySelector("figure > div");
            const trace = plot.data.findIndex(one => (one.customdata || []).includes({number}));
            const point = plot.data[trace].customdata.indexOf({number});
            const shown = plot.data.slice(0, trace).filter(one => one.mode.includes("markers"));
            const marks = plot.querySelectorAll(".scatterlayer .trace .points");
            const own = [...marks].filter(g => g.children.length)[shown.length];
            return {PLACE}(own.children[point]);
        }})()"""
    )
    tab.press(tuple(place))
    tab.wait(f"{SHOWN} === {number}")
    card = tab.run("document.getElementById('card').innerText")
    assert card.startswith(f"merge {number}")
    assert f"evomerge export 'runs/my study' --pick trial:{number} --out OUT" in card
    assert "coefficient by layer" in card
    ring = tab.run("document.querySelector('figure > div').data.find(t => t.name === 'shown').x")
    value = next(t.values[0] for t in study.trials if t.number == number)
    assert ring == pytest.approx([value], rel=1e-5)
    assert tab.run("location.hash") == f"#trial-{number}"


def test_a_click_on_a_line_shows_its_trial(tab: Browser, study: StudyRecord) -> None:
    number = merges_of(study)[0]
    place = tab.run(
        f"""(() => {{
            const svg = document.querySelector(".parallel");
            svg.scrollIntoView({{ block: "center" }});
            const line = svg.querySelector("g[data-trial='{number}'] line");
            const box = svg.getBoundingClientRect();
            const at = name => line[name].baseVal.value;
            return [box.left + at("x1") + 0.37 * (at("x2") - at("x1")),
                    box.top + at("y1") + 0.37 * (at("y2") - at("y1"))];
        }})()"""
    )
    tab.press(tuple(place))
    tab.wait(f"{SHOWN} === {number}")


def test_a_name_in_a_table_does_the_same_by_keyboard(tab: Browser, study: StudyRecord) -> None:
    number = merges_of(study)[1]
    tab.run(f"document.querySelector('[data-pick=\"{number}\"]').focus()")
    tab.type("Enter")
    tab.wait(f"{SHOWN} === {number}")
    assert tab.run("document.querySelectorAll('tr.shown').length") >= 1


def test_the_preference_picks_from_the_front(tab: Browser, study: StudyRecord) -> None:
    for value, wanted in ((0, "best:zoo_math"), (100, "best:zoo_list"), (50, "best:mean")):
        tab.run(
            f"""(() => {{
                const slider = document.querySelector("#prefer input");
                slider.value = {value};
                slider.dispatchEvent(new Event("input", {{ bubbles: true }}));
            }})()"""
        )
        number = pick(study, wanted).number
        tab.wait(f"{SHOWN} === {number}")
        said = tab.run("document.querySelector('#prefer output').textContent")
        assert said == f"{100 - value} : {value} prefers merge {number}"


def test_a_drag_along_an_axis_keeps_what_passes_there(tab: Browser, study: StudyRecord) -> None:
    top, middle = tab.run(
        """(() => {
            const svg = document.querySelector(".parallel");
            svg.scrollIntoView({ block: "center" });
            const line = svg.querySelector(".axis line"), box = svg.getBoundingClientRect();
            const [x, y1, y2] = ["x1", "y1", "y2"].map(name => line[name].baseVal.value);
            return [[box.left + x, box.top + y1 - 6], [box.left + x, box.top + (y1 + y2) / 2]];
        })()"""
    )
    tab.press(tuple(middle), tuple(top))
    complete = [t.values[0] for t in study.trials if t.state == "complete"]
    half = (min(complete) + max(complete)) / 2
    passing = tab.run("document.querySelectorAll('.parallel g[data-trial]:not(.out)').length")
    assert abs(passing - sum(v >= half for v in complete)) <= 1  # a pixel is 0.3 % of the axis
    said = tab.run("document.getElementById('passing').textContent")
    assert said == f"{passing} of {len(complete)} trials pass."
    dimmed = tab.run("document.querySelector('figure > div').data.some(t => t.selectedpoints)")
    assert dimmed
    hidden = tab.run("[...document.querySelectorAll('tr.out')].map(r => Number(r.dataset.trial))")
    members = {t.number: t.values[0] for t in front(study)}
    assert hidden
    assert all(members[number] < half + 0.01 for number in hidden)  # of the front's table alone
    tab.press(tuple(middle))
    assert tab.run("document.querySelectorAll('.out').length") == 0
    assert tab.run("document.getElementById('passing').textContent") == ""


def test_the_command_is_copied(tab: Browser, study: StudyRecord) -> None:
    tab.allow("clipboardReadWrite", "clipboardSanitizedWrite")
    number = next(f.number for f in study.finals if f.chosen)
    tab.run(f"document.querySelector('[data-pick=\"{number}\"]').click()")
    tab.wait(f"{SHOWN} === {number}")
    tab.press(tuple(tab.run(f"{PLACE}(document.querySelector('#card [data-copy]'))")))
    tab.wait("document.querySelector('#card [data-copy]').textContent === 'copied'")
    copied = tab.run("navigator.clipboard.readText()")
    assert copied == f"evomerge export 'runs/my study' --pick trial:{number} --out OUT"


def test_a_path_is_drawn(tab: Browser, study: StudyRecord) -> None:
    number = next(t.number for t in study.trials if t.recipe.get("path"))
    tab.run(f"location.hash = '#trial-{number}'; location.reload()")
    drawn = "[...document.querySelectorAll('#card .path .layer')].map(t => t.textContent).join()"
    tab.wait(f"{SHOWN} === {number} && {drawn} === '0,1,2'")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_overlaps_or_sticks_out(
    chromium: Browser, page: Path, width: int, dark: bool
) -> None:
    chromium.open(page, width=width, dark=dark)
    assert chromium.run("document.documentElement.scrollWidth") <= width
    assert chromium.run("document.querySelectorAll('.textpoint text').length") == 4  # baselines
    assert chromium.run(OVERLAPPING) == []
    assert chromium.run(LAST_GAP) <= width, "it is what the table is for: none has to scroll to it"
    assert chromium.errors == []


def test_the_page_of_a_run_that_goes_on_loads_itself_again(
    chromium: Browser, study: StudyRecord, tmp_path: Path
) -> None:
    out = tmp_path / "live.html"
    write_report(study, out, n_recipes=3, inline_js=False, reload_s=1)
    chromium.open(out)
    chromium.run("window.isOld = true")
    chromium.wait("!window.isOld")
    assert chromium.errors == []

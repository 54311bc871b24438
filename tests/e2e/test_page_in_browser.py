"""The coverage page in a real browser: with 2 000 pairs, by keyboard, on a telephone, in the dark, and with a hostile index.

Screenshots of each view lie in pytest's temporary folder for whoever wants to look.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pipeline.outcomes.index import Index
from pipeline.outcomes.page import page
from tests import browser as browsers
from tests.browser import Browser, running_browser
from tests.indexes import EVIL, many

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.area("scale"),
    pytest.mark.skipif(not browsers.installed(), reason=browsers.MISSING),
]
CONTRAST = """
const lum = (c) => { const [r, g, b] = c.match(/[0-9.]+/g).map((v) => { v /= 255;
  return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
  return .2126 * r + .7152 * g + .0722 * b; };
const back = (e) => { const c = getComputedStyle(e).backgroundColor; return /, 0\\)$/.test(c) ? back(e.parentElement) : c; };
return [...document.querySelectorAll('.badge, td button, .release, .hint, caption, h1, dd, dt, th')].map((e) => {
  const a = lum(getComputedStyle(e).color), b = lum(back(e));
  return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), e.className || e.tagName]; }).filter(([ratio]) => ratio < 4.5);
"""
FOCUS = "return document.activeElement.textContent + '|' + (document.activeElement.dataset.pair ?? '')"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def browser(place: Path) -> Iterator[Browser]:
    with running_browser(place / "browser") as running:
        yield running


@pytest.fixture
def view(browser: Browser, place: Path) -> Iterator[Browser]:
    """A wide light window on the page with 2 000 pairs."""
    written = place / "page.html"
    if not written.exists():
        written.write_text(page(many()))
    browser.window(1280, 900)
    browser.scheme("light")
    browser.open(written)
    yield browser
    assert browser.complaints() == []


def shown(browser: Browser) -> int:
    return int(browser.run("return [...document.querySelectorAll('#matrix tbody tr')].filter((r) => !r.hidden).length"))


def details(browser: Browser) -> str:
    return str(browser.run("return details.open ? details.innerText : ''"))


def test_two_thousand_pairs_are_there_soon_and_nothing_is_asked_of_a_network(view: Browser, place: Path) -> None:
    assert shown(view) == 250
    assert view.run("return document.querySelectorAll('td button').length") == 2000
    assert view.run("return performance.getEntriesByType('navigation')[0].domComplete") < 10_000  # ms; a slow machine
    assert view.run("return performance.getEntriesByType('resource').length") == 0
    assert len(view.screenshot(place / "wide.png")) > 20_000


def test_outcomes_stand_in_words_and_in_colour(view: Browser) -> None:
    words = view.run("return [...new Set([...document.querySelectorAll('td button')].map((b) => b.textContent))]")
    assert set(words) == {"built", "built, without open", "failed", "excluded", "pending"}
    colour = "(c) => getComputedStyle(document.querySelector('td .' + c)).backgroundColor"
    colours = view.run(f"return ['built', 'failed', 'excluded', 'pending'].map({colour})")
    assert len(set(colours)) == 4


def test_a_click_says_why_and_what_would_lift_it_and_where_to_read_more(view: Browser, place: Path) -> None:
    view.click("td button.excluded")
    said = details(view)
    assert "does not compile: pci_resize_resource() takes 4 arguments there" in said
    assert "lifted by a patch for it" in said
    assert view.run("return details.querySelector('a').href").startswith("https://github.com/")
    view.screenshot(place / "reason.png")
    view.keys("Escape")
    assert details(view) == ""


def test_search_finds_by_kernel_release_driver_and_reason(view: Browser) -> None:
    view.keys("/", "6.12.2-flatcar")
    assert shown(view) == 1
    assert view.run("return shown.textContent") == "8 of 2000 pairs shown"
    view.keys("Escape", "no such file 550")
    assert 0 < shown(view) < 250
    view.keys("Escape")
    assert shown(view) == 250


def test_a_choice_of_os_and_outcome_narrows_and_is_kept_in_the_address(view: Browser, place: Path) -> None:
    view.run("os.value = 'flatcar/amd64'; os.dispatchEvent(new Event('input'))")
    assert shown(view) == 83
    view.run("outcome.value = 'failed'; outcome.dispatchEvent(new Event('input'))")
    fewer = shown(view)
    assert 0 < fewer < 83
    fragment = view.run("return location.hash")
    view.open(place / "page.html", fragment)
    assert shown(view) == fewer


def test_the_keyboard_alone_reaches_every_cell_and_comes_back_to_it(view: Browser) -> None:
    view.run("document.querySelector('td button[tabindex=\"0\"]').focus()")
    first = view.run(FOCUS)
    view.keys("Right", "Down")
    second = view.run(FOCUS)
    assert second != first
    view.keys("Enter")
    assert details(view) != ""
    view.keys("Escape")
    assert view.run(FOCUS) == second
    view.keys("Up", "Left")
    assert view.run(FOCUS) == first


def test_one_tab_stop_for_the_whole_matrix(view: Browser) -> None:
    assert view.run("return document.querySelectorAll('td button[tabindex=\"0\"]').length") == 1


@pytest.mark.parametrize("width", [320, 390])
def test_a_narrow_screen_needs_no_sideways_scrolling(view: Browser, place: Path, width: int) -> None:
    view.window(width, 800)
    assert view.run("return document.documentElement.scrollWidth") <= width
    view.screenshot(place / f"narrow-{width}.png")
    view.click("td button")
    assert view.run("return details.getBoundingClientRect().right") <= width
    assert view.run("return details.scrollTop") == 0, "what it is about is read first, however long the rest is"
    view.keys("Escape")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast_in_either_scheme(view: Browser, place: Path, scheme: str) -> None:
    view.scheme(scheme)
    view.click("td button.excluded")
    assert view.run(CONTRAST) == []
    view.keys("Escape")
    dark = view.run("return getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    view.screenshot(place / f"{scheme}.png")


def test_lag_and_sizes_have_numbers_beside_the_picture(view: Browser) -> None:
    assert view.run("return document.querySelectorAll('svg circle').length") == 1400
    box = "(e) => e.getBoundingClientRect()"
    cut = f"const box = {box}, picture = box(document.querySelector('svg'));"
    cut += "const out = (e) => box(e).left < picture.left || box(e).right > picture.right;"
    assert view.run(f"{cut} return [...document.querySelectorAll('svg text')].filter(out).map((e) => e.textContent)") == []
    keys = view.run("return [...document.querySelectorAll('.key')].map((e) => getComputedStyle(e).getPropertyValue('--key'))")
    assert len(set(keys)) == len(keys) == 7, "each branch has a colour of its own"
    text = view.run("return document.querySelector('main').innerText")
    assert "Median" in text
    assert view.run("return document.querySelectorAll('details tbody tr').length") > 0


def test_an_index_that_holds_markup_shows_it_as_text(browser: Browser, place: Path) -> None:
    index = many(8)
    pairs = tuple(
        msgspec.structs.replace(
            e, outcome="failed", reason=EVIL, see="javascript:alert(1)", releases=({"channel": EVIL, "version": "1"},)
        )
        for e in index.pairs
    )
    written = place / "hostile.html"
    written.write_text(page(msgspec.structs.replace(index, pairs=pairs, generated=EVIL)))
    browser.open(written)
    browser.click("td button")
    assert EVIL in details(browser)
    assert browser.run("return details.querySelector('a')") is None
    assert browser.run("return document.title") != "owned"
    assert browser.run("return document.querySelectorAll('img, script').length") == 2
    assert browser.complaints() == []


def test_an_empty_index_is_a_page_too(browser: Browser, place: Path) -> None:
    written = place / "empty.html"
    written.write_text(page(Index()))
    browser.open(written)
    assert "The index has no pair." in browser.run("return document.body.innerText")
    assert browser.complaints() == []

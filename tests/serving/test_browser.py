"""The page in a real browser, before the real server: `pytest -m browser`."""

import json
import re
import shutil
from pathlib import Path

import httpx
import pytest
import tiny
from helpers import task_of
from server_process import CPU, ServerProcess

sync_api = pytest.importorskip("playwright.sync_api", reason="needs: pip install playwright")

pytestmark = pytest.mark.browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LABELS = {"s": "sports", "h": "health", "<b>a, b</b>": "travel"}
HOSTILE = '<img src=x onerror="window.hit=1"><script>window.hit=1</script>'
ARABIC = tiny.TEXT["ar"]
WIDTHS = (1280, 390, 320)
REPLY_LOG = "Failed to load resource: "
"""How the browser itself notes a reply with an error, or none."""
TEXT_LENGTHS = """
() => {
  window.lengths = [];
  const answer = document.getElementById("answer");
  const note = () => window.lengths.push(answer.textContent.length);
  new MutationObserver(note).observe(answer, {childList: true, characterData: true, subtree: true});
}
"""
CONTRAST = """
() => {
  const value = (color) => {
    const parts = color.match(/[\\d.]+/g).map(Number).slice(0, 3).map((part) => part / 255);
    const linear = parts.map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const background = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const color = getComputedStyle(each).backgroundColor;
      if (color !== "rgba(0, 0, 0, 0)") { return color; }
    }
  };
  const found = {};
  const names = "h1, p, label, legend, small, button, textarea, summary, a, bdi, .share, th";
  for (const element of document.querySelectorAll(names)) {
    if (!element.checkVisibility() || element.disabled) { continue; }
    const pair = [value(getComputedStyle(element).color), value(background(element))];
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    if (ratio < 4.5) { found[`${element.tagName} ${element.textContent.slice(0, 20)}`] = ratio; }
  }
  return found;
}
"""
"""Texts that are hard to read (WCAG 2, level AA)."""


@pytest.fixture(scope="module")
def server(tiny_model, tmp_path_factory):
    model = tiny_model(mode="prompt", prompt="{text}\nTopic:")
    model.bridge.config.task = task_of(LABELS)
    folder = tmp_path_factory.mktemp("served") / "bridge"
    model.save_pretrained(folder)
    process = ServerProcess("serve", folder, "--port", 0, "--max-new-tokens", 100, *CPU)
    yield process
    process.kill()


@pytest.fixture(scope="module")
def browser():
    installed = next(filter(None, map(shutil.which, NAMES)), None)
    with sync_api.sync_playwright() as playwright:
        path = installed or playwright.chromium.executable_path
        if not Path(path).exists():
            pytest.skip("needs Chromium: a system's package, or playwright install chromium")
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture
def visit(server, browser):
    """`visit("/", width=390, color_scheme="dark")`: the page, which may ask of its server alone.

    Nor may its script fail, or its own policy forbid what it does.
    """
    pages = []
    asked = []
    complaints = []

    def log(message):
        if message.type in ("error", "warning") and not message.text.startswith(REPLY_LOG):
            complaints.append(message.text)

    def open_page(path="/", *, width=1280, **options):
        page = browser.new_page(viewport={"width": width, "height": 800}, **options)
        pages.append(page)
        page.set_default_timeout(30_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", log)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.goto(server.url(path))
        return page

    open_page.complaints = complaints
    yield open_page
    for page in pages:
        page.close()
    assert asked
    assert [url for url in asked if not url.startswith(server.url("/"))] == []
    assert complaints == []


def read(page, text, mode="label"):
    """Fill the text in, and have it read."""
    page.locator("#text").fill(text)
    page.locator(f"input[value={mode}]").check()
    page.locator("#go").click()
    sync_api.expect(page.locator("#go")).to_be_enabled()


def direction(locator):
    return locator.evaluate("element => getComputedStyle(element).direction")


def shares(page):
    """What the bars say, by label."""
    rows = page.locator("#bars li")
    names = rows.locator("bdi").all_inner_texts()
    values = rows.locator(".share").all_inner_texts()
    return {
        name: float(value.removesuffix(" %")) for name, value in zip(names, values, strict=True)
    }


def answered(*pieces):
    """A stream as the server writes it."""
    events = [{"choices": [{"delta": {"content": piece}}]} for piece in pieces]
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    return {
        "status": 200,
        "headers": {"content-type": "text/event-stream"},
        "body": "".join([*lines, "data: [DONE]\n\n"]),
    }


# ------------------------------------------------------------------ what it does
def test_labels_are_bars_of_the_interfaces_own_probabilities(visit, server):
    page = visit()
    read(page, tiny.TEXT["si"])
    reply = httpx.post(server.url("/v1/classify"), json={"texts": [tiny.TEXT["si"]]}).json()
    scores = {score["label"]: score["probability"] for score in reply["data"][0]["scores"]}
    shown = shares(page)
    assert shown == {name: pytest.approx(100 * scores[name], abs=0.06) for name in LABELS}
    assert sum(shown.values()) == pytest.approx(100, abs=0.2)
    assert list(shown.values()) == sorted(shown.values(), reverse=True)
    widths = page.locator("#bars .bar").evaluate_all(
        "bars => bars.map(bar => 100 * bar.offsetWidth / bar.parentElement.offsetWidth)"
    )
    assert widths == pytest.approx(list(shown.values()), abs=0.5)
    best = page.locator("#bars .best bdi").inner_text()
    assert best == reply["data"][0]["label"]


def test_other_labels_can_be_given(visit):
    page = visit()
    page.locator("#labels").fill("sports, ගෙදර ,travel")
    read(page, "Rice.")
    assert shares(page).keys() == {"sports", "ගෙදර", "travel"}


def test_an_answer_grows_as_it_is_made(visit, server):
    page = visit()
    page.evaluate(TEXT_LENGTHS)
    read(page, "Rice.", mode="ask")
    body = {"messages": [{"role": "user", "content": "Rice."}]}
    reply = httpx.post(server.url("/v1/chat/completions"), json=body, timeout=60).json()
    expected = reply["choices"][0]["message"]["content"]
    assert page.locator("#answer").text_content() == expected
    lengths = page.evaluate("window.lengths")
    assert len(lengths) > 5
    assert lengths == sorted(lengths)
    assert lengths[-1] == len(expected.encode("utf-16-le")) // 2


def test_a_question_stands_behind_the_text(visit, server):
    page = visit()
    page.locator("input[value=ask]").check()
    page.locator("#question").fill("What is it about?")
    with page.expect_request("**/v1/chat/completions") as sent:
        read(page, "Rice.", mode="ask")
    assert sent.value.post_data_json["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "foreign_text", "text": "Rice."},
                {"type": "text", "text": "\nWhat is it about?"},
            ],
        }
    ]
    assert page.locator("#answer").text_content()
    assert page.locator("#error").is_hidden()


def test_errors_are_told_in_words_and_gone_with_the_next_reading(visit):
    page = visit()
    page.locator("#labels").fill("sports")
    read(page, "Rice.")
    error = page.locator("#error")
    assert error.get_attribute("role") == "alert"
    assert error.inner_text() == "labels: has too few entries; it needs 2 at least"
    page.context.set_offline(True)
    read(page, "Rice.")
    assert error.inner_text() == "The server cannot be reached."
    page.context.set_offline(False)
    page.locator("#labels").fill("sports, travel")
    read(page, "Rice.")
    assert error.is_hidden()
    assert len(shares(page)) == 2


def test_an_error_within_an_answer_is_told(visit):
    page = visit()
    error = {"error": {"message": f"It broke. {HOSTILE}"}}
    broken = answered("Half")
    broken["body"] = broken["body"].replace("[DONE]", json.dumps(error))
    page.route("**/v1/chat/completions", lambda route: route.fulfill(**broken))
    read(page, "Rice.", mode="ask")
    assert page.locator("#error").inner_text() == f"It broke. {HOSTILE}"
    assert page.locator("#answer").inner_text() == "Half"


def test_reading_can_be_stopped(visit):
    page = visit()
    page.route("**/v1/chat/completions", lambda route: None)  # never answered
    page.locator("#text").fill("Rice.")
    page.locator("input[value=ask]").check()
    for stop in (page.locator("#stop").click, lambda: page.keyboard.press("Escape")):
        page.locator("#go").click()
        sync_api.expect(page.locator("#stop")).to_be_enabled()
        stop()
        sync_api.expect(page.locator("#note")).to_have_text("Stopped.")
        assert page.locator("#go").is_enabled()


def test_layers_are_shown_as_a_table(visit):
    page = visit()
    read(page, "Rice goes home.")
    page.locator("#show-layers").click()
    rows = page.locator("#layers tbody tr")
    sync_api.expect(rows.first).to_be_visible()
    for row in rows.all():
        cells = [int(cell) for cell in row.locator("td").all_inner_texts()]
        assert sum(cells) == pytest.approx(100, abs=len(cells))


# ------------------------------------------------------------------ scripts
def test_right_to_left_is_right(visit):
    page = visit()
    text = page.locator("#text")
    assert direction(text) == "ltr"
    page.locator(".example-text[data-language=arb_Arab]").click()
    assert direction(text) == "rtl"
    text.fill("Rice.")
    assert direction(text) == "ltr"
    page.locator("#labels").fill("رياضة, صحة")
    assert direction(page.locator("#labels")) == "rtl"
    page.route("**/v1/chat/completions", lambda route: route.fulfill(**answered(*ARABIC)))
    read(page, ARABIC, mode="ask")
    assert page.locator("#answer").inner_text() == ARABIC
    assert direction(page.locator("#answer")) == "rtl"
    assert direction(page.locator("body")) == "ltr"


# ------------------------------------------------------------------ keyboard
def test_the_keyboard_is_enough(visit):
    page = visit()
    order = []
    for _ in range(30):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.id || document.activeElement.value"))
        if order[-1] == "go":
            break
    order = [name for name in order if name]
    assert order == ["text", "label", "labels", "go"]
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    for _ in range(30):
        page.keyboard.press("Shift+Tab")
        if page.evaluate("document.activeElement.id") == "text":
            break
    page.keyboard.type("Rice.")
    page.keyboard.press("Control+Enter")
    sync_api.expect(page.locator("#bars li")).to_have_count(len(LABELS))
    page.locator("input[value=label]").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#question").is_visible()
    assert page.locator("#labels").is_hidden()
    page.locator("#go").focus()
    page.keyboard.press("Enter")
    sync_api.expect(page.locator("#answer")).not_to_be_empty()
    assert page.locator("#bars").is_hidden()


# ------------------------------------------------------------------ what it looks like
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_too_wide_or_too_faint(visit, width, scheme):
    page = visit(width=width, color_scheme=scheme)

    def check():
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CONTRAST) == {}

    check()
    page.locator("#more summary").click()
    page.locator("#labels").fill("word" * 60 + ", travel")
    read(page, "unbroken" * 12)
    assert len(shares(page)) == 2
    page.locator("#show-layers").click()
    sync_api.expect(page.locator("#layers table")).to_be_visible()
    check()
    page.locator("#labels").fill("one")
    read(page, "Rice.")
    assert page.locator("#error").is_visible()
    check()


def test_dark_is_dark_and_light_is_light(visit):
    brightness = {}
    for scheme in ("light", "dark"):
        page = visit(color_scheme=scheme)
        color = page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness[scheme] = sum(map(int, re.findall(r"\d+", color)[:3])) / 3
    assert brightness["dark"] < 60 < 200 < brightness["light"]


# ------------------------------------------------------------------ hostile texts
def test_hostile_texts_are_shown_as_texts(visit):
    page = visit()
    assert "<b>a, b</b>" in page.locator("#labels").input_value()
    page.locator("#labels").fill(f"{HOSTILE}, travel")
    read(page, HOSTILE)
    assert shares(page).keys() == {HOSTILE, "travel"}
    page.locator("#show-layers").click()
    sync_api.expect(page.locator("#layers table")).to_be_visible()
    page.route("**/v1/chat/completions", lambda route: route.fulfill(**answered(HOSTILE)))
    read(page, HOSTILE, mode="ask")
    assert page.locator("#answer").inner_text() == HOSTILE
    assert page.locator("img").count() == 0
    assert page.evaluate("window.hit") is None


def test_a_script_that_got_in_would_not_run(visit):
    """The last line of defence: the policy, which stands in the header."""
    page = visit()
    blocked = page.evaluate(
        """() => new Promise(resolve => {
          addEventListener("securitypolicyviolation", (event) => resolve(event.blockedURI));
          const script = document.createElement("script");
          script.textContent = "window.hit = 1";
          document.body.append(script);
        })"""
    )
    assert blocked == "inline"
    assert page.evaluate("window.hit") is None
    (complaint,) = visit.complaints
    assert "Content Security Policy" in complaint
    visit.complaints.clear()


def test_the_reference_is_whole_in_itself(visit):
    page = visit("/docs", width=390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate(CONTRAST) == {}
    page.locator("a[href='#ChatRequest']").first.click()
    assert page.locator("#ChatRequest").is_visible()

"""What surrounds every page: login, navigation, colours, keyboard, and the sign that what is shown is old."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest
from playwright.sync_api import expect

from tests.support.canaries import CREDENTIALS, Watch
from tests.support.console import ADMIN_TOKEN, VIEWER_TOKEN, Seen, System
from tests.support.whole_api import whole_api

pytestmark = pytest.mark.foreign

Console = Callable[..., Seen]


def test_a_wrong_token_is_refused_at_its_field_and_a_right_one_survives_a_reload(console: Console) -> None:
    seen = console("/webhooks", role=None)
    seen.has("With a token of this deployment")
    seen.check()
    seen.page.get_by_label("Token").fill("wrong")
    seen.button("Log in")
    expect(seen.page.get_by_label("Token")).to_have_accessible_description(
        "Kept in this tab until it is closed, and nowhere else. This token is not known here."
    )
    seen.check()
    seen.login(ADMIN_TOKEN)
    seen.page.get_by_role("heading", level=1, name="Webhooks").wait_for()
    seen.page.reload()
    seen.page.get_by_role("heading", level=1, name="Webhooks").wait_for()
    assert seen.page.evaluate("[localStorage.length, document.cookie]") == [0, ""]


def test_another_tab_must_log_in_and_logging_out_forgets_the_token(console: Console, system: System) -> None:
    seen = console("/")
    other = seen.context.new_page()
    other.goto(system.url)
    other.get_by_role("button", name="Log in").wait_for()
    other.close()
    seen.button("Log out")
    seen.page.get_by_role("button", name="Log in").wait_for()
    assert seen.page.evaluate("sessionStorage.getItem('vault-stream-token')") is None
    seen.allowed.add(401)


def test_without_tokens_there_is_no_login(tab: Callable[[], Seen], system: System) -> None:
    stack = AsyncExitStack()
    try:
        api = system.run(stack.enter_async_context(whole_api()))
        seen = tab()
        seen.page.goto(f"{api.caller.url}/#/webhooks")
        seen.has("local (admin)")
        seen.page.get_by_role("link", name="New webhook").wait_for()
        assert seen.page.get_by_role("button", name="Log out").count() == 0
        seen.check()
        # A hash alone would leave the old page, which asks on while its worker goes.
        seen.page.goto("about:blank")
    finally:
        system.run(stack.aclose())


def test_who_looks_is_named(console: Console) -> None:
    console("/", role="viewer").has("(viewer)")
    console("/", role="admin").has("(admin)")


def test_the_focus_follows_a_navigation_and_the_skip_link_leads_past_it(console: Console) -> None:
    seen = console("/")
    seen.page.get_by_role("link", name="Webhooks", exact=True).click()
    expect(seen.page.get_by_role("heading", level=1, name="Webhooks")).to_be_focused()
    expect(seen.page).to_have_title("Webhooks | vault-stream")
    seen.page.go_back()
    expect(seen.page.get_by_role("heading", level=1, name="Overview")).to_be_focused()
    seen.page.reload()
    seen.page.get_by_role("heading", level=1, name="Overview").wait_for()
    seen.page.keyboard.press("Tab")
    expect(seen.page.get_by_role("link", name="Skip to the content")).to_be_focused()
    seen.page.keyboard.press("Enter")
    expect(seen.page.get_by_role("main")).to_be_focused()


def test_colours_follow_the_system_until_the_tab_says_otherwise(console: Console) -> None:
    seen = console("/")

    def ground() -> str:
        return str(seen.page.evaluate("getComputedStyle(document.body).backgroundColor"))

    seen.page.emulate_media(color_scheme="light")
    light = ground()
    seen.page.emulate_media(color_scheme="dark")
    dark = ground()
    assert light != dark
    seen.page.get_by_label("Colours").select_option("light")
    expect(seen.page.locator("body")).to_have_css("background-color", light)
    seen.check()
    seen.page.reload()
    seen.page.emulate_media(color_scheme="dark")
    expect(seen.page.get_by_label("Colours")).to_have_value("light")
    expect(seen.page.locator("body")).to_have_css("background-color", light)


def test_the_frame_takes_one_row_of_a_usual_screen(console: Console) -> None:
    seen = console("/")
    seen.page.get_by_role("heading", name="Partitions").wait_for()
    # 1280 without the bar to scroll by.
    seen.page.set_viewport_size({"width": 1265, "height": 800})
    expect(seen.page.get_by_role("button", name="Log out")).to_be_visible()
    height = seen.page.locator("header").evaluate("(header) => header.offsetHeight")
    button = seen.page.get_by_role("button", name="Log out").evaluate("(button) => button.offsetHeight")
    assert height < 2 * button


def test_a_table_on_a_narrow_screen_reads_from_the_left(console: Console) -> None:
    seen = console("/")
    seen.page.get_by_role("heading", name="Partitions").wait_for()
    seen.page.set_viewport_size({"width": 360, "height": 740})
    expect(seen.page.locator("td.number").first).to_have_css("text-align", "left")
    expect(seen.page.locator("caption").first).to_have_css("display", "block")


def test_a_page_that_cannot_be_read_warns_of_no_effect(console: Console) -> None:
    seen = console("/nowhere")
    seen.has("There is no such page")
    seen.page.route("**/v1/webhooks**", lambda route: route.abort())
    seen.page.get_by_role("link", name="Webhooks", exact=True).click()
    seen.has("The worker does not answer.")
    assert not seen.page.get_by_text("It may have done").is_visible()
    seen.errors.clear()


def test_an_address_that_leads_nowhere_says_so(console: Console) -> None:
    seen = console("/nowhere/%E0%A4%A")
    seen.has("There is no such page")
    seen.check()
    seen.page.get_by_role("link", name="Go to the overview").click()
    seen.page.get_by_role("heading", level=1, name="Overview").wait_for()


def test_a_page_without_an_answer_for_ten_seconds_says_since_when_and_goes_on_when_there_is_one(
    console: Console,
) -> None:
    seen = console("/")
    seen.page.get_by_role("heading", name="Partitions").wait_for()
    assert not seen.page.get_by_text("This is old.").is_visible()
    seen.page.route("**/v1/**", lambda route: route.abort())
    seen.page.route("**/health", lambda route: route.abort())
    seen.has("This is old.")
    seen.has("The last answer came at 20")
    seen.page.get_by_role("heading", name="Partitions").wait_for()
    seen.check()
    seen.page.unroute("**/v1/**")
    seen.page.unroute("**/health")
    seen.page.get_by_text("This is old.").wait_for(state="detached")
    assert all("ERR_FAILED" in error for error in seen.errors)
    seen.errors.clear()


def test_a_hidden_tab_asks_nothing(console: Console) -> None:
    seen = console("/")
    seen.page.get_by_role("heading", name="Partitions").wait_for()
    seen.page.evaluate("""() => {
        window.asked = 0;
        const real = window.fetch;
        window.fetch = (...given) => { window.asked += 1; return real(...given); };
        Object.defineProperty(document, "hidden", { configurable: true, get: () => true });
        document.dispatchEvent(new Event("visibilitychange"));
    }""")
    # One question may be under way; then there is none for longer than two turns.
    seen.page.wait_for_timeout(1000)
    before = seen.page.evaluate("window.asked")
    seen.page.wait_for_timeout(5000)
    assert seen.page.evaluate("window.asked") == before
    seen.page.evaluate("""() => {
        Object.defineProperty(document, "hidden", { configurable: true, get: () => false });
        document.dispatchEvent(new Event("visibilitychange"));
    }""")
    seen.page.wait_for_function("(before) => window.asked > before", arg=before)


def test_a_token_that_is_taken_back_leads_to_the_login(console: Console) -> None:
    seen = console("/", role="viewer")
    seen.page.get_by_role("heading", name="Partitions").wait_for()
    seen.allowed.add(401)
    seen.page.evaluate("sessionStorage.setItem('vault-stream-token', 'other')")
    seen.has("The token is not taken any more")
    expect(seen.page.locator("main .brand")).to_have_text("vault-stream")
    seen.page.get_by_label("Token").fill("wrong")
    seen.button("Log in")
    # Of the token that was tried, and no longer of the one before.
    seen.has("The token is not known here.")
    expect(seen.page.get_by_text("not taken any more")).to_have_count(0)
    seen.login(VIEWER_TOKEN)
    seen.page.get_by_role("heading", level=1, name="Overview").wait_for()


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ("document.querySelector('main').insertAdjacentHTML('beforeend', '<input>')", "label"),
        ("document.querySelector('h1').style.color = '#999'", "color-contrast"),
        ("document.querySelector('main').insertAdjacentHTML('beforeend', '<p><i>x</i></p>')", None),
    ],
)
def test_what_looks_for_faults_finds_them(console: Console, fault: str, named: str | None) -> None:
    seen = console("/nowhere")
    seen.has("There is no such page")
    seen.page.evaluate(fault)
    if named is None:
        seen.page.evaluate("document.querySelector('i').style = 'display: inline-block; width: 2000px'")
        with pytest.raises(AssertionError, match="px wide on a screen"):
            seen.check()
    else:
        with pytest.raises(AssertionError, match=named):
            seen.check()


def test_the_policy_of_the_page_stops_a_script_that_gets_in(console: Console) -> None:
    seen = console("/nowhere")
    seen.has("There is no such page")
    markup = "<img src='/console/none' onerror='window.owned = 1'>"
    seen.page.evaluate("(it) => document.querySelector('main').insertAdjacentHTML('beforeend', it)", markup)
    seen.page.wait_for_function("document.querySelector('main img').complete")
    seen.page.evaluate("document.querySelector('main img').dispatchEvent(new Event('error'))")
    assert seen.page.evaluate("window.owned") is None
    assert any("Content Security Policy" in error for error in seen.errors)
    seen.errors.clear()


@pytest.mark.parametrize(
    ("page", "found"),
    [
        ("<p>{}</p>", 1),
        ("<a title='{}'>why</a>", 1),
        ("<dialog>{}</dialog>", 1),
        ("<dialog open><p class='secret'>{}</p></dialog>", 0),
        ("<p class='secret'>{}</p>", 1),
    ],
)
def test_a_credential_is_found_wherever_it_is_shown_but_in_the_dialog_for_it(
    tab: Callable[[], Seen], page: str, found: int
) -> None:
    seen, watch = tab(), Watch()
    seen.page.set_content(page.format(CREDENTIALS["webhook secret"]))
    seen.search(watch)
    assert len(watch.take()) == found
    seen.page.set_content("")

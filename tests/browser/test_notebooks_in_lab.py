"""Notebooks as a person sees them: JupyterLab in headless Chromium, cells run, every widget moved by keyboard."""

import pytest

from tests.browser import lab

pytestmark = pytest.mark.browser
OWN_TEST = ("01", "10")  # below, and in test_explorer_in_browser
WITH_WIDGETS = [path for path in lab.NOTEBOOKS if '"widget"' in path.read_text() and path.name[:2] not in OWN_TEST]


def test_a_slider_redraws_at_every_step(address, tmp_path):
    first = next(path for path in lab.NOTEBOOKS if path.name.startswith("01"))
    with lab.opened(address, first, tmp_path) as page:
        page.screenshot(path=lab.SHOTS / f"{first.stem}_opened.png")
        assert lab.cells(page) and not any(cell["number"] for cell in lab.cells(page))
        lab.run_all(page)
        check_the_explorer(page)
        assert not lab.errors(page)


def check_the_explorer(page):
    explorer = page.locator(".jp-OutputArea-output", has=page.locator(".widget-image")).first
    slider = explorer.locator(".widget-hslider", has_text="layer").first
    image, note = explorer.locator(".widget-image").first, explorer.locator(".widget-html").first
    explorer.scroll_into_view_if_needed()
    image.wait_for()
    explorer.screenshot(path=lab.SHOTS / "notebook_01_widget_before.png")

    def seen() -> tuple[str, str]:
        """Return what tells one picture and one note from another; the note ends in the time it took."""
        return image.get_attribute("src"), note.inner_text().partition(" (")[0]

    def looks_right() -> bool:
        return note.inner_text().startswith("strongest: ") and image.evaluate("it => it.naturalWidth") > 300

    readout = slider.locator(".widget-readout")
    layer, last = int(readout.inner_text()), seen()
    assert looks_right()
    slider.locator(".noUi-handle").focus()
    for step in (1, 2):
        page.keyboard.press("ArrowLeft")
        lab.wait_for(
            lambda before=last: all(new != old for new, old in zip(seen(), before, strict=True)),
            lab.PATIENCE,
            "a redraw",
        )
        last = seen()
        assert int(readout.inner_text()) == layer - step and looks_right()
    explorer.screenshot(path=lab.SHOTS / "notebook_01_widget_after.png")


@pytest.mark.parametrize("notebook", WITH_WIDGETS, ids=lambda path: path.stem)
def test_every_widget_answers_the_keyboard(notebook, address, tmp_path):
    with lab.opened(address, notebook, tmp_path) as page:
        lab.run_all(page)
        widgets = page.locator(".jp-OutputArea-output", has=page.locator(".widget-image"))
        assert widgets.count() == notebook.read_text().count('"widget"')
        for place in range(widgets.count()):
            widget = widgets.nth(place)
            widget.scroll_into_view_if_needed()
            image = widget.locator(".widget-image").first
            image.wait_for()
            before = image.get_attribute("src")
            move(page, widget)
            lab.wait_for(
                lambda image=image, before=before: image.get_attribute("src") != before, lab.PATIENCE, "a redraw"
            )
            assert image.evaluate("it => it.naturalWidth") > 300
            assert "#a40000" not in widget.locator(".widget-html").last.inner_html()
            widget.screenshot(path=lab.SHOTS / f"{notebook.stem}_widget_{place}.png")
        assert not lab.errors(page)


def move(page, widget):
    """Move the first slider that is not disabled a good way, or else choose the last entry of the last list."""
    handles = widget.locator(".widget-hslider:not(:has([disabled])) .noUi-handle")
    if handles.count():
        handles.first.focus()
        for _ in range(12):
            page.keyboard.press("ArrowLeft")
    else:
        widget.locator("select").last.focus()
        page.keyboard.press("End")

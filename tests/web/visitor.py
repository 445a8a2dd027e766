"""What a visitor does with the page in a browser."""

from PIL import Image

from .test_asked import through

QUESTION = "How many shapes are there?"


def upload(page, path):
    with page.expect_response(lambda response: "/gradio_api/upload" in response.url and response.status == 200):
        page.locator("input[type=file]").set_input_files(path)
    page.locator("#picture img").wait_for()


def choose(page, label, value):
    box = page.get_by_label(label, exact=True)
    box.click()
    page.locator(f"#{box.get_attribute('aria-controls')}").get_by_role("option", name=value, exact=True).click()


def press(page):
    page.get_by_role("button", name="Ask", exact=True).click()


def ask(page, path, question=QUESTION, pruner=None, budget=None, other=None):
    upload(page, path)
    page.get_by_label("Question").fill(question)
    for label, value in (("Pruner", pruner), ("Compare with", other)):
        if value is not None:
            choose(page, label, value)
    if budget is not None:
        page.get_by_label("Visual tokens").fill(str(budget))
    press(page)


def finished(page, rows):
    """Wait for a table of so many rows; returns what is in them."""
    page.locator(".numbers tbody tr").nth(rows - 1).wait_for()
    page.wait_for_function("document.querySelector('#status').innerText.trim().startsWith('Asking') === false")
    return [row.locator("td").all_inner_texts() for row in page.locator(".numbers tbody tr").all()]


def refused(page):
    """The error that the page shows."""
    return page.get_by_role("alert").inner_text()


def expected(engine, path, pruner, budget, question=QUESTION):
    return through(engine.ask(Image.open(path).convert("RGB"), question, pruner, budget))[1]

"""Benches refuse to give a figure for something else than was asked."""

import pytest

from cli.bench import flood, press, start
from cli.bench.rig import BenchError


def test_a_full_flood_with_every_press_notified_passes():
    press.check(10, 10, 4_600.0, 5_000.0)
    press.check(1, 1, 0.0, 0.0)


@pytest.mark.parametrize(
    ("presses", "notified", "flooded", "words"),
    [(0, 0, 5_000.0, "nobody pressed"), (10, 9, 5_000.0, "1 of 10"), (10, 10, 4_499.0, "the flood reached 4499")],
)
def test_anything_less_is_an_error(presses, notified, flooded, words):
    with pytest.raises(BenchError, match=words):
        press.check(presses, notified, flooded, 5_000.0)


PAGE = """<link rel="icon" href="/static/a.svg"><link rel="stylesheet" href="/static/a.css">
<script src="/static/a.js" defer></script><script type="module" src="/static/b.js"></script><a href="/static/no"></a>"""


def served(monkeypatch, files):
    def get(url):
        if url not in files:
            raise BenchError(f"{url} was not served")
        return files[url]

    monkeypatch.setattr(start, "_get", get)


def test_a_page_is_complete_with_its_icon_styles_and_scripts(monkeypatch):
    assert start.assets_of(PAGE) == ["/static/a.svg", "/static/a.css", "/static/a.js", "/static/b.js"]
    files = {f"http://x{name}": b"." for name in start.assets_of(PAGE)}
    served(monkeypatch, {"http://x/login": PAGE.encode(), **files})
    assert start.load_page("http://x/login") == 5
    del files["http://x/static/b.js"]
    served(monkeypatch, {"http://x/login": PAGE.encode(), **files})
    with pytest.raises(BenchError, match=r"b\.js was not served"):
        start.load_page("http://x/login")


def test_a_page_without_parts_is_not_the_page(monkeypatch):
    served(monkeypatch, {"http://x/login": b"<h1>oops</h1>"})
    with pytest.raises(BenchError, match="no style sheet"):
        start.load_page("http://x/login")


FLOOD = {"devices": 3, "incidents": [{"state": "open", "alarms": 3}]}


@pytest.mark.parametrize(
    ("result", "told_max", "latencies_ms", "words"),
    [
        (FLOOD, 0, [10.0], "nobody was told"),
        (FLOOD, 4, [10.0], "told 4 times"),
        (FLOOD, 2, [10.0, 251.0], "waited 251 ms"),
        ({**FLOOD, "incidents": []}, 2, [10.0], "that became"),
        ({**FLOOD, "incidents": [{"state": "open", "alarms": 2}]}, 2, [10.0], "that became"),
    ],
)
def test_a_flood_that_told_too_much_or_held_a_press_back_is_no_result(result, told_max, latencies_ms, words):
    with pytest.raises(BenchError, match=words):
        flood.check(result, told_max, latencies_ms)


def test_a_flood_as_it_should_be():
    flood.check(FLOOD, 3, [10.0] * 99 + [249.0])

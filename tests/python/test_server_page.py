"""The page at /: one file that asks nobody else for anything, and the figures that it draws."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import chromium
import pytest
from conftest import Tiny
from foundry.server import observing
from foundry.server.settings import Settings
from served import Served, chat, events_of, serve, until


@pytest.fixture(scope="module")
def served(tiny_path: Tiny) -> Iterator[Served]:
    with serve(tiny_path(max_seq_len=4096), Settings(api_key="secret")) as one:
        yield one


def test_the_page_comes_without_a_key_and_names_no_other_host(served: Served) -> None:
    answer = served.client.get("/", headers={"Authorization": ""})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    text = Path(observing.__file__).with_name("page.html").read_text()
    assert answer.text == text
    assert re.findall(r"(?:https?:)?//[a-z]|@import|<link|<script src|<img", text) == []
    assert "innerHTML" not in text  # what a model writes is text


def test_memory_is_told_as_it_is(served: Served) -> None:
    session = served.post("/v1/sessions", {"name": "root", "tokens": 64}).json()["id"]
    prompt = "A prompt of some length, so that there are pages"
    served.chat(prompt, session_id=session)
    fork = served.post(f"/v1/sessions/{session}/fork", {"name": "child"}).json()["id"]
    body = {"model": "tiny", "stream": True, **chat("Other words", max_tokens=3000, ignore_eos=True)}
    with served.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        events = events_of(answer)
        for _ in range(5):
            next(events)
        (model,) = served.client.get("/v1/memory").json()["models"]
        assert model["running"] == 1
        assert model["answers"][0]["kv_bytes"] > 0
        assert not model["answers"][0]["prefill"]
    sessions = {one["id"]: one for one in model["sessions"]}
    assert (sessions[fork]["parent"], sessions[fork]["name"]) == (session, "child")
    assert sessions[fork]["shared_bytes"] == sessions[fork]["kv_bytes"]
    assert sessions[session]["kv_bytes"] == sessions[session]["shared_bytes"]
    pages = sum(one["pages"] for one in model["prefixes"])
    assert sum(one["bytes"] for one in model["prefixes"]) == model["memory"]["prefix_cache"]
    assert sum(one["tokens"] for one in model["prefixes"]) == 8 * pages
    assert all(one["parent"] < i for i, one in enumerate(model["prefixes"]))
    assert max(one["shared"] for one in model["prefixes"]) > 0
    for one in (session, fork):
        served.client.delete(f"/v1/sessions/{one}")
    until(lambda: served.client.get("/v1/memory").json()["models"][0]["answers"] == [])
    served.idle()


def test_the_tree_is_drawn_as_runs_that_branch(served: Served) -> None:
    served.model.drop_prefixes()
    for prompt in ([1] * 40, [1] * 16 + [2] * 16, [1] * 16 + [3] * 16):
        served.ok("/v1/completions", {"prompt": prompt, "max_tokens": 1, "temperature": 0})
    runs = served.model.prefixes()
    root, *branches = runs
    assert (root["parent"], root["tokens"]) == (-1, 16)
    assert sorted((one["parent"], one["tokens"]) for one in branches) == [(0, 16), (0, 16), (0, 24)]


# Drawn tokens may go on to the context's end, and the test would wait for as long: it asks for the most likely ones.
GREEDY = """const sent = window.fetch;
window.fetch = (path, options) => sent(path, !options?.body ? options
  : { ...options, body: JSON.stringify({ ...JSON.parse(options.body), temperature: 0 }) });
undefined"""


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.skipif(
    chromium.PATH is None and "FOUNDRY_NEEDS_BROWSER" not in os.environ, reason="needs Debian's chromium"
)
def test_the_page_in_a_browser(smollm2_path: Path, tmp_path: Path) -> None:
    """Talks, stops, edits into a branch, and draws the memory. Pictures are kept where FOUNDRY_PICTURES says."""
    pictures = Path(os.environ.get("FOUNDRY_PICTURES", tmp_path))
    options = {"threads": None, "page_tokens": 64, "prefix_cache_bytes": 64 << 20}
    with serve(smollm2_path, Settings(max_context=4000), **options) as served, chromium.chromium() as page:
        page.open(served.url)
        page.until("document.querySelector('#model')?.options.length === 1 && !!document.querySelector('#memory .bar')")
        page.run(GREEDY)
        said = "[...document.querySelectorAll('.turn.assistant p')].map((p) => p.textContent)"
        page.run(
            "document.querySelector('#text').value = 'Name three colours.'; document.querySelector('#send').click()"
        )
        page.until(f"{said}.length === 1 && {said}[0].length > 0")
        page.until("document.querySelector('#stop').hidden")
        assert page.run("document.querySelector('.turn.assistant small').textContent").endswith("new")
        page.run(
            "document.querySelector('#text').value = 'Tell me a long story.'; document.querySelector('#send').click()"
        )
        page.until(f"{said}.length === 2 && {said}[1].length > 20")
        page.until("document.querySelector('#memory').textContent.includes('Answers under way')")
        page.picture(pictures / "answering.png")
        page.run("document.querySelector('#stop').click()")
        page.until("document.querySelectorAll('.turn.assistant small')[1]?.textContent === 'stopped'")
        until(lambda: served.engine.admission.running == 0)
        page.run("window.prompt = () => 'Name three animals.'; document.querySelector('.turn.user button').click()")
        page.until("document.querySelectorAll('.branch').length === 2")
        page.until(f"document.querySelector('#stop').hidden && {said}.length === 1")
        page.run("look()")
        page.until("document.querySelector('#memory').textContent.includes('Prefix tree')")
        page.picture(pictures / "branches.png")
        page.run("document.querySelectorAll('.branch')[0].click()")
        assert page.run(f"{said}.length") == 2

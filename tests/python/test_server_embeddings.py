"""POST /v1/embeddings in OpenAI's shape: the library's rows, and refusals that name what is wrong."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Tiny, room_of
from foundry.server.settings import Settings
from served import Served, leave, serve, until
from test_embeddings import write
from test_server_refusals import refused

PATH = "/v1/embeddings"
TEXTS = ["One", "Two and two are four", ""]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("embeds") / "m.gguf")


@pytest.fixture(scope="module")
def served(path: Path) -> Iterator[Served]:
    with serve(path) as one:
        yield one


def test_an_answer_has_openais_shape_and_the_librarys_rows(served: Served) -> None:
    expected = served.model.embed(TEXTS)
    found = served.ok(PATH, {"input": TEXTS})
    assert (found["object"], found["model"]) == ("list", "tiny")
    assert [(one["object"], one["index"]) for one in found["data"]] == [("embedding", i) for i in range(3)]
    assert np.array_equal(np.float32([one["embedding"] for one in found["data"]]), expected)
    tokens = sum(len(served.model.tokenizer.encode(text)) for text in TEXTS)
    assert served.metric("prompt_tokens_total") == tokens
    assert found["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    coded = served.ok(PATH, {"input": TEXTS, "encoding_format": "base64"})
    rows = [np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in coded["data"]]
    assert np.array_equal(np.stack(rows), expected)
    served.idle()


def test_text_and_token_ids_alone_and_in_lists(served: Served) -> None:
    ids = served.model.tokenizer.encode("One")
    expected = served.model.embed("One")[0].tolist()
    for given in ("One", ["One"], ids, [ids]):
        assert [one["embedding"] for one in served.ok(PATH, {"input": given})["data"]] == [expected]
    both = served.ok(PATH, {"input": [ids, "One"], "user": "somebody"})["data"]
    assert [one["embedding"] for one in both] == [expected, expected]


def test_dimensions_are_cut_and_one_long(served: Served) -> None:
    expected = served.model.embed(TEXTS, dimensions=8)
    found = served.ok(PATH, {"input": TEXTS, "dimensions": 8})
    assert np.array_equal(np.float32([one["embedding"] for one in found["data"]]), expected)
    assert np.abs(np.linalg.norm(expected, axis=1) - 1).max() < 1e-6


BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "input"),
    ({"input": None}, "input"),
    ({"input": 3}, "input"),
    ({"input": []}, "input"),
    ({"input": [[]]}, "input"),
    ({"input": [1, "a"]}, "input"),
    ({"input": [99999]}, "99999"),
    ({"input": [[1], [-1]]}, "-1"),
    ({"input": ["a"] * 300}, "256"),
    ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
    ({"input": "a", "dimensions": 0}, "dimensions"),
    ({"input": "a", "dimensions": 65}, "64"),
]


@pytest.mark.parametrize(("fields", "named"), BAD, ids=lambda value: json.dumps(value)[:60])
def test_a_bad_request_is_refused_by_name(served: Served, fields: dict[str, Any], named: str) -> None:
    refused(served.post(PATH, fields), 400, named)


def test_a_text_over_the_context_is_refused_with_figures_and_never_cut(path: Path) -> None:
    with serve(path, Settings(max_context=32)) as small:
        answer = small.post(PATH, {"input": ["a", "a" * 40]})
        refused(answer, 400, "input[1]")
        error = answer.json()["error"]
        assert error["code"] == "context_length_exceeded"
        assert (error["needed_tokens"], error["available_tokens"]) == (41, 32)
        assert small.ok(PATH, {"input": "a" * 31})["usage"]["prompt_tokens"] == 32


def test_a_text_whose_memory_there_never_is_is_refused_with_figures(served: Served, path: Path) -> None:
    served.idle()
    limit = room_of(served.model) + served.model.plan(8, 0).kv
    with serve(path, memory_limit=limit + (64 << 10), prefix_cache_bytes=0) as enough:  # and page tables
        assert len(enough.ok(PATH, {"input": [[1] * 8] * 20})["data"]) == 20
    with serve(path, memory_limit=limit - 4096, prefix_cache_bytes=0) as tight:
        answer = tight.post(PATH, {"input": [[1] * 8]})
        refused(answer, 400, "memory")
        assert answer.json()["error"]["code"] == "memory_limit"


def test_models_without_a_pooling_are_refused_as_ever(tiny_path: Tiny) -> None:
    with serve(tiny_path()) as text:
        answer = text.post(PATH, {"input": "a"})
        refused(answer, 400, "embeddings")
        assert answer.json()["error"]["code"] == "no_embeddings"


def test_embeddings_and_answers_run_beside_each_other(served: Served) -> None:
    body = {"input": ["some text " * 12] * 20}
    expected, answer = served.ok(PATH, body), served.chat(max_tokens=20)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(served.ok(PATH, body)["data"])) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert served.chat(max_tokens=20)["choices"] == answer["choices"]
    for thread in threads:
        thread.join()
    assert found == [expected["data"]] * 4
    served.idle()


def test_a_client_that_leaves_is_not_worked_for(served: Served) -> None:
    body = {"input": [[1] * 250] * 256}
    before = served.model._core.counts.rows
    leave(served, PATH, body)
    until(lambda: served.engine.admission.running == 0)
    assert served.model._core.counts.rows - before < 250 * 256
    served.idle()

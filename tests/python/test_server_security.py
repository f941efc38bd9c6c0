"""Who may ask: keys, hosts, pages of other sites, and what a body may be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import Tiny
from foundry.server.security import host_name
from foundry.server.settings import Settings
from served import CHAT, Served, chat, serve

EVIL = "https://evil.example"


@pytest.fixture(scope="module")
def served(tiny_path: Tiny) -> Iterator[Served]:
    settings = Settings(api_key="secret", allowed_origins=("https://good.example",), max_body_bytes=10_000)
    with serve(tiny_path(), settings) as one:
        yield one


@pytest.mark.parametrize(
    "given", ["", "Bearer wrong", "Bearer", "secret", "Basic secret", "Bearer secret2", "Bearer é"]
)
def test_without_the_key_there_is_nothing_but_health(served: Served, given: str) -> None:
    headers = {"Authorization": given.encode()} if given else {"Authorization": b""}
    for path in ("/v1/models", "/metrics", "/tokenizer_info", "/v1/no/such/route"):
        answer = served.client.get(path, headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"
    assert served.client.post(CHAT, json=chat(), headers=headers).status_code == 401
    assert served.client.get("/health", headers=headers).status_code == 200


def test_anthropics_header_has_the_key_too(served: Served) -> None:
    headers = {"Authorization": "", "x-api-key": "secret"}
    assert served.client.get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "localhost.evil"])
def test_a_name_that_was_pointed_here_is_not_served(served: Served, host: str) -> None:
    answer = served.client.get("/v1/models", headers={"Host": host})
    assert answer.status_code in (400, 403)
    assert served.client.get("/health", headers={"Host": host}).status_code in (400, 403)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:1", "127.0.0.1", "[::1]:8000", "192.168.1.7:8000", "a.localhost"]
)
def test_addresses_and_localhost_are_served(served: Served, host: str) -> None:
    assert served.client.get("/v1/models", headers={"Host": host}).status_code == 200


def test_hosts_without_their_ports() -> None:
    names = {"a": "a", "a:1": "a", "[::1]": "::1", "[::1]:80": "::1", "127.0.0.1:80": "127.0.0.1", "": ""}
    assert {host: host_name(host) for host in names} == names


def test_a_page_of_another_site_is_refused_even_with_the_key(served: Served) -> None:
    for origin in (EVIL, "null", "http://127.0.0.1:1"):
        answer = served.client.post(CHAT, json=chat(), headers={"Origin": origin})
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
    own = served.client.get("/v1/models", headers={"Origin": served.url})
    assert own.status_code == 200
    assert "access-control-allow-origin" not in own.headers


def test_a_preflight_is_answered_for_pages_that_were_allowed(served: Served) -> None:
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    answer = served.client.options(CHAT, headers={"Origin": EVIL, **ask})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    answer = served.client.options(CHAT, headers={"Origin": "https://good.example", "Authorization": "", **ask})
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "https://good.example"
    assert "access-control-allow-credentials" not in answer.headers
    answer = served.client.get("/v1/models", headers={"Origin": "https://good.example"})
    assert answer.headers["access-control-allow-origin"] == "https://good.example"
    assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_a_form_can_send_is_refused(served: Served, kind: str) -> None:
    answer = served.client.post(CHAT, content=b"{}", headers={"Content-Type": kind})
    assert answer.status_code == 415
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_bodies_are_bounded_whether_they_say_their_length_or_not(served: Served) -> None:
    for content in (b'"' + b"a" * 20_000 + b'"', iter([b'"', b"a" * 20_000, b'"'])):
        answer = served.client.post(CHAT, content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 413
        assert "10000" in answer.json()["error"]["message"]
    assert served.post(CHAT, chat()).status_code == 200


def test_without_a_key_nobody_is_asked_for_one(tiny_path: Tiny) -> None:
    with serve(tiny_path()) as served:
        assert served.client.get("/v1/models").status_code == 200
        headers = {"Authorization": "Bearer whatever"}
        assert served.client.get("/v1/models", headers=headers).status_code == 200

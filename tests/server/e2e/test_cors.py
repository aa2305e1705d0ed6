"""Browsers: which pages may call, in every kind of answer."""

import pytest
import requests

from server_process import Server

PAGE, OTHER = "https://page.example", "https://other.example"
KEY = "sk-1"


@pytest.fixture(scope="module")
def shared():
    with Server("--api-key", KEY, "--allowed-origins", f'["{PAGE}", "http://localhost:3000"]',
                "--allow-credentials") as running:
        yield running


def cors_of(reply):
    return {name.lower(): value for name, value in reply.headers.items()
            if name.lower().startswith("access-control-")}


def ask(server, method, path, origin=PAGE, key=KEY, **options):
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    if origin:
        headers["Origin"] = origin
    headers |= options.pop("headers", {})
    return requests.request(method, server.url + path, headers=headers, timeout=30, **options)


def preflight(server, path, origin=PAGE, method="POST"):
    return ask(server, "OPTIONS", path, origin, None, headers={
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang"})


ALLOWED = {"access-control-allow-origin": PAGE, "access-control-allow-credentials": "true",
           "access-control-expose-headers": "X-Request-Id, Retry-After"}


@pytest.mark.parametrize("method, path, key, body, status", [
    ("GET", "/v1/models", KEY, None, 200), ("GET", "/health", None, None, 200),
    ("POST", "/v1/completions", KEY, {"prompt": "x", "max_tokens": 1}, 200),
    ("POST", "/v1/completions", KEY, {"prompt": "x", "max_tokens": 1, "stream": True}, 200),
    ("POST", "/v1/completions", KEY, {"prompt": 1.5}, 400),
    ("GET", "/v1/models", "wrong", None, 401), ("POST", "/v1/completions", None, {}, 401),
    ("GET", "/nowhere", KEY, None, 404), ("PUT", "/v1/models", KEY, None, 405),
    ("GET", "/v1/models", KEY, {"no": "body"}, 400)])
def test_every_answer_names_the_origin(shared, method, path, key, body, status):
    reply = ask(shared, method, path, PAGE, key, json=body)
    assert reply.status_code == status
    assert cors_of(reply) == ALLOWED
    assert reply.headers["Vary"] == "Origin"
    for origin in (OTHER, "null", None):
        reply = ask(shared, method, path, origin, key, json=body)
        assert reply.status_code == status and not cors_of(reply)


def test_a_head_that_is_no_request_is_answered_without(shared):
    reply = ask(shared, "GET", "/v1/models", headers={"X-Request-Id": "not valid"})
    assert reply.status_code == 400 and cors_of(reply) == ALLOWED
    reply = ask(shared, "GET", "/v1/models", headers={"X-Filler": "x" * 70000})
    assert reply.status_code == 431 and not cors_of(reply)


def test_a_preflight_needs_no_key(shared):
    for path, method in (("/v1/completions", "POST"), ("/v1/models", "GET")):
        reply = preflight(shared, path, method=method)
        assert (reply.status_code, reply.content) == (204, b"")
        assert "Content-Length" not in reply.headers and "Content-Type" not in reply.headers
        assert cors_of(reply) == ALLOWED | {
            "access-control-allow-methods": method,
            "access-control-allow-headers": "authorization,content-type,x-stainless-lang",
            "access-control-max-age": "600"}


def test_a_preflight_of_others_is_refused_as_any_request_without_a_key(shared):
    for reply in (preflight(shared, "/v1/completions", OTHER), preflight(shared, "/nowhere")):
        assert reply.status_code == 401
        assert "access-control-allow-methods" not in cors_of(reply)


def test_a_star_allows_all_and_no_list_nobody(server):
    with Server("--allowed-origins", '["*"]') as open_to_all:
        reply = ask(open_to_all, "GET", "/v1/models", OTHER)
        assert cors_of(reply)["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in cors_of(reply)
        assert preflight(open_to_all, "/v1/completions", OTHER).status_code == 204
    assert not cors_of(ask(server, "GET", "/v1/models"))
    assert "Vary" not in ask(server, "GET", "/v1/models").headers
    assert preflight(server, "/v1/completions").status_code == 405


def test_a_connection_lives_on_after_a_preflight(shared):
    with requests.Session() as session:
        for _ in range(3):
            reply = session.options(shared.url + "/v1/completions", timeout=30, headers={
                "Origin": PAGE, "Access-Control-Request-Method": "POST"})
            assert reply.status_code == 204
            reply = session.get(shared.url + "/v1/models", timeout=30,
                                headers={"Authorization": f"Bearer {KEY}"})
            assert reply.status_code == 200 and not cors_of(reply)  # the last one's are gone

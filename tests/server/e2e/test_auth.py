"""API keys: on every route but health and readiness, the same over gRPC."""

import json
import os
import signal

import grpc
import pytest
import requests

from server_process import Server, wait_until


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("from-file\n")
    with Server("--api-key", "first", "--api-key", "second", "--api-key-file", str(keys)) as server:
        yield server


def status(server, method, path, authorization):
    headers = {} if authorization is None else {"Authorization": authorization}
    return requests.request(method, server.url + path, headers=headers, timeout=30,
                            json={} if method == "POST" else None).status_code


def test_every_route(locked):
    document = requests.get(locked.url + "/openapi.json", timeout=30,
                            headers={"Authorization": "Bearer first"}).json()
    for path, methods in document["paths"].items():
        for method in methods:
            path = path.replace("{id}", "demo")
            got = status(locked, method.upper(), path, None)
            if path in ("/health", "/healthz", "/ready", "/readyz"):
                assert got == 200, path
            else:
                assert got == 401, path
                assert status(locked, method.upper(), path, "Bearer second") != 401, path
    assert status(locked, "GET", "/does/not/exist", None) == 401


@pytest.mark.parametrize("authorization, expected", [
    ("Bearer first", 200), ("bearer second", 200), ("Bearer from-file", 200), ("Bearer ", 401),
    ("Bearer firs", 401), ("Bearer firstt", 401), ("Bearer FIRST", 401), ("first", 401),
    ("Basic first", 401), ("Bearer first,second", 401)])
def test_spellings(locked, authorization, expected):
    assert status(locked, "GET", "/v1/models", authorization) == expected


@pytest.mark.parametrize("headers, expected", [
    ({"x-api-key": "first"}, 200), ({"X-Api-Key": "from-file"}, 200), ({"x-api-key": "firs"}, 401),
    ({"x-api-key": "first", "Authorization": "Bearer first"}, 200),
    ({"x-api-key": "second", "Authorization": "Bearer first"}, 401),
    ({"x-api-key": "first", "Authorization": "Basic Zmlyc3Q="}, 401),
    ({"x-api-key": "first", "Authorization": "Bearer wrong"}, 401)])
def test_x_api_key_stands_for_the_bearer_and_never_against_it(locked, stubs, headers, expected):
    reply = requests.get(locked.url + "/v1/models", headers=headers, timeout=30)
    assert reply.status_code == expected
    messages, services = stubs
    metadata = [(name.lower(), value) for name, value in headers.items()]
    with grpc.insecure_channel(locked.grpc_address) as channel:
        call = services.InferenceStub(channel).GetLoad
        if expected == 200:
            call(messages.GetLoadRequest(), metadata=metadata)
            return
        with pytest.raises(grpc.RpcError) as refused:
            call(messages.GetLoadRequest(), metadata=metadata)
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("values", [["Bearer first", "Bearer wrong"],
                                    ["Bearer wrong", "Bearer first"]])
def test_a_key_is_given_once_to_grpc_too(locked, stubs, values):
    messages, services = stubs
    with grpc.insecure_channel(locked.grpc_address) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            services.InferenceStub(channel).GetLoad(
                messages.GetLoadRequest(),
                metadata=[("authorization", value) for value in values])
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert refused.value.details() == "the metadata authorization must not be repeated"


def test_keys_are_shown_nowhere(locked):
    text = requests.get(locked.url + "/config", timeout=30,
                        headers={"Authorization": "Bearer first"}).text + locked.read_log()
    assert "from-file" not in text and "second" not in text


def test_keys_that_come_with_a_reload_do_not_go_with_one(tmp_path):
    """A list that was empty at the start and is empty again: open at first, never afterwards."""
    config = tmp_path / "config.json"
    config.write_text("{}")

    def reload(entries):
        before = server.read_log().count("SIGHUP")
        config.write_text(json.dumps({"server": {"api_keys": entries}}))
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: server.read_log().count("SIGHUP") > before)
        return server.read_log().split("SIGHUP")[-1]

    with Server("--config", str(config)) as server:
        assert status(server, "GET", "/v1/models", None) == 200
        assert "1 API keys" in reload(["late name=late"])
        assert status(server, "GET", "/v1/models", None) == 401
        assert status(server, "GET", "/v1/models", "Bearer late") == 200
        assert "the API keys stay as they are" in reload([])
        assert status(server, "GET", "/v1/models", None) == 401
        assert status(server, "GET", "/v1/models", "Bearer late") == 200


@pytest.mark.parametrize("make", ["pipe", "folder"])
def test_a_key_file_that_has_become_something_else_does_not_hold_up_the_end(tmp_path, make):
    keys = tmp_path / "keys"
    keys.write_text("old\n")
    with Server("--api-key-file", str(keys)) as server:
        keys.unlink()
        os.mkfifo(keys) if make == "pipe" else keys.mkdir()
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log(f"server.api_key_file = {keys}: is a {make}")
        assert status(server, "GET", "/v1/models", "Bearer old") == 200
        server.stop()


def test_grpc(locked, stubs):
    messages, services = stubs
    with grpc.insecure_channel(locked.grpc_address) as channel:
        stub = services.InferenceStub(channel)
        for metadata in (None, [("authorization", "Bearer wrong")]):
            with pytest.raises(grpc.RpcError) as refused:
                stub.GetServerInfo(messages.GetServerInfoRequest(), metadata=metadata)
            assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
            with pytest.raises(grpc.RpcError) as refused:
                list(stub.Generate(messages.GenerateRequest(text="x"), metadata=metadata))
            assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
        info = stub.GetServerInfo(messages.GetServerInfoRequest(),
                                  metadata=[("authorization", "Bearer from-file")])
        assert info.model == "demo"

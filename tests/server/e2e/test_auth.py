"""API keys: on every route but health and readiness, the same over gRPC."""

import grpc
import pytest
import requests

from server_process import Server


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


def test_keys_are_shown_nowhere(locked):
    text = requests.get(locked.url + "/config", timeout=30,
                        headers={"Authorization": "Bearer first"}).text + locked.read_log()
    assert "from-file" not in text and "second" not in text


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

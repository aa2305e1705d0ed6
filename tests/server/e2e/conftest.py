"""One server for all tests that leave it as they found it, and gRPC stubs made from the proto."""

import importlib
import sys

import pytest

from server_process import ROOT, Server
from tls_files import Authority


@pytest.fixture(scope="session")
def server():
    with Server("--strict-params", "--set", "http.header_timeout_s=2", "--set",
                "http.body_timeout_s=2") as running:
        yield running


@pytest.fixture(autouse=True)
def survives(request):
    """Whatever a test did, the shared server answers, and holds nothing for it."""
    yield
    if "server" in request.fixturenames:
        running = request.getfixturevalue("server")
        assert running.process.poll() is None, running.read_log()
        running.wait_until_idle()


@pytest.fixture(scope="session")
def stubs(tmp_path_factory):
    """(messages, services) of proto/inference.proto."""
    from grpc_tools import protoc

    out = tmp_path_factory.mktemp("stubs")
    code = protoc.main(["protoc", f"--proto_path={ROOT / 'proto'}", f"--python_out={out}",
                        f"--grpc_python_out={out}", str(ROOT / "proto" / "inference.proto")])
    assert code == 0
    sys.path.insert(0, str(out))
    return importlib.import_module("inference_pb2"), importlib.import_module("inference_pb2_grpc")


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"), "ours")


@pytest.fixture(scope="session")
def foreign(tmp_path_factory):
    """One that no server knows."""
    return Authority(tmp_path_factory.mktemp("foreign"), "foreign")


@pytest.fixture(scope="session")
def pair(authority):
    """A server's certificate and key."""
    return authority.issue("server")

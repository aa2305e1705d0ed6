"""SIGHUP reads certificate, key and CAs anew, for the connections that come after it."""

import shutil
import signal
import ssl

import grpc
import pytest

from raw_http import RawConnection
from server_process import wait_until
from test_tls_grpc import credentials, generate
from tls_files import Authority, HalfTls, Pair, TlsServer, client_context

PORTS = {"HTTP": "http/1.1", "gRPC": "h2"}


class Files(Pair):
    """What the server is started with: a certificate, a key and CAs that can be put in place."""

    def __init__(self, folder):
        super().__init__(folder, "live")
        self.cas = folder / "cas.pem"

    def put(self, pair):
        shutil.copy(pair.certificate, self.certificate)
        shutil.copy(pair.key, self.key)


@pytest.fixture
def files(tmp_path, pair, authority):
    made = Files(tmp_path)
    made.put(pair)
    shutil.copy(authority.certificate, made.cas)
    return made


def reload(server):
    before = server.read_log().count("SIGHUP")
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: server.read_log().count("SIGHUP") > before)
    return server.read_log().split("SIGHUP")[-1]


def connect(server, name, context):
    """After TLS 1.3's handshake a client does not know yet whether it is let in: TLS 1.2 tells."""
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([PORTS[name]])
    return HalfTls(server.ports[name], context)


def is_let_in(server, name, context):
    try:
        connect(server, name, context).close()
        return True
    except (ssl.SSLError, ConnectionError):
        return False


def served(server, name, authority):
    tls = connect(server, name, client_context(authority))
    tls.close()
    return ssl.DER_cert_to_PEM_cert(tls.tls.getpeercert(binary_form=True)).strip()


def test_new_connections_get_the_new_certificate_and_open_ones_stay(files, authority, stubs):
    old = files.certificate.read_text().strip()
    new = authority.issue("second")
    with TlsServer(*files.flags()) as server:
        assert [served(server, name, authority) for name in PORTS] == [old] * 2
        kept = RawConnection.__new__(RawConnection)
        kept.socket, kept.pending = connect(server, "HTTP", client_context(authority)), b""
        with kept, grpc.secure_channel(server.grpc_address, credentials(authority)) as channel:
            assert generate(channel, stubs)
            files.put(new)
            assert "TLS files read anew" in reload(server)
            expected = new.certificate.read_text().strip()
            assert [served(server, name, authority) for name in PORTS] == [expected] * 2
            kept.send_request("GET", "/health")
            assert kept.read_reply()[0] == 200
            assert generate(channel, stubs)


def spoil_certificate(files):
    files.certificate.write_text("nothing")
    return files.certificate


def spoil_key(files):
    shutil.copy(files.key.with_name("other.key"), files.key)
    return files.key


def spoil_cas(files):
    files.cas.unlink()
    return files.cas


@pytest.mark.parametrize("spoil", [spoil_certificate, spoil_key, spoil_cas])
def test_wrong_files_change_nothing(files, authority, foreign, spoil):
    shutil.copy(foreign.key, files.key.with_name("other.key"))
    ours = authority.issue("client")
    keys = files.key.with_name("keys")
    keys.write_text("old\n")
    with TlsServer(*files.flags(), "--ssl-ca-certs", str(files.cas), "--api-key-file",
                   str(keys)) as server:
        keys.write_text("new\n")
        spoiled = spoil(files)
        said = reload(server)
        assert "stay as they are" in said and f" = {spoiled}: " in said
        for name in PORTS:
            assert is_let_in(server, name, client_context(authority, ours))
            assert not is_let_in(server, name, client_context(authority))
        with RawConnection.__new__(RawConnection) as connection:
            connection.socket = connect(server, "HTTP", client_context(authority, ours))
            connection.pending = b""
            connection.send_request("GET", "/v1/models", headers=["Authorization: Bearer old"])
            assert connection.read_reply()[0] == 200


def test_clients_of_a_ca_that_is_gone_are_refused(files, authority, tmp_path):
    """With the tickets of their sessions too."""
    new_authority = Authority(tmp_path, "new")
    old = client_context(authority, authority.issue("client"))
    new = client_context(authority, new_authority.issue("client"))
    with TlsServer(*files.flags(), "--ssl-ca-certs", str(files.cas)) as server:
        for name in PORTS:
            assert is_let_in(server, name, old) and not is_let_in(server, name, new)
        sessions = {name: connect(server, name, old).tls.session for name in PORTS}
        shutil.copy(new_authority.certificate, files.cas)
        reload(server)
        for name in PORTS:
            assert not is_let_in(server, name, old) and is_let_in(server, name, new)
            with pytest.raises((ssl.SSLError, ConnectionError)):
                HalfTls(server.ports[name], old, session=sessions[name])


def test_tls_does_not_end_by_itself(files, tmp_path):
    config = tmp_path / "config.json"
    config.write_text('{"server": {"ssl_certfile": "%s", "ssl_keyfile": "%s"}}' %
                      (files.certificate, files.key))
    with TlsServer("--config", str(config)) as server:
        config.write_text("{}")
        assert "server.ssl_certfile" in reload(server)

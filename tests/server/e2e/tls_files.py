"""Certificates made with the openssl program, and TLS connections by hand."""

import socket
import ssl
import subprocess

from server_process import Server

NAMES = "subjectAltName=IP:127.0.0.1,DNS:localhost"
EC_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)


class Pair:
    """A certificate's file and its key's."""

    def __init__(self, folder, name):
        self.certificate = folder / f"{name}.pem"
        self.key = folder / f"{name}.key"

    def flags(self):
        return ["--ssl-certfile", str(self.certificate), "--ssl-keyfile", str(self.key)]


class Authority(Pair):
    def __init__(self, folder, name):
        super().__init__(folder, name)
        self.folder = folder
        openssl("req", "-x509", *EC_KEY, "-keyout", self.key, "-out", self.certificate,
                "-subj", f"/CN={name}", "-days", 2)

    def issue(self, name, key=EC_KEY):
        pair = Pair(self.folder, name)
        request = self.folder / f"{name}.csr"
        extensions = self.folder / "extensions"
        extensions.write_text(NAMES + "\n")
        openssl("req", "-new", *key, "-keyout", pair.key, "-out", request, "-subj", f"/CN={name}")
        openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key,
                "-CAcreateserial", "-days", 2, "-extfile", extensions, "-out", pair.certificate)
        return pair


class TlsServer(Server):
    """Its own requests trust the CA that REQUESTS_CA_BUNDLE names."""

    @property
    def url(self):
        return f"https://127.0.0.1:{self.port}"


def client_context(authority, pair=None):
    context = ssl.create_default_context(cafile=authority.certificate)
    if pair:
        context.load_cert_chain(pair.certificate, pair.key)
    return context


class HalfTls:
    """Looks like a socket, and can end its sending side alone, which ssl.SSLSocket cannot."""

    def __init__(self, port, context, receive_buffer=None, session=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(30)
        self.socket.connect(("127.0.0.1", port))
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="127.0.0.1",
                                    session=session)
        self._run(self.tls.do_handshake)

    def _flush(self):
        self.socket.sendall(self.outgoing.read())

    def _run(self, step, *arguments):
        while True:
            try:
                result = step(*arguments)
            except ssl.SSLWantReadError:
                self._flush()
                data = self.socket.recv(65536)
                if data:
                    self.incoming.write(data)
                else:
                    self.incoming.write_eof()
                continue
            self._flush()
            return result

    def sendall(self, data):
        self._run(self.tls.write, data)

    def recv(self, size):
        """Nothing after the peer's close_notify; SSLEOFError if it ends without one."""
        try:
            return self._run(self.tls.read, size)
        except ssl.SSLZeroReturnError:
            return b""

    def end_sending(self):
        """A close_notify, and no end of the TCP connection."""
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:  # the peer's is not awaited
            pass
        self._flush()

    def settimeout(self, timeout_s):
        self.socket.settimeout(timeout_s)

    def close(self):
        self.socket.close()

"""HTTP by hand: what no client library would send."""

import json
import socket


class RawConnection:
    def __init__(self, server):
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        self.pending = b""

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode())

    def send_request(self, method, path, body=b"", headers=()):
        lines = [f"{method} {path} HTTP/1.1", "Host: x", *headers]
        if body and not any(h.lower().startswith("content-length") for h in headers):
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def send_completion(self, **fields):
        body = {"prompt": "The ls command", "max_tokens": 4, "temperature": 0} | fields
        self.send_request("POST", "/v1/completions", json.dumps(body).encode(),
                          ["Content-Type: application/json"])

    def read_until(self, mark):
        """Everything up to and with `mark`; less if the peer closes first."""
        while mark not in self.pending:
            piece = self.socket.recv(65536)
            if not piece:
                break
            self.pending += piece
        end = self.pending.find(mark)
        end = len(self.pending) if end < 0 else end + len(mark)
        data, self.pending = self.pending[:end], self.pending[end:]
        return data

    def read_reply(self, has_body=True):
        """(status, headers, body); status 0 if the peer closed without a word. A reply to HEAD has
        a length and no body."""
        head = self.read_until(b"\r\n\r\n").decode()
        if not head:
            return 0, {}, b""
        first, *lines = head.strip().split("\r\n")
        headers = {k.strip().lower(): v.strip() for k, v in (line.split(":", 1) for line in lines)}
        body = b""
        length = int(headers.get("content-length", 0)) if has_body else 0
        while len(self.pending) < length:
            piece = self.socket.recv(65536)
            assert piece, "the body was cut off"
            self.pending += piece
        body, self.pending = self.pending[:length], self.pending[length:]
        return int(first.split()[1]), headers, body

    def is_closed_by_peer(self, timeout_s=10):
        self.socket.settimeout(timeout_s)
        try:
            while True:
                if not self.socket.recv(65536):
                    return True
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

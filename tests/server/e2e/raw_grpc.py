"""HTTP/2 by hand, as far as an attacker needs it: calls whose messages never end."""

import socket
import struct
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE = 0, 1, 3, 4, 8
END_HEADERS, ACK = 4, 1


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name, value):
    """An HPACK field that is neither indexed nor compressed."""
    def text(data):
        data = data.encode()
        assert len(data) < 127
        return bytes([len(data)]) + data
    return b"\x00" + text(name) + text(value)


class RawGrpc:
    """One connection, which keeps to the windows that the server grants."""

    def __init__(self, server):
        host, port = server.grpc_address.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0))
        self.buffer = b""
        self.initial_window = 65535
        self.windows = {0: 65535}
        self.closed = set()  # streams that the server has reset or answered
        self.is_gone = False
        self.next_stream = 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def start_call(self, method, key=None):
        fields = [(":method", "POST"), (":scheme", "http"), (":path", method),
                  (":authority", "x"), ("content-type", "application/grpc"), ("te", "trailers")]
        if key:
            fields.append(("authorization", f"Bearer {key}"))
        stream, self.next_stream = self.next_stream, self.next_stream + 2
        self.windows[stream] = self.initial_window
        block = b"".join(literal(*field) for field in fields)
        self.socket.sendall(frame(HEADERS, END_HEADERS, stream, block))
        return stream

    def begin_message(self, stream, announced_bytes):
        self.send(stream, b"\x00" + struct.pack(">I", announced_bytes))

    def send(self, stream, data):
        """Sends what the windows allow now; the number of bytes."""
        size = max(0, min(len(data), self.windows[0], self.windows[stream], 16384))
        if size and not self.is_gone:
            try:
                self.socket.sendall(frame(DATA, 0, stream, data[:size]))
            except OSError:
                self.is_gone = True
        self.windows[0] -= size
        self.windows[stream] -= size
        return size

    def listen(self, timeout_s=0.0):
        """Takes in what the server has sent."""
        self.socket.settimeout(timeout_s or 0.000001)
        try:
            data = self.socket.recv(1 << 16)
            self.is_gone |= not data
            self.buffer += data
        except (TimeoutError, BlockingIOError):
            pass
        except OSError:
            self.is_gone = True
        self.socket.settimeout(10)
        while len(self.buffer) >= 9:
            size = int.from_bytes(self.buffer[:3], "big")
            if len(self.buffer) < 9 + size:
                break
            kind, flags, stream = struct.unpack(">BBI", self.buffer[3:9])
            self._take(kind, flags, stream, self.buffer[9:9 + size])
            self.buffer = self.buffer[9 + size:]

    def _take(self, kind, flags, stream, payload):
        if kind == SETTINGS and not flags & ACK:
            for i in range(0, len(payload), 6):
                name, value = struct.unpack(">HI", payload[i:i + 6])
                if name == 4:
                    for known in self.windows:
                        self.windows[known] += (value - self.initial_window) if known else 0
                    self.initial_window = value
            self.socket.sendall(frame(SETTINGS, ACK, 0))
        elif kind == WINDOW_UPDATE and stream in self.windows:
            self.windows[stream] += int.from_bytes(payload, "big")
        elif kind == RST_STREAM or (kind == HEADERS and flags & 1):
            self.closed.add(stream)

    def upload(self, stream, num_bytes, until):
        """Sends a message's bytes as fast as the server takes them; how many it took."""
        piece = b"x" * 16384
        sent = 0
        while sent < num_bytes and time.monotonic() < until and not self.is_gone:
            size = self.send(stream, piece[:num_bytes - sent])
            sent += size
            self.listen(0 if size else 0.05)
            if stream in self.closed:
                break
        return sent

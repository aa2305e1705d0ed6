"""A subscriber to KV events, with the structures that vLLM's own subscriber decodes them by."""

import re
import uuid
from typing import Any

import msgspec
import zmq

PAGE = 128
END = (-1).to_bytes(8, "big", signed=True)


class Event(msgspec.Struct, array_like=True, omit_defaults=True, tag=True):
    pass


class BlockStored(Event):
    block_hashes: list[int]
    parent_block_hash: int | None
    token_ids: list[int]
    block_size: int
    lora_id: int | None
    medium: str | None
    lora_name: str | None
    extra_keys: list[tuple[Any, ...] | None] | None = None


class BlockRemoved(Event):
    block_hashes: list[int]
    medium: str | None


class AllBlocksCleared(Event):
    pass


class EventBatch(msgspec.Struct, array_like=True, omit_defaults=True):
    ts: float
    events: list[BlockStored | BlockRemoved | AllBlocksCleared]
    data_parallel_rank: int | None = None


class Message(msgspec.Struct):
    topic: str
    sequence: int
    batch: EventBatch

    @property
    def model(self):
        return self.topic.split("@")[2]


def decode(topic, sequence, payload):
    return Message(topic.decode(), int.from_bytes(sequence, "big"),
                   msgspec.msgpack.decode(payload, type=EventBatch))


class Subscriber:
    """Of one server's endpoints; `with` closes its sockets."""

    def __init__(self, server):
        found = re.search(r"KV events on (\S+), replay on (\S+)", server.read_log())
        self.endpoint, self.replay_endpoint = found.groups()
        self.server = server
        self.context = zmq.Context()
        self.live = self.context.socket(zmq.SUB)
        self.live.connect(self.endpoint)
        self.live.setsockopt_string(zmq.SUBSCRIBE, "kv@")
        self.blocks = {}  # hash -> (model, parent, tokens), of what is in the cache
        self._wait_until_it_hears()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.destroy(linger=0)

    def _wait_until_it_hears(self):
        for _ in range(100):
            self.server.complete([5] * (PAGE + 1), max_tokens=1, cache_salt=str(uuid.uuid4()))
            if self.live.poll(200):
                break
        assert self.receive()

    def receive(self, quiet_ms=500):
        """All messages until there is silence."""
        messages = []
        while self.live.poll(quiet_ms):
            messages.append(decode(*self.live.recv_multipart()))
        self.apply(messages)
        return messages

    def apply(self, messages):
        """Keeps `blocks`; what cannot be true of a cache fails."""
        for message in messages:
            for event in message.batch.events:
                if isinstance(event, BlockStored):
                    self._store(message.model, event)
                elif isinstance(event, BlockRemoved):
                    for block in event.block_hashes:
                        assert self.blocks.pop(block, (message.model,))[0] == message.model
                else:
                    self.blocks = {block: kept for block, kept in self.blocks.items()
                                   if kept[0] != message.model}

    def _store(self, model, event):
        assert (event.block_size, event.lora_id, event.lora_name) == (PAGE, None, None)
        assert len(event.token_ids) == PAGE * len(event.block_hashes)
        parent = event.parent_block_hash
        for i, block in enumerate(event.block_hashes):
            assert block not in self.blocks
            self.blocks[block] = (model, parent, event.token_ids[PAGE * i:PAGE * (i + 1)])
            parent = block

    def tokens_up_to(self, block):
        """Those of the chain that ends with a block."""
        tokens = []
        while block is not None:
            _, block, own = self.blocks[block]
            tokens = own + tokens
        return tokens

    def replay(self, first):
        """The messages from a number on, as the replay socket has them."""
        client = self.context.socket(zmq.DEALER)
        client.connect(self.replay_endpoint)
        client.send_multipart([b"", first.to_bytes(8, "big")])
        messages = []
        while True:
            assert client.poll(20000), "the replay does not end"
            empty, topic, sequence, payload = client.recv_multipart()
            assert empty == b""
            if sequence == END:
                assert (topic, payload) == (b"", b"")
                client.close()
                return messages
            messages.append(decode(topic, sequence, payload))


def stored(messages):
    return [event for message in messages for event in message.batch.events
            if isinstance(event, BlockStored)]


def hashes_of(messages, model):
    return [block for message in messages if message.model == model
            for event in stored([message]) for block in event.block_hashes]

"""Writes fixtures/messages.json: KV events, and the bytes that msgspec makes of them with the
structures of vLLM (vllm/distributed/kv_events.py); chains of blocks, and their hashes by hashlib.

    python make_messages_fixture.py    (needs msgspec)
"""

import hashlib
import json
import pathlib
import struct
from typing import Any

import msgspec

FIXTURE = pathlib.Path(__file__).parent / "fixtures" / "messages.json"
MEDIUM = {"device": "GPU", "host": "CPU"}


class EventBatch(msgspec.Struct, array_like=True, omit_defaults=True):
    ts: float
    events: list[Any]
    data_parallel_rank: int | None = None


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


def stored(first_hash, parent, pages, salt="", tier="device"):
    """The blocks of a chain, in the recorder's words, and the one event that tells of them."""
    hashes = [first_hash + i for i in range(len(pages))]
    blocks = [{"kind": "stored", "hash": hash_, "parent": above, "tokens": page, "tier": tier,
               "salt": salt}
              for hash_, above, page in zip(hashes, [parent, *hashes], pages)]
    keys = [(salt,), *[None] * (len(pages) - 1)] if salt and not parent else None
    event = BlockStored(hashes, parent or None, sum(pages, []), len(pages[0]), None, MEDIUM[tier],
                        None, keys)
    return blocks, event


def removed(hashes, tier="device"):
    blocks = [{"kind": "removed", "hash": hash_, "tier": tier} for hash_ in hashes]
    return blocks, BlockRemoved(hashes, MEDIUM[tier])


def cleared():
    return [{"kind": "cleared"}], AllBlocksCleared()


def message(name, *parts, ts=1767225600.125):
    batch = EventBatch(ts, [event for _, event in parts], 0)
    return {"name": name, "ts": ts, "blocks": sum((blocks for blocks, _ in parts), []),
            "payload": msgspec.msgpack.encode(batch).hex()}


def sha256(data):
    return max(int.from_bytes(hashlib.sha256(data).digest()[:8], "big"), 1)


def chain(model, root, pages):
    parent = sha256(struct.pack(">Q", len(model.encode())) + model.encode() + root.encode())
    hashes = []
    for page in pages:
        parent = sha256(struct.pack(">Q", parent) + struct.pack(f">{len(page)}I", *page))
        hashes.append(parent)
    return {"model": model, "root": root, "pages": pages, "hashes": hashes}


def main():
    page = list(range(128))
    wide = [0, 127, 128, 255, 256, 65535, 65536, 151935]  # ids of every width
    messages = [
        message("the first block of a chain", stored(2**64 - 1, 0, [page])),
        message("blocks that continue another", stored(7, 2**63, [wide, wide[::-1], wide])),
        message("sixteen blocks", stored(2**40, 1, [page] * 16)),
        message("with a salt", stored(300, 0, [wide, wide], salt="tenant \u00e9")),
        message("below the salted block", stored(302, 301, [wide], salt="tenant \u00e9")),
        message("of the host's memory", stored(1, 0, [wide], tier="host")),
        message("removed", removed([2**64 - 1, 5]), removed([5], tier="host")),
        message("cleared", cleared()),
        message("one after the other", stored(9, 0, [wide]), stored(20, 0, [wide]), removed([9]),
                cleared(), stored(30, 20, [wide, wide])),
    ]
    hashes = [chain("demo", "dense|", [page, page[::-1]]),
              chain("demo", "dense|salt", [page]),
              chain("dem", "odense|salt", [page]),
              chain("n\u00e4me", "pbs mass error_bound 0.933|", [wide])]
    fixture = {"messages": messages, "chains": hashes}
    FIXTURE.write_text(json.dumps(fixture, separators=(",", ":")).replace('{"', '\n{"') + "\n")
    print(len(messages), "messages,", len(hashes), "chains")


if __name__ == "__main__":
    main()

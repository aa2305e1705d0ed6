"""A conversation goes on: how long until the first token of the second turn, whose prompt begins
with the first one's?"""

from bench_server import BenchServer


def turn(server: BenchServer, prompt: list[int], mode: str, salt: str) -> dict:
    return server.post("/v1/completions", {
        "prompt": prompt, "temperature": 0, "max_tokens": 1, "ignore_eos": True,
        "cache_salt": salt, "sparse_attention": {"mode": mode}, "include_metrics": True,
    })


def second_turn(server: BenchServer, ids: list[int], num_new: int, mode: str, salt: str,
                between: list[int] | None = None) -> dict:
    """`num_new` tokens on the rest of `ids`. `between`: another prompt that runs after the first
    turn, and evicts it where the cache is small. REQUIRES: the salt was never used."""
    first = turn(server, ids[:-num_new], mode, salt)
    if between:
        turn(server, between, "dense", f"{salt} between")
    second = turn(server, ids, mode, salt)
    return {"what": "second turn", "tokens": len(ids) - num_new, "new_tokens": num_new,
            "mode": mode, "between": len(between or []),
            "cached": second["usage"]["prompt_tokens_details"]["cached_tokens"],
            "density": second["metrics"]["sparse_attention"]["density"],
            "first_turn_ms": first["metrics"]["time_to_first_token_ms"],
            "ttft_ms": second["metrics"]["time_to_first_token_ms"]}

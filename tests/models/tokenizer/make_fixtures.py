"""Writes fixtures/: the strings, and what the reference packages make of them.

    pip install tokenizers sentencepiece protobuf
    python make_fixtures.py TOKENIZERS

TOKENIZERS holds the folders llama-3.1, qwen3 and llama-2 with their tokenizer.json. Runs of one
megabyte are kept as a count and a hash of their ids."""

import io
import json
import pathlib
import random
import sys

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from fixture_strings import strings, text_of

HERE = pathlib.Path(__file__).parent
OUT = HERE / "fixtures"
DEMO = HERE.parents[2] / "models" / "demo"
TEXT = HERE.parents[1] / "bench" / "haystack" / "postgresql-15.txt"


def fnv1a(ids):
    value = 0xCBF29CE484222325
    for token in ids:
        for byte in token.to_bytes(4, "little"):
            value = (value ^ byte) * 0x100000001B3 % (1 << 64)
    return f"{value:016x}"


def compact(entry, ids):
    return list(ids) if isinstance(entry, str) else {"count": len(ids), "fnv1a": fnv1a(ids)}


def dump(name, value):
    def line(part):
        return json.dumps(part, ensure_ascii=False, separators=(",", ":"))

    if isinstance(value, list):
        text = "[" + ",\n".join(map(line, value)) + "]\n"
    else:
        lists = (
            f"{line(key)}:[\n" + ",\n".join(map(line, part)) + "]" for key, part in value.items()
        )
        text = "{" + ",\n".join(lists) + "}\n"
    (OUT / name).write_text(text, encoding="utf-8")


def random_ids(vocab_size):
    """Ids as a model may produce them: broken characters, special tokens, ids without a token."""
    rng = random.Random(7)
    return [[rng.randrange(vocab_size) for _ in range(rng.randint(1, 12))] for _ in range(150)] + [
        [rng.randrange(260) for _ in range(rng.randint(1, 12))] for _ in range(150)
    ]


def byte_level(name, path, entries):
    tokenizer = Tokenizer.from_file(str(path))
    ids = [tokenizer.encode(text_of(entry)).ids for entry in entries]
    tokenizer.encode_special_tokens = True
    plain = []
    for i, entry in enumerate(entries):
        if isinstance(entry, str) and "<" in entry:
            plain.append([i, tokenizer.encode(entry, add_special_tokens=False).ids])
    decoded = []
    for sample in random_ids(tokenizer.get_vocab_size()):
        decoded.append(
            {
                "ids": sample,
                "all": tokenizer.decode(sample, skip_special_tokens=False),
                "skip": tokenizer.decode(sample, skip_special_tokens=True),
            }
        )
    dump(
        f"{name}.json",
        {"ids": [compact(e, i) for e, i in zip(entries, ids)], "plain": plain, "decoded": decoded},
    )


def train_gaps():
    """fixtures/gaps: a vocabulary as published ones are, without a token for some bytes. What the
    text has gets one; of the others every seventh goes without."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=[character for i, character in enumerate(alphabet) if i % 7 != 3],
        special_tokens=["<|end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT.read_text(encoding="utf-8").split("\n")[:3000], trainer)
    path = OUT / "gaps" / "tokenizer.json"
    path.parent.mkdir(exist_ok=True)
    tokenizer.save(str(path), pretty=False)
    return path


def has_tie(processor, text):
    """Versions of the library choose differently between cuts of equal score (unigram models)."""
    scores = [
        best.score
        for best in processor.nbest_encode(text, nbest_size=2, return_type="proto").nbests
    ]
    return len(scores) > 1 and abs(scores[0] - scores[1]) < 1e-3


def sentence_piece(name, model, entries, is_unigram=False):
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)

    def encode(entry):
        text = text_of(entry)
        # The library takes seconds for a megabyte without a space: such runs are left out.
        if len(text.encode()) > 300000 or (
            is_unigram and isinstance(entry, str) and has_tie(processor, text)
        ):
            return None
        return processor.encode(text)

    ids = list(map(encode, entries))
    decoded = []
    for sample in list(filter(None, ids))[:600] + random_ids(processor.vocab_size()):
        # Decoding in the package drops control tokens.
        sample = [i for i in sample if not processor.is_control(i)]
        decoded.append({"ids": sample, "all": processor.decode(sample)})
    compacted = [None if i is None else compact(e, i) for e, i in zip(entries, ids)]
    dump(f"{name}.json", {"ids": compacted, "decoded": decoded})


def llama2_model(path):
    """tokenizer.model of a folder that has only its conversion: the order of merges is the scores.
    sentencepiece_test.cc writes the same."""
    model = json.loads(path.read_text(encoding="utf-8"))["model"]
    scores = {}
    for merge in model["merges"]:
        scores.setdefault(merge.replace(" ", ""), -float(len(scores)))
    proto = sentencepiece_model_pb2.ModelProto()
    for piece, token in sorted(model["vocab"].items(), key=lambda item: item[1]):
        kind = 2 if token == 0 else 3 if token < 3 else 6 if token < 259 else 1
        proto.pieces.add(piece=piece, score=scores.get(piece, -1e6), type=kind)
    proto.trainer_spec.model_type = 2
    proto.trainer_spec.byte_fallback = True
    proto.normalizer_spec.remove_extra_whitespaces = False
    return proto.SerializeToString()


def train(**options):
    lines = TEXT.read_text(encoding="utf-8").split("\n")[:3000]
    buffer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=buffer,
        vocab_size=800,
        minloglevel=2,
        num_threads=1,
        **options,
    )
    return buffer.getvalue()


def main():
    folder = pathlib.Path(sys.argv[1])
    entries = strings()
    dump("strings.json", entries)
    byte_level("demo", DEMO / "tokenizer.json", entries)
    byte_level("gaps", train_gaps(), entries)
    byte_level("llama-3.1", folder / "llama-3.1" / "tokenizer.json", entries)
    byte_level("qwen3", folder / "qwen3" / "tokenizer.json", entries)
    models = {
        "sp_bpe": train(
            model_type="bpe",
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            user_defined_symbols=["<sep>"],
        ),
        "sp_unigram": train(model_type="unigram", normalization_rule_name="identity"),
    }
    for name, model in models.items():
        (OUT / f"{name}.model").write_bytes(model)
        sentence_piece(name, model, entries, is_unigram=name == "sp_unigram")
    sentence_piece("llama-2", llama2_model(folder / "llama-2" / "tokenizer.json"), entries)


main()

"""pbserve.v1.Inference: the scenarios of HTTP with the same texts, and what gRPC adds."""

import threading
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase)

from server_process import SPEED, Server

BIG = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
LONG = "Files and directories are listed by name. " * 2500


class Client:
    def __init__(self, server, stubs):
        self.messages, services = stubs
        self.channel = grpc.insecure_channel(server.grpc_address, options=BIG)
        self.stub = services.InferenceStub(self.channel)

    def request(self, text=None, max_tokens=12, **fields):
        m = self.messages
        fields.setdefault("sampling", m.SamplingParams(temperature=0))
        fields.setdefault("stop", m.StopRules(max_tokens=max_tokens))
        if text is not None:
            fields["text"] = text
        return m.GenerateRequest(**fields)

    def generate(self, *args, **fields):
        """(text, events) of a whole generation, the order of events checked."""
        events = list(self.stub.Generate(self.request(*args, **fields)))
        kinds = [e.WhichOneof("event") for e in events]
        assert kinds[0] == "accepted" and kinds[-1] == "finished"
        middle = kinds[1:-1]
        assert middle == sorted(middle, key=["progress", "chunk"].index)
        return "".join(e.chunk.text for e in events), events


@pytest.fixture(scope="module")
def client(server, stubs):
    made = Client(server, stubs)
    yield made
    made.channel.close()


def failure(call):
    with pytest.raises(grpc.RpcError) as error:
        result = call()
        if hasattr(result, "__iter__"):
            list(result)
    return error.value


def test_texts_are_those_of_http(server, client):
    for prompt in ("The ls command", "The cat utility", "Section 7.", "\u00e9\u4e2d\U0001f600"):
        over_http = server.complete(prompt, max_tokens=12)
        text, events = client.generate(prompt)
        assert text == over_http["choices"][0]["text"]
        finished = events[-1].finished
        assert finished.reason == client.messages.FINISH_REASON_LENGTH
        assert finished.usage.completion_tokens == 12
        assert finished.usage.prompt_tokens == over_http["usage"]["prompt_tokens"]
        assert finished.timings.first_token_ms > 0
        assert len(finished.sparse.layer_densities) == 8


def test_token_ids(client):
    m = client.messages
    ids = client.stub.Tokenize(m.TokenizeRequest(text="The ls command")).ids
    text, events = client.generate(token_ids=m.TokenIds(ids=ids))
    assert text == client.generate("The ls command")[0]
    produced = [i for e in events for i in e.chunk.token_ids]
    assert len(produced) == 12
    assert client.stub.Detokenize(m.DetokenizeRequest(ids=produced)).text == text


def test_chat(server, client):
    m = client.messages
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    over_http = server.post("/v1/chat/completions",
                            {"messages": turns, "temperature": 0, "max_tokens": 12}).json()
    text, _ = client.generate(chat=m.ChatMessages(messages=[m.ChatMessage(**t) for t in turns]))
    assert text == over_http["choices"][0]["message"]["content"]


def test_stop_strings_and_seed(server, client):
    m = client.messages
    whole, _ = client.generate("The ls command", max_tokens=24)
    text, events = client.generate("The ls command",
                                   stop=m.StopRules(max_tokens=24, strings=[whole[6:9]]))
    assert text == whole[:whole.index(whole[6:9])]
    assert events[-1].finished.matched_stop == whole[6:9]
    sampling = m.SamplingParams(temperature=1, seed=5)
    drawn, _ = client.generate("The ls command", sampling=sampling)
    assert drawn == server.complete("The ls command", max_tokens=12, temperature=1,
                                    seed=5)["choices"][0]["text"]


def test_temperature_zero_is_not_unset(client):
    """generation_config.json asks for greedy; a set temperature must override it either way."""
    greedy, _ = client.generate("The ls command", max_tokens=24)
    hot = [client.generate("The ls command", max_tokens=24,
                           sampling=client.messages.SamplingParams(temperature=1.5, seed=s))[0]
           for s in range(3)]
    assert any(text != greedy for text in hot)


def test_progress_and_sparse_report(client):
    m = client.messages
    sparse = m.SparseAttention(mode=m.SPARSE_MODE_PBS, threshold=0.5)
    _, events = client.generate(LONG[:40000], max_tokens=2, sparse_attention=sparse)
    progress = [e.progress for e in events if e.HasField("progress")]
    assert progress and progress[-1].processed_tokens <= progress[-1].total_tokens
    report = events[-1].finished.sparse
    assert report.mode_used == m.SPARSE_MODE_PBS and 0 < report.density < 1
    _, quiet = client.generate(LONG[:40000], max_tokens=2, prefill_progress=False)
    assert not any(e.HasField("progress") for e in quiet)


def test_information(client):
    m = client.messages
    info = client.stub.GetServerInfo(m.GetServerInfoRequest())
    assert (info.model, info.max_model_len, info.vocab_size) == ("demo", 32768, 4096)
    assert [x.id for x in client.stub.ListModels(m.ListModelsRequest()).models] == ["demo"]
    assert client.stub.GetLoad(m.GetLoadRequest()).num_pages == info.num_pages
    tokens = client.stub.Tokenize(m.TokenizeRequest(text="Hi \u4e2d", return_token_strs=True))
    assert b"".join(tokens.token_strs) == "Hi \u4e2d".encode()
    chat = m.ChatMessages(messages=[m.ChatMessage(role="user", content="Hi")])
    ids = client.stub.Tokenize(m.TokenizeRequest(chat=chat)).ids
    text = client.stub.Detokenize(m.DetokenizeRequest(ids=ids)).text
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_errors(client):
    m = client.messages
    invalid = {
        "prompt": client.request(),
        "temperature": client.request("x", sampling=m.SamplingParams(temperature=-1)),
        "max_tokens": client.request("x", stop=m.StopRules(max_tokens=0)),
        "stop": client.request("x", stop=m.StopRules(strings=[""])),
        "messages[0].role": client.request(chat=m.ChatMessages(
            messages=[m.ChatMessage(role="a b", content="x")])),
        "sparse_attention.mode": client.request(
            "x", sparse_attention=m.SparseAttention(mode=77)),
        "request_id": client.request("x", request_id="a\nb"),
    }
    for field, request in invalid.items():
        error = failure(lambda: client.stub.Generate(request))
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, field
        details = dict(error.trailing_metadata())["grpc-status-details-bin"]
        assert b"google.rpc.BadRequest" in details and field.encode() in details
    for ids in ([-1], [4096], []):
        error = failure(lambda: client.stub.Generate(client.request(
            token_ids=m.TokenIds(ids=ids))))
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    wrong = failure(lambda: client.stub.Generate(client.request("x", model="gpt-4")))
    assert wrong.code() == grpc.StatusCode.NOT_FOUND


def test_large_messages(client):
    m = client.messages
    text = "word " * 2_000_000  # over gRPC's default of 4 MiB both ways
    error = failure(lambda: client.stub.Generate(client.request(text)))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT  # too long, but received
    over = failure(lambda: client.stub.Tokenize(m.TokenizeRequest(text="x" * ((256 << 20) + 1))))
    assert over.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_cancel_frees_everything(server, client):
    for text, wanted in ((LONG, "accepted"), ("The ls command", "chunk")):
        call = client.stub.Generate(client.request(
            text, stop=client.messages.StopRules(max_tokens=8000, ignore_eos=True)))
        for event in call:
            if event.HasField(wanted):
                break
        call.cancel()
        server.wait_until_idle(timeout_s=20)


def test_deadline(server, client):
    request = client.request("The ls command", stop=client.messages.StopRules(
        max_tokens=8000, ignore_eos=True))
    error = failure(lambda: client.stub.Generate(request, timeout=0.5))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    error = failure(lambda: client.stub.Generate(request, timeout=0.001))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    server.wait_until_idle(timeout_s=20)


def test_reflection(client):
    database = ProtoReflectionDescriptorDatabase(client.channel)
    assert list(database.get_services()) == [
        "pbserve.v1.Inference", "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection"]
    for service in database.get_services():
        assert database.FindFileContainingSymbol(service).service[0].name in service
    with pytest.raises(KeyError):
        database.FindFileContainingSymbol("pbserve.v1.Nothing")
    assert database.FindFileByName("inference.proto").package == "pbserve.v1"
    described = database.FindFileContainingSymbol("pbserve.v1.Inference")
    assert [x.name for x in described.service[0].method] == [
        "Generate", "CreateContext", "GetContext", "ListContexts", "DeleteContext", "Tokenize",
        "Detokenize", "ListModels", "GetServerInfo", "GetLoad"]


def test_health_watch_sees_the_drain(stubs):
    with Server() as ending, grpc.insecure_channel(ending.grpc_address) as channel:
        client = Client(ending, stubs)
        health = health_pb2_grpc.HealthStub(channel)
        serving = health_pb2.HealthCheckResponse.SERVING
        for name in ("", "pbserve.v1.Inference"):
            check = health.Check(health_pb2.HealthCheckRequest(service=name))
            assert check.status == serving
        unknown = failure(lambda: health.Check(health_pb2.HealthCheckRequest(service="x")))
        assert unknown.code() == grpc.StatusCode.NOT_FOUND

        seen = []
        changed = threading.Event()

        def watch():
            request = health_pb2.HealthCheckRequest(service="pbserve.v1.Inference")
            try:
                for update in health.Watch(request):
                    seen.append(update.status)
                    changed.set()
            except grpc.RpcError:
                pass  # the server is gone

        watcher = threading.Thread(target=watch)
        watcher.start()
        assert changed.wait(10) and seen == [serving]
        stop = client.messages.StopRules(max_tokens=300 * SPEED, ignore_eos=True)
        running = client.stub.Generate(client.request("The ls command", stop=stop))
        next(running)
        ending.begin_stop()
        deadline = time.monotonic() + 10
        while len(seen) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert seen[1] == health_pb2.HealthCheckResponse.NOT_SERVING
        assert list(running)[-1].HasField("finished")  # what ran has finished
        ending.stop()
        watcher.join()
        client.channel.close()

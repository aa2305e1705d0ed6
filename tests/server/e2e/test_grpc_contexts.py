"""Named contexts over gRPC: a stream of parts that is computed as it comes; and what it leaves."""

import threading

import grpc
import pytest

from server_process import Server, wait_until

TEXT = "Files and directories are listed by name.\nThe cat utility reads files in order. " * 60


class Client:
    def __init__(self, server, stubs, key=None):
        self.messages, services = stubs
        self.channel = grpc.insecure_channel(server.grpc_address)
        self.stub = services.InferenceStub(self.channel)
        self.metadata = [("x-api-key", key)] if key else None

    def create(self, *parts):
        """A part is a header, a text or ids."""
        return self.stub.CreateContext(map(self.part, parts), metadata=self.metadata, timeout=60)

    def part(self, part):
        m = self.messages
        if isinstance(part, m.ContextHeader):
            return m.CreateContextRequest(header=part)
        if isinstance(part, str):
            return m.CreateContextRequest(text=part)
        return m.CreateContextRequest(token_ids=m.TokenIds(ids=part))

    def list(self):
        return self.stub.ListContexts(self.messages.ListContextsRequest(),
                                      metadata=self.metadata).contexts

    def get(self, name):
        return self.stub.GetContext(self.messages.GetContextRequest(id=name),
                                    metadata=self.metadata)

    def delete(self, name):
        return self.stub.DeleteContext(self.messages.DeleteContextRequest(id=name),
                                       metadata=self.metadata)

    def generate(self, text, **fields):
        m = self.messages
        request = m.GenerateRequest(text=text, sampling=m.SamplingParams(temperature=0),
                                    stop=m.StopRules(max_tokens=12), **fields)
        events = list(self.stub.Generate(request, metadata=self.metadata, timeout=60))
        return "".join(event.chunk.text for event in events), events[-1].finished.usage


@pytest.fixture(scope="module")
def client(server, stubs):
    made = Client(server, stubs)
    yield made
    made.channel.close()


@pytest.fixture(autouse=True)
def leaves_no_context(request):
    yield
    if "client" in request.fixturenames:
        client = request.getfixturevalue("client")
        for context in client.list():
            client.delete(context.id)
        server = request.getfixturevalue("server")
        assert server.metrics()["pbserve:context_bytes"] == 0


def failure(call):
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value


def test_three_parts_are_prefilled_as_they_come_and_answer_as_one_piece(client):
    m = client.messages
    header = m.ContextHeader(name="manual", ttl_s=60, cache_salt="of a call",
                             sparse_attention=m.SparseAttention(mode=m.SPARSE_MODE_DENSE))
    may_end = threading.Event()

    def parts():
        yield client.part(header)
        yield client.part(TEXT[:2000])
        yield client.part(TEXT[2000:-10])
        may_end.wait(60)
        yield client.part(TEXT[-10:])

    call = client.stub.CreateContext.future(parts(), timeout=60)
    wait_until(lambda: [c for c in client.list() if c.prefilled_tokens > 500])
    assert not client.list()[0].ready and not call.done()
    may_end.set()
    context = call.result()
    assert context.ready and context.parts == 3 and context.name == "manual"
    assert client.get(context.id).id == context.id
    wait_until(lambda: client.get(context.id).prefilled_tokens == context.tokens)
    text, usage = client.generate("\nThe ls command", context=context.id)
    whole, usage_of_whole = client.generate(TEXT + "\nThe ls command", cache_salt="other",
                                            sparse_attention=header.sparse_attention)
    assert text == whole and usage.prompt_tokens == usage_of_whole.prompt_tokens
    assert usage_of_whole.cached_tokens == 0 and usage.cached_tokens >= 1024


def test_both_fronts_share_contexts(server, client):
    context = client.create([5, 6, 7])
    used = server.complete("", context=context.id, max_tokens=12)
    assert used["choices"] == server.complete([5, 6, 7], max_tokens=12)["choices"]
    client.delete(context.id)
    assert failure(lambda: client.get(context.id)).code() == grpc.StatusCode.NOT_FOUND
    assert failure(lambda: client.delete(context.id)).code() == grpc.StatusCode.NOT_FOUND
    assert failure(lambda: client.generate("x", context=context.id)).code() == (
        grpc.StatusCode.NOT_FOUND)


def test_wrong_calls_leave_nothing(client):
    m = client.messages
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    for parts in ([], ["Hello", m.ContextHeader()], [m.ContextHeader(), m.ContextHeader()],
                  [m.ContextHeader(ttl_s=0)], [m.ContextHeader(name="n" * 129)], [[-1]],
                  ["some text", [10**7]], [[5] * 30000, [5] * 3000], ["word " * 200000],
                  [m.ContextHeader(priority=17)]):
        assert failure(lambda parts=parts: client.create(*parts)).code() == invalid, parts
        assert not client.list()
    unset = iter([m.CreateContextRequest()])
    assert failure(lambda: client.stub.CreateContext(unset)).code() == invalid
    wrong_model = m.ContextHeader(model="nobody")
    assert failure(lambda: client.create(wrong_model)).code() == grpc.StatusCode.NOT_FOUND


def test_what_a_context_has_decided_is_not_said_again(client):
    m = client.messages
    context = client.create("Hello")
    for fields in ({"cache_salt": "x"}, {"add_special_tokens": True}):
        error = failure(lambda fields=fields: client.generate("x", context=context.id, **fields))
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert next(iter(fields)) in error.details()
    chat = m.ChatMessages(messages=[m.ChatMessage(role="user", content="x")])
    request = m.GenerateRequest(chat=chat, context=context.id)
    error = failure(lambda: list(client.stub.Generate(request)))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT and "context" in error.details()


def test_a_client_that_leaves_takes_its_context_along(server, client):
    may_end = threading.Event()

    def parts():
        yield client.part("Hello there")
        may_end.wait(60)

    call = client.stub.CreateContext.future(parts())
    wait_until(client.list)
    call.cancel()
    may_end.set()
    wait_until(lambda: not client.list())
    assert server.metrics()["pbserve:contexts"] == 0


def test_a_key_sees_its_own_alone_and_an_upload_does_not_hold_a_drain_up(stubs):
    with Server("--api-key", "sk-a name=a", "--api-key", "sk-b name=b",
                "--set", "contexts.max_bytes_per_key=20000") as server:
        a, b = Client(server, stubs, "sk-a"), Client(server, stubs, "sk-b")
        nobody = Client(server, stubs)
        context = a.create("secret")
        assert failure(nobody.list).code() == grpc.StatusCode.UNAUTHENTICATED
        assert not b.list() and len(a.list()) == 1
        for call in (b.get, b.delete, lambda name: b.generate("x", context=name)):
            assert failure(lambda call=call: call(context.id)).code() == grpc.StatusCode.NOT_FOUND
        too_much = failure(lambda: a.create("x" * 10000, "y" * 10000))
        assert too_much.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "contexts.max_bytes_per_key = 20000" in too_much.details()
        assert len(a.list()) == 1
        may_end = threading.Event()

        def parts():
            yield b.part("Hello there")
            may_end.wait(60)

        call = b.stub.CreateContext.future(parts(), metadata=b.metadata)
        wait_until(b.list)
        server.stop(timeout_s=20)
        assert call.exception(timeout=10) is not None
        may_end.set()
        for client in (a, b, nobody):
            client.channel.close()

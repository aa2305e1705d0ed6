#include "server/http/generate.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/system_error.hpp>
#include <chrono>
#include <exception>
#include <memory>
#include <new>
#include <nlohmann/json.hpp>
#include <utility>

#include "server/api_error.h"
#include "server/generation.h"
#include "server/http/answer.h"
#include "server/http/sse.h"
#include "server/openai/format.h"
#include "server/post_surely.h"
#include "server/request_id.h"
#include "server/run_on_workers.h"

namespace pbserve::server {
namespace {

namespace asio = boost::asio;
using asio::awaitable;
using Clock = std::chrono::steady_clock;

// Wakes the coroutine when events are there. Both ends run on the connection's strand, so a wake
// cannot fall between the look into an empty queue and the wait.
class Bell {
 public:
  explicit Bell(asio::any_io_executor strand)
      : timer_(std::make_shared<asio::steady_timer>(std::move(strand))) {}

  // From any thread.
  std::function<void()> ringer() const {
    return [timer = timer_] { post_surely(timer->get_executor(), [timer] { timer->cancel(); }); };
  }

  // True if the silence lasted `seconds`; 0 waits for ever.
  awaitable<bool> wait(double seconds) {
    const auto silence = std::chrono::duration<double>(seconds);
    timer_->expires_at(seconds > 0
                           ? Clock::now() + std::chrono::duration_cast<Clock::duration>(silence)
                           : Clock::time_point::max());
    const auto [error] = co_await timer_->async_wait(asio::as_tuple(asio::use_awaitable));
    co_return !error;
  }

 private:
  std::shared_ptr<asio::steady_timer> timer_;
};

struct Started {
  OpenAiCall call;  // its request has moved into the engine
  std::unique_ptr<Generation> generation;
  OpenAiFormatter formatter;
};

OpenAiFormatter make_formatter(const App& app, const OpenAiCall& call) {
  return OpenAiFormatter(
      {.api = call.api,
       .request_id = call.request.id,
       .model = app.engine->info().model_name,
       .fingerprint = app.fingerprint,
       .created_s = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now()),
       .include_usage = call.include_usage,
       .continuous_usage = call.continuous_usage,
       .include_metrics = call.include_metrics});
}

// Before anything else of the body: what is wrong with it is answered and logged under its id.
void take_id(const Json& body, OpenRequest* open) {
  const auto id = body.find("request_id");
  if (id == body.end() || !id->is_string()) return;
  const std::string& text = id->get_ref<const std::string&>();
  if (check_request_id(text).ok()) open->set_id(text);
}

// On a worker: bytes -> JSON -> Request -> tokens -> queue. The body is gone when this returns.
absl::StatusOr<Started> start(App* app, OpenAiApi api, HttpRequest request,
                              const std::shared_ptr<OpenRequest>& open,
                              std::function<void()> on_ready) {
  const Caller caller = request.caller;
  RETURN_IF_ERROR(app->engine->check_queue());  // it may have filled while the body came
  ASSIGN_OR_RETURN(Json body, parse_json_object(request.body, app->config.http.json));
  const JsonRelease release(&body);
  request = {};
  take_id(body, open.get());
  const OpenAiParseOptions options{.model_name = app->engine->info().model_name,
                                   .strict = app->config.http.strict_params,
                                   .request_id = open->id()};
  ASSIGN_OR_RETURN(OpenAiCall call, api == OpenAiApi::kChat ? parse_chat(body, options)
                                                            : parse_completion(body, options));
  release_json(&body);
  if (!call.context.empty()) {
    RETURN_IF_ERROR(app->contexts.use(caller, call.context, &call.request));
  }
  OpenAiFormatter formatter = make_formatter(*app, call);
  const std::string id = call.request.id;
  ASSIGN_OR_RETURN(std::unique_ptr<Generation> generation,
                   Generation::start(app->engine, std::move(call.request),
                                     {.open = open,
                                      .buffers = &app->buffers,
                                      .buffer_bytes = app->config.server.response_buffer_bytes,
                                      .wants_progress = call.stream && call.return_progress,
                                      .on_ready = std::move(on_ready)}));
  call.request = {};
  call.request.id = id;
  return Started{std::move(call), std::move(generation), std::move(formatter)};
}

// Formats what is there. True: that was the end; `error` says if it was a bad one.
bool append_ready_events(Started* started, std::string* sse, absl::Status* error) {
  while (std::optional<ResponseEvent> event = started->generation->next()) {
    if (const auto* accepted = std::get_if<engine::Accepted>(&*event)) {
      started->formatter.on_accepted(*accepted);
    } else if (const auto* progress = std::get_if<engine::PrefillProgress>(&*event)) {
      started->formatter.append_progress(*progress, sse);
    } else if (const auto* delta = std::get_if<engine::TextDelta>(&*event)) {
      started->formatter.append_text(*delta, sse);
    } else {
      const auto& completion = std::get<engine::Completion>(*event);
      *error = completion_error(completion);
      if (error->ok()) {
        started->formatter.append_finish(completion, sse);
      } else {
        append_sse_data(to_error_body(*error), sse);
      }
      return true;
    }
  }
  return false;
}

void record_end(const absl::Status& error, OpenRequest* open) {
  error.ok() ? open->succeed() : open->fail(error);
}

awaitable<bool> stream_events(const GenerationExchange& exchange, Started* started, Bell* bell) {
  const double keep_alive_s =
      started->call.sse_keep_alive ? exchange.app->config.http.sse_keep_alive_s : 0;
  HttpStream& stream = *exchange.stream;
  if (!co_await stream.begin_events(exchange.open->id(), exchange.keep_alive)) co_return false;
  absl::Status error;
  std::string sse;
  ByteBudget& buffers = exchange.app->buffers;
  ByteBudget::Lease unread(&buffers);
  bool is_done = false;
  while (!is_done) {
    sse.clear();
    is_done = append_ready_events(started, &sse, &error);
    if (is_done) exchange.open->slot.give_back();
    // After a write the queue is looked at again before the wait: a bell during it rang unheard.
    if (sse.empty() && !is_done && co_await bell->wait(keep_alive_s)) sse = kSseKeepAlive;
    if (!unread.grow_to_response(std::ssize(sse))) {
      error = buffers_full("the answer", buffers.limit_bytes());
      sse.clear();
      append_sse_data(to_error_body(error), &sse);
      started->generation.reset();  // the place of its key is free when the engine has let go of it
      is_done = true;
    }
    if (!co_await stream.write_events(sse)) co_return false;
    exchange.open->record.bytes_out += static_cast<int64_t>(sse.size());
  }
  const bool is_ended = co_await stream.end_events();
  if (is_ended) record_end(error, exchange.open.get());
  co_return is_ended&& error.ok() && exchange.keep_alive;
}

awaitable<bool> answer_whole(const GenerationExchange& exchange, Started* started, Bell* bell) {
  std::string text;
  HttpReply reply;
  absl::Status error;
  ByteBudget& buffers = exchange.app->buffers;
  ByteBudget::Lease unread(&buffers);
  bool has_room = true;
  bool is_done = false;
  while (has_room && !is_done) {
    const std::optional<ResponseEvent> event = started->generation->next();
    if (!event) {
      co_await bell->wait(0);
    } else if (const auto* delta = std::get_if<engine::TextDelta>(&*event)) {
      text += delta->text;
      has_room = unread.grow_to_response(std::ssize(text));
    } else if (const auto* completion = std::get_if<engine::Completion>(&*event)) {
      is_done = true;
      error = completion_error(*completion);
      if (error.ok())
        reply.body = started->formatter.response(std::exchange(text, {}), *completion);
      has_room = unread.grow_to_response(std::ssize(reply.body));
    }
  }
  started->generation.reset();
  std::string().swap(text);
  if (!has_room) error = buffers_full("the answer", buffers.limit_bytes());
  if (!error.ok()) reply = to_http_reply(error);
  record_end(error, exchange.open.get());
  // Else the engine may still work for it: the place is free when that has let go of it.
  if (is_done) exchange.open->slot.give_back();
  co_return co_await write_answer(exchange.stream, exchange.open.get(), std::move(reply),
                                  exchange.keep_alive);
}

awaitable<bool> run(GenerationExchange* exchange) {
  App* app = exchange->app;
  Bell bell(co_await asio::this_coro::executor);
  const size_t body_bytes = exchange->request.body.size();
  auto request = std::make_shared<HttpRequest>(std::move(exchange->request));
  auto work = [app, api = exchange->api, request, open = exchange->open, ringer = bell.ringer()] {
    return start(app, api, std::move(*request), open, ringer);
  };
  absl::StatusOr<Started> started =
      co_await run_on_workers(&app->workers, body_bytes, std::move(work));
  if (!started.ok()) {
    exchange->open->slot.give_back();
    co_return co_await write_error(exchange->stream, exchange->open.get(), started.status(),
                                   exchange->keep_alive);
  }
  if (started->call.stream) co_return co_await stream_events(*exchange, &*started, &bell);
  co_return co_await answer_whole(*exchange, &*started, &bell);
}

// operator|| takes an exception for a branch that goes on, and waits until the client leaves: run()
// may not throw, but for the word that the other branch has ended it.
awaitable<bool> run_to_status(GenerationExchange* exchange, absl::Status* error) {
  try {
    co_return co_await run(exchange);
  } catch (const std::bad_alloc&) {
    *error = out_of_memory();
  } catch (const boost::system::system_error& thrown) {
    if (thrown.code() == asio::error::operation_aborted) throw;
    *error = unexpected_exception();
  } catch (const std::exception&) {
    *error = unexpected_exception();
  }
  co_return false;
}

// Ends an answer, begun or not, with an error; the connection closes afterwards. An answer that is
// over stays what it is: many clients leave right after its last byte.
awaitable<void> end_with(const GenerationExchange& exchange, const absl::Status& error) {
  HttpStream& stream = *exchange.stream;
  if (stream.answer() == HttpStream::Answer::kNone) {
    co_await write_error(&stream, exchange.open.get(), error, false);
  } else if (stream.answer() == HttpStream::Answer::kEvents) {
    exchange.open->fail(error);
    std::string sse;
    append_sse_data(to_error_body(error), &sse);
    if (co_await stream.write_events(sse)) co_await stream.end_events();
  }
}

}  // namespace

// A client that ends its sending side counts as gone, as it does for nginx (499) and uvicorn: one
// that closes and one that only half-closes look the same until something is written, a whole
// answer is written at its end alone, and nobody wants to generate for who has left. A client that
// still reads is told.
awaitable<bool> serve_generation(GenerationExchange exchange) {
  using asio::experimental::awaitable_operators::operator||;
  absl::Status error;
  // The branch that returns first ends the other; an ended run() drops its Generation, which
  // cancels the request in the engine.
  const auto outcome =
      co_await (run_to_status(&exchange, &error) || exchange.stream->wait_for_disconnect());
  if (!error.ok()) exchange.open->fail(error);
  if (outcome.index() == 1 && std::get<1>(outcome)) error = client_left();
  if (!error.ok()) co_await end_with(exchange, error);
  co_return outcome.index() == 0 && std::get<0>(outcome) && exchange.stream->keep_alive();
}

}  // namespace pbserve::server

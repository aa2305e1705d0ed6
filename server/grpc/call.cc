#include "server/grpc/call.h"

#include <exception>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/api_error.h"
#include "server/grpc/status.h"
#include "server/run_surely.h"

namespace pbserve::server {
namespace {

constexpr size_t kLargeBytes = 1 << 20;
constexpr int64_t kOpenMessageBytes = 64 << 10;  // of a message that needs no key

absl::Status message_too_large(int64_t limit_bytes) {
  return absl::ResourceExhaustedError(
      absl::StrCat("the message is larger than the ", limit_bytes, " bytes of this method"));
}

}  // namespace

GrpcCall::GrpcCall(GrpcContext* context, grpc::GenericCallbackServerContext* call,
                   GrpcCallOptions options)
    : context_(context),
      call_(call),
      request_(options.request),
      options_(std::move(options)),
      peer_(call->peer()),
      open_(options_.count) {}

void GrpcCall::start() {
  self_ = shared_from_this();
  // Who has no key may not keep a connection: a health watch never ends.
  if (options_.needs_key) context_->connections->begin_call(peer_);
  read();
}

void GrpcCall::read() {
  {
    const std::lock_guard lock(mutex_);
    is_reading_ = true;
  }
  // gRPC opens the stream's window for the whole message as soon as it is read, so a client that
  // sends much, or slowly, holds memory from here on.
  const auto stop = [weak = weak_from_this()](const absl::Status& status) {
    if (const auto call = weak.lock()) call->stop_reading(status);
  };
  const int64_t limit_s = options_.receive_timeout.count();
  const auto on_time = [stop, limit_s](bool is_over) {
    if (is_over) stop(read_timeout("request message", limit_s));
  };
  reading_id_ = context_->connections->begin(peer_, options_.needs_key, stop);
  timeout_.emplace();
  timeout_->Set(std::chrono::system_clock::now() + options_.receive_timeout, on_time);
  StartRead(&message_);
}

void GrpcCall::stop_reading(const absl::Status& status) {
  {
    const std::lock_guard lock(mutex_);
    if (!is_reading_ || !take_end_locked()) return;
  }
  end(status);
}

void GrpcCall::OnReadDone(bool ok) {
  bool is_over = false;
  {
    const std::lock_guard lock(mutex_);
    is_reading_ = false;
    is_over = is_finished_;
    is_serving_ = ok && !is_over;
    was_large_ |= !ok || message_.Length() >= kLargeBytes;  // how far the rest came is unknown
  }
  timeout_->Cancel();
  context_->connections->end(peer_, reading_id_, ok ? static_cast<int64_t>(message_.Length()) : 0);
  if (is_over) return message_.Clear();  // too late; a worker would find no call
  guard([this, ok] { take_message(ok); });
}

void GrpcCall::take_message(bool ok) {
  if (!ok) {
    if (call_->IsCancelled()) return finish(absl::CancelledError("the client left"));
    return end_messages();
  }
  if (const absl::Status status = charge_message(); !status.ok()) {
    message_.Clear();
    return finish(status);
  }
  try {
    const auto self = shared_from_this();
    context_->app->workers.post(message_.Length(), [self] { self->run(); });
  } catch (const std::bad_alloc&) {
    message_.Clear();
    throw;
  }
}

absl::Status GrpcCall::charge_message() {
  const auto bytes = static_cast<int64_t>(message_.Length());
  if (!options_.needs_key) {  // may not spend what is for those with a key
    return bytes <= kOpenMessageBytes ? absl::OkStatus() : message_too_large(kOpenMessageBytes);
  }
  ByteBudget& buffers = context_->app->buffers;
  lease_ = ByteBudget::Lease(&buffers);
  return lease_.grow_to(bytes) ? absl::OkStatus()
                               : buffers_full("the request message", buffers.limit_bytes());
}

void GrpcCall::run() {
  guard([this] {
    // Out of the way of the next message, which may be read before serve() returns.
    const ByteBudget::Lease lease = std::move(lease_);
    grpc::ByteBuffer message;
    message.Swap(&message_);
    request_->record.bytes_in += static_cast<int64_t>(message.Length());
    const WorkerPool& workers = context_->app->workers;
    if (!options_.is_cheap && workers.refuses()) return finish(workers.refusal());
    serve(&message);
  });
}

void GrpcCall::guard(absl::FunctionRef<void()> work) {
  try {
    work();
  } catch (const std::bad_alloc&) {
    run_surely([this] { finish(out_of_memory()); });
  } catch (const std::exception&) {
    run_surely([this] { finish(unexpected_exception()); });
  }
}

absl::Status GrpcCall::end_of_messages() const {
  return absl::InvalidArgumentError("the call ended without a request message");
}

void GrpcCall::OnDone() {
  if (was_large_) context_->heap.note();
  if (options_.needs_key) context_->connections->end_call(peer_);
  self_.reset();
}

bool GrpcCall::take_end() {
  const std::lock_guard lock(mutex_);
  return take_end_locked();
}

void GrpcCall::finish(const absl::Status& status) {
  if (take_end()) end(status);
}

void GrpcCall::end(const absl::Status& status) {
  grpc::Status last;
  run_surely([&] {  // nobody else will do it
    status.ok() ? request_->succeed() : request_->fail(status);
    last = to_grpc(status);
  });
  if (!absl::IsCancelled(status)) request_->slot.give_back();  // else when the engine lets go
  Finish(std::move(last));
}

void GrpcCall::reply(grpc::ByteBuffer message) {
  ByteBudget& buffers = context_->app->buffers;
  reply_lease_ = ByteBudget::Lease(&buffers);
  if (!reply_lease_.grow_to_response(static_cast<int64_t>(message.Length()))) {
    return finish(buffers_full("the answer", buffers.limit_bytes()));
  }
  if (!take_end()) return;
  request_->record.bytes_out = static_cast<int64_t>(message.Length());
  request_->succeed();
  reply_.Swap(&message);
  StartWriteAndFinish(&reply_, grpc::WriteOptions(), grpc::Status::OK);
}

}  // namespace pbserve::server

#include "server/open_request.h"

#include <exception>
#include <utility>

#include "server/api_error.h"
#include "server/request_id.h"

namespace pbserve::server {
namespace {

using Clock = RequestRecord::Clock;

// `ms` after `begin`, unless that was not reached.
std::optional<Clock::time_point> after(const std::optional<Clock::time_point>& begin, double ms) {
  if (!begin || ms < 0) return std::nullopt;
  const std::chrono::duration<double, std::milli> duration(ms);
  return *begin + std::chrono::duration_cast<Clock::duration>(duration);
}

// Why a request ended whose answer nobody has written: what the engine or the channel says, if it
// was cut off, or else its client left.
absl::Status unanswered(const std::optional<engine::Completion>& completion) {
  const bool was_cut_off =
      completion && !completion->status.ok() && !absl::IsCancelled(completion->status);
  return was_cut_off ? completion->status : absl::CancelledError("the client left");
}

}  // namespace

OpenRequest::OpenRequest(Transport transport, std::shared_ptr<RequestReports> reports,
                         std::string client_address)
    : id_(make_request_id()), reports_(std::move(reports)) {
  record.transport = transport;
  record.caller.address = std::move(client_address);
  record.arrived_at = std::chrono::system_clock::now();
  record.arrived = Clock::now();
}

OpenRequest::~OpenRequest() {
  try {
    if (record.status == 0) fail(unanswered(completion_));
    record.id = id_;
    record.ended = Clock::now();
    if (completion_) {
      record.prefill_began = after(record.submitted, completion_->timings.queue_ms);
      record.first_token = after(record.submitted, completion_->timings.first_token_ms);
      record.completion = std::move(completion_);
    }
    reports_->tell(record);
  } catch (const std::exception&) {  // what is told of it can be spared
  }
}

std::string OpenRequest::id() const {
  const std::lock_guard lock(mutex_);
  return id_;
}

void OpenRequest::set_id(std::string id) {
  const std::lock_guard lock(mutex_);
  id_ = std::move(id);
}

void OpenRequest::fail(const absl::Status& error) {
  record.status = http_status(error);
  record.code = error.code();
  record.error = std::string(error.message());
  record.error_reason = error_reason(error);
}

void OpenRequest::succeed(int http_status) {
  record.status = http_status;
  record.code = absl::StatusCode::kOk;
  record.error.clear();
  record.error_reason.clear();
}

void OpenRequest::complete(const engine::Completion& completion) { completion_ = completion; }

}  // namespace pbserve::server

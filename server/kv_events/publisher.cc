#include "server/kv_events/publisher.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <span>
#include <utility>
#include <zmq.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/kv_events/encode.h"
#include "server/kv_events/endpoint.h"
#include "server/kv_events/event_queue.h"
#include "server/kv_events/frame.h"
#include "server/kv_events/recorder.h"
#include "server/kv_events/replay_buffer.h"
#include "server/kv_events/replay_server.h"
#include "server/round_guard.h"

namespace pbserve::server {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kGather{2};        // pages come in rows: a message takes many
constexpr milliseconds kReplayPause{5};   // until a client that had no room is tried again
constexpr milliseconds kErrorPause{100};  // for want of memory: others may give some back
constexpr auto kLogInterval = std::chrono::minutes(1);

constexpr int kLingerMs = 500;               // for the last messages
constexpr int64_t kReceivedBytesMax = 1024;  // of a frame: a handshake, a topic, a number
constexpr int kReplayMessagesMax = 16;       // that wait in the socket for one client

double unix_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// What a router knows the server by: in Kubernetes the pod's address, which the pod's description
// puts into the environment.
std::string pod_id(uint16_t http_port) {
  if (const char* address = std::getenv("POD_IP"); address != nullptr && *address != '\0') {
    return absl::StrCat(address, ":", http_port);
  }
  char name[256] = "";
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "pbserve";
}

KvEventNames names_of(const KvEventsOptions& options, const engine::EngineInfo& info,
                      uint16_t http_port) {
  const bool is_dense = info.config.pbs.mode == engine::SparseMode::kDense;
  return {.topic = options.topic.empty()
                       ? absl::StrCat("kv@", pod_id(http_port), "@", info.model_name)
                       : options.topic,
          .model = info.model_name,
          .made_by = is_dense ? "dense" : info.sparse_attention,
          .pbs_made_by = info.sparse_attention};
}

absl::Status attach(const char* key, const std::string& endpoint, zmq::socket_t* socket) {
  try {
    socket->set(zmq::sockopt::maxmsgsize, kReceivedBytesMax);
    socket->set(zmq::sockopt::ipv6, absl::StrContains(endpoint, '['));
    is_listening_endpoint(endpoint) ? socket->bind(endpoint) : socket->connect(endpoint);
  } catch (const zmq::error_t& error) {
    return absl::UnavailableError(absl::StrCat(key, " = ", endpoint, ": ", error.what()));
  }
  return absl::OkStatus();
}

}  // namespace

// The sockets belong to the publisher's thread once it runs.
struct KvEventPublisher::Sockets {
  explicit Sockets(const KvEventsOptions& options) {
    pub.set(zmq::sockopt::linger, kLingerMs);
    pub.set(zmq::sockopt::sndhwm, options.hwm);
    replay.set(zmq::sockopt::linger, 0);
    replay.set(zmq::sockopt::sndhwm, kReplayMessagesMax);
    replay.set(zmq::sockopt::rcvhwm, kReplayMessagesMax);
    replay.set(zmq::sockopt::router_mandatory, true);  // says who is gone and who has no room
  }

  zmq::context_t context{1};
  zmq::socket_t pub{context, zmq::socket_type::pub};
  zmq::socket_t replay{context, zmq::socket_type::router};
  std::string endpoint;
  std::string replay_endpoint;
};

struct KvEventPublisher::Stream {
  Stream(const KvEventsOptions& options, KvEventNames names, zmq::socket_t* replay_socket)
      : queue(static_cast<size_t>(options.max_queue_size)),
        recorder(std::move(names), &queue),
        buffer(static_cast<size_t>(options.buffer_steps)),
        replay(replay_socket, &buffer) {}

  KvEventQueue queue;
  KvEventRecorder recorder;
  // Of the publisher's thread alone.
  ReplayBuffer buffer;
  ReplayServer replay;
  std::vector<KvEvent> events;
  uint64_t next_sequence = 0;
  int64_t num_dropped_told = 0;
  Clock::time_point next_line{};
};

absl::StatusOr<std::unique_ptr<KvEventPublisher>> KvEventPublisher::bind(
    const KvEventsOptions& options) try {
  auto publisher = std::unique_ptr<KvEventPublisher>(new KvEventPublisher(options));
  Sockets& sockets = *publisher->sockets_;
  RETURN_IF_ERROR(attach("kv_events.endpoint", options.endpoint, &sockets.pub));
  sockets.endpoint = sockets.pub.get(zmq::sockopt::last_endpoint);
  if (!options.replay_endpoint.empty()) {
    RETURN_IF_ERROR(attach("kv_events.replay_endpoint", options.replay_endpoint, &sockets.replay));
    sockets.replay_endpoint = sockets.replay.get(zmq::sockopt::last_endpoint);
  }
  return publisher;
} catch (const zmq::error_t& error) {  // for want of descriptors
  return absl::UnavailableError(absl::StrCat("kv_events: ", error.what()));
}

KvEventPublisher::KvEventPublisher(const KvEventsOptions& options)
    : options_(options), sockets_(std::make_unique<Sockets>(options)) {}

KvEventPublisher::~KvEventPublisher() {
  if (!thread_.joinable()) return;
  is_over_ = true;
  stream_->queue.wake();
  thread_.join();
}

void KvEventPublisher::start(engine::Engine* engine, uint16_t http_port) {
  stream_ = std::make_unique<Stream>(options_, names_of(options_, engine->info(), http_port),
                                     &sockets_->replay);
  engine->set_cache_listener(&stream_->recorder);
  thread_ = std::thread([this] { run(); });
}

std::string KvEventPublisher::endpoint() const { return sockets_->endpoint; }
std::string KvEventPublisher::replay_endpoint() const { return sockets_->replay_endpoint; }

int64_t KvEventPublisher::num_dropped() const {
  return num_unsent_ + (stream_ ? stream_->queue.num_dropped() : 0);
}

void KvEventPublisher::run() {
  RoundGuard guard("KV events");
  bool has_replays = false;
  while (!is_over_) {
    if (!guard.run([&] { take_turn(&has_replays); })) std::this_thread::sleep_for(kErrorPause);
  }
  guard.run([this] { publish_all(); });
}

void KvEventPublisher::take_turn(bool* has_replays) {
  std::vector<zmq::pollitem_t> items{{nullptr, stream_->queue.descriptor(), ZMQ_POLLIN, 0},
                                     {sockets_->replay.handle(), 0, ZMQ_POLLIN, 0}};
  zmq::poll(items, *has_replays ? kReplayPause : milliseconds(-1));
  if (items[0].revents != 0) {
    std::this_thread::sleep_for(kGather);
    publish_all();
  }
  if (items[1].revents != 0) stream_->replay.receive(stream_->next_sequence);
  *has_replays = stream_->replay.advance();
  num_replayed_ = stream_->replay.num_sent();
  tell_of_drops();
}

void KvEventPublisher::publish_all() {
  stream_->queue.take(&stream_->events);
  const std::span<const KvEvent> events = stream_->events;
  for (size_t begin = 0; begin < events.size();) {
    if (events[begin].kind == KvEvent::Kind::kLost) {
      ++stream_->next_sequence;  // subscribers see the gap
      ++begin;
      continue;
    }
    const size_t count = num_in_message(events.subspan(begin));
    publish(begin, count);
    begin += count;
  }
  stream_->events.clear();
}

void KvEventPublisher::publish(size_t begin, size_t count) {
  const auto events = std::span<const KvEvent>(stream_->events).subspan(begin, count);
  const uint64_t sequence = stream_->next_sequence++;
  KvMessage message;
  try {
    message = {
        .sequence = sequence,
        .topic = events[0].source->topic,
        .payload = std::make_shared<const std::string>(encode_kv_events(unix_time(), events))};
    // A subscriber that is hwm messages behind misses this one; the socket never waits.
    sockets_->pub.send(zmq::buffer(message.topic), zmq::send_flags::sndmore);
    sockets_->pub.send(zmq::buffer(sequence_frame(sequence)), zmq::send_flags::sndmore);
    sockets_->pub.send(frame_of(message.payload), zmq::send_flags::none);
    stream_->buffer.add(std::move(message));
    ++num_published_;
  } catch (const std::exception&) {  // for want of memory: the number stays away
    num_unsent_ += static_cast<int64_t>(count);
  }
}

void KvEventPublisher::tell_of_drops() {
  const int64_t dropped = num_dropped();
  const Clock::time_point time = Clock::now();
  if (dropped == stream_->num_dropped_told || time < stream_->next_line) return;
  stream_->next_line = time + kLogInterval;
  stream_->num_dropped_told = dropped;
  spdlog::warn(
      "{} KV events were dropped so far: subscribers see a gap (kv_events.max_queue_size "
      "= {})",
      dropped, options_.max_queue_size);
}

}  // namespace pbserve::server

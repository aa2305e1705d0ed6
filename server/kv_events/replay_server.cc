#include "server/kv_events/replay_server.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "server/kv_events/encode.h"
#include "server/kv_events/frame.h"

namespace pbserve::server {
namespace {

constexpr int kRequestsAtOnce = 32;
constexpr size_t kReplaysMax = 64;
constexpr int kMessagesAtOnce = 64;                   // then the next client has its turn
constexpr auto kPatience = std::chrono::seconds(10);  // with a client that takes nothing
constexpr size_t kFramesMax = 3;                      // client, "", number
constexpr uint64_t kEndOfReplay = ~uint64_t{0};       // -1

std::optional<uint64_t> sequence_of(const std::string& frame) {
  if (frame.size() != sizeof(uint64_t)) return std::nullopt;
  uint64_t sequence = 0;
  for (const char byte : frame) sequence = sequence << 8 | static_cast<unsigned char>(byte);
  return sequence;
}

// The frames of the next message, of which those beyond what a request has are thrown away; empty
// where none waits.
std::vector<std::string> receive_frames(zmq::socket_t* socket) {
  std::vector<std::string> frames;
  zmq::message_t frame;
  do {
    if (!socket->recv(frame, zmq::recv_flags::dontwait)) return {};
    if (frames.size() <= kFramesMax) frames.push_back(frame.to_string());
  } while (frame.more());
  return frames;
}

}  // namespace

void ReplayServer::receive(uint64_t next) {
  for (int i = 0; i < kRequestsAtOnce; ++i) {
    std::vector<std::string> frames = receive_frames(socket_);
    if (frames.empty()) return;
    if (frames.size() != kFramesMax || !frames[1].empty()) continue;
    const std::optional<uint64_t> first = sequence_of(frames[2]);
    if (first) begin(std::move(frames[0]), *first, next);
  }
}

void ReplayServer::begin(std::string client, uint64_t first, uint64_t end) {
  std::erase_if(replays_, [&](const Replay& replay) { return replay.client == client; });
  if (replays_.size() >= kReplaysMax) return;  // it asks again when no answer comes
  replays_.push_back(
      {.client = std::move(client), .next = first, .end = end, .last_sent = Clock::now()});
}

bool ReplayServer::advance() {
  std::erase_if(replays_, [this](Replay& replay) { return is_over(&replay); });
  return !replays_.empty();
}

bool ReplayServer::is_over(Replay* replay) {
  static const auto kNothing = std::make_shared<const std::string>();
  for (int i = 0; i < kMessagesAtOnce; ++i) {
    const KvMessage* message = buffer_->find_from(replay->next);
    const bool is_end = message == nullptr || message->sequence >= replay->end;
    const Sent sent =
        is_end ? send(*replay, "", sequence_frame(kEndOfReplay), kNothing)
               : send(*replay, message->topic, sequence_frame(message->sequence), message->payload);
    if (sent == Sent::kGone) return true;
    if (sent == Sent::kNoRoom) return Clock::now() - replay->last_sent > kPatience;
    if (is_end) return true;
    replay->last_sent = Clock::now();
    replay->next = message->sequence + 1;
    ++num_sent_;
  }
  return false;
}

// The socket says with the first frame whether the client is there and has room for a message.
ReplayServer::Sent ReplayServer::send(const Replay& replay, const std::string& topic,
                                      const std::string& sequence,
                                      const std::shared_ptr<const std::string>& payload) {
  constexpr auto kMore = zmq::send_flags::sndmore | zmq::send_flags::dontwait;
  try {
    if (!socket_->send(zmq::buffer(replay.client), kMore)) return Sent::kNoRoom;
  } catch (const zmq::error_t& error) {
    if (error.num() == EHOSTUNREACH) return Sent::kGone;
    throw;
  }
  socket_->send(zmq::message_t(), kMore);
  socket_->send(zmq::buffer(topic), kMore);
  socket_->send(zmq::buffer(sequence), kMore);
  socket_->send(frame_of(payload), zmq::send_flags::dontwait);
  return Sent::kYes;
}

}  // namespace pbserve::server

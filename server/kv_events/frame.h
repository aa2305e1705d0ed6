// A payload as a frame that shares it: however many clients a message waits for, it is held once.
#pragma once

#include <memory>
#include <string>
#include <zmq.hpp>

namespace pbserve::server {

inline zmq::message_t frame_of(const std::shared_ptr<const std::string>& payload) {
  using Owner = std::shared_ptr<const std::string>;
  auto owner = std::make_unique<Owner>(payload);
  const auto release = [](void*, void* hint) { delete static_cast<Owner*>(hint); };
  // ZeroMQ only reads from it.
  zmq::message_t frame(const_cast<char*>(payload->data()), payload->size(), release, owner.get());
  owner.release();
  return frame;
}

}  // namespace pbserve::server

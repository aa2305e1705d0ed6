// The messages that are kept, and the socket that repeats them: to those who ask properly.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <thread>
#include <zmq.hpp>

#include "server/kv_events/encode.h"
#include "server/kv_events/replay_buffer.h"
#include "server/kv_events/replay_server.h"

namespace pbserve::server {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const std::string kEnd = sequence_frame(~uint64_t{0});

KvMessage message_of(uint64_t sequence, size_t num_bytes = 3) {
  return {.sequence = sequence,
          .topic = "topic",
          .payload = std::make_shared<const std::string>(num_bytes, 'x')};
}

TEST(ReplayBuffer, KeepsTheNewestAndKnowsGaps) {
  ReplayBuffer buffer(3);
  EXPECT_EQ(buffer.find_from(0), nullptr);
  for (const uint64_t sequence : {0, 1, 4, 5}) buffer.add(message_of(sequence));
  EXPECT_EQ(buffer.find_from(0)->sequence, 1U) << "0 had to go";
  EXPECT_EQ(buffer.find_from(2)->sequence, 4U);
  EXPECT_EQ(buffer.find_from(5)->sequence, 5U);
  EXPECT_EQ(buffer.find_from(6), nullptr);
  EXPECT_EQ(buffer.find_from(~uint64_t{0}), nullptr);
}

class ReplayServerTest : public ::testing::Test {
 protected:
  using Frames = std::vector<std::string>;

  void SetUp() override {
    router_.set(zmq::sockopt::linger, 0);
    router_.set(zmq::sockopt::sndhwm, 4);
    router_.set(zmq::sockopt::router_mandatory, true);
    router_.bind("tcp://127.0.0.1:*");
  }

  zmq::socket_t connect() {
    zmq::socket_t client(context_, zmq::socket_type::dealer);
    client.set(zmq::sockopt::linger, 0);
    client.set(zmq::sockopt::rcvhwm, 4);
    client.connect(router_.get(zmq::sockopt::last_endpoint));
    return client;
  }

  static void send(zmq::socket_t* client, const Frames& frames) {
    for (size_t i = 0; i < frames.size(); ++i) {
      client->send(zmq::buffer(frames[i]),
                   i + 1 < frames.size() ? zmq::send_flags::sndmore : zmq::send_flags::none);
    }
  }

  // Of the next message; empty where none comes while the server takes turns.
  Frames receive(zmq::socket_t* client, std::chrono::milliseconds timeout) {
    const auto end = std::chrono::steady_clock::now() + timeout;
    while (std::chrono::steady_clock::now() < end) {
      server_.receive(next_);
      server_.advance();
      zmq::message_t frame;
      if (!client->recv(frame, zmq::recv_flags::dontwait)) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        continue;
      }
      Frames frames{frame.to_string()};
      while (frame.more()) {
        (void)client->recv(frame);
        frames.push_back(frame.to_string());
      }
      return frames;
    }
    return {};
  }

  Frames receive(zmq::socket_t* client) { return receive(client, std::chrono::seconds(20)); }

  void publish(uint64_t count, size_t num_bytes = 3) {
    for (uint64_t i = 0; i < count; ++i) buffer_.add(message_of(next_++, num_bytes));
  }

  zmq::context_t context_;
  zmq::socket_t router_{context_, zmq::socket_type::router};
  ReplayBuffer buffer_{100};
  ReplayServer server_{&router_, &buffer_};
  uint64_t next_ = 0;
};

TEST_F(ReplayServerTest, RepeatsFromANumberOnAndEndsWithMinusOne) {
  publish(5);
  zmq::socket_t client = connect();
  send(&client, {"", sequence_frame(3)});
  EXPECT_THAT(receive(&client), ElementsAre("", "topic", sequence_frame(3), "xxx"));
  EXPECT_THAT(receive(&client), ElementsAre("", "topic", sequence_frame(4), "xxx"));
  EXPECT_THAT(receive(&client), ElementsAre("", "", kEnd, ""));
  EXPECT_EQ(server_.num_sent(), 2);
}

TEST_F(ReplayServerTest, WhatIsNotThereHasAnEndAlone) {
  zmq::socket_t client = connect();
  send(&client, {"", sequence_frame(0)});
  EXPECT_THAT(receive(&client), ElementsAre("", "", kEnd, "")) << "nothing was published";
  publish(2);
  for (const uint64_t first : {uint64_t{2}, ~uint64_t{0}}) {
    send(&client, {"", sequence_frame(first)});
    EXPECT_THAT(receive(&client), ElementsAre("", "", kEnd, ""));
  }
}

TEST_F(ReplayServerTest, AFullSocketLosesNothing) {
  publish(100, 1 << 20);  // much more than the socket and its connection hold
  zmq::socket_t client = connect();
  send(&client, {"", sequence_frame(0)});
  for (uint64_t sequence = 0; sequence < 100; ++sequence) {
    const Frames frames = receive(&client);
    ASSERT_EQ(frames.size(), 4U);
    ASSERT_EQ(frames[2], sequence_frame(sequence));
  }
  EXPECT_EQ(receive(&client)[2], kEnd);
}

TEST_F(ReplayServerTest, NonsenseHasNoAnswerAndHarmsNobody) {
  publish(1);
  zmq::socket_t client = connect();
  const std::string number = sequence_frame(0);
  for (const Frames& nonsense :
       {Frames{""}, Frames{number}, Frames{"", ""}, Frames{"", "seven.."}, Frames{"", number + "9"},
        Frames{"x", number}, Frames{"", number, ""}, Frames(1000, "")}) {
    send(&client, nonsense);
  }
  EXPECT_THAT(receive(&client, std::chrono::milliseconds(200)), IsEmpty());
  send(&client, {"", number});
  EXPECT_THAT(receive(&client), ElementsAre("", "topic", number, "xxx"));
}

TEST_F(ReplayServerTest, AClientThatLeavesIsForgotten) {
  publish(100, 1 << 20);
  {
    zmq::socket_t client = connect();
    send(&client, {"", sequence_frame(0)});
    receive(&client);
    EXPECT_TRUE(server_.advance()) << "it has not taken all";
  }
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);  // below patience
  bool is_there = true;
  while (is_there && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    server_.receive(next_);  // the socket learns of a client's end when it is read
    is_there = server_.advance();
  }
  EXPECT_FALSE(is_there);
}

}  // namespace
}  // namespace pbserve::server

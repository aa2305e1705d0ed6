// Connections seen through their descriptors: the bound on them, and what incomplete messages hold.
#include "server/grpc/connections.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"

namespace pbserve::server {
namespace {

using ::testing::HasSubstr;

constexpr char kPeer[] = "ipv4:127.0.0.1:1";
constexpr char kName[] = "127.0.0.1:1";
constexpr int64_t kBudget = 1 << 20;

// A connection over loopback; the server's end reads all the time, as gRPC does.
class Loopback {
 public:
  Loopback() {
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* const any = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(bind(listener, any, size), 0);
    EXPECT_EQ(listen(listener, 1), 0);
    EXPECT_EQ(getsockname(listener, any, &size), 0);
    client_ = socket(AF_INET, SOCK_STREAM, 0);
    EXPECT_EQ(connect(client_, any, size), 0);
    server_ = accept(listener, nullptr, nullptr);
    close(listener);
    reader_ = std::thread([this] {
      char buffer[1 << 16];
      for (ssize_t got; (got = read(server_, buffer, sizeof(buffer))) > 0;) num_read_ += got;
    });
  }
  ~Loopback() {
    close(client_);
    reader_.join();
    close(server_);
  }

  int server() const { return server_; }

  void expect_closed() const {
    pollfd client{.fd = client_, .events = POLLIN, .revents = 0};
    ASSERT_EQ(poll(&client, 1, 10000), 1);
    char byte = 0;
    EXPECT_EQ(read(client_, &byte, 1), 0);
  }

  // Returns when all of it has arrived.
  void send(int64_t num_bytes) {
    const std::string bytes(static_cast<size_t>(num_bytes), 'x');
    sent_ += num_bytes;
    for (size_t at = 0; at < bytes.size();) {
      const ssize_t written = write(client_, bytes.data() + at, bytes.size() - at);
      ASSERT_GT(written, 0);
      at += static_cast<size_t>(written);
    }
    while (num_read_ < sent_) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

 private:
  int client_ = -1;
  int server_ = -1;
  int64_t sent_ = 0;
  std::atomic<int64_t> num_read_{0};
  std::thread reader_;
};

constexpr ConnectionLimits kLimits{.key = "grpc.max_connections", .in_all = 16};

// What Refuse was called with.
class Refusal {
 public:
  GrpcConnections::Refuse callback() {
    return [this](const absl::Status& status) { promise_.set_value(status); };
  }
  std::string wait() {
    if (future_.wait_for(std::chrono::seconds(10)) != std::future_status::ready) return "none";
    return std::string(future_.get().message());
  }
  bool came_soon() {
    return future_.wait_for(std::chrono::milliseconds(200)) == std::future_status::ready;
  }

 private:
  std::promise<absl::Status> promise_;
  std::future<absl::Status> future_ = promise_.get_future();
};

TEST(GrpcConnections, AMessageBeyondTheBudgetIsRefusedWhileItArrives) {
  ByteBudget budget(kBudget);
  Loopback loopback;
  GrpcConnections connections(&budget, kLimits);
  connections.add(kName, "127.0.0.1", loopback.server());
  loopback.send(2 * kBudget);  // before the message: not its
  Refusal refusal;
  const int64_t id = connections.begin(kPeer, /*needs_key=*/true, refusal.callback());
  loopback.send(kBudget / 2);
  EXPECT_FALSE(refusal.came_soon());
  EXPECT_EQ(budget.held_bytes(), kBudget / 2);
  loopback.send(kBudget);
  EXPECT_THAT(refusal.wait(), HasSubstr("server.max_buffered_bytes = 1048576"));
  connections.end(kPeer, id, 0);
  EXPECT_EQ(budget.held_bytes(), 0);
}

TEST(GrpcConnections, CompleteMessagesOfAConnectionAreNotCountedTwice) {
  ByteBudget budget(kBudget);
  Loopback loopback;
  GrpcConnections connections(&budget, kLimits);
  connections.add(kName, "127.0.0.1", loopback.server());
  Refusal slow;
  const int64_t slow_id = connections.begin(kPeer, /*needs_key=*/true, slow.callback());
  for (int i = 0; i < 4; ++i) {
    Refusal quick;
    const int64_t id = connections.begin(kPeer, /*needs_key=*/true, quick.callback());
    loopback.send(kBudget * 3 / 4);
    connections.end(kPeer, id, kBudget * 3 / 4);
  }
  EXPECT_FALSE(slow.came_soon());
  connections.end(kPeer, slow_id, 0);
}

TEST(GrpcConnections, WithoutAKeyTheBudgetIsNotTouched) {
  ByteBudget budget(kBudget);
  Loopback loopback;
  GrpcConnections connections(&budget, kLimits);
  connections.add(kName, "127.0.0.1", loopback.server());
  Refusal refusal;
  const int64_t id = connections.begin(kPeer, /*needs_key=*/false, refusal.callback());
  loopback.send(2 * kBudget);
  EXPECT_FALSE(refusal.came_soon());
  EXPECT_EQ(budget.held_bytes(), 0);
  loopback.send(4 * kBudget);
  EXPECT_EQ(refusal.wait(), "the message is too large");
  connections.end(kPeer, id, 0);
}

constexpr ConnectionLimits limits(int32_t in_all, int32_t per_address) {
  return {.key = "grpc.max_connections", .in_all = in_all, .per_address = per_address};
}

TEST(GrpcConnections, ClosedOnesMakeRoom) {
  ByteBudget budget(kBudget);
  GrpcConnections connections(&budget, limits(2, 0));
  Loopback first;
  connections.add("127.0.0.1:1", "127.0.0.1", first.server());
  connections.begin_call("ipv4:127.0.0.1:1");
  {
    Loopback second;
    connections.add("[::1]:2", "::1", second.server());
    connections.begin_call("ipv6:%5B::1%5D:2");
    EXPECT_EQ(connections.make_room("10.0.0.1"), "grpc.max_connections = 2 are busy");
  }
  // The descriptor's number is in use again, for something else.
  Loopback third;
  EXPECT_EQ(connections.num_open(), 1);
  EXPECT_EQ(connections.make_room("10.0.0.1"), "");
}

TEST(GrpcConnections, TheLongestIdleMakesRoom) {
  ByteBudget budget(kBudget);
  GrpcConnections connections(&budget, limits(3, 0));
  Loopback busy;
  Loopback longest;
  Loopback later;
  connections.add("127.0.0.1:1", "127.0.0.1", busy.server());
  connections.begin_call("ipv4:127.0.0.1:1");
  connections.add("127.0.0.1:3", "127.0.0.1", later.server());
  connections.add("127.0.0.1:2", "127.0.0.1", longest.server());
  connections.begin_call("ipv4:127.0.0.1:3");
  connections.end_call("ipv4:127.0.0.1:3");
  EXPECT_EQ(connections.make_room("127.0.0.1"), "");
  longest.expect_closed();
  EXPECT_EQ(connections.num_open(), 2);  // the caller will add its own
}

TEST(GrpcConnections, AnAddressHasALimitOfItsOwn) {
  ByteBudget budget(kBudget);
  GrpcConnections connections(&budget, limits(100, 1));
  Loopback one;
  Loopback other;
  connections.add("10.0.0.1:1", "10.0.0.1", one.server());
  connections.add("[fe80::1]:1", "fe80::1", other.server());
  connections.begin_call("ipv4:10.0.0.1:1");
  EXPECT_EQ(connections.make_room("10.0.0.1"),
            "server.max_connections_per_address = 1 are busy, all of 10.0.0.1");
  EXPECT_EQ(connections.make_room("10.0.0.2"), "");
  EXPECT_EQ(connections.make_room("fe80::1"), "");  // it was idle
  other.expect_closed();
}

TEST(GrpcConnections, ANetworkOfIpv6HasTheLimitOfOneAddress) {
  ByteBudget budget(kBudget);
  GrpcConnections connections(&budget, limits(100, 1));
  Loopback one;
  connections.add("[2001:db8::1]:1", "2001:db8::1", one.server());
  connections.begin_call("ipv6:%5B2001:db8::1%5D:1");
  EXPECT_EQ(connections.make_room("2001:db8::2"),
            "server.max_connections_per_address = 1 are busy, all of 2001:db8::2");
  EXPECT_EQ(connections.make_room("2001:db8:0:1::1"), "");
}

TEST(GrpcConnections, AnAddressCountsWhatItHasOpen) {
  ByteBudget budget(kBudget);
  GrpcConnections connections(&budget, limits(100, 2));
  Loopback kept;
  connections.add("10.0.0.1:1", "10.0.0.1", kept.server());
  connections.begin_call("ipv4:10.0.0.1:1");
  for (int i = 0; i < 3; ++i) {  // each makes room for the next
    Loopback idle;
    EXPECT_EQ(connections.make_room("10.0.0.1"), "");
    connections.add("10.0.0.1:2", "10.0.0.1", idle.server());  // a name may come again
  }
  EXPECT_EQ(connections.num_open(), 1);
  EXPECT_EQ(connections.make_room("10.0.0.1"), "");
}

// Each look asks the system about every connection: who is refused must not cause one each time.
TEST(GrpcConnections, RefusalsShareALookForClosedOnes) {
  ByteBudget budget(kBudget);
  GrpcConnections connections(&budget, limits(1, 0));
  const auto refused = [&] { return !connections.make_room("10.0.0.2").empty(); };
  for (int i = 0; i < 20; ++i) {
    auto closed = std::make_unique<Loopback>();
    connections.add("10.0.0.1:1", "10.0.0.1", closed->server());
    connections.begin_call("ipv4:10.0.0.1:1");
    std::this_thread::sleep_for(std::chrono::milliseconds(110));
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_TRUE(refused());  // it looks
    closed.reset();
    const bool is_refused_still = refused();
    const auto taken = std::chrono::steady_clock::now() - begin;
    if (taken > std::chrono::milliseconds(90)) continue;  // the machine was elsewhere
    EXPECT_TRUE(is_refused_still);
    std::this_thread::sleep_for(std::chrono::milliseconds(110));
    EXPECT_FALSE(refused());
    return;
  }
  FAIL() << "no two calls within 90 ms";
}

TEST(GrpcConnections, WhoeverHasTheNumberOfAClosedOneIsLeftAlone) {
  ByteBudget budget(kBudget);
  GrpcConnections connections(&budget, limits(1, 0));
  auto closed = std::make_unique<Loopback>();
  EXPECT_EQ(connections.make_room("10.0.0.1"), "");
  connections.add("10.0.0.1:1", "10.0.0.1", closed->server());
  connections.begin_call("ipv4:10.0.0.1:1");
  EXPECT_NE(connections.make_room("10.0.0.1"), "");  // it looks, and not again for a while
  connections.end_call("ipv4:10.0.0.1:1");
  const int number = closed->server();
  closed.reset();
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  const bool has_number = pair[0] == number || pair[1] == number;
  if (!has_number) {
    ASSERT_EQ(dup2(pair[0], number), number);
  }
  EXPECT_EQ(connections.make_room("10.0.0.1"), "");
  EXPECT_EQ(send(pair[0], "x", 1, MSG_NOSIGNAL), 1);
  EXPECT_EQ(send(pair[1], "x", 1, MSG_NOSIGNAL), 1);
  close(pair[0]);
  close(pair[1]);
  if (!has_number) close(number);
}

}  // namespace
}  // namespace pbserve::server

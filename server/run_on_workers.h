// co_await a function that runs on the worker pool; the coroutine resumes on its own executor. The
// function returns absl::StatusOr; what it throws becomes a Status and ends no thread. Once the
// pool refuses, the result is its refusal() and the function does not run.
#pragma once

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#include "server/api_error.h"
#include "server/post_surely.h"
#include "server/worker_pool.h"

namespace pbserve::server {

template <class Work>
std::invoke_result_t<Work> run_caught(Work&& work) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return out_of_memory();
  } catch (const std::exception&) {
    return unexpected_exception();
  }
}

template <class Work>
boost::asio::awaitable<std::invoke_result_t<Work>> run_on_workers(WorkerPool* pool,
                                                                  size_t work_bytes, Work work) {
  namespace asio = boost::asio;
  using Result = std::invoke_result_t<Work>;
  // WorkerPool takes copyable functions: what can only be moved is shared.
  auto shared_work = std::make_shared<Work>(std::move(work));
  auto initiate = [pool, work_bytes, shared_work](auto handler) {
    auto executor = asio::get_associated_executor(handler);
    auto shared_handler = std::make_shared<decltype(handler)>(std::move(handler));
    auto guard = asio::make_work_guard(executor);
    // Taken before the work is done: afterwards nothing may fail, or the coroutine waits for ever.
    auto result = std::make_shared<Result>(absl::UnknownError(""));
    pool->post(work_bytes, [pool, shared_work, shared_handler, executor, guard, result]() mutable {
      *result = pool->refuses() ? Result(pool->refusal()) : run_caught(*shared_work);
      shared_work.reset();  // what it holds of a budget is free before anybody hears of the result
      post_surely(executor, [shared_handler, result] { (*shared_handler)(std::move(*result)); });
    });
  };
  co_return co_await asio::async_initiate<const asio::use_awaitable_t<>, void(Result)>(
      initiate, asio::use_awaitable);
}

}  // namespace pbserve::server

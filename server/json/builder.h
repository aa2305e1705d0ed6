// Builds a Json from the library's parse events, as its own reader does, but into a value that
// outlives an exception: the library's destructor needs memory for what it frees, and would end the
// process where there is none.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "server/json/body.h"

namespace pbserve::server {

class JsonBuilder final : public nlohmann::json_sax<Json> {
 public:
  // `root` is null and outlives the builder. May throw std::bad_alloc; `root` then holds what was
  // built so far, for release_json().
  explicit JsonBuilder(Json* root) : root_(root) {}

  // Position and kind of what was wrong, after a parse that failed. Quotes nothing of the text.
  const std::string& problem() const { return problem_; }

  bool null() override;
  bool boolean(bool value) override;
  bool number_integer(number_integer_t value) override;
  bool number_unsigned(number_unsigned_t value) override;
  bool number_float(number_float_t value, const string_t& text) override;
  bool string(string_t& value) override;
  bool binary(binary_t& value) override;
  bool start_object(std::size_t size) override;
  bool key(string_t& name) override;
  bool end_object() override;
  bool start_array(std::size_t size) override;
  bool end_array() override;
  bool parse_error(std::size_t position, const std::string& last_token,
                   const nlohmann::detail::exception& error) override;

 private:
  Json* add(Json value);
  bool open(Json::value_t kind);
  bool close();

  Json* const root_;
  std::vector<Json*> open_;  // containers, the innermost last
  Json* member_ = nullptr;   // of the innermost object, behind its key
  std::string problem_;
};

}  // namespace pbserve::server

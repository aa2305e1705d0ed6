// Builds a Json from the library's parse events, as its own reader does, but in time that is linear
// in the members of an object, and so that it survives an exception: the library's destructor needs
// memory for what it frees, and would end the process where there is none.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "server/json/body.h"

namespace pbserve::server {

class JsonBuilder final : public nlohmann::json_sax<Json> {
 public:
  JsonBuilder() = default;
  ~JsonBuilder() override;
  JsonBuilder(const JsonBuilder&) = delete;
  JsonBuilder& operator=(const JsonBuilder&) = delete;

  // After a parse that succeeded; once.
  Json take() { return std::move(root_); }

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
  // A container that is not closed. The library's own object would copy its members whenever it
  // grows, because their names are constant.
  struct Level {
    bool is_object = false;
    std::string name;  // of the member that comes next
    std::vector<std::pair<std::string, Json>> members;
    Json::array_t items;
  };

  bool add(Json value);
  bool open(bool is_object);
  void keep_last_of_equal_names(Level* level);
  Json* slot();  // what was added last

  Json root_;
  std::vector<Level> open_;  // the innermost last; in its parent a null stands for it
  std::vector<uint32_t> order_;
  std::string problem_;
};

}  // namespace pbserve::server

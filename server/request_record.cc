#include "server/request_record.h"

namespace pbserve::server {

std::string known_method(const RequestRecord& record) {
  for (const char* name : {"GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"}) {
    if (record.method == name) return name;
  }
  return "other";
}

}  // namespace pbserve::server

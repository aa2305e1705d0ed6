#include "server/grpc/reflection.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "proto/health.pb.h"
#include "proto/inference.pb.h"
#include "proto/reflection.pb.h"
#include "server/grpc/message.h"

namespace pbserve::server {
namespace {

using google::protobuf::DescriptorPool;
using google::protobuf::FieldDescriptor;
using google::protobuf::FileDescriptor;
using grpc::reflection::v1alpha::ServerReflectionRequest;
using grpc::reflection::v1alpha::ServerReflectionResponse;

// The files of the services that are served; what they import comes with them.
std::vector<const FileDescriptor*> served_files() {
  return {v1::GenerateRequest::descriptor()->file(),
          grpc::health::v1::HealthCheckRequest::descriptor()->file(),
          ServerReflectionRequest::descriptor()->file()};
}

// A file behind everything that it imports, each once.
void add_file(const FileDescriptor* file, std::set<const FileDescriptor*>* seen,
              ServerReflectionResponse* response) {
  if (!seen->insert(file).second) return;
  for (int i = 0; i < file->dependency_count(); ++i) {
    add_file(file->dependency(i), seen, response);
  }
  google::protobuf::FileDescriptorProto proto;
  file->CopyTo(&proto);
  response->mutable_file_descriptor_response()->add_file_descriptor_proto(
      proto.SerializeAsString());
}

void answer_file(const FileDescriptor* file, ServerReflectionResponse* response) {
  std::set<const FileDescriptor*> seen;
  if (file != nullptr) return add_file(file, &seen, response);
  response->mutable_error_response()->set_error_code(grpc::StatusCode::NOT_FOUND);
  response->mutable_error_response()->set_error_message("not found");
}

void answer_extensions(const DescriptorPool& pool, const std::string& type,
                       ServerReflectionResponse* response) {
  const auto* message = pool.FindMessageTypeByName(type);
  if (message == nullptr) return answer_file(nullptr, response);
  std::vector<const FieldDescriptor*> extensions;
  pool.FindAllExtensions(message, &extensions);
  auto* numbers = response->mutable_all_extension_numbers_response();
  numbers->set_base_type_name(type);
  for (const FieldDescriptor* extension : extensions) {
    numbers->add_extension_number(extension->number());
  }
}

ServerReflectionResponse answer(const ServerReflectionRequest& request) {
  const DescriptorPool& pool = *DescriptorPool::generated_pool();
  ServerReflectionResponse response;
  response.set_valid_host(request.host());
  *response.mutable_original_request() = request;
  switch (request.message_request_case()) {
    case ServerReflectionRequest::kListServices:
      for (const FileDescriptor* file : served_files()) {
        response.mutable_list_services_response()->add_service()->set_name(
            file->service(0)->full_name());
      }
      break;
    case ServerReflectionRequest::kFileByFilename:
      answer_file(pool.FindFileByName(request.file_by_filename()), &response);
      break;
    case ServerReflectionRequest::kFileContainingSymbol:
      answer_file(pool.FindFileContainingSymbol(request.file_containing_symbol()), &response);
      break;
    case ServerReflectionRequest::kFileContainingExtension: {
      const auto& wanted = request.file_containing_extension();
      const auto* type = pool.FindMessageTypeByName(wanted.containing_type());
      const auto* extension =
          type == nullptr ? nullptr : pool.FindExtensionByNumber(type, wanted.extension_number());
      answer_file(extension == nullptr ? nullptr : extension->file(), &response);
      break;
    }
    case ServerReflectionRequest::kAllExtensionNumbersOfType:
      answer_extensions(pool, request.all_extension_numbers_of_type(), &response);
      break;
    case ServerReflectionRequest::MESSAGE_REQUEST_NOT_SET:
      response.mutable_error_response()->set_error_code(grpc::StatusCode::INVALID_ARGUMENT);
      response.mutable_error_response()->set_error_message("message_request is not set");
      break;
  }
  return response;
}

}  // namespace

ReflectionCall::ReflectionCall(GrpcContext* context, grpc::GenericCallbackServerContext* call,
                               GrpcCallOptions options)
    : GrpcCall(context, call, std::move(options)) {}

void ReflectionCall::serve(grpc::ByteBuffer* bytes) {
  MessageMemory memory(&context_->app->buffers);
  const auto request = memory.parse<ServerReflectionRequest>(bytes);
  if (!request.ok()) return finish(request.status());
  response_ = to_bytes(answer(**request));
  StartWrite(&response_);
}

void ReflectionCall::OnWriteDone(bool ok) {
  if (!ok) return finish(absl::CancelledError("the client left"));
  guard([this] { read(); });
}

}  // namespace pbserve::server

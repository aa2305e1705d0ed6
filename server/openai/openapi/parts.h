// The description's parts as JSON text, embedded by the build. "@name" in them stands for a limit
// of the server that runs.
#pragma once

namespace pbserve::server {

// path -> summary, name of the request's schema, schemas of the response, of a stream's chunks and
// of a failed probe
extern const char* const kOpenApiPaths;
// group -> field -> schema; requests are made of groups
extern const char* const kOpenApiRequests;
extern const char* const kOpenApiSchemas;  // components, beside the requests
extern const char* const kOpenApiErrors;   // status -> what it says

}  // namespace pbserve::server

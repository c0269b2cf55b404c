// What a library of custom operators needs of ONNX Runtime's C interface, in its binary form.
//
// The interface is a table of function pointers to which every version only appends: the places below are of its first
// version, which the runtime itself promises not to change. The structure of an operator grows in the same way, and says
// up to which version it is filled in.

#pragma once
#include <cstddef>
#include <cstdint>

struct Status;
struct SessionOptions;
struct Domain;
struct KernelInfo;
struct KernelContext;
struct Value;
struct TensorInfo;

struct Api {
  const void* functions[102];

  template <typename Function>
  Function at(int place) const {
    return reinterpret_cast<Function>(const_cast<void*>(functions[place]));
  }
  Status* error(const char* text) const { return at<Status* (*)(int, const char*)>(0)(1, text); }
  Status* create_domain(const char* name, Domain** out) const {
    return at<Status* (*)(const char*, Domain**)>(26)(name, out);
  }
  Status* add_operator(Domain* domain, const void* op) const {
    return at<Status* (*)(Domain*, const void*)>(27)(domain, op);
  }
  Status* add_domain(SessionOptions* options, Domain* domain) const {
    return at<Status* (*)(SessionOptions*, Domain*)>(28)(options, domain);
  }
  Status* data(const Value* value, void** out) const {
    return at<Status* (*)(const Value*, void**)>(51)(value, out);
  }
  Status* rank(const TensorInfo* info, size_t* out) const {
    return at<Status* (*)(const TensorInfo*, size_t*)>(61)(info, out);
  }
  Status* sides(const TensorInfo* info, int64_t* out, size_t count) const {
    return at<Status* (*)(const TensorInfo*, int64_t*, size_t)>(62)(info, out, count);
  }
  Status* info(const Value* value, TensorInfo** out) const {
    return at<Status* (*)(const Value*, TensorInfo**)>(65)(value, out);
  }
  Status* integer(const KernelInfo* info, const char* name, int64_t* out) const {
    return at<Status* (*)(const KernelInfo*, const char*, int64_t*)>(86)(info, name, out);
  }
  Status* input(const KernelContext* context, size_t place, const Value** out) const {
    return at<Status* (*)(const KernelContext*, size_t, const Value**)>(90)(context, place, out);
  }
  Status* output(KernelContext* context, size_t place, const int64_t* sides, size_t count, Value** out) const {
    return at<Status* (*)(KernelContext*, size_t, const int64_t*, size_t, Value**)>(91)(context, place, sides, count,
                                                                                        out);
  }
  void release(TensorInfo* info) const { at<void (*)(TensorInfo*)>(99)(info); }
};

struct ApiBase {
  const Api* (*get)(uint32_t version);
  const char* (*version)();
};

// As of version 16, the first in which making and running a kernel can tell of an error.
struct Operator {
  uint32_t version;
  void* (*create)(const Operator*, const Api*, const KernelInfo*);
  const char* (*name)(const Operator*);
  const char* (*provider)(const Operator*);
  int (*input_type)(const Operator*, size_t);
  size_t (*input_count)(const Operator*);
  int (*output_type)(const Operator*, size_t);
  size_t (*output_count)(const Operator*);
  void (*compute)(void*, KernelContext*);
  void (*destroy)(void*);
  int (*input_characteristic)(const Operator*, size_t);
  int (*output_characteristic)(const Operator*, size_t);
  int (*input_memory)(const Operator*, size_t);
  int (*variadic_input_least)(const Operator*);
  int (*variadic_input_alike)(const Operator*);
  int (*variadic_output_least)(const Operator*);
  int (*variadic_output_alike)(const Operator*);
  Status* (*create_or_fail)(const Operator*, const Api*, const KernelInfo*, void**);
  Status* (*compute_or_fail)(void*, KernelContext*);
  // Later versions' fields, which version 16 says are not read.
  const void* later[12];
};

// A convolution of signs as an operator of ONNX Runtime: signs are packed into words, and sums are counts of bits.
//
//   y[o] = float(sum of signs(x >= threshold[c]) * weight[o]) * scale[o] + bias[o]
//
// A place beyond the border adds nothing to a sum, as a convolution padded with zeros has it. In the packed image such a
// place is a word of zeros, which stands for -1: what it adds to the count is known beforehand, and taken off.
//
// The sum is exact; the product and the sum after it are rounded once each, as the operators Mul and Add round them.
// Compile with -ffp-contract=off.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "runtime_api.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace {

constexpr int BLOCK = 16;  // pixels of a row that are counted together

using Count = void (*)(const uint64_t*, const int64_t*, int, const uint64_t*, const uint64_t*, uint32_t*, int64_t);

// Output channels that are counted together, without and with masks.
struct Group {
  int filters;
  Count count[2];
};

constexpr int FILTERS = 8;  // in the largest group

struct Counting {
  void (*pack)(const float*, const float*, int, int64_t, uint64_t*, int64_t);
  Group groups[3];  // the last is of one
  void (*finish)(const uint32_t*, int64_t, int32_t, float, float, float*);
};

namespace portable {
constexpr int LANES = 1, STRIDE = 1 << 20, MOST = 4;
using Lanes = uint64_t;
using Counts = uint64_t;
inline Lanes zero() { return 0; }
inline Counts none() { return 0; }
inline Lanes load(const uint64_t* at) { return *at; }
inline Lanes spread(uint64_t word) { return word; }
inline Lanes differ(Lanes a, Lanes b) { return a ^ b; }
inline Lanes both(Lanes a, Lanes b) { return a & b; }
inline Counts more(Counts counts, Lanes bits) { return counts + __builtin_popcountll(bits); }
inline Lanes total(Lanes sum, Counts counts) { return sum + counts; }
inline void keep(uint64_t* at, Lanes words) { *at = words; }
inline void store(uint32_t* at, Lanes sum) { *at = static_cast<uint32_t>(sum); }
inline Lanes marked(Lanes words, const float* x, float edge, uint64_t bit) { return words | (*x >= edge ? bit : 0); }
#include "counting.inc"
}  // namespace portable

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif
namespace avx2 {
// There is no instruction that counts: bytes are counted by a table of 16, and added up after at most 31 of them.
constexpr int LANES = 4, STRIDE = 31, MOST = 4;
using Lanes = __m256i;
using Counts = __m256i;
inline Lanes zero() { return _mm256_setzero_si256(); }
inline Counts none() { return _mm256_setzero_si256(); }
inline Lanes load(const uint64_t* at) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)); }
inline Lanes spread(uint64_t word) { return _mm256_set1_epi64x(static_cast<long long>(word)); }
inline Lanes differ(Lanes a, Lanes b) { return _mm256_xor_si256(a, b); }
inline Lanes both(Lanes a, Lanes b) { return _mm256_and_si256(a, b); }
inline Counts more(Counts counts, Lanes bits) {
  const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2,
                                         2, 3, 2, 3, 3, 4);
  const __m256i low = _mm256_set1_epi8(15);
  const __m256i small = _mm256_shuffle_epi8(table, _mm256_and_si256(bits, low));
  const __m256i large = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(bits, 4), low));
  return _mm256_add_epi8(counts, _mm256_add_epi8(small, large));
}
inline Lanes total(Lanes sum, Counts counts) {
  return _mm256_add_epi64(sum, _mm256_sad_epu8(counts, _mm256_setzero_si256()));
}
inline void keep(uint64_t* at, Lanes words) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), words); }
inline void store(uint32_t* at, Lanes sum) {
  const __m256i low = _mm256_permutevar8x32_epi32(sum, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(at), _mm256_castsi256_si128(low));
}
inline Lanes marked(Lanes words, const float* x, float edge, uint64_t bit) {
  const __m128 above = _mm_cmpge_ps(_mm_loadu_ps(x), _mm_set1_ps(edge));
  return _mm256_or_si256(words, _mm256_and_si256(_mm256_cvtepi32_epi64(_mm_castps_si128(above)), spread(bit)));
}
#include "counting.inc"
}  // namespace avx2
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vpopcntdq"))), \
                             apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vpopcntdq,prefer-vector-width=512")
#endif
namespace avx512 {
constexpr int LANES = 8, STRIDE = 1 << 20, MOST = FILTERS;
using Lanes = __m512i;
using Counts = __m512i;
inline Lanes zero() { return _mm512_setzero_si512(); }
inline Counts none() { return _mm512_setzero_si512(); }
inline Lanes load(const uint64_t* at) { return _mm512_loadu_si512(at); }
inline Lanes spread(uint64_t word) { return _mm512_set1_epi64(static_cast<long long>(word)); }
inline Lanes differ(Lanes a, Lanes b) { return _mm512_xor_si512(a, b); }
inline Lanes both(Lanes a, Lanes b) { return _mm512_and_si512(a, b); }
inline Counts more(Counts counts, Lanes bits) { return _mm512_add_epi64(counts, _mm512_popcnt_epi64(bits)); }
inline Lanes total(Lanes sum, Counts counts) { return _mm512_add_epi64(sum, counts); }
inline void keep(uint64_t* at, Lanes words) { _mm512_storeu_si512(at, words); }
inline void store(uint32_t* at, Lanes sum) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), _mm512_cvtepi64_epi32(sum));
}
inline Lanes marked(Lanes words, const float* x, float edge, uint64_t bit) {
  const __mmask8 above = _mm256_cmp_ps_mask(_mm256_loadu_ps(x), _mm256_set1_ps(edge), _CMP_GE_OQ);
  return _mm512_mask_or_epi64(words, above, words, spread(bit));
}
#include "counting.inc"
}  // namespace avx512
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#elif defined(__aarch64__)

namespace neon {
constexpr int LANES = 2, STRIDE = 31, MOST = 4;
using Lanes = uint64x2_t;
using Counts = uint8x16_t;
inline Lanes zero() { return vdupq_n_u64(0); }
inline Counts none() { return vdupq_n_u8(0); }
inline Lanes load(const uint64_t* at) { return vld1q_u64(at); }
inline Lanes spread(uint64_t word) { return vdupq_n_u64(word); }
inline Lanes differ(Lanes a, Lanes b) { return veorq_u64(a, b); }
inline Lanes both(Lanes a, Lanes b) { return vandq_u64(a, b); }
inline Counts more(Counts counts, Lanes bits) { return vaddq_u8(counts, vcntq_u8(vreinterpretq_u8_u64(bits))); }
inline Lanes total(Lanes sum, Counts counts) {
  return vaddq_u64(sum, vpaddlq_u32(vpaddlq_u16(vpaddlq_u8(counts))));
}
inline void keep(uint64_t* at, Lanes words) { vst1q_u64(at, words); }
inline void store(uint32_t* at, Lanes sum) { vst1_u32(at, vmovn_u64(sum)); }
inline Lanes marked(Lanes words, const float* x, float edge, uint64_t bit) {
  const int32x2_t above = vreinterpret_s32_u32(vcge_f32(vld1_f32(x), vdup_n_f32(edge)));
  return vorrq_u64(words, vandq_u64(vreinterpretq_u64_s64(vmovl_s32(above)), spread(bit)));
}
#include "counting.inc"
}  // namespace neon

#endif

struct Variant {
  const char* name;
  const Counting* counting;
};

// The best first; the last runs everywhere.
std::vector<Variant> variants() {
  std::vector<Variant> found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vpopcntdq"))
    found.push_back({"avx512-vpopcntdq", &avx512::counting});
  if (__builtin_cpu_supports("avx2")) found.push_back({"avx2", &avx2::counting});
#elif defined(__aarch64__)
  found.push_back({"neon", &neon::counting});
#endif
  found.push_back({"portable", &portable::counting});
  return found;
}

std::atomic<int> chosen{0};

const Variant& variant() {
  static const std::vector<Variant> all = variants();
  return all[std::min<size_t>(chosen, all.size() - 1)];
}

// Threads that wait for work; whoever finds them busy works alone.
class Pool {
 public:
  void run(int parts, const std::function<void(int)>& work) {
    std::unique_lock<std::mutex> mine(busy_, std::try_to_lock);
    if (parts < 2 || !mine.owns_lock()) {
      for (int part = 0; part < parts; ++part) work(part);
      return;
    }
    while (static_cast<int>(threads_.size()) < parts - 1) {
      const int part = static_cast<int>(threads_.size()) + 1;
      threads_.emplace_back([this, part, seen = round_] { wait(part, seen); });
    }
    {
      std::lock_guard<std::mutex> lock(state_);
      work_ = &work, parts_ = parts, left_ = parts - 1, ++round_;
    }
    begin_.notify_all();
    work(0);
    std::unique_lock<std::mutex> lock(state_);
    end_.wait(lock, [this] { return left_ == 0; });
  }

  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(state_);
      over_ = true, ++round_;
    }
    begin_.notify_all();
    for (auto& thread : threads_) thread.join();
  }

 private:
  void wait(int part, int64_t seen) {
    while (true) {
      const std::function<void(int)>* work = nullptr;
      {
        std::unique_lock<std::mutex> lock(state_);
        begin_.wait(lock, [&] { return round_ != seen; });
        seen = round_;
        if (over_) return;
        if (part < parts_) work = work_;
      }
      if (work == nullptr) continue;
      (*work)(part);
      std::lock_guard<std::mutex> lock(state_);
      if (--left_ == 0) end_.notify_one();
    }
  }

  std::mutex busy_, state_;
  std::condition_variable begin_, end_;
  std::vector<std::thread> threads_;
  const std::function<void(int)>* work_ = nullptr;
  int parts_ = 0, left_ = 0;
  int64_t round_ = 0;
  bool over_ = false;
};

Pool& pool() {
  static Pool shared;
  return shared;
}

// Along one axis (depth, height, width).
struct Axis {
  int64_t side, kernel, stride, dilation, before, after;
  int64_t padded() const { return side + before + after; }
  int64_t out() const { return (padded() - dilation * (kernel - 1) - 1) / stride + 1; }
  bool inside(int64_t place, int64_t tap) const {
    const int64_t at = place * stride + tap * dilation - before;
    return at >= 0 && at < side;
  }
  // Which taps lie inside the image, as bits.
  uint64_t taps_inside(int64_t place) const {
    uint64_t found = 0;
    for (int64_t tap = 0; tap < kernel; ++tap) found |= uint64_t(inside(place, tap)) << tap;
    return found;
  }
  // Outputs in [first, last) see no border.
  int64_t first() const { return std::min(out(), (before + stride - 1) / stride); }
  int64_t last() const {
    const int64_t most = side + before - dilation * (kernel - 1) - 1;
    return most < 0 ? first() : std::max(first(), std::min(out(), most / stride + 1));
  }
};

struct Shape {
  int64_t batch, inputs, outputs, words;
  Axis axes[3];
  int64_t taps() const { return axes[0].kernel * axes[1].kernel * axes[2].kernel; }
  int64_t pixels() const { return axes[0].side * axes[1].side * axes[2].side; }
  int64_t out_pixels() const { return axes[0].out() * axes[1].out() * axes[2].out(); }
  int64_t row() const { return axes[2].padded() + BLOCK; }
  int64_t plane() const { return axes[0].padded() * axes[1].padded() * row() + BLOCK; }
};

struct Weights {
  const uint64_t* bits;
  const uint64_t* masks;  // where weights are not zero; null where none is
  std::vector<int32_t> ones, all;  // of each filter and tap: bits that are set, and weights that are not zero
};

class Convolution {
 public:
  Convolution(const Shape& shape, const Weights& weights, const float* threshold, const float* scale, const float* bias,
              int threads)
      : shape_(shape), weights_(weights), threshold_(threshold), scale_(scale), bias_(bias), threads_(threads) {
    const Axis* axes = shape.axes;
    for (int64_t z = 0; z < axes[0].kernel; ++z)
      for (int64_t y = 0; y < axes[1].kernel; ++y)
        for (int64_t x = 0; x < axes[2].kernel; ++x)
          for (int64_t word = 0; word < shape.words; ++word)
            offsets_.push_back(word * shape.plane() +
                               (z * axes[0].dilation * axes[1].padded() + y * axes[1].dilation) * shape.row() +
                               x * axes[2].dilation);
    find_bases();
  }

  void operator()(const float* x, float* y) {
    packed_.assign(shape_.words * shape_.plane(), 0);
    for (int64_t image = 0; image < shape_.batch; ++image) {
      pack(x + image * shape_.inputs * shape_.pixels());
      const int64_t rows = shape_.axes[0].out() * shape_.axes[1].out();
      float* out = y + image * shape_.outputs * shape_.out_pixels();
      spread(rows, [&](int64_t row) { convolve(row / shape_.axes[1].out(), row % shape_.axes[1].out(), out); });
    }
  }

 private:
  void spread(int64_t count, const std::function<void(int64_t)>& work) {
    const int parts = static_cast<int>(std::min<int64_t>(threads_, count));
    pool().run(parts, [&](int part) {
      for (int64_t each = count * part / parts; each < count * (part + 1) / parts; ++each) work(each);
    });
  }

  void pack(const float* x) {
    const Axis* axes = shape_.axes;
    spread(axes[0].side * axes[1].side, [&](int64_t row) {
      const int64_t z = row / axes[1].side, up = row % axes[1].side;
      for (int64_t word = 0; word < shape_.words; ++word) {
        const int channels = static_cast<int>(std::min<int64_t>(64, shape_.inputs - 64 * word));
        uint64_t* to = packed_.data() + word * shape_.plane() +
                       ((z + axes[0].before) * axes[1].padded() + up + axes[1].before) * shape_.row() + axes[2].before;
        counting_.pack(x + 64 * word * shape_.pixels() + row * axes[2].side, threshold_ + 64 * word, channels,
                                 shape_.pixels(), to, axes[2].side);
      }
    });
  }

  void convolve(int64_t z, int64_t up, float* y) {
    const Axis* axes = shape_.axes;
    const int words = static_cast<int>(offsets_.size());
    const bool masked = weights_.masks != nullptr;
    const int64_t out = axes[2].out(), pitch = out + BLOCK;
    const uint64_t* row = packed_.data() + (z * axes[0].stride * axes[1].padded() + up * axes[1].stride) * shape_.row();
    thread_local std::vector<uint32_t> counts;
    counts.resize(FILTERS * pitch);
    for (int64_t filter = 0; filter < shape_.outputs;) {
      const Group* group = counting_.groups;
      while (group->filters > shape_.outputs - filter) ++group;
      const uint64_t* bits = weights_.bits + filter * words;
      const uint64_t* masks = masked ? weights_.masks + filter * words : nullptr;
      for (int64_t pixel = 0; pixel < out; pixel += BLOCK)
        block(group->count[masked], row, pixel, bits, masks, counts.data() + pixel, pitch);
      for (int each = 0; each < group->filters; ++each, ++filter)
        finish(z, up, filter, counts.data() + each * pitch,
               y + filter * shape_.out_pixels() + (z * axes[1].out() + up) * out);
    }
  }

  void block(Count count, const uint64_t* row, int64_t pixel, const uint64_t* bits, const uint64_t* masks,
             uint32_t* out, int64_t pitch) {
    const int words = static_cast<int>(offsets_.size());
    const int64_t stride = shape_.axes[2].stride, last = std::min<int64_t>(BLOCK, shape_.axes[2].out() - pixel);
    if (stride == 1) {
      count(row + pixel, offsets_.data(), words, bits, masks, out, pitch);
      return;
    }
    // What strides skip is not counted: the pixels that remain are laid side by side first.
    thread_local std::vector<uint64_t> beside;
    thread_local std::vector<int64_t> places;
    beside.assign(words * BLOCK, 0), places.resize(words);
    for (int word = 0; word < words; ++word) {
      places[word] = word * BLOCK;
      for (int64_t lane = 0; lane < last; ++lane)
        beside[word * BLOCK + lane] = row[offsets_[word] + (pixel + lane) * stride];
    }
    count(beside.data(), places.data(), words, bits, masks, out, pitch);
  }

  void finish(int64_t z, int64_t up, int64_t filter, const uint32_t* counts, float* y) {
    const Axis& across = shape_.axes[2];
    const int32_t* all = bases_.data() + ((filter * kinds_[0].size() + kind_[0][z]) * kinds_[1].size() + kind_[1][up]) *
                                             kinds_[2].size();
    const float scale = scale_[filter], bias = bias_[filter];
    const bool bordered = across.last() <= across.first();
    // All of the row as if there were no border, in whole vectors, and then what sees one.
    if (!bordered) counting_.finish(counts, across.out(), all[kind_[2][across.first()]], scale, bias, y);
    for (int64_t place = 0; place < across.out(); ++place) {
      if (place == across.first() && !bordered) place = across.last();
      if (place < across.out()) y[place] = float(all[kind_[2][place]] - 2 * int32_t(counts[place])) * scale + bias;
    }
  }

  // Places of an axis are of one kind where the same taps lie inside; what a sum begins with depends on that alone.
  void find_bases() {
    for (int axis = 0; axis < 3; ++axis)
      for (int64_t place = 0; place < shape_.axes[axis].out(); ++place) {
        const uint64_t inside = shape_.axes[axis].taps_inside(place);
        const auto known = std::find(kinds_[axis].begin(), kinds_[axis].end(), inside);
        kind_[axis].push_back(static_cast<int>(known - kinds_[axis].begin()));
        if (known == kinds_[axis].end()) kinds_[axis].push_back(inside);
      }
    for (int64_t filter = 0; filter < shape_.outputs; ++filter)
      for (uint64_t z : kinds_[0])
        for (uint64_t up : kinds_[1])
          for (uint64_t across : kinds_[2]) bases_.push_back(base(z, up, across, filter));
  }

  // What a sum is without a differing bit; a tap beyond the border is taken off.
  int32_t base(uint64_t z, uint64_t up, uint64_t across, int64_t filter) const {
    const Axis* axes = shape_.axes;
    int32_t all = 0;
    int64_t place = filter * shape_.taps();
    for (int64_t a = 0; a < axes[0].kernel; ++a)
      for (int64_t b = 0; b < axes[1].kernel; ++b)
        for (int64_t c = 0; c < axes[2].kernel; ++c, ++place)
          all += z >> a & up >> b & across >> c & 1 ? weights_.all[place] : 2 * weights_.ones[place];
    return all;
  }

  Shape shape_;
  const Counting& counting_ = *variant().counting;
  const Weights& weights_;
  const float *threshold_, *scale_, *bias_;
  int threads_;
  std::vector<int64_t> offsets_;
  std::vector<uint64_t> packed_;
  std::vector<uint64_t> kinds_[3];
  std::vector<int> kind_[3];
  std::vector<int32_t> bases_;
};

// One node of a graph.
struct Kernel {
  const Api* api;
  int64_t kernel[3], strides[3], dilations[3], begins[3], ends[3], dims, threads;
};

const char* const AXES[] = {"depth", "height", "width"};

Status* create(const Operator*, const Api* api, const KernelInfo* info, void** out) {
  auto made = std::make_unique<Kernel>();
  made->api = api;
  Status* status = nullptr;
  for (int axis = 0; axis < 3 && status == nullptr; ++axis) {
    const struct {
      const char* what;
      int64_t* to;
    } wanted[] = {{"kernel_", made->kernel}, {"stride_", made->strides}, {"dilation_", made->dilations},
                  {"begin_", made->begins},  {"end_", made->ends}};
    for (const auto& each : wanted)
      if (status == nullptr) status = api->integer(info, (std::string(each.what) + AXES[axis]).c_str(), each.to + axis);
  }
  if (status == nullptr) status = api->integer(info, "dims", &made->dims);
  if (status == nullptr) status = api->integer(info, "threads", &made->threads);
  if (status == nullptr) *out = made.release();
  return status;
}

struct Tensor {
  void* data = nullptr;
  std::vector<int64_t> sides;
  int64_t size() const {
    int64_t all = 1;
    for (int64_t side : sides) all *= side;
    return all;
  }
};

Status* read(const Api* api, const KernelContext* context, size_t place, Tensor* out) {
  const Value* value = nullptr;
  TensorInfo* info = nullptr;
  size_t rank = 0;
  Status* status = api->input(context, place, &value);
  if (status == nullptr) status = api->data(value, &out->data);
  if (status == nullptr) status = api->info(value, &info);
  if (status == nullptr) status = api->rank(info, &rank);
  out->sides.resize(rank);
  if (status == nullptr) status = api->sides(info, out->sides.data(), rank);
  if (info != nullptr) api->release(info);
  return status;
}

Status* compute(void* of, KernelContext* context) {
  const Kernel& node = *static_cast<const Kernel*>(of);
  const Api* api = node.api;
  Tensor x, threshold, bits, masks, scale, bias;
  Tensor* inputs[] = {&x, &threshold, &bits, &masks, &scale, &bias};
  for (size_t place = 0; place < 6; ++place)
    if (Status* status = read(api, context, place, inputs[place])) return status;
  if (static_cast<int64_t>(x.sides.size()) != node.dims + 2) return api->error("SignedConv: an image of another rank");
  Shape shape{x.sides[0], x.sides[1], scale.size(), (x.sides[1] + 63) / 64, {}};
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t missing = 3 - node.dims;
    const int64_t side = axis < missing ? 1 : x.sides[2 + axis - missing];
    shape.axes[axis] = {side, node.kernel[axis], node.strides[axis], node.dilations[axis], node.begins[axis], node.ends[axis]};
    const Axis& made = shape.axes[axis];
    if (made.side < 1 || made.kernel < 1 || made.kernel > 64 || made.stride < 1 || made.dilation < 1 || made.before < 0 || made.after < 0 ||
        made.padded() < made.dilation * (made.kernel - 1) + 1)
      return api->error("SignedConv: an image smaller than the kernel");
  }
  const int64_t wanted = shape.outputs * shape.taps() * shape.words;
  if (bits.size() != wanted || (masks.size() != 0 && masks.size() != wanted) || threshold.size() != shape.inputs ||
      bias.size() != shape.outputs)
    return api->error("SignedConv: weights of another shape");
  Weights weights{static_cast<const uint64_t*>(bits.data),
                  masks.size() == 0 ? nullptr : static_cast<const uint64_t*>(masks.data), {}, {}};
  for (int64_t place = 0; place < shape.outputs * shape.taps(); ++place) {
    int32_t ones = 0, all = weights.masks == nullptr ? static_cast<int32_t>(shape.inputs) : 0;
    for (int64_t word = place * shape.words; word < (place + 1) * shape.words; ++word) {
      ones += __builtin_popcountll(weights.bits[word]);
      if (weights.masks != nullptr) all += __builtin_popcountll(weights.masks[word]);
    }
    weights.ones.push_back(ones), weights.all.push_back(all);
  }
  std::vector<int64_t> sides{shape.batch, shape.outputs};
  for (int axis = 3 - static_cast<int>(node.dims); axis < 3; ++axis) sides.push_back(shape.axes[axis].out());
  Value* out = nullptr;
  void* y = nullptr;
  if (Status* status = api->output(context, 0, sides.data(), sides.size(), &out)) return status;
  if (Status* status = api->data(out, &y)) return status;
  Convolution convolution(shape, weights, static_cast<const float*>(threshold.data), static_cast<const float*>(scale.data),
                          static_cast<const float*>(bias.data), static_cast<int>(std::max<int64_t>(1, node.threads)));
  convolution(static_cast<const float*>(x.data), static_cast<float*>(y));
  return nullptr;
}

constexpr int FLOAT = 1, INT64 = 7;

int input_type(const Operator*, size_t place) { return place == 2 || place == 3 ? INT64 : FLOAT; }

Operator signed_conv() {
  Operator op{};
  op.version = 16;
  op.name = [](const Operator*) { return "SignedConv"; };
  op.provider = [](const Operator*) -> const char* { return nullptr; };
  op.input_type = input_type;
  op.input_count = [](const Operator*) -> size_t { return 6; };
  op.output_type = [](const Operator*, size_t) { return FLOAT; };
  op.output_count = [](const Operator*) -> size_t { return 1; };
  op.destroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  op.input_characteristic = op.output_characteristic = [](const Operator*, size_t) { return 0; };
  op.input_memory = [](const Operator*, size_t) { return 0; };
  op.variadic_input_least = op.variadic_output_least = [](const Operator*) { return 1; };
  op.variadic_input_alike = op.variadic_output_alike = [](const Operator*) { return 1; };
  op.create_or_fail = create;
  op.compute_or_fail = compute;
  return op;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) Status* RegisterCustomOps(SessionOptions* options,
                                                                            const ApiBase* base) {
  static const Operator op = signed_conv();
  const Api* api = base->get(16);
  Domain* domain = nullptr;
  if (Status* status = api->create_domain("segpress", &domain)) return status;
  if (Status* status = api->add_operator(domain, &op)) return status;
  return api->add_domain(options, domain);
}

// The instruction set that counts here.
extern "C" __attribute__((visibility("default"))) const char* segpress_variant() { return variant().name; }

// Take a lesser one, for tests and benchmarks: 0 is the best that this processor has.
extern "C" __attribute__((visibility("default"))) const char* segpress_choose(int place) {
  chosen = place;
  return variant().name;
}

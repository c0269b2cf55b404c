// Every variant of the 1-bit kernel that this processor has, beside the definition of the operator, bit for bit: a program of
// its own, so that one for another processor can be run by an emulator where there is no ONNX Runtime for it.

#include <cmath>
#include <cstdio>
#include <random>

#include "signed_conv.cpp"

namespace {

// Signs, weights and sums one by one, as the operator is defined.
std::vector<float> defined(const Shape& shape, const Weights& weights, const std::vector<float>& x,
                           const std::vector<float>& threshold, const std::vector<float>& scale,
                           const std::vector<float>& bias) {
  const Axis* axes = shape.axes;
  std::vector<float> y;
  for (int64_t image = 0; image < shape.batch; ++image)
    for (int64_t filter = 0; filter < shape.outputs; ++filter)
      for (int64_t z = 0; z < axes[0].out(); ++z)
        for (int64_t up = 0; up < axes[1].out(); ++up)
          for (int64_t across = 0; across < axes[2].out(); ++across) {
            int32_t sum = 0;
            int64_t tap = filter * shape.taps();
            for (int64_t a = 0; a < axes[0].kernel; ++a)
              for (int64_t b = 0; b < axes[1].kernel; ++b)
                for (int64_t c = 0; c < axes[2].kernel; ++c, ++tap) {
                  if (!axes[0].inside(z, a) || !axes[1].inside(up, b) || !axes[2].inside(across, c)) continue;
                  const int64_t from[] = {z * axes[0].stride + a * axes[0].dilation - axes[0].before,
                                          up * axes[1].stride + b * axes[1].dilation - axes[1].before,
                                          across * axes[2].stride + c * axes[2].dilation - axes[2].before};
                  const int64_t place = (from[0] * axes[1].side + from[1]) * axes[2].side + from[2];
                  for (int64_t channel = 0; channel < shape.inputs; ++channel) {
                    const int64_t word = tap * shape.words + channel / 64;
                    if (weights.masks != nullptr && !(weights.masks[word] >> channel % 64 & 1)) continue;
                    const bool sign =
                        x[(image * shape.inputs + channel) * shape.pixels() + place] >= threshold[channel];
                    sum += sign == bool(weights.bits[word] >> channel % 64 & 1) ? 1 : -1;
                  }
                }
            const float product = float(sum) * scale[filter];
            y.push_back(product + bias[filter]);
          }
  return y;
}

enum class Case { plain, masked, opposite };
const char* const CASES[] = {"plain", "masked", "opposite"};

int differing(const Shape& shape, Case of, unsigned seed) {
  const bool masked = of == Case::masked, opposite = of == Case::opposite;
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  const auto floats = [&](int64_t count) {
    std::vector<float> made(count);
    // Some equal their threshold.
    for (float& each : made) each = std::round(4 * normal(random)) / 4;
    return made;
  };
  std::vector<uint64_t> bits(shape.outputs * shape.taps() * shape.words), masks(bits.size());
  for (size_t word = 0; word < bits.size(); ++word) {
    const int64_t left = shape.inputs - 64 * int64_t(word % shape.words);
    const uint64_t there = left >= 64 ? ~uint64_t(0) : (uint64_t(1) << left) - 1;
    masks[word] = masked ? random() & there : there;
    // Where every sign is another than its weight's, each byte counts to its largest.
    bits[word] = opposite ? 0 : random() & masks[word];
  }
  Weights weights{bits.data(), masked ? masks.data() : nullptr, {}, {}};
  for (size_t place = 0; place < bits.size(); place += shape.words) {
    int32_t ones = 0, all = masked ? 0 : static_cast<int32_t>(shape.inputs);
    for (int64_t word = 0; word < shape.words; ++word) {
      ones += __builtin_popcountll(bits[place + word]);
      if (masked) all += __builtin_popcountll(masks[place + word]);
    }
    weights.ones.push_back(ones), weights.all.push_back(all);
  }
  const auto x = floats(shape.batch * shape.inputs * shape.pixels()), scale = floats(shape.outputs),
             bias = floats(shape.outputs);
  const auto threshold = opposite ? std::vector<float>(shape.inputs, -1e9f) : floats(shape.inputs);
  const auto wanted = defined(shape, weights, x, threshold, scale, bias);
  int wrong = 0;
  for (int place = 0; place < static_cast<int>(variants().size()); ++place) {
    chosen = place;
    std::vector<float> found(wanted.size());
    Convolution(shape, weights, threshold.data(), scale.data(), bias.data(), 2)(x.data(), found.data());
    const bool same = std::memcmp(found.data(), wanted.data(), wanted.size() * sizeof(float)) == 0;
    std::printf("%s %s %zu %s\n", variant().name, CASES[int(of)], wanted.size(), same ? "same" : "DIFFERENT");
    wrong += !same;
  }
  return wrong;
}

}  // namespace

int main() {
  const Axis none{1, 1, 1, 1, 0, 0};
  // batch, inputs, outputs, words; and of each axis: side, kernel, stride, dilation, padding before and after.
  const Shape shapes[] = {
      {1, 16, 16, 1, {none, {17, 3, 1, 1, 1, 1}, {19, 3, 1, 1, 1, 1}}},
      {2, 130, 37, 3, {none, {5, 3, 1, 1, 1, 1}, {33, 3, 1, 1, 1, 1}}},
      // More words than can be counted before their bytes are added up.
      {1, 200, 5, 4, {none, {7, 5, 1, 1, 2, 2}, {40, 5, 1, 1, 2, 2}}},
      {1, 64, 6, 1, {none, {16, 3, 1, 2, 2, 2}, {40, 3, 1, 2, 2, 2}}},
      {1, 32, 8, 1, {none, {16, 3, 2, 1, 1, 1}, {22, 3, 2, 1, 1, 1}}},
      {1, 70, 5, 2, {none, {5, 1, 1, 1, 0, 0}, {6, 1, 1, 1, 0, 0}}},
      {1, 10, 12, 1, {none, {11, 5, 1, 1, 2, 2}, {13, 3, 1, 1, 0, 0}}},
      {1, 8, 8, 1, {none, {3, 3, 1, 1, 4, 4}, {3, 3, 1, 1, 4, 4}}},
      {1, 8, 8, 1, {none, {1, 3, 1, 1, 1, 1}, {1, 3, 1, 1, 1, 1}}},
      {1, 20, 9, 1, {{5, 3, 1, 1, 1, 1}, {6, 3, 1, 1, 1, 1}, {7, 3, 1, 1, 1, 1}}},
  };
  int wrong = 0;
  unsigned seed = 0;
  for (const Shape& shape : shapes)
    for (Case of : {Case::plain, Case::masked, Case::opposite}) wrong += differing(shape, of, ++seed);
  return wrong != 0;
}

// Masks of images by a packed network: C++17 and the standard library alone.
//
// `prepared` makes what the network is given of an image's pixels (8 bits, gray or red, green, blue), and `mask` makes
// the class of each pixel of what the network said. The network's runtime comes between them: segpress_run.cpp.
//
// Legend: H and W height and width of the image, h and w the network's, C channels, K logits of a pixel.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <numeric>
#include <tuple>
#include <utility>
#include <vector>

#include "segpress_config.hpp"

namespace segpress {

struct Image {
    int height, width, channels;
    std::vector<uint8_t> pixels;  // HWC
};

// One axis of [outer][old][inner] at another length, as Pillow's BILINEAR makes it: 22 bits of fixed point.
inline std::vector<uint8_t> resized_axis(const std::vector<uint8_t>& in, int outer, int old, int inner, int fresh) {
    if (old == fresh) return in;
    std::vector<uint8_t> out(size_t(outer) * fresh * inner);
    const double step = double(old) / fresh, scale = std::max(step, 1.0);
    for (int to = 0; to < fresh; ++to) {
        const double middle = (to + 0.5) * step;
        const int first = std::max(int(middle - scale + 0.5), 0), last = std::min(int(middle + scale + 0.5), old);
        std::vector<double> parts;
        double total = 0;
        for (int from = first; from < last; ++from) {
            parts.push_back(std::max(1 - std::abs((from - middle + 0.5) / scale), 0.0));
            total += parts.back();
        }
        std::vector<int64_t> weights;
        for (double part : parts) weights.push_back(int64_t(std::floor(part / total * (1 << 22) + 0.5)));
        for (int row = 0; row < outer; ++row)
            for (int place = 0; place < inner; ++place) {
                int64_t sum = 1 << 21;
                for (int from = first; from < last; ++from)
                    sum += weights[from - first] * in[(size_t(row) * old + from) * inner + place];
                out[(size_t(row) * fresh + to) * inner + place] = uint8_t(std::clamp<int64_t>(sum >> 22, 0, 255));
            }
    }
    return out;
}

// The size at which the network sees an image of this size, without what is padded.
inline std::pair<int, int> inner_size(int height, int width) {
    if (!config::pad) return {config::height, config::width};
    const double scale = std::min(double(config::height) / height, double(config::width) / width);
    // Halves to the even number, as Python rounds.
    return {std::max(1, int(std::nearbyint(height * scale))), std::max(1, int(std::nearbyint(width * scale)))};
}

// (pixel - mean) / deviation, in place (1Chw).
inline void normalize(std::vector<float>& pixels) {
    const size_t parts = config::own == config::Own::image ? 1 : config::channels, length = pixels.size() / parts;
    for (size_t part = 0; part < parts; ++part) {
        float *begin = pixels.data() + part * length, *end = begin + length;
        const size_t known = std::size(config::mean) == parts ? part : 0;
        float mean = config::mean[known], deviation = config::deviation[known];
        if (config::own != config::Own::none) {
            const double middle = std::accumulate(begin, end, 0.0) / double(length);
            double squares = 0;
            for (const float* at = begin; at < end; ++at) squares += (*at - middle) * (*at - middle);
            mean = float(middle), deviation = float(std::max(std::sqrt(squares / double(length)), 1e-6));
        }
        for (float* at = begin; at < end; ++at) *at = (*at - mean) / deviation;
    }
}

// What the network is given (1Chw).
inline std::vector<float> prepared(Image image) {
    if (image.channels == 3 && config::channels == 1) {
        std::vector<uint8_t> gray(size_t(image.height) * image.width);
        for (size_t at = 0; at < gray.size(); ++at) {
            const uint8_t* pixel = &image.pixels[3 * at];
            gray[at] = uint8_t((pixel[0] * 19595 + pixel[1] * 38470 + pixel[2] * 7471 + 32768) >> 16);
        }
        image = {image.height, image.width, 1, gray};
    }
    const auto [height, width] = inner_size(image.height, image.width);
    auto pixels = resized_axis(image.pixels, image.height, image.width, image.channels, width);
    pixels = resized_axis(pixels, 1, image.height, width * image.channels, height);
    std::vector<float> out(size_t(config::channels) * config::height * config::width);
    for (int channel = 0; channel < config::channels; ++channel)
        for (int y = 0; y < config::height; ++y)
            for (int x = 0; x < config::width; ++x) {
                const int colour = image.channels == 1 ? 0 : config::bgr ? 2 - channel : channel;
                const size_t from = (size_t(y) * width + x) * image.channels + colour;
                out[(size_t(channel) * config::height + y) * config::width + x] =
                    y < height && x < width ? pixels[from] / 255.0f : 0.0f;
            }
    normalize(out);
    return out;
}

// One axis of [outer][old][inner] at another length, linearly between the middles of pixels.
inline std::vector<float> enlarged_axis(const std::vector<float>& in, int outer, int old, int inner, int fresh) {
    if (old == fresh) return in;
    std::vector<float> out(size_t(outer) * fresh * inner);
    for (int to = 0; to < fresh; ++to) {
        const float place = std::max((to + 0.5f) * (float(old) / float(fresh)) - 0.5f, 0.0f);
        const int low = std::min(int(place), old - 1), high = std::min(low + 1, old - 1);
        const float share = place - float(low);
        for (int row = 0; row < outer; ++row)
            for (int at = 0; at < inner; ++at)
                out[(size_t(row) * fresh + to) * inner + at] = in[(size_t(row) * old + low) * inner + at] * (1 - share) +
                                                             in[(size_t(row) * old + high) * inner + at] * share;
    }
    return out;
}

// Each component of the pixels where `inside` holds, in the order of first pixels: joined at corners too, or at sides.
template <class Inside>
std::vector<std::vector<size_t>> components(int height, int width, bool corners, Inside inside) {
    std::vector<char> seen(size_t(height) * width);
    std::vector<std::vector<size_t>> found;
    for (size_t start = 0; start < seen.size(); ++start) {
        if (seen[start] || !inside(start)) continue;
        std::vector<size_t> members{start};
        seen[start] = 1;
        for (size_t next = 0; next < members.size(); ++next)
            for (int dy = -1; dy <= 1; ++dy)
                for (int dx = -1; dx <= 1; ++dx) {
                    const int y = int(members[next] / width) + dy, x = int(members[next] % width) + dx;
                    if ((dy && dx && !corners) || y < 0 || x < 0 || y >= height || x >= width) continue;
                    const size_t at = size_t(y) * width + x;
                    if (seen[at] || !inside(at)) continue;
                    seen[at] = 1;
                    members.push_back(at);
                }
        found.push_back(std::move(members));
    }
    return found;
}

inline void fill_holes(std::vector<uint8_t>& labels, int height, int width, const std::vector<int>& classes) {
    std::vector<std::tuple<size_t, int, std::vector<size_t>>> filled;
    for (int index : classes) {
        size_t enclosed = size_t(std::count(labels.begin(), labels.end(), uint8_t(index)));
        std::vector<size_t> holes;
        for (const auto& members : components(height, width, false, [&](size_t at) { return labels[at] != index; })) {
            const bool open = std::any_of(members.begin(), members.end(), [&](size_t at) {
                const size_t y = at / width, x = at % width;
                return y == 0 || x == 0 || y + 1 == size_t(height) || x + 1 == size_t(width);
            });
            if (open) continue;
            enclosed += members.size();
            std::copy_if(members.begin(), members.end(), std::back_inserter(holes), [&](size_t at) { return labels[at] == 0; });
        }
        filled.emplace_back(enclosed, index, holes);
    }
    std::stable_sort(filled.begin(), filled.end(), [](auto& a, auto& b) { return std::get<0>(a) > std::get<0>(b); });
    for (const auto& [enclosed, index, holes] : filled)
        for (size_t at : holes) labels[at] = uint8_t(index);
}

inline void apply(const config::Step& step, std::vector<uint8_t>& labels, int height, int width) {
    if (step.word == config::Word::fill_holes) return fill_holes(labels, height, width, step.classes);
    for (int index : step.classes) {
        const auto found = components(height, width, true, [&](size_t at) { return labels[at] == index; });
        size_t largest = 0;
        for (size_t each = 1; each < found.size(); ++each)
            if (found[each].size() > found[largest].size()) largest = each;
        for (size_t each = 0; each < found.size(); ++each) {
            const bool by_rank = step.word == config::Word::largest_component;
            if (by_rank ? each != largest : found[each].size() < size_t(step.least))
                for (size_t at : found[each]) labels[at] = 0;
        }
    }
}

// The class of each pixel of an image of this size (HW), by what the network said of it (Khw).
inline std::vector<uint8_t> mask(const float* logits, int height, int width) {
    const auto [h, w] = inner_size(height, width);
    const int to_h = config::restore_labels ? h : height, to_w = config::restore_labels ? w : width;
    std::vector<std::vector<float>> shares(config::logits, std::vector<float>(size_t(h) * w));
    for (int y = 0; y < h; ++y)
        for (int x = 0; x < w; ++x) {
            const size_t from = size_t(y) * config::width + x, plane = size_t(config::height) * config::width;
            double highest = config::logits == 1 ? 0 : logits[from], total = config::logits == 1 ? 1 : 0;
            for (int k = 1; k < config::logits; ++k) highest = std::max(highest, double(logits[k * plane + from]));
            std::vector<double> powers;
            for (int k = 0; k < config::logits; ++k) {
                // Of a single logit 1 / (1 + exp(-x)).
                powers.push_back(std::exp(config::logits == 1 ? -double(logits[from]) : logits[k * plane + from] - highest));
                total += powers.back();
            }
            for (int k = 0; k < config::logits; ++k)
                shares[k][size_t(y) * w + x] = float(config::logits == 1 ? 1 / total : powers[k] / total);
        }
    for (auto& one : shares) one = enlarged_axis(enlarged_axis(one, 1, h, w, to_h), to_h, w, 1, to_w);
    std::vector<uint8_t> labels(size_t(to_h) * to_w);
    for (size_t at = 0; at < labels.size(); ++at) {
        int best = 0;
        for (int k = 1; k < config::logits; ++k)
            if (shares[k][at] > shares[best][at]) best = k;
        if (config::one_threshold)
            labels[at] = shares.back()[at] > config::least[0];
        else
            labels[at] = shares[best][at] < config::least[best] ? 0 : uint8_t(best);
    }
    if (config::restore_labels) {
        std::vector<uint8_t> whole;
        double y = double(h) / height / 2;
        for (int row = 0; row < height; ++row, y += double(h) / height) {
            double x = double(w) / width / 2;
            for (int column = 0; column < width; ++column, x += double(w) / width)
                whole.push_back(labels[size_t(int(y)) * w + size_t(int(x))]);
        }
        labels = std::move(whole);
    }
    for (const auto& step : config::steps) apply(step, labels, height, width);
    return labels;
}

}  // namespace segpress

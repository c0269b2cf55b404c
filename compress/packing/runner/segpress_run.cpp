// Masks of images (PGM or PPM files of 8 bits) by OpenVINO: segpress_run FOLDER_OF_THE_PACK OUT IMAGE...
#include <openvino/c/openvino.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

#include "segpress.hpp"

static void check(ov_status_e status, const char* what) {
    if (status != OK) throw std::runtime_error(std::string(what) + ": " + ov_get_error_info(status));
}

// The network, with room for one image.
class Network {
public:
    explicit Network(const std::string& model) {
        check(ov_core_create(&core_), "OpenVINO");
        check(ov_core_read_model(core_, model.c_str(), nullptr, &model_), model.c_str());
        // On a CPU with AMX floats would be computed in bfloat16: what was scored is float32.
        check(ov_core_compile_model(core_, model_, "CPU", 2, &compiled_, "INFERENCE_PRECISION_HINT", "f32"), "compiling");
        check(ov_compiled_model_create_infer_request(compiled_, &request_), "a request");
    }
    ~Network() {
        ov_infer_request_free(request_);
        ov_compiled_model_free(compiled_);
        ov_model_free(model_);
        ov_core_free(core_);
    }

    // The class of each pixel of an image (HW).
    std::vector<uint8_t> operator()(const segpress::Image& image) {
        auto inputs = segpress::prepared(image);
        const int64_t dims[] = {1, segpress::config::channels, segpress::config::height, segpress::config::width};
        ov_shape_t shape;
        ov_tensor_t *given = nullptr, *answer = nullptr;
        check(ov_shape_create(4, dims, &shape), "a shape");
        check(ov_tensor_create_from_host_ptr(F32, shape, inputs.data(), &given), "the input");
        check(ov_infer_request_set_input_tensor(request_, given), "the input");
        check(ov_infer_request_infer(request_), "inference");
        check(ov_infer_request_get_output_tensor(request_, &answer), "the output");
        void* logits = nullptr;
        check(ov_tensor_data(answer, &logits), "the output");
        auto labels = segpress::mask(static_cast<const float*>(logits), image.height, image.width);
        ov_tensor_free(answer), ov_tensor_free(given), ov_shape_free(&shape);
        return labels;
    }

private:
    ov_core_t* core_{};
    ov_model_t* model_{};
    ov_compiled_model_t* compiled_{};
    ov_infer_request_t* request_{};
};

static segpress::Image read(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    std::string magic;
    segpress::Image image{};
    int largest = 0;
    file >> magic >> image.width >> image.height >> largest;
    file.get();
    image.channels = magic == "P6" ? 3 : 1;
    if (!file || (magic != "P5" && magic != "P6") || largest != 255 || image.width < 1 || image.height < 1)
        throw std::runtime_error(path.string() + ": not a PGM or PPM file of 8 bits without comments");
    image.pixels.resize(size_t(image.height) * image.width * image.channels);
    file.read(reinterpret_cast<char*>(image.pixels.data()), std::streamsize(image.pixels.size()));
    if (!file) throw std::runtime_error(path.string() + ": ends before its last pixel");
    return image;
}

int main(int count, char** words) try {
    if (count < 4) throw std::runtime_error("give the folder of the pack, a folder for masks, and images");
    const std::filesystem::path pack = words[1], out = words[2];
    Network network((pack / segpress::config::model).string());
    std::filesystem::create_directories(out);
    for (int each = 3; each < count; ++each) {
        const std::filesystem::path path = words[each];
        const auto image = read(path);
        const auto labels = network(image);
        std::ofstream file(out / (path.stem().string() + ".pgm"), std::ios::binary);
        file << "P5\n" << image.width << " " << image.height << "\n255\n";
        file.write(reinterpret_cast<const char*>(labels.data()), std::streamsize(labels.size()));
        if (!file) throw std::runtime_error(out.string() + ": cannot be written to");
    }
    return 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}

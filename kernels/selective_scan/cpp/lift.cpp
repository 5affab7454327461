// Lift a clip of keypoints by an exported model, without Python.
//
//   ./lift model.pt2 keypoints.bin FRAMES poses.bin
//
// keypoints.bin: float32 (FRAMES, 17, channels), normalised as the model was trained; poses.bin: float32 (FRAMES, 17, 3).

#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/torch.h>

#include <chrono>
#include <fstream>
#include <iostream>
#include <iterator>
#include <vector>

constexpr int64_t JOINTS = 17;

std::vector<char> read_file(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(path + ": cannot be read");
    return {std::istreambuf_iterator<char>(file), {}};
}

int main(int count, char **arguments) {
    if (count != 5) {
        std::cerr << "usage: lift model.pt2 keypoints.bin FRAMES poses.bin\n";
        return 2;
    }
    try {
        const std::string package = arguments[1], keypoints = arguments[2], out = arguments[4];
        if (!std::ifstream(package)) throw std::runtime_error(package + ": cannot be read");
        const int64_t frames = std::stoll(arguments[3]);
        auto bytes = read_file(keypoints);
        const int64_t numbers = bytes.size() / sizeof(float);
        if (frames < 1 || numbers == 0 || numbers % (frames * JOINTS))
            throw std::runtime_error(keypoints + ": has " + std::to_string(numbers) + " numbers, not frames x 17 x channels");
        const auto x = torch::from_blob(bytes.data(), {1, frames, JOINTS, numbers / (frames * JOINTS)});

        c10::InferenceMode inference;
        torch::inductor::AOTIModelPackageLoader model(package);
        const auto begin = std::chrono::steady_clock::now();
        const auto y = model.run({x})[0].contiguous();
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;

        std::ofstream file(out, std::ios::binary);
        file.write(static_cast<const char *>(y.const_data_ptr()), y.nbytes());
        if (!file.flush()) throw std::runtime_error(out + ": cannot be written");
        std::cout << frames << " frames in " << seconds.count() << " s, " << out << " written\n";
    } catch (const std::exception &error) {
        const std::string message = error.what();
        std::cerr << "error: " << message.substr(0, message.find('\n')) << "\n";
        return 2;
    }
}

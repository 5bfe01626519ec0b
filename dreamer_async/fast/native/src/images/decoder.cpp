// The convolutional decoder: the convolution of the image upsampled by two, RMSNorm and SiLU, layer
// by layer, and a sigmoid; and the loss of its images.

#include "images.h"

namespace {

constexpr int UP_TAPS = 3;  // of the phases of 3x3 and 5x5 kernels

// The map of one group after the pixel shuffle, in front of the norm. The convolution has four
// outputs for each channel, [2 rows, channel, 2 columns].
void shuffled_layer(const ConvLayer &layer, const Map &input, float *pre_norm, Workspace &work) {
  const int C = layer.outputs;
  const Map large{C, 2 * input.height, 2 * input.width, pre_norm};
  const auto take = [&](int k, int tile_row, int tile, const vec(&y)[TILE][TILE]) {
    const int c = k / 2 % C, lower = k / 2 / C, right = k % 2;
    for (int i = 0; i < TILE && TILE * tile_row + i < input.height; i++) {
      float *row = large.row(c, 2 * (TILE * tile_row + i) + lower);
      for (int j = 0; j < TILE && TILE * tile + j < input.width; j++)
        store_vec(row + (2 * (TILE * tile + j) + right) * LANES, y[i][j] + layer.bias[c]);
    }
  };
  convolve<UP_TAPS>(input, 4 * C, layer.kernel, take, work);
}

// g = dL/d(output) becomes dL/d(input) of one group.
void shuffled_layer_backward(const ConvLayer &layer, long piece, const Map &input,
                             const float *pre_norm, const float *slope, float *g, float *dx,
                             Maps &maps) {
  const int C = layer.outputs;
  const Map large{C, 2 * input.height, 2 * input.width, g};
  norm_backward(layer, piece, static_cast<long>(large.height) * large.width, large.plane(),
                pre_norm, slope, g, maps);
  const auto get = [&](int k, int tile_row, int tile, vec(&y)[TILE][TILE]) {
    const int c = k / 2 % C, lower = k / 2 / C, right = k % 2;
    for (int i = 0; i < TILE; i++)
      for (int j = 0; j < TILE; j++) {
        const int row = TILE * tile_row + i, column = TILE * tile + j;
        y[i][j] = row < input.height && column < input.width
                      ? load_vec(large.row(c, 2 * row + lower) + (2 * column + right) * LANES)
                      : vec{};
      }
  };
  convolve_backward<UP_TAPS>(input, 4 * C, layer.transposed, get,
                             kernel_gradient<UP_TAPS>(layer, piece, 4 * C), dx, maps.work);
}

void decode(const ConvLayer *layers, int count, int height, int width, const Group &group,
            const float *features, float *images, Maps &maps) {
  const long most = most_floats(layers, count, height, width, true);
  float *x = sized(maps.input, most);
  const long small = static_cast<long>(height) * width * layers[0].inputs;
  to_map(layers[0].inputs, static_cast<long>(height) * width, map_plane(height, width), group.lanes,
         ReadFrom{features + group.first * small, small}, x);
  for (int l = 0; l < count; l++) {
    const ConvLayer &layer = layers[l];
    const Map input{layer.inputs, height, width, x};
    height *= 2;
    width *= 2;
    const long pixels = static_cast<long>(height) * width, plane = map_plane(height, width);
    const long size = layer.outputs * plane;
    float *pre_norm =
        layer.pre_norm ? layer.pre_norm + group.index * size : sized(maps.pre_norm, size);
    shuffled_layer(layer, input, pre_norm, maps.work);
    if (layer.gain) {
      norm_silu_planes<false>(layer.outputs, pixels, plane, pre_norm, layer.gain, x);
      continue;
    }
    const long numbers = pixels * layer.outputs;
    each_vector(static_cast<int>(size), pre_norm, pre_norm, [](int, vec x) { return sigmoid(x); });
    from_map(layer.outputs, pixels, plane, group.lanes, pre_norm,
             WriteTo{images + group.first * numbers, numbers});
  }
}

void decode_backward(const ConvLayer *layers, int count, int height, int width, long piece,
                     const Group &group, const float *features, const float *images,
                     const float *dimages, float *dfeatures, Maps &maps) {
  const long most = most_floats(layers, count, height, width, true);
  float *x = sized(maps.input, most), *g = sized(maps.gradient, most), *dx = sized(maps.next, most);
  float *slope = sized(maps.slope, most), *below = sized(maps.below, most);
  const int inputs = layers[0].inputs, colours = layers[count - 1].outputs;
  const long pixels = static_cast<long>(height) * width, small = pixels * inputs;
  const long numbers = (pixels << 2 * count) * colours;
  const float *y = images + group.first * numbers, *dy = dimages + group.first * numbers;
  to_map(colours, pixels << 2 * count, map_plane(height << count, width << count), group.lanes,
         [=](int lane, long i) {
           const float value = y[lane * numbers + i];
           return dy[lane * numbers + i] * value * (1.0f - value);
         },
         g);
  const auto pre_norm = [&](int l) {
    return layers[l].pre_norm +
           group.index * layers[l].outputs * map_plane(height << (l + 1), width << (l + 1));
  };
  for (int l = count - 1; l >= 0; l--) {
    const ConvLayer &layer = layers[l];
    const int rows = height << l, columns = width << l;
    const long plane = map_plane(rows, columns);
    if (l > 0)
      norm_silu_planes<true>(layer.inputs, static_cast<long>(rows) * columns, plane,
                             pre_norm(l - 1), layers[l - 1].gain, x, below);
    else
      to_map(inputs, pixels, plane, group.lanes,
             ReadFrom{features + group.first * small, small}, x);
    shuffled_layer_backward(layer, piece, Map{layer.inputs, rows, columns, x},
                            layer.gain ? pre_norm(l) : nullptr, slope, g, dx, maps);
    std::swap(g, dx);
    std::swap(slope, below);
  }
  from_map(inputs, pixels, map_plane(height, width), group.lanes, g,
           WriteTo{dfeatures + group.first * small, small});
}

}  // namespace

// features [images, height, width, channels] -> images in (0, 1), [images, height << count,
// width << count, colours].
extern "C" void decode_images(const ConvLayer *layers, int count, int height, int width,
                              long images, const float *features, float *out, int threads) {
  for_groups(images, groups_of(images), threads, [&](long, const Group &group, Maps &maps) {
    decode(layers, count, height, width, group, features, out, maps);
  });
}

// Adds to the gradients of the parameters; dfeatures = dL/dfeatures.
extern "C" void decode_images_backward(const ConvLayer *layers, int count, int height, int width,
                                       long images, const float *features, const float *out,
                                       const float *dimages, float *dfeatures, long pieces,
                                       int threads) {
  for_groups(images, pieces, threads, [&](long piece, const Group &group, Maps &maps) {
    decode_backward(layers, count, height, width, piece, group, features, out, dimages, dfeatures,
                    maps);
  });
}

// Sum of the squared errors of each image of `size` numbers; a byte stands for 1/255 of it.
extern "C" void image_loss(long images, long size, const float *image, const uint8_t *bytes,
                           float *loss, int threads) {
  parallel_for(images, threads, [&](long i) {
    const float *x = image + i * size;
    const uint8_t *b = bytes + i * size;
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (long k = 0; k < size; k++) {
      const float error = x[k] - static_cast<float>(b[k]) / 255.0f;
      sum += error * error;
    }
    loss[i] = sum;
  });
}

extern "C" void image_loss_backward(long images, long size, const float *image,
                                    const uint8_t *bytes, const float *dloss, float *dimage,
                                    int threads) {
  parallel_for(images, threads, [&](long i) {
    const float *x = image + i * size;
    const uint8_t *b = bytes + i * size;
#pragma omp simd
    for (long k = 0; k < size; k++)
      dimage[i * size + k] = 2.0f * dloss[i] * (x[k] - static_cast<float>(b[k]) / 255.0f);
  });
}

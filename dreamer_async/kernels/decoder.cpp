// The convolutional decoder: the convolution of the image upsampled by two, RMSNorm and SiLU, layer
// by layer, and a sigmoid; and the loss of its images.

#include "images.h"

namespace {

constexpr int UP_TAPS = 3;  // of the phases of 3x3 and 5x5 kernels

// The map of one image after the pixel shuffle, in front of the norm; x is [inputs, height, width].
// The convolution has four outputs for each channel, [2 rows, channel, 2 columns].
void shuffled_layer(const ImageLayer &layer, int height, int width, const float *x, float *before,
                    Maps &maps) {
  const int C = layer.outputs;
  const long area = plane_area(2 * height, 2 * width);
  const long line = TILE_COLUMNS * tiles(width) + OVERRUN;
  float *left = sized(maps.row, 2 * line), *right = left + line;
  Workspace &work = maps.work;
  const auto take = [&](int from, int end) {
    for (int k = 0; k < 2 * C; k++)
      for (int row = from; row < end; row++) {
        const int c = k % C, lower = k / C;
        for (int i = 0; i < 2; i++) {
          row_of_outputs<UP_TAPS>(work.output, 2 * k + i, row - from, work.results[i]);
          work.results[i].join(i ? right : left);
        }
        float *to = before + c * area + static_cast<long>(2 * row + lower) * 2 * width;
        const float bias = layer.bias[c];
#pragma omp simd
        for (int i = 0; i < width; i++) {
          to[2 * i] = left[i] + bias;
          to[2 * i + 1] = right[i] + bias;
        }
      }
  };
  convolve<UP_TAPS>(layer.inputs, 4 * C, height, width, layer.kernel,
                    RowsOf{x, plane_area(height, width), width}, take, work);
  zero_rest(C, 4l * height * width, area, before);
}

// g = dL/d(output) becomes dL/d(input) of one image.
void shuffled_layer_backward(const ImageLayer &layer, long piece, int height, int width,
                             const float *x, const float *before, const float *slope, float *g,
                             float *dx, Maps &maps) {
  const int C = layer.outputs;
  const long area = plane_area(height, width), large = plane_area(2 * height, 2 * width);
  norm_backward(layer, piece, large, before, slope, g, maps);
  float *line = sized(maps.row, width);
  const auto gradient = [&](int k, int row, Phases &phases) {
    const int c = k / 2 % C, lower = k / 2 / C;
    const float *from = g + c * large + static_cast<long>(2 * row + lower) * 2 * width + k % 2;
#pragma omp simd
    for (int i = 0; i < width; i++) line[i] = from[2 * i];
    phases.split(line);
  };
  const long size =
      static_cast<long>(Points<UP_TAPS>::COUNT) * layer.inputs * UP_TAPS * padded(4 * C);
  convolve_backward<UP_TAPS>(layer.inputs, 4 * C, height, width, layer.turned,
                             RowsOf{x, area, width}, gradient, layer.dkernel + piece * size,
                             MapOf<UP_TAPS>{layer.inputs, area, width, dx, maps}, maps.work);
  zero_rest(layer.inputs, static_cast<long>(height) * width, area, dx);
}

void decode(const ImageLayer *layers, int count, int height, int width, long image,
            const float *features, float *images, Maps &maps) {
  const long most = most_floats(layers, count, height, width, true);
  float *x = sized(maps.input, most);
  const int inputs = layers[0].inputs;
  const long small = static_cast<long>(height) * width;
  to_planes(inputs, small, plane_area(height, width), features + image * small * inputs, x);
  for (int l = 0; l < count; l++) {
    const ImageLayer &layer = layers[l];
    const int C = layer.outputs;
    const long area = plane_area(2 * height, 2 * width), size = C * area;
    float *before = layer.before ? layer.before + image * size : sized(maps.before, size);
    shuffled_layer(layer, height, width, x, before, maps);
    height *= 2;
    width *= 2;
    if (layer.gain) {
      norm_silu_planes<false>(C, area, before, layer.gain, x);
    } else {
      const long pixels = static_cast<long>(height) * width;
      float *out = images + image * pixels * C;
      to_pixels(C, pixels, area, before, out);
      each_vector(static_cast<int>(pixels * C), out, out, [](int, vec x) { return sigmoid(x); });
    }
  }
}

void decode_backward(const ImageLayer *layers, int count, int height, int width, long piece,
                     long image, const float *features, const float *images, const float *dimages,
                     float *dfeatures, Maps &maps) {
  const long most = most_floats(layers, count, height, width, true);
  float *x = sized(maps.input, most), *g = sized(maps.gradient, most), *dx = sized(maps.next, most);
  float *slope = sized(maps.slope, most), *below = sized(maps.below, most);
  const int inputs = layers[0].inputs, colours = layers[count - 1].outputs;
  const long small = static_cast<long>(height) * width, pixels = small << 2 * count;
  const float *y = images + image * pixels * colours, *dy = dimages + image * pixels * colours;
#pragma omp simd
  for (long i = 0; i < pixels * colours; i++) dx[i] = dy[i] * y[i] * (1.0f - y[i]);
  to_planes(colours, pixels, plane_area(height << count, width << count), dx, g);
  for (int l = count - 1; l >= 0; l--) {
    const ImageLayer &layer = layers[l];
    const int rows = height << l, columns = width << l;
    const long area = plane_area(rows, columns), large = plane_area(2 * rows, 2 * columns);
    if (l > 0)
      norm_silu_planes<true>(layer.inputs, area, layers[l - 1].before + image * layer.inputs * area,
                             layers[l - 1].gain, x, below);
    else
      to_planes(inputs, small, area, features + image * small * inputs, x);
    const float *before = layer.gain ? layer.before + image * layer.outputs * large : nullptr;
    shuffled_layer_backward(layer, piece, rows, columns, x, before, slope, g, dx, maps);
    std::swap(g, dx);
    std::swap(slope, below);
  }
  to_pixels(inputs, small, plane_area(height, width), g, dfeatures + image * small * inputs);
}

}  // namespace

// features [images, height, width, channels] -> images in (0, 1), [images, height << count,
// width << count, colours].
extern "C" void decode_images(const ImageLayer *layers, int count, int height, int width,
                              long images, const float *features, float *out, int threads) {
  for_images(images, images, threads, [&](long, long image, Maps &maps) {
    decode(layers, count, height, width, image, features, out, maps);
  });
}

// Adds to the gradients of the parameters; dfeatures = dL/dfeatures.
extern "C" void decode_images_backward(const ImageLayer *layers, int count, int height, int width,
                                       long images, const float *features, const float *out,
                                       const float *dimages, float *dfeatures, long pieces,
                                       int threads) {
  for_images(images, pieces, threads, [&](long piece, long image, Maps &maps) {
    decode_backward(layers, count, height, width, piece, image, features, out,
                    dimages, dfeatures, maps);
  });
}

// Sum of the squared errors of each image of `size` numbers; a byte stands for 1/255 of it.
extern "C" void image_loss(long images, long size, const float *image, const uint8_t *bytes,
                           float *loss, int threads) {
  share(images, threads, [&](long i) {
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
  share(images, threads, [&](long i) {
    const float *x = image + i * size;
    const uint8_t *b = bytes + i * size;
#pragma omp simd
    for (long k = 0; k < size; k++)
      dimage[i * size + k] = 2.0f * dloss[i] * (x[k] - static_cast<float>(b[k]) / 255.0f);
  });
}

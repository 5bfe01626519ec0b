// The convolutional encoder: convolution, pooling, RMSNorm and SiLU, layer by layer.

#include "images.h"

namespace {

typedef uint8_t bytes_of_lanes __attribute__((vector_size(LANES), aligned(1)));

inline vec where(ivec mask, vec x, vec otherwise) { return mask ? x : otherwise; }

// The largest of 2x2 pixels, and which it is: of equal ones the first in reading order.
inline vec largest(const vec &a, const vec &b, const vec &c, const vec &d, ivec &which) {
  const ivec second = b > a, below = d > c;
  const vec top = where(second, b, a), bottom = where(below, d, c);
  const ivec lower = bottom > top;
  which = lower ? 2 - below : -second;
  return where(lower, bottom, top);
}

// The pooled map of one group in front of the norm.
template <int TAPS>
void pooled_layer(const ConvLayer &layer, const Map &input, float *pre_norm, uint8_t *winner,
                  Workspace &work) {
  const Map pooled{layer.outputs, input.height / 2, input.width / 2, pre_norm};
  const auto take = [&](int c, int tile_row, int tile, const vec(&y)[TILE][TILE]) {
    for (int i = 0; i < 2; i++)
      for (int j = 0; j < 2; j++) {
        const int row = 2 * tile_row + i, column = 2 * tile + j;
        if (row >= pooled.height || column >= pooled.width) continue;
        ivec which;
        const vec most = largest(y[2 * i][2 * j], y[2 * i][2 * j + 1], y[2 * i + 1][2 * j],
                                 y[2 * i + 1][2 * j + 1], which);
        float *to = pooled.row(c, row) + column * LANES;
        store_vec(to, most + layer.bias[c]);
        *reinterpret_cast<bytes_of_lanes *>(winner + (to - pre_norm)) =
            __builtin_convertvector(which, bytes_of_lanes);
      }
  };
  convolve<TAPS>(input, layer.outputs, layer.kernel, take, work);
}

// g = dL/d(output) becomes dL/d(input) of one group, unless nobody wants that.
template <int TAPS>
void pooled_layer_backward(const ConvLayer &layer, long piece, const Map &input,
                           const float *pre_norm, const uint8_t *winner, const float *slope,
                           float *g, float *dx, Maps &maps) {
  const Map pooled{layer.outputs, input.height / 2, input.width / 2, g};
  norm_backward(layer, piece, static_cast<long>(pooled.height) * pooled.width, pooled.plane(),
                pre_norm, slope, g, maps);
  const auto get = [&](int c, int tile_row, int tile, vec(&y)[TILE][TILE]) {
    for (int i = 0; i < 2; i++)
      for (int j = 0; j < 2; j++) {
        const int row = 2 * tile_row + i, column = 2 * tile + j;
        const bool inside = row < pooled.height && column < pooled.width;
        const float *from = inside ? pooled.row(c, row) + column * LANES : g;
        const vec value = inside ? load_vec(from) : vec{};
        const ivec which = __builtin_convertvector(
            *reinterpret_cast<const bytes_of_lanes *>(winner + (from - g)), ivec);
        for (int k = 0; k < 4; k++)
          y[2 * i + k / 2][2 * j + k % 2] = where(which == k, value, vec{});
      }
  };
  convolve_backward<TAPS>(input, layer.outputs, layer.transposed, get,
                          kernel_gradient<TAPS>(layer, piece, layer.outputs), dx, maps.work);
}

inline void bytes_to_map(int colours, long pixels, long plane, const Group &group,
                         const uint8_t *bytes, float *to) {
  const long size = pixels * colours;
  const uint8_t *first = bytes + group.first * size;
  to_map(colours, pixels, plane, group.lanes,
         [=](int lane, long i) { return static_cast<float>(first[lane * size + i]) / 255 - 0.5f; },
         to);
}

template <int TAPS>
void encode(const ConvLayer *layers, int count, int height, int width, int strips,
            const Group &group, const uint8_t *bytes, float *features, Maps &maps) {
  const long most = most_floats(layers, count, height, width, false);
  float *x = sized(maps.input, most);
  bytes_to_map(layers[0].inputs, static_cast<long>(height) * width, map_plane(height, width), group,
               bytes, x);
  for (int l = 0; l < count; l++) {
    const ConvLayer &layer = layers[l];
    const Map input{layer.inputs, height, width, x, strips};
    height /= 2;
    width /= 2;
    const long plane = map_plane(height, width), size = layer.outputs * plane;
    float *pre_norm =
        layer.pre_norm ? layer.pre_norm + group.index * size : sized(maps.pre_norm, size);
    uint8_t *winner = layer.pre_norm ? layer.winner + group.index * size : sized(maps.winner, size);
    pooled_layer<TAPS>(layer, input, pre_norm, winner, maps.work);
    norm_silu_planes<false>(layer.outputs, static_cast<long>(height) * width, plane, pre_norm,
                            layer.gain, x);
  }
  const long pixels = static_cast<long>(height) * width;
  const long size = pixels * layers[count - 1].outputs;
  from_map(layers[count - 1].outputs, pixels, map_plane(height, width), group.lanes, x,
           WriteTo{features + group.first * size, size});
}

template <int TAPS>
void encode_backward(const ConvLayer *layers, int count, int height, int width, long piece,
                     const Group &group, const uint8_t *bytes, const float *dfeatures, Maps &maps) {
  const long most = most_floats(layers, count, height, width, false);
  float *x = sized(maps.input, most), *g = sized(maps.gradient, most), *dx = sized(maps.next, most);
  float *slope = sized(maps.slope, most), *below = sized(maps.below, most);
  const auto pre_norm = [&](int l) {
    return layers[l].pre_norm +
           group.index * layers[l].outputs * map_plane(height >> (l + 1), width >> (l + 1));
  };
  const auto activate = [&](int l, float *slope) {
    const int rows = height >> (l + 1), columns = width >> (l + 1);
    norm_silu_planes<true>(layers[l].outputs, static_cast<long>(rows) * columns,
                           map_plane(rows, columns), pre_norm(l), layers[l].gain, x, slope);
  };
  const int last = layers[count - 1].outputs;
  const long pixels = static_cast<long>(height >> count) * (width >> count), size = pixels * last;
  to_map(last, pixels, map_plane(height >> count, width >> count), group.lanes,
         ReadFrom{dfeatures + group.first * size, size}, g);
  activate(count - 1, slope);
  for (int l = count - 1; l >= 0; l--) {
    const ConvLayer &layer = layers[l];
    const int rows = height >> l, columns = width >> l;
    if (l > 0)
      activate(l - 1, below);
    else
      bytes_to_map(layer.inputs, static_cast<long>(rows) * columns, map_plane(rows, columns), group,
                   bytes, x);
    const uint8_t *winner = layer.winner + (pre_norm(l) - layer.pre_norm);
    pooled_layer_backward<TAPS>(layer, piece, Map{layer.inputs, rows, columns, x}, pre_norm(l),
                                winner, slope, g, dx, maps);
    std::swap(g, dx);
    std::swap(slope, below);
  }
}

template <typename Work>
void with_taps(int taps, const Work &work) {
  if (taps == 3)
    work(std::integral_constant<int, 3>{});
  else
    work(std::integral_constant<int, 5>{});
}

}  // namespace

// How many images make a group, and floats of one channel of its maps.
extern "C" int images_of_group() { return LANES; }
extern "C" long floats_of_plane(int height, int width) { return map_plane(height, width); }

// bytes [images, height, width, colours] -> features [images, pixels, channels]. What is one group
// together may be `strips` of each image: their rows lie one after the other.
extern "C" void encode_images(const ConvLayer *layers, int count, int taps, int height, int width,
                              int strips, long images, const uint8_t *bytes, float *features,
                              int threads) {
  with_taps(taps, [&](auto t) {
    for_groups(images, groups_of(images), threads, [&](long, const Group &group, Maps &maps) {
      encode<decltype(t)::value>(layers, count, height, width, strips, group, bytes, features,
                                 maps);
    });
  });
}

// Adds to the gradients of the parameters.
extern "C" void encode_images_backward(const ConvLayer *layers, int count, int taps, int height,
                                       int width, long images, const uint8_t *bytes,
                                       const float *dfeatures, long pieces, int threads) {
  with_taps(taps, [&](auto t) {
    for_groups(images, pieces, threads, [&](long piece, const Group &group, Maps &maps) {
      encode_backward<decltype(t)::value>(layers, count, height, width, piece, group, bytes,
                                          dfeatures, maps);
    });
  });
}

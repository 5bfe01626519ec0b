// Where the fields of all structures lie, by name. Loading compares them with `structs.py`: a field
// that lay elsewhere there would be another number here, or memory of somebody else.

#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>

#include "structs.h"

namespace {

struct Field {
  const char *name, *kind;
  std::size_t offset, size;
};

template <typename T>
constexpr const char *kind() {
  if (std::is_pointer_v<T>) return "pointer";
  if (std::is_same_v<T, int>) return "int";
  if (std::is_same_v<T, long>) return "long";
  if (std::is_same_v<T, float>) return "float";
  if (std::is_same_v<T, ActionPart>) return "ActionPart";
  return nullptr;
}

// Whether so many numbers can be given to S in braces: at most as many as it has fields.
struct Anything {
  template <typename T>
  operator T() const;
};

template <typename S, std::size_t... I>
constexpr auto takes(std::index_sequence<I...>) -> decltype(S{(void(I), Anything{})...}, true) {
  return true;
}

template <typename S>
constexpr bool takes(...) {
  return false;
}

// "name size: field kind offset size, ..." and the end of the line.
template <typename S, std::size_t N>
std::string layout(const char *name, const Field (&fields)[N]) {
  static_assert(std::is_standard_layout_v<S> && std::is_trivially_copyable_v<S>);
  static_assert(takes<S>(std::make_index_sequence<N>()) &&
                    !takes<S>(std::make_index_sequence<N + 1>()),
                "a field of the structure is not listed, or twice");
  std::string line = std::string(name) + " " + std::to_string(sizeof(S)) + ":";
  for (const Field &field : fields)
    line += std::string(&field == fields ? " " : ", ") + field.name + " " + field.kind + " " +
            std::to_string(field.offset) + " " + std::to_string(field.size);
  return line + "\n";
}

template <typename T>
constexpr Field field(const char *name, std::size_t offset) {
  static_assert(kind<T>() != nullptr, "a kind of field that Python does not know");
  return {name, kind<T>(), offset, sizeof(T)};
}

#define FIELD(name) field<decltype(S::name)>(#name, offsetof(S, name))
#define LAYOUT(structure, ...)              \
  [] {                                      \
    using S = structure;                    \
    const Field fields[] = {__VA_ARGS__};   \
    return layout<S>(#structure, fields);   \
  }()

std::string layouts() {
  return LAYOUT(DenseLayer, FIELD(inputs), FIELD(outputs), FIELD(bfloat16), FIELD(kernel),
                FIELD(transposed), FIELD(bias), FIELD(gain), FIELD(pre_norm), FIELD(dkernel),
                FIELD(dbias), FIELD(dgain)) +
         LAYOUT(ConvLayer, FIELD(inputs), FIELD(outputs), FIELD(kernel), FIELD(transposed),
                FIELD(bias), FIELD(gain), FIELD(pre_norm), FIELD(winner), FIELD(dkernel),
                FIELD(dbias), FIELD(dgain)) +
         LAYOUT(Core, FIELD(deter), FIELD(hidden), FIELD(variables), FIELD(classes), FIELD(blocks),
                FIELD(bfloat16), FIELD(unimix), FIELD(w0), FIELD(b0), FIELD(g0), FIELD(w1),
                FIELD(b1), FIELD(g1), FIELD(own), FIELD(common), FIELD(gain), FIELD(gru),
                FIELD(gru_bias), FIELD(wo), FIELD(go), FIELD(wl), FIELD(bl), FIELD(w0_t),
                FIELD(w1_t), FIELD(own_t), FIELD(common_t), FIELD(gru_t), FIELD(wo_t),
                FIELD(wl_t)) +
         LAYOUT(Activations, FIELD(u0), FIELD(u1), FIELD(x), FIELD(v), FIELD(q), FIELD(gru),
                FIELD(o), FIELD(p), FIELD(saved)) +
         LAYOUT(Filtering, FIELD(steps), FIELD(deter0), FIELD(stoch0), FIELD(action), FIELD(token),
                FIELD(keep), FIELD(noise), FIELD(chosen), FIELD(deter), FIELD(stoch),
                FIELD(logits)) +
         LAYOUT(FilteringGradients, FIELD(deter), FIELD(stoch), FIELD(logits), FIELD(u0), FIELD(u1),
                FIELD(v), FIELD(gru), FIELD(o), FIELD(l), FIELD(g0), FIELD(g1), FIELD(gain),
                FIELD(go)) +
         LAYOUT(Actor, FIELD(layers), FIELD(count), FIELD(parts), FIELD(sizes), FIELD(discrete),
                FIELD(least), FIELD(most)) +
         LAYOUT(ActionPart, FIELD(layers), FIELD(count), FIELD(classes), FIELD(table)) +
         LAYOUT(Acting, FIELD(action), FIELD(token), FIELD(embed), FIELD(deter), FIELD(stoch),
                FIELD(last_action), FIELD(reset), FIELD(noise), FIELD(chosen), FIELD(action_noise),
                FIELD(chosen_actions), FIELD(new_deter), FIELD(new_stoch), FIELD(actions)) +
         LAYOUT(Head, FIELD(layers), FIELD(count), FIELD(y), FIELD(bins), FIELD(mean)) +
         LAYOUT(Imagination, FIELD(action), FIELD(prior), FIELD(prior_count), FIELD(horizon),
                FIELD(action_noise), FIELD(chosen_actions), FIELD(noise), FIELD(chosen),
                FIELD(feat), FIELD(actions), FIELD(heads), FIELD(head_count)) +
         LAYOUT(Categorical, FIELD(variables), FIELD(classes), FIELD(unimix)) +
         LAYOUT(OptimTensor, FIELD(size), FIELD(gradient), FIELD(parameter), FIELD(rms),
                FIELD(momentum), FIELD(update_squares), FIELD(parameter_squares)) +
         LAYOUT(OptimSettings, FIELD(clip), FIELD(floor), FIELD(beta_rms), FIELD(beta_momentum),
                FIELD(correct_rms), FIELD(correct_momentum), FIELD(eps), FIELD(rate));
}

}  // namespace

extern "C" const char *structure_layouts() {
  static const std::string text = layouts();
  return text.c_str();
}

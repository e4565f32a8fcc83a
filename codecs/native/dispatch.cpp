// Which instruction set is live.
#include <atomic>
#include <cstdlib>
#include <stdexcept>

#include "kernels.hpp"

namespace zipml {
namespace {

std::vector<const Kernels*> runnable() {
  std::vector<const Kernels*> found;
#if defined(ZIPML_X86)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vbmi") &&
                      __builtin_cpu_supports("avx512vnni");
  if (avx512) found.push_back(&avx512::kKernels);
  if (avx2) found.push_back(&avx2::kKernels);
#endif
  found.push_back(&scalar::kKernels);
  return found;
}

const Kernels* find(const std::string& name) {
  std::string known;
  for (const Kernels* k : runnable()) {
    if (name == k->name) return k;
    known += (known.empty() ? "" : ", ") + std::string(k->name);
  }
  throw std::invalid_argument("ZIPML_SIMD must be one of those that this machine runs (" + known +
                              "), got '" + name + "'");
}

std::atomic<const Kernels*> live{nullptr};

}  // namespace

const Kernels& kernels() {
  const Kernels* k = live.load(std::memory_order_acquire);
  if (!k) {
    const char* asked = std::getenv("ZIPML_SIMD");
    k = asked && *asked ? find(asked) : runnable().front();
    live.store(k, std::memory_order_release);
  }
  return *k;
}

std::vector<std::string> simd_levels() {
  std::vector<std::string> names;
  for (const Kernels* k : runnable()) names.emplace_back(k->name);
  return names;
}

void select_simd(const std::string& name) { live.store(find(name), std::memory_order_release); }

}  // namespace zipml

// What libtorch does on a GPU and tch has no binding for. Nothing here links its CUDA half: the
// operators and the generic interfaces of c10 find it once it is loaded.
//
// Tensors are those behind tch's handles; a returned one belongs to the caller. A function that
// fails returns null or false, and `triad_gpu_error` says why.

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/_fused_adamw.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace {

thread_local std::string message;

template <typename F>
auto guarded(F work) -> decltype(work()) {
  try {
    return work();
  } catch (const c10::Error& error) {
    message = error.what_without_backtrace();
  } catch (const std::exception& error) {
    message = error.what();
  }
  return {};
}

c10::Stream stream_of(int device) {
  return c10::impl::VirtualGuardImpl(c10::kCUDA).getStream(
      {c10::kCUDA, static_cast<c10::DeviceIndex>(device)});
}

std::vector<at::Tensor> listed(at::Tensor* const* tensors, int count) {
  std::vector<at::Tensor> list;
  for (int i = 0; i < count; ++i) list.push_back(*tensors[i]);
  return list;
}

}  // namespace

extern "C" {

const char* triad_gpu_error() { return message.c_str(); }

// Products of f32 in f32, without TF32; sums of bf16 products in f32 to the end.
bool triad_gpu_precise() {
  return guarded([] {
    at::globalContext().setAllowTF32CuBLAS(false);
    at::globalContext().setAllowTF32CuDNN(false);
    at::globalContext().setAllowBF16ReductionCuBLAS(false);
    return true;
  });
}

// A copy on the device that does not wait: from pinned memory, which libtorch keeps until the copy
// is done.
at::Tensor* triad_gpu_upload(const at::Tensor* host, int device) {
  return guarded([&] {
    at::Device to(c10::kCUDA, static_cast<c10::DeviceIndex>(device));
    auto pinned = host->numel() > 0 ? host->pin_memory() : *host;
    return new at::Tensor(pinned.to(to, host->scalar_type(), /*non_blocking=*/true));
  });
}

// Something that is done when all that the device has been given up to now is.
c10::Event* triad_gpu_event(int device) {
  return guarded([&] {
    auto event = std::make_unique<c10::Event>(c10::kCUDA);
    event->record(stream_of(device));
    return event.release();
  });
}

bool triad_gpu_wait(const c10::Event* event) {
  return guarded([&] {
    event->synchronize();
    return true;
  });
}

void triad_gpu_forget(c10::Event* event) { delete event; }

// Bytes that tensors took at most since the last reset, and that are free on the device.
bool triad_gpu_memory(int device, int64_t* peak, int64_t* available) {
  return guarded([&] {
    auto* allocator = c10::getDeviceAllocator(c10::kCUDA);
    auto stats = allocator->getDeviceStats(static_cast<c10::DeviceIndex>(device));
    constexpr auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    *peak = stats.allocated_bytes[all].peak;
    auto cached = stats.reserved_bytes[all].current - stats.allocated_bytes[all].current;
    auto free = allocator->getMemoryInfo(static_cast<c10::DeviceIndex>(device)).first;
    *available = static_cast<int64_t>(free) + cached;
    return true;
  });
}

bool triad_gpu_reset_peak(int device) {
  return guarded([&] {
    c10::getDeviceAllocator(c10::kCUDA)->resetPeakStats(static_cast<c10::DeviceIndex>(device));
    return true;
  });
}

// Attention within sequences that lie one after the other: q (Nq, H, D), k and v (Nk, KV, D), where
// sequence i begins at starts_q[i] and starts_k[i], (B + 1) i32 each, and has used[i] keys, (B) i32,
// or all up to the next. With gradients.
at::Tensor* triad_gpu_flash(const at::Tensor* q, const at::Tensor* k, const at::Tensor* v,
                            const at::Tensor* starts_q, const at::Tensor* starts_k,
                            int64_t longest_q, int64_t longest_k, bool causal,
                            const at::Tensor* used) {
  return guarded([&] {
    auto lengths = used ? std::optional<at::Tensor>(*used) : std::nullopt;
    auto results = at::_flash_attention_forward(
        *q, *k, *v, *starts_q, *starts_k, longest_q, longest_k, /*dropout_p=*/0.0, causal,
        /*return_debug_mask=*/false, /*scale=*/std::nullopt, /*window_size_left=*/std::nullopt,
        /*window_size_right=*/std::nullopt, lengths);
    return new at::Tensor(std::get<0>(results));
  });
}

// Where autograd adds up the gradient of a parameter.
bool triad_gpu_set_gradient(const at::Tensor* parameter, const at::Tensor* gradient) {
  return guarded([&] {
    parameter->mutable_grad() = *gradient;
    return true;
  });
}

// One update of `count` parameters in place; all tensors f32. `divisor` () divides the gradients,
// `step` () counts this update.
bool triad_gpu_adamw(at::Tensor* const* parameters, at::Tensor* const* gradients,
                     at::Tensor* const* m, at::Tensor* const* v, int count, const at::Tensor* step,
                     const at::Tensor* divisor, double rate, double b1, double b2, double decay,
                     double eps) {
  return guarded([&] {
    auto p = listed(parameters, count);
    std::vector<at::Tensor> steps(count, *step);
    at::_fused_adamw_(p, listed(gradients, count), listed(m, count), listed(v, count), {}, steps,
                      rate, b1, b2, decay, eps, /*amsgrad=*/false, /*maximize=*/false, *divisor);
    return true;
  });
}

}  // extern "C"

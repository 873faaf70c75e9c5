// A pretended accelerator for PyTorch: a PrivateUse1 backend whose memory is the CPU's and whose arithmetic is done by
// the CPU's kernels, but which makes the checks that CUDA makes. It refuses, as CUDA does:
//   - an operation on tensors of two devices (a CPU scalar among the inputs is allowed, as an output it is not);
//   - a CPU tensor indexed by device indices (the other way round is allowed);
//   - a generator of another device than the tensor that it fills.
//
// What it cannot show:
//   - Speed, asynchronous execution, streams, races: every call is done when it returns, non_blocking or not.
//   - CUDA's own kernels: their rounding, their missing types, their nondeterminism. An operation that the CPU lacks
//     for a type (average pooling in bfloat16, say) fails here and works there.
//   - Pinned memory is ordinary memory that remembers that it was asked for as pinned.
//   - `tensor.data = other` from another device is an error, which CUDA allows. So `module.to(device)` makes new
//     parameters here; on CUDA it keeps them. An optimizer made before the move would fail here only.
//   - A list of tensors (as of torch.cat) is checked strictly; the slow path of a foreach operation allows CPU scalars.
//   - Generators can't be cloned; there is one device.
//   - Code that asks for `device.type == "cuda"` does not take its CUDA path here.
//
// Loading this changes the whole process, which has an accelerator from then on: use a separate process.

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <cstdlib>
#include <mutex>
#include <unordered_set>

namespace {

using at::Tensor;
using c10::SymIntArrayRef;
using std::optional;

constexpr auto kind = c10::DeviceType::PrivateUse1;
const c10::Device the_device(kind, 0);
const c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);

bool on_device(const Tensor& t) { return t.device().type() == kind; }

// ---- Device, memory, generators

struct Guard final : c10::impl::NoOpDeviceGuardImpl<kind> {
  // The base class answers with device -1, which no tensor has.
  c10::Device exchangeDevice(c10::Device) const override { return the_device; }
  c10::Device getDevice() const override { return the_device; }
  c10::Stream getStream(c10::Device) const noexcept override { return stream(); }
  c10::Stream getDefaultStream(c10::Device) const override { return stream(); }
  c10::Stream getNewStream(c10::Device, int) const override { return stream(); }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return stream(); }
  void synchronizeDevice(c10::DeviceIndex) const override {}
  static c10::Stream stream() { return c10::Stream(c10::Stream::DEFAULT, the_device); }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

// Aligned as the CPU's memory is, on which the rounding of vectorised kernels can depend.
void* allocated(size_t bytes) {
  if (!bytes) return nullptr;
  constexpr size_t line = 64;
  void* block = std::aligned_alloc(line, (bytes + line - 1) / line * line);
  TORCH_CHECK(block, "the pretended accelerator is out of memory: you tried to allocate ", bytes, " bytes");
  return block;
}

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* block = allocated(bytes);
    return {block, block, &free, the_device};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }
};
Memory memory;
REGISTER_ALLOCATOR(kind, &memory);

std::mutex pinned_lock;
std::unordered_set<const void*> pinned_blocks;

void free_pinned(void* block) {
  std::lock_guard<std::mutex> hold(pinned_lock);
  pinned_blocks.erase(block);
  free(block);
}

struct PinnedMemory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* block = allocated(bytes);
    std::lock_guard<std::mutex> hold(pinned_lock);
    pinned_blocks.insert(block);
    return {block, block, &free_pinned, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_pinned; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }
};
PinnedMemory pinned_memory;

// Draws the CPU generator's numbers, so that results can be compared with the CPU's.
struct DeviceGenerator final : at::CPUGeneratorImpl {
  DeviceGenerator() {
    device_ = the_device;
    key_set_ = keys;
  }
};

void grow(const c10::Storage& storage, size_t bytes) {
  auto* impl = storage.unsafeGetStorageImpl();
  auto fresh = memory.allocate(bytes);
  if (auto old = std::min(bytes, impl->nbytes())) memcpy(fresh.get(), impl->data(), old);
  impl->set_data_ptr(std::move(fresh));
  impl->set_nbytes(bytes);
}

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(c10::DeviceIndex) const override {}
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const override { return 0; }
  at::Generator getNewGenerator(c10::DeviceIndex) const override { return at::make_generator<DeviceGenerator>(); }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    static auto generator = at::make_generator<DeviceGenerator>();
    return generator;
  }
  c10::Device getDeviceFromPtr(void*) const override { return the_device; }
  at::Allocator* getPinnedMemoryAllocator() const override { return &pinned_memory; }
  bool isPinnedPtr(const void* block) const override {
    std::lock_guard<std::mutex> hold(pinned_lock);
    return pinned_blocks.count(block) > 0;
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override { grow(storage, bytes); }
};
const bool registered = [] {
  static Hooks hooks;
  at::RegisterPrivateUse1HooksInterface(&hooks);
  return true;
}();

// ---- Operations that must be the backend's own: making, copying, viewing and resizing tensors

// The same memory as a CPU tensor.
Tensor host(const Tensor& t) {
  if (!on_device(t)) return t;
  auto options = t.options().device(c10::kCPU).requires_grad(false);
  return at::from_blob(const_cast<void*>(t.const_data_ptr()), t.sizes(), t.strides(), [t](void*) {}, options);
}

Tensor empty(SymIntArrayRef size, optional<at::ScalarType> type, optional<at::Layout>, optional<c10::Device>,
             optional<bool>, optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(size), &memory, keys, c10::dtype_or_default(type), format);
}

Tensor empty_strided(SymIntArrayRef size, SymIntArrayRef stride, optional<at::ScalarType> type, optional<at::Layout>,
                     optional<c10::Device>, optional<bool>) {
  return at::detail::empty_strided_generic(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), &memory,
                                           keys, c10::dtype_or_default(type));
}

const Tensor& resize(const Tensor& t, SymIntArrayRef size, optional<at::MemoryFormat> format) {
  auto sizes = C10_AS_INTARRAYREF_SLOW(size);
  size_t bytes = (c10::multiply_integers(sizes) + t.storage_offset()) * t.element_size();
  if (bytes > t.storage().nbytes()) grow(t.storage(), bytes);
  auto* impl = t.unsafeGetTensorImpl();
  impl->set_sizes_contiguous(sizes);
  if (format && *format != at::MemoryFormat::Preserve) impl->empty_tensor_restride(*format);
  return t;
}

Tensor copy_from(const Tensor& from, const Tensor& to, bool) {
  host(to).copy_(host(from));
  return to;
}

Tensor copy_from_and_resize(const Tensor& from, const Tensor& to) {
  if (to.sizes() != from.sizes()) to.resize_(from.sizes());
  return copy_from(from, to, false);
}

at::Scalar item(const Tensor& t) { return at::_local_scalar_dense(host(t)); }

Tensor& set_storage(Tensor& t, c10::Storage storage, c10::SymInt offset, SymIntArrayRef size, SymIntArrayRef stride) {
  auto* impl = t.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(std::move(storage));
  impl->set_sizes_and_strides(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), offset.expect_int());
  return t;
}

Tensor& set_whole_storage(Tensor& t, c10::Storage storage) {
  c10::SymInt count(storage.nbytes() / t.dtype().itemsize()), one(1);
  return set_storage(t, std::move(storage), 0, SymIntArrayRef(&count, 1), SymIntArrayRef(&one, 1));
}

Tensor view(const Tensor& t, SymIntArrayRef size) { return at::native::view(t, C10_AS_INTARRAYREF_SLOW(size)); }

Tensor alias(const Tensor& t, SymIntArrayRef size, SymIntArrayRef stride) {
  return at::native::_reshape_alias(t, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride));
}

Tensor as_strided(const Tensor& t, SymIntArrayRef size, SymIntArrayRef stride, optional<c10::SymInt> offset) {
  auto start = offset ? optional<int64_t>(offset->expect_int()) : std::nullopt;
  return at::native::as_strided_tensorimpl(t, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), start);
}

// ---- The checks, and then the CPU's kernel

struct Devices {
  const std::string name;
  bool device = false, cpu = false, device_index = false;

  explicit Devices(const c10::OperatorHandle& op) : name(op.schema().operator_name().name) {}

  void see(const Tensor& t, bool scalar_allowed) {
    if (!t.defined()) return;
    if (on_device(t)) device = true;
    else if (t.dim() > 0 || !scalar_allowed) cpu = true;
  }

  void see(const c10::IValue& value, bool written) {
    if (value.isTensor()) see(value.toTensor(), !written);
    else if (value.isTensorList()) for (const Tensor& t : value.toTensorVector()) see(t, false);
    else if (value.isOptionalTensorList())  // the indices of a[i, j], and nothing else
      for (const optional<Tensor>& t : value.toOptionalTensorVector()) device_index |= t && t->defined() && on_device(*t);
  }

  void check() const {
    TORCH_CHECK(!(device && cpu), "Expected all tensors to be on the same device, but found at least two devices, ",
                the_device, " and cpu! (", name, ")");
    TORCH_CHECK(!(device_index && cpu),
                "indices should be either on cpu or on the same device as the indexed tensor (cpu) (", name, ")");
  }

  void check(const at::Generator& generator) const {
    auto expected = device ? kind : c10::kCPU;
    TORCH_CHECK(generator.device().type() == expected, "Expected a '", c10::Device(expected),
                "' device type for generator but found '", generator.device().type(), "' (", name, ")");
  }
};

void run(const c10::OperatorHandle& op, c10::Stack* stack) {
  const auto& arguments = op.schema().arguments();
  auto first = stack->end() - static_cast<std::ptrdiff_t>(arguments.size());
  Devices devices(op);
  for (size_t n = 0; n < arguments.size(); ++n) {
    const auto* alias = arguments[n].alias_info();
    devices.see(first[n], alias && alias->isWrite());
  }
  devices.check();
  optional<at::Generator> ours, stand_in;
  for (size_t n = 0; n < arguments.size(); ++n) {
    if (!first[n].isGenerator()) continue;
    ours = first[n].toGenerator();
    devices.check(*ours);
    // The CPU's kernels take the CPU's generators only.
    stand_in = at::detail::createCPUGenerator();
    stand_in->set_state(ours->get_state());
    first[n] = *stand_in;
  }
  at::native::cpu_fallback(op, stack, /*error_on_views=*/true);
  if (ours) ours->set_state(stand_in->get_state());
}

// PyTorch has no fallback for convolutions of other backends.

void check_same(const char* name, std::initializer_list<const Tensor*> tensors) {
  for (const Tensor* t : tensors)
    TORCH_CHECK(!t->defined() || on_device(*t), "Expected all tensors to be on the same device, but found at least two "
                "devices, ", the_device, " and cpu! (", name, ")");
}

Tensor convolution(const Tensor& input, const Tensor& weight, const optional<Tensor>& bias, SymIntArrayRef stride,
                   SymIntArrayRef padding, SymIntArrayRef dilation, bool transposed, SymIntArrayRef output_padding,
                   c10::SymInt groups) {
  auto b = bias.value_or(Tensor());
  check_same("convolution", {&input, &weight, &b});
  auto host_bias = b.defined() ? optional<Tensor>(host(b)) : std::nullopt;
  return at::convolution_symint(host(input), host(weight), host_bias, stride, padding, dilation, transposed,
                                output_padding, groups)
      .to(the_device);
}

std::tuple<Tensor, Tensor, Tensor> convolution_backward(
    const Tensor& gradient, const Tensor& input, const Tensor& weight, SymIntArrayRef stride, SymIntArrayRef padding,
    SymIntArrayRef dilation, bool transposed, SymIntArrayRef output_padding, c10::SymInt groups,
    std::array<bool, 3> wanted) {
  check_same("convolution_backward", {&gradient, &input, &weight});
  std::vector<c10::SymInt> bias{gradient.sym_size(1)};
  auto [to_input, to_weight, to_bias] = at::convolution_backward_symint(
      host(gradient), host(input), host(weight), at::OptionalSymIntArrayRef(bias), stride, padding, dilation,
      transposed, output_padding, groups, wanted);
  auto up = [](const Tensor& t) { return t.defined() ? t.to(the_device) : t; };
  return {up(to_input), up(to_weight), up(to_bias)};
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", TORCH_FN(empty));
  m.impl("empty_strided", TORCH_FN(empty_strided));
  m.impl("resize_", TORCH_FN(resize));
  m.impl("_copy_from", TORCH_FN(copy_from));
  m.impl("_copy_from_and_resize", TORCH_FN(copy_from_and_resize));
  m.impl("_local_scalar_dense", TORCH_FN(item));
  m.impl("set_.source_Storage", TORCH_FN(set_whole_storage));
  m.impl("set_.source_Storage_storage_offset", TORCH_FN(set_storage));
  m.impl("view", TORCH_FN(view));
  m.impl("as_strided", TORCH_FN(as_strided));
  m.impl("_reshape_alias", TORCH_FN(alias));
  m.impl("unfold", TORCH_FN(at::native::unfold));
  m.impl("convolution_overrideable", TORCH_FN(convolution));
  m.impl("convolution_backward_overrideable", TORCH_FN(convolution_backward));
}
TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&run>()); }

// ---- Autocast, with CUDA's lists of operations

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) { m.fallback(torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
#define LOWER(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, lower_precision_fp)
#define EXACT(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32)
#define EXACT_UNLESS_ASKED(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32_set_opt_dtype)
#define WIDEST(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, promote)
  AT_FORALL_LOWER_PRECISION_FP(LOWER)
  AT_FORALL_FP32(EXACT)
  AT_FORALL_FP32_SET_OPT_DTYPE(EXACT_UNLESS_ASKED)
  AT_FORALL_PROMOTE(WIDEST)
}

}  // namespace

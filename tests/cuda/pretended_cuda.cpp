// What a PyTorch built for the CPU lacks to run its CUDA code paths on fake tensors: a device guard for CUDA that does nothing, and
// the answer that CUDA is there. Loaded before PyTorch, whose own functions of these names are then not found.
#include <ATen/DeviceAccelerator.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace {

using c10::Device;
using c10::DeviceType;
using c10::Stream;

struct Guard final : c10::impl::NoOpDeviceGuardImpl<DeviceType::CUDA> {
  static Device only_device() { return Device(DeviceType::CUDA, 0); }
  static Stream only_stream() { return Stream(Stream::DEFAULT, only_device()); }
  Device exchangeDevice(Device) const override { return only_device(); }
  Device getDevice() const override { return only_device(); }
  Stream getStream(Device) const noexcept override { return only_stream(); }
  Stream getNewStream(Device, int = 0) const override { return only_stream(); }
  Stream exchangeStream(Stream) const noexcept override { return only_stream(); }
};

c10::impl::DeviceGuardImplRegistrar registered(DeviceType::CUDA, new Guard());

struct Hooks : at::CUDAHooksInterface {
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
};

}  // namespace

namespace at::accelerator {
std::optional<DeviceType> getAccelerator(bool) { return DeviceType::CUDA; }
}  // namespace at::accelerator

namespace at::detail {
const CUDAHooksInterface& getCUDAHooks() {
  static Hooks hooks;
  return hooks;
}
}  // namespace at::detail

"""GELU of feature maps, written in the memory layout that the convolution after it reads."""

import torch
from torch import Tensor
from torch.nn import functional as F

from sprintnet.kernels import conv3x3_amx
from sprintnet.kernels.build import FP32_LANES, call, load_library
from sprintnet.kernels.conv3x3 import Convolution3x3
from sprintnet.kernels.tensors import empty_hwnc


def gelu(maps: Tensor, next_layer: Convolution3x3) -> Tensor:
    """Returns F.gelu(maps), (B, C, H, W); in HWNC where the next layer takes maps in it and their gradient is not needed."""
    reads_hwnc = maps.dtype == torch.bfloat16 and next_layer.choose_conv_pool(maps) is conv3x3_amx
    if maps.requires_grad or not reads_hwnc or load_library("gelu_amx") is None:
        return F.gelu(maps)
    maps = maps.contiguous(memory_format=torch.channels_last)
    images, channels, height, width = maps.shape
    activated = empty_hwnc(maps.shape, maps.dtype, maps.device, conv3x3_amx.BLOCK)
    threads = torch.get_num_threads()
    rows = maps.new_empty(threads * (width * channels + FP32_LANES))
    sizes = images, height, width, channels, activated.stride(0)
    call("gelu_amx", "gelu_to_hwnc", *sizes, maps, rows, activated, threads)
    return activated

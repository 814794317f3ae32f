"""GPUs to plan for where there is none: `lc plan CONFIG --gpu 4090`."""

import attrs


@attrs.frozen
class GPU:
    """What a training can use of a kind of GPU."""

    gib: float
    """Memory in GiB, less what the CUDA context takes."""

    tflops: float
    """Dense bfloat16 matrix products with float32 accumulation, 10^12 FLOP/s."""


# Rates: NVIDIA's data sheets and architecture white papers (Ampere GA102, Ada, Blackwell RTX; A100, L40S, H100, H200),
# without sparsity. Memory: what torch reports as the device's total, less about 0.6 GiB of context.
GPUS = {
    "3090": GPU(gib=23.0, tflops=71),
    "4090": GPU(gib=23.0, tflops=165.2),
    "5090": GPU(gib=30.8, tflops=209.5),
    "A100-40": GPU(gib=38.8, tflops=312),
    "A100-80": GPU(gib=78.6, tflops=312),
    "L40S": GPU(gib=43.9, tflops=362),
    "H100": GPU(gib=78.5, tflops=989),
    "H200": GPU(gib=139.2, tflops=989),
}

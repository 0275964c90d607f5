"""What the stacked program asks of the machine it runs on."""

from __future__ import annotations

import torch

from server_side.stacked_program import same_bits_on


def test_a_gpu_is_asked_for_the_same_bits_and_left_as_it_was() -> None:
    matmul, before = torch.backends.cuda.matmul, torch.backends.cuda.matmul.allow_tf32
    try:
        matmul.allow_tf32 = True
        with same_bits_on("cuda"):
            assert torch.are_deterministic_algorithms_enabled()
            assert not matmul.allow_tf32
            assert not torch.backends.cudnn.benchmark
        assert matmul.allow_tf32
        assert not torch.are_deterministic_algorithms_enabled()
        with same_bits_on("cpu"):
            assert not torch.are_deterministic_algorithms_enabled()
    finally:
        matmul.allow_tf32 = before

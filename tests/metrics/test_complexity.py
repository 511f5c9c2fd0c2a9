# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Counts of a network that is small enough to count by hand."""

import torch
from torch import nn

from monai_effsam.metrics import count_macs, count_parameters


def test_parameters_and_those_that_train():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(10, 4))
    network[0].requires_grad_(False)
    assert count_parameters(network) == 3 * 8 * 9 + 8 + 10 * 4 + 4
    assert count_parameters(network, trainable_only=True) == 10 * 4 + 4


def test_macs_of_a_convolution_and_of_a_matrix():
    convolution, linear = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(10, 4)
    assert count_macs(lambda: convolution(torch.zeros(1, 3, 5, 7))) == 5 * 7 * 8 * 3 * 9
    assert count_macs(lambda: linear(torch.zeros(6, 10))) == 6 * 10 * 4


def test_a_module_that_hands_out_a_view_of_its_parameter_is_counted():
    class Table(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(4))

        def forward(self):
            return self.weight.reshape(1, 4).expand(3, -1)

    table, linear = Table(), torch.nn.Linear(4, 2)
    assert count_macs(lambda: linear(table())) == 3 * 4 * 2

"""The reference codes of `benchmarks/references.py`: each against an exact answer."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from benchmarks.pixelcnn import PixelCNN
from benchmarks.references import file_bits, gaussian_bits, histogram_bits, train_pixelcnn


def test_the_histogram_counts_each_place() -> None:
    train = torch.tensor([[0, 7], [0, 9], [5, 7]], dtype=torch.uint8)
    bits = histogram_bits(train, torch.tensor([[0, 7], [5, 200]], dtype=torch.uint8))
    total = 3 + 256
    expected = [-math.log2(3 / total) - math.log2(3 / total), -math.log2(2 / total) - math.log2(1 / total)]
    torch.testing.assert_close(bits, torch.tensor(expected, dtype=torch.float64))


def test_the_gaussian_is_that_of_the_noisy_training_pictures() -> None:
    generator = torch.Generator().manual_seed(0)
    train = torch.randint(0, 256, (500, 1, 2, 2), generator=generator).to(torch.uint8)
    test = torch.randint(0, 256, (20, 1, 2, 2), generator=generator).to(torch.uint8)
    bits = gaussian_bits(train, test, torch.Generator().manual_seed(1))
    noisy = test.flatten(1) + torch.rand(20, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    flat = train.flatten(1).double()
    covariance = torch.cov(flat.T, correction=0) + torch.eye(4, dtype=torch.float64) / 12
    exact = torch.distributions.MultivariateNormal(flat.mean(dim=0) + 0.5, covariance).log_prob(noisy)
    torch.testing.assert_close(bits, -exact / math.log(2))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_flat_picture_needs_fewer_bits_than_noise(kind: str) -> None:
    noise = torch.randint(0, 256, (1, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    flat_bits, noise_bits = file_bits(torch.stack([torch.zeros_like(noise), noise]), kind)
    assert flat_bits < noise_bits / 4
    assert noise_bits >= 8 * 28 * 28  # no code is shorter than the entropy of uniform noise


def test_no_pixel_of_the_pixelcnn_sees_itself_or_a_later_one() -> None:
    torch.manual_seed(0)
    net = PixelCNN(width=8, layers=4)
    x = torch.randn(1, 1, 6, 6, requires_grad=True)
    logits = net.logits(x)
    for i, j in itertools.product(range(6), range(6)):
        (gradient,) = torch.autograd.grad(logits[0, :, i, j].square().sum(), x, retain_graph=True)
        seen = gradient[0, 0].flatten() != 0
        place = 6 * i + j
        assert not seen[place:].any()
        if j > 0:
            assert seen[place - 1]
        if i > 0:
            assert seen[place - 6 : place - 6 + 2 - (j == 5)].all()


def test_the_pixelcnn_is_a_probability() -> None:
    torch.manual_seed(0)
    net = PixelCNN(width=8, layers=2)
    values = torch.arange(256, dtype=torch.uint8)
    pictures = torch.stack([torch.tensor([[[3, int(v)]]], dtype=torch.uint8) for v in values])
    with torch.inference_mode():
        joint = (-net.nats(pictures)).exp().sum()
        first = net.logits(pictures[:1].float() / 127.5 - 1)[0, :, 0, 0].softmax(dim=0)[3]
    torch.testing.assert_close(joint, first)


def test_the_pixelcnn_learns_a_constant() -> None:
    pictures = torch.full((64, 1, 4, 4), 17, dtype=torch.uint8)
    torch.manual_seed(0)
    net = PixelCNN()
    for _ in train_pixelcnn(net, pictures, steps=60, batch=16, seed=0):
        pass
    with torch.no_grad():
        assert float(net.nats(pictures[:1])) < 0.1 * 16 * math.log(256)

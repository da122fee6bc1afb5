import torch
from torch import nn

from qprune import zoo

SMALL = {"width": 0.07, "width_ba": 0.07, "width_discriminators": 0.07}


def on_meta(name, **options):
    with torch.device("meta"):
        return zoo.create(name, **options).eval()


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_cyclegan_is_two_generators_and_two_discriminators_of_images():
    net = on_meta("cyclegan")
    assert {name: parameters(part) for name, part in net.named_children()} == {
        "generator_ab": 7_837_699,
        "generator_ba": 7_837_699,
        "discriminator_a": 2_764_737,
        "discriminator_b": 2_764_737,
    }


def test_cyclegan_in_training_mode_goes_round_the_cycle_and_in_eval_mode_half_of_it():
    net, a = (
        zoo.create("cyclegan", **SMALL, out_channels=4),
        torch.randn(2, 3, 8, 12),
    )
    fake_b, rec_a = net.train()(a)
    assert torch.equal(fake_b, net.generator_ab(a))
    assert torch.equal(rec_a, net.generator_ba(fake_b))
    assert (fake_b.shape, rec_a.shape) == ((2, 4, 8, 12), a.shape)
    assert torch.equal(net.eval()(a), fake_b)


def test_one_forward_in_training_mode_reaches_both_generators_in_the_order_in_which_they_are_registered():
    net, reached = zoo.create("cyclegan", **SMALL), []
    for path, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(lambda *_, path=path: reached.append(path))
    net(torch.randn(2, 3, 8, 12))
    assert reached == [
        path for path, m in net.named_modules()
        if path.startswith("generator") and isinstance(m, nn.Conv2d | nn.ConvTranspose2d)
    ]  # fmt: skip

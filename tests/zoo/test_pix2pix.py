import torch

from qprune import zoo


def on_meta(name, **options):
    with torch.device("meta"):
        return zoo.create(name, **options).eval()


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_pix2pix_is_a_generator_and_a_discriminator_of_pairs():
    net = on_meta("pix2pix")
    assert {name: parameters(part) for name, part in net.named_children()} == {
        "generator": 54_414_083,
        "discriminator": 2_768_705,
    }


def test_pix2pix_is_its_generator_and_the_discriminator_reads_the_input_with_the_image():
    net, a = (
        zoo.create("pix2pix", width=0.07, width_discriminator=0.07, out_channels=4).eval(),
        torch.randn(2, 3, 256, 256),
    )
    image = net(a)
    assert torch.equal(image, net.generator(a))
    assert net.discriminator(torch.cat((a, image), 1)).shape == (2, 1, 30, 30)

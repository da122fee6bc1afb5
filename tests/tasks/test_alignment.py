import pytest
import torch
from torch import nn

from qprune.errors import PlanError
from qprune.tasks import Classification, CycleGAN, Distilled
from qprune.tasks.alignment import alignment, distance, first_outputs


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(7)


def kernels(x, y):
    """The definition, with a kernel of positions by positions."""
    k, q = (rows @ rows.T for rows in (each.double().movedim(1, -1).flatten(0, -2) for each in (x, y)))
    return (k * q).sum() / (k.square().sum() * q.square().sum()).sqrt()


@pytest.mark.parametrize("shapes", [((2, 3, 5, 7), (2, 4, 5, 7)), ((6, 3), (6, 5)), ((2, 3, 9), (2, 1, 9))])
def test_the_alignment_is_that_of_the_kernels_of_all_positions(shapes):
    x, y = (torch.randn(shape) for shape in shapes)
    torch.testing.assert_close(alignment(x, y).double(), kernels(x, y), rtol=1e-5, atol=1e-7)


def test_a_rotated_a_scaled_and_a_padded_layer_is_the_same():
    x = torch.randn(2, 4, 5, 7)
    rotation, _ = torch.linalg.qr(torch.randn(4, 4))
    rotated = torch.einsum("nchw,cd->ndhw", x, rotation)
    dropped = torch.cat([x, torch.zeros(2, 3, 5, 7)], 1)
    for other in (3 * rotated, dropped, dropped[:, [6, 1, 5, 3, 2, 0, 4]], 1e-6 * x, 1e9 * x):
        assert alignment(x, other).item() == pytest.approx(1, abs=1e-5)
        assert alignment(other, x).item() == pytest.approx(1, abs=1e-5)
    assert alignment(x, torch.randn(2, 4, 5, 7)) < 0.5


def test_a_layer_that_is_zero_everywhere_gives_no_nan():
    x = torch.zeros(2, 3, 5, 7, requires_grad=True)
    result = alignment(x, torch.randn(2, 4, 5, 7))
    result.backward()
    assert result == 0
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_half_precision_is_compared_in_float32():
    x, y = torch.randn(2, 3, 5, 7).bfloat16(), torch.randn(2, 4, 5, 7).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        result = alignment(x, y)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, alignment(x.float(), y.float()), rtol=0, atol=0)


def test_the_first_run_within_the_block_counts_and_leaves_no_trace():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    images = torch.randn(2, 3, 5, 7)
    with first_outputs(net, ["0"]) as given:
        net(images)
        net(images + 1)
    assert torch.equal(given["0"], net[0](images))
    assert not net[0]._forward_hooks


@pytest.mark.parametrize(
    ("ours", "theirs", "shown"),
    [
        (
            torch.zeros(2, 3, 5, 7),
            torch.zeros(2, 3, 5, 6),
            r"\(2, 3, 5, 7\) in the network and \(2, 3, 5, 6\) in the teacher",
        ),
        (None, torch.zeros(2, 3), r"nothing in the network and \(2, 3\) in the teacher"),
        (torch.zeros(2, 3), (1, 2), r"\(2, 3\) in the network and tuple in the teacher"),
        (torch.zeros(2), torch.zeros(2), r"\(2,\) in the network and \(2,\) in the teacher"),
    ],
)
def test_layers_that_cannot_be_compared_are_refused(ours, theirs, shown):
    sentence = (
        r"^train.teacher.layers compares outputs of layers that are tensors \(N, C, ...\), equal but for C; "
        rf'"stem.act" gives {shown}\. Name another layer, or leave it out\.$'
    )
    with pytest.raises(PlanError, match=sentence):
        distance({} if ours is None else {"stem.act": ours}, {"stem.act": theirs})


def test_each_layer_adds_its_distance_and_only_the_student_learns():
    student = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 7)).train()
    teacher = nn.Sequential(nn.Conv2d(3, 9, 3), nn.ReLU(), nn.Flatten(), nn.Linear(54, 7)).eval().requires_grad_(False)
    batch = torch.randn(5, 3, 4, 5), torch.tensor([0, 6, 3, 3, 1])
    plain = Distilled(Classification(7), teacher, 1.0, 4.0).step(student, batch)[0]
    loss, taught = Distilled(Classification(7), teacher, 1.0, 4.0, ["0", "1"]).step(student, batch)
    ours, theirs = (net[:1](batch[0]) for net in (student, teacher))
    expected = 2 - alignment(ours, theirs) - alignment(ours.relu(), theirs.relu())
    torch.testing.assert_close(loss - plain, expected)
    torch.testing.assert_close(taught.parts["distillation"], loss.detach())
    student.zero_grad()
    expected.backward()
    alone = student[0].weight.grad.clone()
    assert alone.abs().max() > 0
    student.zero_grad()
    (loss - plain).backward()
    torch.testing.assert_close(student[0].weight.grad, alone, rtol=1e-4, atol=1e-6)
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_generators_are_compared_where_both_see_the_same_images(cyclegan_net, pair):
    teacher = type(cyclegan_net)().eval().requires_grad_(False)
    task = Distilled(CycleGAN(), teacher, 1.0, 4.0, ["generator_ab", "generator_ba"])
    loss, _ = task.step(cyclegan_net.train(), pair)
    plain, _ = Distilled(CycleGAN(), teacher, 1.0, 4.0).step(cyclegan_net, pair)
    a, b = pair
    expected = 2 - alignment(cyclegan_net.generator_ab(a), teacher.generator_ab(a))
    expected = expected - alignment(cyclegan_net.generator_ba(b), teacher.generator_ba(b))
    torch.testing.assert_close(loss - plain, expected, rtol=1e-4, atol=1e-6)

import torch

from qprune.tasks.pool import ImagePool


def numbered(first, count):
    return torch.arange(first, first + count).float().view(-1, 1, 1, 1).expand(-1, 3, 5, 7)


def numbers(images):
    return [int(image[0, 0, 0]) for image in images]


def test_images_are_kept_and_handed_out_until_the_pool_is_full():
    pool = ImagePool(capacity=4)
    assert torch.equal(pool.exchange(numbered(0, 3)), numbered(0, 3))
    assert numbers(pool.images) == [0, 1, 2]


def test_a_full_pool_exchanges_about_half_of_the_images():
    pool = ImagePool(capacity=50)
    pool.exchange(numbered(0, 50))
    given = numbers(pool.exchange(numbered(50, 400)))
    exchanged = sum(number != new for number, new in zip(given, range(50, 450), strict=True))
    assert 160 < exchanged < 240
    assert len(pool.images) == 50


def test_no_image_is_lost_or_doubled():
    pool = ImagePool(capacity=5)
    given = [*numbers(pool.exchange(numbered(0, 3))), *numbers(pool.exchange(numbered(3, 40)))]
    first = given[:5]
    assert first == [0, 1, 2, 3, 4]  # handed out and kept
    assert sorted(given[5:] + numbers(pool.images)) == list(range(43))


def test_a_pool_of_no_capacity_hands_out_what_it_gets():
    pool = ImagePool(capacity=0)
    assert torch.equal(pool.exchange(numbered(0, 7)), numbered(0, 7))
    assert pool.images == []


def test_images_given_are_detached_and_keep_their_layout():
    images = torch.randn(2, 3, 5, 7, requires_grad=True).to(memory_format=torch.channels_last)
    given = ImagePool(capacity=1).exchange(images)
    assert not given.requires_grad
    assert given.is_contiguous(memory_format=torch.channels_last)


def test_images_kept_do_not_hold_on_to_their_batch():
    pool = ImagePool(capacity=1)
    pool.exchange(torch.randn(4, 3, 5, 7))
    assert pool.images[0].untyped_storage().nbytes() == 3 * 5 * 7 * 4


def test_images_kept_do_not_change_with_what_was_given():
    pool, images = ImagePool(capacity=2), numbered(0, 2).contiguous()
    pool.exchange(images).zero_()
    images.zero_()
    assert numbers(pool.images) == [0, 1]


def test_a_smaller_pool_takes_over_what_it_has_room_for():
    pool, smaller = ImagePool(capacity=5), ImagePool(capacity=2)
    pool.exchange(numbered(0, 5))
    smaller.load_state_dict(pool.state_dict())
    assert numbers(smaller.images) == [0, 1]

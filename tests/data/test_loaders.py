import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from qprune.data import EpochSampler, ImageSet, build_augment, eval_loader, train_loader
from qprune.errors import DataError


def image_set(count=23):
    images = torch.randint(0, 256, (count, 1, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    augment = build_augment([{"name": "RandomCrop", "size": [6, 5], "padding": 1}], (1, 6, 5))
    return ImageSet(images, torch.arange(count), (0.5,), (0.5,), augment=augment, seed=4)


def batches(loader, epoch=0, start=0):
    loader.sampler.epoch, loader.sampler.start = epoch, start
    return list(loader)


def equal(ours, theirs):
    return len(ours) == len(theirs) and all(
        torch.equal(a, b) for one, other in zip(ours, theirs, strict=True) for a, b in zip(one, other, strict=True)
    )


def test_sampler_yields_the_epoch_with_every_index_once():
    sampler = EpochSampler(size=11, batch=4, seed=2)
    sampler.epoch = 6
    assert sorted(sampler) == [(6, i) for i in range(11)]


def test_sampler_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        return list(EpochSampler(size=11, batch=4, seed=seed, epoch=epoch))

    assert order(2, 5) == order(2, 5)
    assert [i for _, i in order(2, 5)] != [i for _, i in order(2, 6)]
    assert [i for _, i in order(2, 5)] != [i for _, i in order(3, 5)]


@pytest.mark.parametrize("start", [0, 1])
def test_processes_share_every_batch_and_every_index_goes_to_one(start):
    size, batch = 16, 6
    whole = list(EpochSampler(size, batch, seed=2, epoch=3, start=start))
    shards = [EpochSampler(size, batch, seed=2, epoch=3, start=start, shard=(rank, 3)) for rank in range(3)]
    assert sorted(index for shard in shards for index in shard) == sorted(whole)
    assert [len(shard) for shard in shards] == [len(list(shard)) for shard in shards]
    for number in range(2 - start):
        parts = [pair for shard in shards for pair in list(shard)[2 * number : 2 * number + 2]]
        assert sorted(parts) == sorted(whole[batch * number :][:batch])


def test_shares_of_a_batch_average_to_one():
    shards = [EpochSampler(size=16, batch=6, shard=(rank, 3)) for rank in range(3)]
    assert [[shard.share(number) for shard in shards] for number in range(3)] == [
        [1, 1, 1], [1, 1, 1], pytest.approx([1.5, 0.75, 0.75])
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("size", "batch", "sentence"),
    [
        (16, 5, r"A batch must be shared equally by 3 processes; train\.batch is 5\."),
        (14, 6, "with 14 samples in batches of 6 the last one has 2 for 3 processes. Choose another train.batch"),
    ],
)
def test_batches_that_some_process_would_have_no_part_in_are_refused(size, batch, sentence):
    with pytest.raises(DataError, match=sentence):
        EpochSampler(size, batch, shard=(0, 3))


def test_processes_share_what_is_evaluated():
    shards = [eval_loader(image_set(), batch=4, shard=(rank, 3)) for rank in range(3)]
    labels = torch.cat([labels for shard in shards for _, labels in shard])
    assert sorted(labels.tolist()) == list(range(23))


def test_sampler_starts_in_the_middle_of_an_epoch():
    whole = list(EpochSampler(size=11, batch=4, seed=2, epoch=3))
    rest = EpochSampler(size=11, batch=4, seed=2, epoch=3, start=2)
    assert list(rest) == whole[8:]
    assert len(rest) == 3
    assert len(EpochSampler(size=11, batch=4, start=3)) == 0


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_two_workers_give_the_batches_of_none():
    alone, helped = (train_loader(image_set(), batch=5, seed=1, workers=workers) for workers in (0, 2))
    for epoch in (0, 1):  # the workers of the first epoch serve the second
        assert equal(batches(alone, epoch), batches(helped, epoch))
    assert equal(batches(alone, 1, start=3), batches(helped, 1, start=3))


def test_the_rest_of_an_epoch_is_that_of_the_whole_one():
    loader = train_loader(image_set(), batch=5, seed=1)
    assert equal(batches(loader, 2)[3:], batches(loader, 2, start=3))


def test_epochs_are_augmented_anew():
    loader = train_loader(image_set(), batch=23, seed=1)
    first, second = (batches(loader, epoch)[0] for epoch in (0, 1))
    assert not torch.equal(first[0][first[1].argsort()], second[0][second[1].argsort()])


def test_short_last_batch_is_kept():
    loader = train_loader(image_set(), batch=5)
    assert [len(labels) for _, labels in loader] == [5, 5, 5, 5, 3]
    assert len(loader) == 5


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 1])
def test_loading_leaves_the_global_generator_alone(workers):
    state = torch.get_rng_state()
    batches(train_loader(image_set(), batch=5, workers=workers))
    list(eval_loader(image_set(), batch=5, workers=workers))
    assert torch.equal(torch.get_rng_state(), state)


def test_evaluation_has_no_augmentation_and_keeps_the_order():
    data = image_set()
    images, labels = next(iter(eval_loader(data, batch=23)))
    assert labels.tolist() == list(range(23))
    assert torch.equal(images, torch.stack([data[i][0] for i in range(23)]))


def test_a_foreign_dataset_is_asked_by_index():
    loader = train_loader(TensorDataset(torch.arange(7.0)), batch=3, seed=5)
    assert sorted(torch.cat([values for (values,) in batches(loader, 1)]).tolist()) == list(range(7))


def test_a_loader_is_used_as_it_is():
    loader = DataLoader(TensorDataset(torch.arange(7.0)), batch_size=3)
    assert train_loader(loader, batch=2) is loader
    assert eval_loader(loader, batch=2) is loader


def test_memory_is_pinned_for_cuda_only():
    assert train_loader(image_set(), batch=5, device="cuda").pin_memory
    assert not train_loader(image_set(), batch=5, device=torch.device("cpu")).pin_memory


class Chance:
    def __len__(self):
        return 7

    def __getitem__(self, index):
        return torch.tensor([random.random(), np.random.rand(), torch.rand(()).item()], dtype=torch.float64)


def test_what_foreign_items_draw_depends_on_neither_loader_processes_nor_what_was_drawn_before():
    def passes(make, **options):
        loader = make(Chance(), batch=3, **options)
        random.random(), np.random.rand(), torch.rand(())
        first, second = torch.cat(list(loader)), torch.cat(list(loader))
        assert first.unique().numel() == first.numel()
        return first, second

    for make in (train_loader, eval_loader):
        alone = passes(make)
        assert all(map(torch.equal, alone, passes(make, workers=2)))
        assert torch.equal(*alone)


def test_items_of_several_processes_are_those_of_one():
    whole = torch.cat(list(eval_loader(Chance(), batch=2)))
    for rank in range(3):
        assert torch.equal(torch.cat(list(eval_loader(Chance(), batch=2, shard=(rank, 3)))), whole[rank::3])

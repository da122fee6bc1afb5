import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from qprune.data import Splits, wrap_data
from qprune.errors import DataError

TRAIN, VAL, TEST = (TensorDataset(torch.zeros(n)) for n in (3, 5, 7))


def message(data):
    with pytest.raises(DataError) as caught:
        wrap_data(data)
    return str(caught.value)


def test_a_dict_names_its_parts():
    splits = wrap_data({"test": TEST, "train": TRAIN})
    assert (splits.train, splits.val, splits.test, splits.info) == (TRAIN, None, TEST, None)


def test_a_tuple_is_train_val_and_test():
    assert wrap_data((TRAIN, VAL)).val is VAL
    assert wrap_data((TRAIN, VAL)).test is None
    assert wrap_data((TRAIN, None, TEST)).test is TEST


def test_loaders_and_lists_are_data():
    loader = DataLoader(TRAIN)
    assert wrap_data((loader, [1, 2])).train is loader


def test_splits_pass_through():
    splits = Splits(info=None, train=TRAIN)
    assert wrap_data(splits) is splits


def test_another_form_is_refused():
    assert message(TRAIN) == (
        'data must be {"train": ..., "val": ..., "test": ...}, (train, val) or (train, val, test); '
        "received TensorDataset."
    )


def test_an_unknown_key_is_refused():
    assert message({"train": TRAIN, "vals": VAL}) == (
        'data has the keys "train", "val" and "test"; received \'vals\'; nearest: \'val\'.'
    )


def test_missing_training_data_are_refused():
    assert message({"val": VAL}) == (
        'data must have training data; received none. Give {"train": ..., "val": ..., "test": ...}.'
    )


def test_a_part_alone_is_enough_where_nothing_is_trained():
    splits = wrap_data({"test": TEST}, trains=False)
    assert (splits.train, splits.test) == (None, TEST)


@pytest.mark.parametrize("empty", [[], TensorDataset(torch.zeros(0)), DataLoader(TensorDataset(torch.zeros(0)))])
def test_an_empty_part_is_refused(empty):
    assert message({"train": TRAIN, "val": empty}) == (
        "data['val'] is empty: there is nothing in it to choose on. Leave it out, or fill it."
    )


def test_an_iterable_dataset_needs_a_loader():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(range(3))

    assert message((Stream(), VAL)) == (
        "data['train'] must be a DataLoader or a dataset with a length and items; "
        "received Stream. Put it into a DataLoader."
    )
    assert isinstance(wrap_data((DataLoader(Stream()), VAL)).train, DataLoader)

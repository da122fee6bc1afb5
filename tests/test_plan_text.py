"""Sites that go alike share a line, with what they keep together; nothing else does."""

from qprune.network_plan import Plan, SitePlan
from qprune.plan_text import plan_text
from qprune.schedules import Timeline


def mask(number: int, freeze: int | None = 30, kept: int = 2, coupled: tuple[str, ...] = ()) -> SitePlan:
    timeline = Timeline(refreshes=((freeze, 0.5),), end=freeze) if freeze else Timeline()
    name, inherited = f"act{number}.output", freeze is None
    return SitePlan(name, "mask", timeline, 5, kept, "activation-l1", coupled=coupled, inherited=inherited)


def quantizer(number: int, side: str = "weight", bits: int = 4, start: int = 40) -> SitePlan:
    return SitePlan(f"conv{number}.{side}", "quant", Timeline(activate=start, end=start), bits=bits)


def rows(*sites: SitePlan, full: bool = False) -> list[str]:
    return [line.strip() for line in plan_text(Plan(tuple(sites), steps_per_epoch=10), full).splitlines()[1:]]


def test_eight_sites_have_a_line_each_and_nine_share_one() -> None:
    assert len(rows(*map(mask, range(8)))) == 8
    shared, told = rows(*map(mask, range(9)))
    assert shared == "30 (3.00 ep)  act0.output and 8 more: 18 of 45 channels kept (activation-l1)"
    assert told.startswith("Sites that go alike share a line")
    assert len(rows(*map(mask, range(9)), full=True)) == 9


def test_masks_of_a_sequence_share_a_line_from_the_first_to_the_last() -> None:
    first, *_ = rows(*(mask(number, freeze=10 * number + 10) for number in range(12)))
    assert first == "10 to 120 (12.00 ep)  act0.output and 11 more: 24 of 60 channels kept (activation-l1)"


def test_masks_that_are_shared_count_once() -> None:
    group = ("act0.output", "act1.output", "act2.output")
    coupled = [mask(number, coupled=group) for number in range(3)]
    first, *_ = rows(*coupled, *(mask(number) for number in range(3, 10)))
    assert first.endswith("act0.output and 9 more: 16 of 40 channels kept (activation-l1), 8 masks shared by them")


def test_masks_that_are_taken_over_share_a_line() -> None:
    assert rows(*(mask(number, freeze=None) for number in range(20)))[0] == (
        "from the start  act0.output and 19 more: masks taken over"
    )


def test_other_bits_another_side_or_another_step_is_another_line() -> None:
    weights = [quantizer(number) for number in range(9)]
    inputs = [quantizer(number, side="input") for number in range(9)]
    wide = [quantizer(number, bits=8) for number in range(9, 11)]
    late = [quantizer(number, start=50) for number in range(11, 12)]
    mixed = [site for pair in zip(weights, inputs, strict=True) for site in pair]
    assert rows(*mixed, *wide, *late)[:-1] == [
        "40 (4.00 ep)  conv0.weight and 8 more: 4 bits from here on",
        "40 (4.00 ep)  conv0.input and 8 more: 4 bits from here on",
        "40 (4.00 ep)  conv9.weight: 8 bits from here on",
        "40 (4.00 ep)  conv10.weight: 8 bits from here on",
        "50 (5.00 ep)  conv11.weight: 4 bits from here on",
    ]


def test_of_many_notes_the_last_are_counted() -> None:
    plan = Plan((mask(0),), notes=tuple(f"note {number}" for number in range(11)))
    assert plan_text(plan).splitlines()[-3:-1] == ["note: note 7", "and 3 more notes"]
    assert plan_text(plan, full=True).splitlines()[-1] == "note: note 10"

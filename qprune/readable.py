"""Scores, numbers and times as people write them."""

SHARES = ("accuracy", "top5", "miou")  # metrics between 0 and 1, shown in percent
PER_CLASS = "iou_"  # as are those of single classes


def score_text(name: str, value: float) -> str:
    """A metric, with or without ``val_`` before its name, for reading: shares in percent, others with three digits.

    A share outside [0, 1] is taken for something else of that name.

    Example:
        >>> score_text("val_accuracy", 0.9925), score_text("loss", 0.01234), score_text("lr", 0.000012)
        ('99.25 %', '0.0123', '1.2e-05')
    """
    base = name.removeprefix("val_")
    if (base in SHARES or base.startswith(PER_CLASS)) and 0 <= value <= 1:
        return f"{100 * value:.2f} %"
    return number_text(value)


def number_text(value: float) -> str:
    """A number with three digits; whole numbers above a thousand, powers of ten where it would read as 0.

    Example:
        >>> number_text(0.5), number_text(12.345), number_text(12345.6), number_text(0.00012), number_text(0)
        ('0.500', '12.3', '12,346', '1.2e-04', '0')
    """
    size = abs(value)
    if value == 0:
        return "0"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".") if not size < 0.001 else f"{value:.1e}"


def duration_text(seconds: float) -> str:
    """A time in the two largest units that matter.

    Example:
        >>> duration_text(14.2), duration_text(200), duration_text(7500)
        ('14 s', '3 min', '2 h 5 min')
    """
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"

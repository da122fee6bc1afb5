"""The picture of a network: a bar for each layer, as high as its channels, filled as far as they are kept."""

from qprune.figures import LayerBar, plot_layers


def heights(axes):
    return [bar.get_height() for bar in axes.patches]


def test_bars_are_channels_and_what_is_kept_of_them():
    axes, _ = plot_layers([LayerBar("stem", 16, 4, 4, 32), LayerBar("head", 10, 10, 32, 8)]).axes
    assert heights(axes) == [16, 10, 4, 10]


def test_below_stand_the_bits_of_weights_and_inputs():
    _, bits = plot_layers([LayerBar("stem", 16, 4, 4, 32), LayerBar("head", 10, 10, 2, 8)]).axes
    assert [text.get_text() for text in bits.texts] == ["32", "8", "4", "2"]
    assert [label.get_text() for label in bits.get_xticklabels()] == ["stem", "head"]


def test_the_legend_names_the_bits_there_are_and_what_is_gone():
    def legend(*layers):
        return [text.get_text() for text in plot_layers(layers).axes[0].get_legend().get_texts()]

    assert legend(LayerBar("a", 4, 2, 4, 4), LayerBar("b", 4, 4, 32, 4)) == ["kept, 4 bit", "kept, float", "dropped"]
    assert legend(LayerBar("a", 4, 4, 8, 8)) == ["kept, 8 bit"]


def test_of_many_layers_a_few_are_named_and_no_bits_are_written():
    _, bits = plot_layers([LayerBar(f"layer{index}", 8, 4, 4, 4) for index in range(130)]).axes
    assert 20 < len(bits.get_xticklabels()) <= 40
    assert not bits.texts


def test_long_names_lose_their_beginning_and_control_characters_are_written_out():
    _, bits = plot_layers([LayerBar("a" * 50 + ".conv", 8, 4, 4, 4), LayerBar("b\x1b", 8, 4, 4, 4)]).axes
    first, second = (label.get_text() for label in bits.get_xticklabels())
    assert first.startswith("…")
    assert first.endswith("a.conv")
    assert second == r"b\x1b"

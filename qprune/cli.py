"""The command line: `qprune`, and in which file each of its commands is, with the first sentence of its help.

A file is imported when one of its commands is used. These files and `shell.py` are the only places that print.
"""

import click

from qprune.shell import Commands, Later

COMMANDS = {
    "cli_start": {
        "new": "Write specs for images of your own: a baseline, a pruned and a quantized network.",
        "doctor": "Show what this machine trains with, and whether anything is missing.",
    },
    "cli_list": {
        "list": "List the specs, all of them or those with PART in their name.",
    },
    "cli_train": {
        "fit": "Train SPEC and leave a run folder with its model, history and report.",
        "plan": "Show what training SPEC would do, step by step, without training.",
        "evaluate": "Score RUN, or a file that was exported from one, on its data; prints JSON.",
        "predict": "Show what RUN, or a file that was exported from one, makes of image files.",
        "summary": "Show what RUN's network costs, per layer and in total.",
    },
    "cli_search": {
        "sensitivity": "Show how much of each group of channels RUN's dense network can spare.",
        "search": "Find what to drop of RUN's dense network, layer by layer, and how many bits to use, for a budget.",
    },
    "cli_export": {
        "shrink": "Take dropped channels out of RUN's network, and write the smaller one, which computes the same.",
        "export": "Write RUN's network as an integer ONNX file, with a certificate of how equal it is.",
    },
    "cli_compare": {
        "report": "Write a page about RUN: scores, costs, the training, the network, and what it makes of test images.",
        "compare": "Put finished RUNs side by side: what each scores on test images, and what it costs.",
        "sweep": "Train SPEC with every combination of values, each with every seed, and compare the runs.",
    },
}


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="qprune")
def main() -> None:
    """Train convolutional networks into small, low-precision ones.

    Start with `qprune list`, then `qprune plan SPEC` and `qprune fit SPEC --chain`. SPEC is a name from the list, a
    part of one, or the path of a TOML file; RUN is a run folder, or its name below ./runs.
    """


for file, commands in COMMANDS.items():
    for name, about in commands.items():
        main.add_command(Later(name, f"qprune.{file}", about))

"""Make the pictures of the pages: run each page's own snippets, in order, and keep what they draw.

`make pictures` runs it. A picture stands beside its page in the folder `pictures`, under the name with which a snippet
of that page saves it. All runs are trained here, from the data that comes with qprune, which takes some minutes. The
pictures are the same to the pixel on one machine with one thread; elsewhere runs differ by rounding.
"""

import os
import re
import tempfile
from pathlib import Path

import torch
from PIL import Image

DOCS = Path(__file__).parent


def pictures_of(page: Path) -> list[Path]:
    """The pictures that a page shows and makes itself."""
    return [page.parent / link for link in re.findall(r"!\[[^\]]*\]\((pictures/[^)]+)\)", page.read_text("utf-8"))]


def snippets_of(page: Path) -> list[str]:
    """The Python of a page."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def main() -> None:
    """Run the snippets of every page with pictures in one folder, where a later page finds the runs of earlier ones."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ.pop("QPRUNE_RUNS", None)
        for page in sorted(DOCS.rglob("*.md")):
            for snippet in snippets_of(page) if pictures_of(page) else []:
                torch.manual_seed(0)
                exec(compile(snippet, page.name, "exec"), {})
            for picture in pictures_of(page):
                picture.parent.mkdir(exist_ok=True)
                Image.open(picture.name).convert("RGB").quantize(128).save(picture, optimize=True)
        os.chdir(DOCS)


if __name__ == "__main__":
    main()

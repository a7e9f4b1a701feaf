"""Draw the colour pictures of an emoji font as a data set: Unicode's groups are classes (`--dataset emoji`).

The list of emoji (`emoji.tsv`) has no skin tones: each of those emoji is drawn once, in the font's neutral colour. The similar
ones that remain (a man and a woman in the same job, one heart in nine colours, a clock at 24 times) form a family by their
names, and the split keeps families whole: otherwise test pictures would be near copies of training pictures. Of emoji that the
font draws alike (the flags of Norway and of Svalbard) the first is kept.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, features

LIST = Path(__file__).with_name("emoji.tsv")
FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
"""Its path in Debian's package fonts-noto-color-emoji."""
PIXELS = 109
"""The size of the font's bitmaps, the only one that it can be drawn at."""
HELD_OUT = 10
"""One family in this many is held out for testing."""
ALIKE = re.compile(
    r"\b(man|woman|person|men|women|people|boy|girl|child|baby|adult|older|prince|princess|mr|mrs|mx|claus|"
    r"red|orange|yellow|green|blue|light|purple|brown|black|white|grey|pink|dark|small|medium|large|left|right|up|down|"
    r"new|full|first|last|quarter|waxing|waning|crescent|gibbous|button|keycap|beard|hair|curly|bald|blond|facing|"
    r"(one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)(-thirty)?)\b"
)
"""Words that tell members of one family apart."""


class FontError(ValueError):
    """The font is missing or cannot be drawn; the message says what to do."""


@dataclass(frozen=True)
class Emoji:
    """One entry of the list.

    Attributes:
        text: its characters.
        name: its name in Unicode.
        group: index of its group in the list of groups.
    """

    text: str
    name: str
    group: int

    @property
    def family(self) -> str:
        """Return the name shared by the emoji that differ in colour, gender, direction or hour only."""
        if re.search(r"o’clock|-thirty", self.name):
            return "clock"
        if self.name.startswith(("flag:", "keycap:")):
            return self.name
        if re.match(r"(family|couple|kiss|(wo)?men holding|people holding|woman and man)", self.name):
            return "people together"
        words = re.sub(r"[^a-z ]", " ", ALIKE.sub(" ", self.name.lower())).split()
        return " ".join(words) or "person"

    @property
    def held_out(self) -> bool:
        """Return True if its family is held out for testing: one in ten, by the hash of the family's name."""
        return hashlib.sha256(self.family.encode()).digest()[0] % HELD_OUT == 0


def listed() -> tuple[list[Emoji], tuple[str, ...]]:
    """Read the list: all emoji in Unicode's order, and the names of their groups."""
    emoji, groups = [], []
    for line in LIST.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            groups.append(line.removeprefix("## "))
        elif not line.startswith("#"):
            codes, name = line.split("\t")
            emoji.append(Emoji("".join(chr(int(code, 16)) for code in codes.split()), name, len(groups) - 1))
    return emoji, tuple(groups)


def draw(font: Path) -> list[tuple[Emoji, Image.Image]]:
    """Draw every emoji of the list that the font has, each picture once, RGBA; lines on stderr report how many are left out.

    Raises:
        FontError: the font is missing or has no colour bitmaps of this size, or Pillow has no raqm to join characters.
    """
    if not features.check("raqm"):
        raise FontError("emoji of several characters need Pillow with raqm: install Debian's libfribidi0")
    try:
        face = ImageFont.truetype(str(font), PIXELS, layout_engine=ImageFont.Layout.RAQM)
    except OSError as error:
        raise FontError(
            f"{font}: not a font with bitmaps of {PIXELS} pixels ({error}). Install Debian's fonts-noto-color-emoji, "
            "or give the file NotoColorEmoji.ttf (with bitmaps, CBDT) as --dataset"
        ) from error
    width = face.getlength("\U0001f600")
    rendered: dict[bytes, tuple[Emoji, Image.Image]] = {}
    missing, again = [], []
    for each in listed()[0]:
        picture = Image.new("RGBA", (round(width), round(face.getbbox("\U0001f600")[3])))
        ImageDraw.Draw(picture).text((0, 0), each.text, font=face, embedded_color=True)
        if face.getlength(each.text) != width or picture.getbbox() is None:
            missing.append(each.name)
        elif rendered.setdefault(picture.tobytes(), (each, picture))[0] != each:
            again.append(each.name)
    if not rendered:
        raise FontError(f"{font}: expected a font of colour emoji, got one with none of them")
    total = len(rendered) + len(missing) + len(again)
    for left_out, why in (missing, "not in it"), (again, "drawn as another one"):
        if left_out:
            some = ", ".join(left_out[:3])
            print(
                f"{font.name}: {len(left_out)} of {total} emoji are {why} ({some}{', …' * (len(left_out) > 3)})",
                file=sys.stderr,
            )
    return list(rendered.values())


def lines(test_file: Iterable[str]) -> Iterable[str]:
    """Yield the lines of `emoji.tsv` from those of Unicode's emoji-test.txt."""
    group = ""
    for line in test_file:
        if found := re.match(r"# group: (.+)", line):
            group = found[1].strip()
            continue
        found = re.match(r"([0-9A-F ]+?) *; fully-qualified +# \S+ E[\d.]+ (.+)", line)
        if found and not re.search(r"\b1F3F[B-F]\b", found[1]):
            if group:
                yield f"## {group}"
                group = ""
            yield f"{found[1]}\t{found[2].strip()}"


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as given:
        head = [line for line in LIST.read_text(encoding="utf-8").splitlines() if re.match("# ", line)]
        LIST.write_text("\n".join([*head, *lines(given), ""]), encoding="utf-8")

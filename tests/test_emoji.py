"""The emoji data set: what the list says, which emoji belong together, and the pictures where a font is installed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from genlab import data, emoji

needs_font = pytest.mark.skipif(not emoji.FONT.exists(), reason="Debian's fonts-noto-color-emoji is not installed")
BY_NAME = {each.name: each for each in emoji.listed()[0]}


def test_the_list_has_every_group_and_no_skin_tone() -> None:
    listed, groups = emoji.listed()
    assert groups[0] == "Smileys & Emotion"
    assert groups[-1] == "Flags"
    assert {each.group for each in listed} == set(range(len(groups)))
    assert BY_NAME["grinning face"].text == "\U0001f600"
    assert BY_NAME["woman technologist"].text == "\U0001f469\u200d\U0001f4bb"
    assert not any(0x1F3FB <= ord(character) <= 0x1F3FF for each in listed for character in each.text)
    assert len({each.text for each in listed}) == len(listed)


@pytest.mark.parametrize(
    "names",
    [
        ("man technologist", "woman technologist", "technologist"),
        ("red heart", "blue heart", "white heart"),
        ("one o’clock", "twelve-thirty"),
        ("family: man, woman, girl", "couple with heart", "women holding hands"),
        ("waxing crescent moon", "full moon"),
        ("backhand index pointing left", "backhand index pointing down"),
        ("man: red hair", "woman: bald"),
    ],
)
def test_emoji_that_differ_by_colour_gender_hour_or_direction_are_one_family(names: tuple[str, ...]) -> None:
    assert len({BY_NAME[name].family for name in names}) == 1


@pytest.mark.parametrize(
    "names", [("grinning face", "grinning cat"), ("flag: France", "flag: Italy"), ("man pilot", "man farmer"), ("dog", "cat")]
)
def test_other_emoji_are_families_of_their_own(names: tuple[str, ...]) -> None:
    assert len({BY_NAME[name].family for name in names}) == len(names)


def test_a_tenth_is_held_out_of_every_group_and_no_family_is_on_both_sides() -> None:
    listed, groups = emoji.listed()
    test = [each for each in listed if each.held_out]
    assert 0.07 < len(test) / len(listed) < 0.13
    assert {each.group for each in test} == set(range(len(groups)))
    assert not {each.family for each in test} & {each.family for each in listed if not each.held_out}


def test_the_list_is_made_from_unicodes_file() -> None:
    given = [
        "# group: Smileys & Emotion",
        "1F600  ; fully-qualified     # 😀 E1.0 grinning face",
        "263A   ; unqualified         # ☺ E0.6 smiling face",
        "# group: Component",
        "1F3FB  ; component           # 🏻 E1.0 light skin tone",
        "# group: People & Body",
        "1F44B 1F3FB ; fully-qualified # 👋🏻 E1.0 waving hand: light skin tone",
        "1F44B  ; fully-qualified     # 👋 E0.6 waving hand",
    ]
    assert list(emoji.lines(given)) == [
        "## Smileys & Emotion",
        "1F600\tgrinning face",
        "## People & Body",
        "1F44B\twaving hand",
    ]


@pytest.mark.parametrize("name", ["missing.ttf", "README.md.ttf"])
def test_a_file_that_is_no_font_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.startswith("README"):
        path.write_text("no font")
    with pytest.raises(data.DataError, match=name):
        data.load(str(path))


@needs_font
def test_the_pictures_of_the_installed_font(capsys: pytest.CaptureFixture[str]) -> None:
    train, test = data.load_both("emoji")
    reports = capsys.readouterr().err.splitlines()
    assert len(set(reports)) == len(reports) >= 1  # what is left out is said once
    assert train.spec.shape == (3, 32, 32)
    assert train.spec.classes == emoji.listed()[1]
    assert len(train) > 1000
    assert len(train) > 5 * len(test)
    for part in (train, test):
        assert part.images.flatten(1).float().std(dim=1).min() > 0  # none is blank
        assert set(part.labels.tolist()) == set(range(len(train.spec.classes)))
    pictures = [picture.numpy().tobytes() for part in (train, test) for picture in part.images]
    assert len(set(pictures)) == len(pictures)  # none is on both sides
    # A smiling face is yellow in its middle, and the corners of a round face are the white that it is laid on.
    face = train.images[0] if not BY_NAME["grinning face"].held_out else test.images[0]
    assert torch.equal(face[:, 0, 0], torch.tensor([255, 255, 255], dtype=torch.uint8))
    again = data.load(str(emoji.FONT), "test", size=16)
    assert again.spec.size == 16
    assert len(again) == len(test)


@needs_font
def test_emoji_that_the_font_lacks_or_draws_alike_are_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    some = [BY_NAME["grinning face"], emoji.Emoji("\U0001fadc\U0001f600", "two of them", 0)]
    some += [BY_NAME["flag: Norway"], BY_NAME["flag: Svalbard & Jan Mayen"]]
    monkeypatch.setattr(emoji, "listed", lambda: (some, ("one",)))
    assert [each.name for each, _ in emoji.draw(emoji.FONT)] == ["grinning face", "flag: Norway"]
    assert capsys.readouterr().err.splitlines() == [
        "NotoColorEmoji.ttf: 1 of 4 emoji are not in it (two of them)",
        "NotoColorEmoji.ttf: 1 of 4 emoji are drawn as another one (flag: Svalbard & Jan Mayen)",
    ]

"""The listening page: well formed, every string shown and none of them markup, nothing loaded, pictures that are right."""

import base64
import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from pipeline import audio
from pipeline.audio import spectrogram
from pipeline.pages import histogram, listening_page
from tests.support.html_page import Page

RATE_HZ = audio.SAMPLE_RATE_HZ
NASTY = "<script>alert(\"x\")</script> & 'quoted' </style><img src=http://evil.example/x.png onerror=alert(1)>"
ARABIC = "كلب ينبح ثم ‮ صمت"


def tone(pitch_hz: float, seconds: float = 1.0, level: float = 0.5) -> np.ndarray:
    return audio.to_int16(level * np.sin(2 * np.pi * pitch_hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ))


def sample(key: str = "Yclip_0_1000", samples: np.ndarray | None = None, **changes) -> listening_page.Sample:
    texts = [
        listening_page.Caption("a dog barks", ["beam 3", "score -0.41"], []),
        listening_page.Caption("a tone", [], []),
    ]
    flac = audio.encode_flac(tone(440) if samples is None else samples)
    return listening_page.Sample(key, "clip", ["Dog", "Bark"], flac, texts)._replace(**changes)


def facts(**changes) -> listening_page.Facts:
    return listening_page.Facts("esc50", [("1,200", "clips written")], {"Dog": 7}, {3: 4, 9: 1}, {5: 3, 6: 2})._replace(
        **changes
    )


def pixels(png: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Decode a PNG with a palette: shades (R, C) and palette (N, 3)."""
    picture = Image.open(io.BytesIO(png), formats=["PNG"])
    assert picture.mode == "P"
    shades, palette = np.asarray(picture), np.array(picture.getpalette()).reshape(-1, 3)
    assert shades.max() < len(palette)
    return shades, palette


def brightest_row(samples: np.ndarray) -> int:
    """Return the row of the loudest pitch, from the top."""
    return int(pixels(spectrogram.draw(samples, RATE_HZ))[0].sum(axis=1, dtype=int).argmax())


def test_a_page_is_well_formed_and_shows_every_string() -> None:
    sections = [
        listening_page.Section("Random clips", "drawn with seed 0", [sample(), sample("Yother_0_1000")]),
        listening_page.Section("Worst-scored clips", "", [sample("Ylast_0_1000", tags=[], captions=[])]),
        listening_page.Section("Flagged clips", "none was", []),
    ]
    shown = Page(listening_page.render(facts(), sections))
    text = "\n".join(shown.texts)
    for wanted in ("esc50", "1,200", "clips written", "Random clips", "drawn with seed 0", "Flagged clips", "none was"):
        assert wanted in text
    for wanted in ("Yother_0_1000", "a dog barks", "beam 3", "score -0.41", "Bark", "no tags", "Caption length"):
        assert wanted in text
    assert len(shown.all("audio")) == len(shown.all("article")) == len(shown.all("img")) == 3
    assert all("controls" in player for player in shown.all("audio"))  # it plays without the script too


@pytest.mark.parametrize("text", [NASTY, ARABIC, "plain", "a\nb\t& &amp; &#60; ]]> <!-- --> ' \""])
def test_user_strings_are_text_and_never_markup(text: str) -> None:
    clip = sample(key=text, source_id=text, tags=[text], captions=[listening_page.Caption(text, [text], [text])])
    evil = listening_page.Facts(text, [(text, text)], {text: 3}, {1: 1}, {})
    html = listening_page.render(evil, [listening_page.Section(text, text, [clip])])
    shown, usual = (
        Page(html),
        Page(listening_page.render(facts(durations={}), [listening_page.Section("a", "b", [sample()])])),
    )
    assert len(shown.all("script")) == len(usual.all("script")) == 1
    assert len(shown.all("img")) == 1 and not any("onerror" in attributes for _, attributes in shown.elements)
    num_texts = 14  # title, h1, number, its label, link, h2, note, caption, note of it, flag, tag, key, source, chart
    assert sum(text in part for part in shown.texts) == num_texts
    assert any(text in article["aria-label"] for article in shown.all("article"))
    html.encode()


def test_nothing_is_loaded_from_elsewhere() -> None:
    html = listening_page.render(
        facts(), [listening_page.Section("Random clips", "", [sample(source_id="https://example.com/a")])]
    )
    Page(html).assert_loads_nothing()
    assert "url(" not in html and "@import" not in html


def test_the_sound_is_the_clips_own_bytes() -> None:
    clip = sample()
    shown = Page(listening_page.render(facts(), [listening_page.Section("Random clips", "", [clip])]))
    kind, _, data = shown.all("audio")[0]["src"].partition(",")
    assert kind == "data:audio/flac;base64" and base64.b64decode(data) == clip.flac
    kind, _, data = shown.all("img")[0]["src"].partition(",")
    assert kind == "data:image/png;base64" and base64.b64decode(data) == spectrogram.draw(tone(440), RATE_HZ)
    assert "1.0 s" in shown.all("img")[0]["alt"]


def test_flags_stand_out_among_the_notes() -> None:
    clip = sample(captions=[listening_page.Caption("a dog barks", ["beam 3"], ["mentions Cat, not tagged"])])
    shown = Page(listening_page.render(facts(), [listening_page.Section("Flagged clips", "", [clip])]))
    assert sum(item.get("class") == "flag" for item in shown.all("li")) == 1
    assert "mentions Cat, not tagged" in shown.texts


def test_charts_show_the_most_frequent_tags_and_leave_out_what_does_not_vary() -> None:
    many = {f"Tag {i:02d}": 100 - i for i in range(30)}
    text = "\n".join(Page(listening_page.render(facts(tags=many, durations={5: 9}), [])).texts)
    assert "the 25 most frequent of 30 tags" in text
    assert "Tag 24" in text and "Tag 25" not in text
    assert "3 to 9 words, median 3; 5 captions" in text
    assert "Clip duration" not in text
    empty = Page(listening_page.render(facts(tags={}, lengths={}, durations={}), []))
    assert not empty.all("svg") and "What is in it" not in empty.texts


@pytest.mark.parametrize("counts", [{7: 3}, {1: 2, 40: 2}, {1: 5, 600: 5}])
def test_every_caption_is_in_a_column_of_the_histogram(counts: dict[int, int]) -> None:
    shown = Page(listening_page.render(facts(tags={}, lengths=counts, durations={}), []))
    columns = [text for text in shown.texts if " words: " in text]
    assert sum(int(text.split(": ")[1].split()[0]) for text in columns) == sum(counts.values())
    assert len(columns) == len(shown.all("rect")) <= histogram.MAX_BARS


def test_a_picture_is_a_small_png() -> None:
    noise = audio.to_int16(0.1 * np.random.default_rng(0).standard_normal(10 * RATE_HZ))
    png = spectrogram.draw(noise, RATE_HZ)
    assert pixels(png)[0].shape == (96, 500)
    assert len(png) < 40_000
    assert png == spectrogram.draw(noise, RATE_HZ)


def test_higher_is_drawn_higher_and_louder_brighter() -> None:
    rows = [brightest_row(tone(pitch)) for pitch in (60, 200, 1000, 4000, 15000)]
    assert rows == sorted(rows, reverse=True) and len(set(rows)) == 5
    assert rows[0] > 90 and rows[-1] < 5
    assert brightest_row(tone(200, level=0.02) + tone(4000)) == rows[3]
    luminance = pixels(spectrogram.draw(tone(440), RATE_HZ))[1] @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luminance) > 0).all()


def test_time_goes_to_the_right() -> None:
    shades, _ = pixels(spectrogram.draw(np.concatenate([tone(440), np.zeros(3 * RATE_HZ, np.int16)]), RATE_HZ))
    assert shades[:, 10:115].max(axis=0).min() > 40
    assert not shades[:, 135:].any()


def test_silence_is_flat_and_dark() -> None:
    assert not pixels(spectrogram.draw(np.zeros(RATE_HZ, np.int16), RATE_HZ))[0].any()
    hiss = np.random.default_rng(0).integers(-1, 2, RATE_HZ).astype(np.int16)  # the last bit
    assert pixels(spectrogram.draw(hiss, RATE_HZ))[0].max() < 32


@pytest.mark.parametrize("num_samples", [1, 7, 1000])
def test_clips_shorter_than_a_window(num_samples: int) -> None:
    samples = np.full(num_samples, 9000, np.int16)
    assert pixels(spectrogram.draw(samples, RATE_HZ))[0].shape == (96, 500)
    Page(listening_page.render(facts(), [listening_page.Section("Random clips", "", [sample(samples=samples)])]))


def test_long_clips_and_other_rates() -> None:
    beep = np.zeros(60 * RATE_HZ, np.int16)
    beep[41 * RATE_HZ : 41 * RATE_HZ + 800] = tone(2000, 0.025)  # 25 ms of a minute: in a column of 120 ms
    columns = pixels(spectrogram.draw(beep, RATE_HZ))[0].max(axis=0)
    assert abs(int(columns.argmax()) - round(41 / 60 * 500)) <= 1
    at_8_khz = np.rint(9000 * np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000)).astype(np.int16)
    assert pixels(spectrogram.draw(at_8_khz, 8000))[0].shape == (96, 500)


def test_the_page_needs_no_torch() -> None:
    code = "import sys, pipeline.pages.listening_page; assert not {'torch', 'torchaudio', 'ray'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)

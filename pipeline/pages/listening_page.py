"""The listening page: one HTML file with clips to hear and see beside their captions. It loads nothing from anywhere.

Shapes: T = samples of one clip, C = columns of a picture, R = its rows, F = frequency bins.
"""

import base64
import hashlib
import math
import struct
import zlib
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from pipeline import audio
from pipeline.pages.assets import SCRIPT, STYLE

COLUMNS, ROWS = 500, 96  # pixels of a picture
WINDOW_S = 0.032  # one spectrum; 1,024 samples at 32 kHz
LOWEST_HZ = 40.0  # bottom of a picture; its top is half the sample rate
RANGE_DB = 70.0  # from the brightest colour to the darkest
FAINTEST_DB = -50.0  # re full scale: a clip whose loudest point is below is drawn as faint as it is
SILENCE_POWER = 1e-12  # -120 dB, added before the logarithm
NUM_SHADES = 64  # as many as the eye tells apart here, and a third smaller than with 256
MAGMA = "000004 1c1044 4f127b 812581 b5367a e55964 fb8761 fec287 fcfdbf"  # matplotlib's perceptual map at every eighth
NUM_TAGS = 25  # rows of the chart of tags
MAX_BARS = 40  # columns of a histogram
FLAG = "! "  # a note that begins so stands out


class Text(NamedTuple):
    """One caption, and how it was made."""

    text: str
    notes: list[
        str
    ]  # such as "beam 3", "score -0.41", "without tags"; "! mentions Dog, not tagged" stands out as a flag


class Sample(NamedTuple):
    """One clip."""

    key: str
    source_id: str
    tags: list[str]
    flac: bytes
    texts: list[Text]


class Section(NamedTuple):
    """Clips under one heading."""

    title: str
    note: str
    samples: list[Sample]


class Facts(NamedTuple):
    """What the page says about the whole dataset."""

    title: str
    headline: list[tuple[str, str]]  # (number, what it counts), such as ("1,200", "clips written")
    tags: dict[str, int]  # tag -> clips
    lengths: dict[int, int]  # words -> captions
    durations: dict[int, int]  # whole seconds -> clips


def render(facts: Facts, sections: Sequence[Section]) -> str:
    """Return the page; the same input gives the same text.

    Raises:
        audio.AudioError: when a sample's bytes are no audio.
    """
    charts = _charts(facts)
    names = [section.title for section in sections] + (["What is in it"] if charts else [])
    links = "".join(f'<a href="#part{i}">{escape(name)}</a>' for i, name in enumerate(names))
    parts = [_section(f"part{i}", section) for i, section in enumerate(sections)]
    if charts:
        parts.append(f'<section id="part{len(sections)}"><h2>What is in it</h2>{charts}</section>')
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(facts.title)}: listening page</title>
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>
<body>
{_header(facts)}
<nav aria-label="Parts of the page"><div>{links}<form role="search" class="js"><input type="search"
aria-label="Show clips whose captions, tags or names contain" placeholder="Filter clips"><output></output></form></div></nav>
<main>
{"".join(parts)}</main>
<footer>One file with everything inside: sound, pictures and numbers.</footer>
<script>{SCRIPT}</script>
</body></html>
"""


def spectrogram_png(samples: np.ndarray, sample_rate_hz: int) -> bytes:
    """Draw a clip as a PNG of 500 x 96: time to the right, mel frequency upward, brighter is louder.

    Args:
        samples: int16 array (T,) of any length.
        sample_rate_hz: rate of the samples; half of it is the upper edge of the picture.
    """
    level_db = 10 * np.log10(_mel_power(samples, sample_rate_hz) + SILENCE_POWER)  # (R, C)
    brightest_db = max(float(level_db.max()), FAINTEST_DB)
    share = np.clip(1 + (level_db - brightest_db) / RANGE_DB, 0, 1)
    return _png(np.rint(share[::-1] * (NUM_SHADES - 1)).astype(np.uint8))


def _mel_power(samples: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Return power by mel band and column (R, C), lowest band first; a sine at full scale has 1."""
    window = round(WINDOW_S * sample_rate_hz)
    taper = np.hanning(window)
    padded = np.pad(samples / audio.INT16_FULL_SCALE, window)
    spectra = np.lib.stride_tricks.sliding_window_view(padded, window)
    filters = _mel_filters(sample_rate_hz, 2 * window)
    column = len(samples) / COLUMNS  # samples that one column stands for
    num_spectra = max(
        1, math.ceil(column / (window / 2))
    )  # of one column: a long clip is averaged, not skipped through
    total = np.zeros((ROWS, COLUMNS))
    for i in range(num_spectra):
        centres = ((np.arange(COLUMNS) + (i + 0.5) / num_spectra) * column).astype(int)
        bins = np.fft.rfft(spectra[centres + window - window // 2] * taper, 2 * window)  # (C, F)
        total += filters @ (np.abs(bins) ** 2).T
    return total / num_spectra / (taper.sum() / 2) ** 2


def _mel_filters(sample_rate_hz: int, num_points: int) -> np.ndarray:
    """Return triangles (R, F) that are evenly spaced on the mel scale and at least one bin wide."""
    low_mel, high_mel = (2595 * math.log10(1 + hz / 700) for hz in (LOWEST_HZ, sample_rate_hz / 2))  # O'Shaughnessy
    centres_hz = 700 * (10 ** (np.linspace(low_mel, high_mel, ROWS + 2) / 2595) - 1)
    bins_hz = np.fft.rfftfreq(num_points, 1 / sample_rate_hz)
    reach_hz = np.maximum(np.gradient(centres_hz), bins_hz[1])
    return np.clip(1 - np.abs(bins_hz - centres_hz[1:-1, None]) / reach_hz[1:-1, None], 0, None)


def _png(shades: np.ndarray) -> bytes:
    """Encode shades (R, C) as a PNG with a palette."""
    knots = np.array([list(bytes.fromhex(colour)) for colour in MAGMA.split()])  # (9, 3)
    at = np.linspace(0, len(knots) - 1, NUM_SHADES)
    palette = np.stack([np.interp(at, np.arange(len(knots)), channel) for channel in knots.T], axis=1)
    rows, columns = shades.shape
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0),  # 8 bits, palette
        b"PLTE": np.rint(palette).astype(np.uint8).tobytes(),
        b"IDAT": zlib.compress(np.pad(shades, ((0, 0), (1, 0))).tobytes(), 9),  # each row begins with 0: no filter
        b"IEND": b"",
    }
    framed = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def _header(facts: Facts) -> str:
    figures = "".join(f"<div><dt>{escape(what)}</dt><dd>{escape(number)}</dd></div>" for number, what in facts.headline)
    return f"""<header><h1 dir="auto">{escape(facts.title)}</h1><dl class="figures">{figures}</dl>
<p class="soft"><span class="js">Click into a picture to hear the clip from there. </span>The pictures are spectrograms:
upward is higher (mel scale, from {LOWEST_HZ:.0f} Hz), brighter is louder ({RANGE_DB:.0f} dB from bright to dark).</p>
</header>"""


def _section(name: str, section: Section) -> str:
    clips = "\n".join(_clip(sample) for sample in section.samples)
    return (
        f'<section id="{name}" class="clips"><h2>{escape(section.title)}</h2><p class="soft">{escape(section.note)}</p>\n'
        f'<div class="grid">{clips}</div></section>\n'
    )


def _clip(sample: Sample) -> str:
    samples = audio.decode(sample.flac)
    seconds = len(samples) / audio.SAMPLE_RATE_HZ
    picture = base64.b64encode(spectrogram_png(samples, audio.SAMPLE_RATE_HZ)).decode()
    sound = base64.b64encode(sample.flac).decode()
    key, source = escape(sample.key), escape(sample.source_id)
    tags = "".join(f'<li dir="auto">{escape(tag)}</li>' for tag in sample.tags)
    return f"""<article class="clip" aria-label="{key}" data-key="{key}" data-seconds="{seconds:.3f}">
<figure class="picture"><img src="data:image/png;base64,{picture}" width="{COLUMNS}" height="{ROWS}" decoding="async"
alt="Spectrogram of {key}, {seconds:.1f} s"></figure>
<audio controls preload="none" aria-label="{key}" src="data:audio/flac;base64,{sound}"></audio>
<ol class="texts">{"".join(_text(text) for text in sample.texts)}</ol>
<ul class="tags" aria-label="Tags">{tags or '<li class="none">no tags</li>'}</ul>
<p class="small"><code dir="auto">{key}</code><bdi>{source}</bdi> &middot; {seconds:.1f} s</p></article>"""


def _text(text: Text) -> str:
    notes = "".join(
        f'<li class="flag">{escape(note.removeprefix(FLAG))}</li>'
        if note.startswith(FLAG)
        else f"<li>{escape(note)}</li>"
        for note in text.notes
    )
    listed = f'<ul class="notes">{notes}</ul>' if notes else ""
    return f'<li><p class="caption" dir="auto">{escape(text.text)}</p>{listed}</li>'


def _charts(facts: Facts) -> str:
    """Return the charts of what varies, or nothing."""
    tags = _tag_chart(facts.tags) if facts.tags else ""
    lengths = _histogram("Caption length", facts.lengths, "words", "captions") if facts.lengths else ""
    durations = _histogram("Clip duration", facts.durations, "s", "clips") if len(facts.durations) > 1 else ""
    right = f'<div class="stack">{lengths}{durations}</div>' if lengths or durations else ""
    return f'<div class="charts">{tags}{right}</div>' if tags or right else ""


def _tag_chart(tags: dict[str, int]) -> str:
    top = sorted(tags.items(), key=lambda item: (-item[1], item[0]))[:NUM_TAGS]
    rows = "".join(
        f'<li><span title="{escape(tag)}" dir="auto">{escape(tag)}</span><svg aria-hidden="true">'
        f'<rect width="{max(0.5, 100 * count / top[0][1]):.1f}%" height="12" rx="2"/></svg><b>{count:,}</b></li>'
        for tag, count in top
    )
    which = f"the {len(top)} most frequent of {len(tags):,} tags" if len(top) < len(tags) else f"{len(tags)} tags"
    note = f"Clips with each of {which}"
    return f'<div class="panel"><h3>Tags</h3><p class="soft">{note}</p><ol class="bars">{rows}</ol></div>'


def _histogram(title: str, counts: dict[int, int], unit: str, things: str) -> str:
    """Return a histogram of whole numbers: columns of one value each, or of as many as make at most 40 columns."""
    low, high = min(counts), max(counts)
    values = math.ceil((high - low + 1) / MAX_BARS)
    bins = [sum(counts.get(v, 0) for v in range(start, start + values)) for start in range(low, high + 1, values)]
    slot, step, height, most = min(48.0, 360 / len(bins)), math.ceil(len(bins) / 10), 110, max(bins)
    parts = [f'<line x1="0" x2="{slot * len(bins):.0f}" y1="{height + 14}" y2="{height + 14}"/>']
    for i, count in enumerate(bins):
        start, tall, x = low + i * values, height * count / most, i * slot
        label = f"{start}" if values == 1 else f"{start} to {start + values - 1}"
        parts.append(
            f'<rect x="{x:.1f}" y="{height + 14 - tall:.1f}" width="{slot * 0.86:.1f}" height="{tall:.1f}" rx="1.5">'
            f"<title>{label} {unit}: {count:,} {things}</title></rect>"
        )
        if i % step == 0:
            parts.append(f'<text x="{x + slot * 0.43:.1f}" y="{height + 28}" text-anchor="middle">{start}</text>')
    parts.append(f'<text x="{(bins.index(most) + 0.43) * slot:.1f}" y="10" text-anchor="middle">{most:,}</text>')
    ordered = sorted(counts.items())
    sums = np.cumsum([count for _, count in ordered])
    median = ordered[int(np.searchsorted(sums, sums[-1] / 2))][0]
    spread = f"{low} to {high} {unit}, median {median}" if low < high else f"{low} {unit}"
    note = f"{spread}; {sums[-1]:,} {things}"
    svg = f'<svg class="columns" viewBox="-8 0 376 {height + 32}" role="img" aria-label="{title}: {note}">'
    return f'<div class="panel"><h3>{title}</h3><p class="soft">{note}</p>{svg}{"".join(parts)}</svg></div>'

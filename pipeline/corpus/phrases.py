"""Captions as a person would write them: which events sound, in which order, and which at the same time.

Style after AudioCaps: present tense, no names, order and simultaneity in words. Every sound has its AudioSet machine id
and a few wordings; scenes are joined by connectives drawn at random.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

Layout = Literal["single", "sequence", "overlap", "overlap_then"]


class Wording(NamedTuple):
    """The words for one sound event."""

    mid: str
    pairs: tuple[tuple[str, str], ...]  # (clause, the same as a noun phrase): "a siren wails", "a siren wailing"


def caption(rng: np.random.Generator, names: Sequence[str], layout: Layout) -> str:
    """Write one caption for events `names` in order of their onsets."""
    template = str(rng.choice(TEMPLATES[layout, len(names)]))
    words: dict[str, str] = {}
    for index, name in enumerate(names):
        pairs = WORDINGS[name].pairs
        words[f"c{index}"], words[f"n{index}"] = pairs[rng.integers(len(pairs))]
    return template.format(**words)


def class_texts() -> dict[str, list[str]]:
    """Return {class: texts}: every wording of each sound, for prompts in the words of the captions."""
    return {name: [text for pair in wording.pairs for text in pair] for name, wording in WORDINGS.items()}


# c = clause, n = noun phrase, counted from the first event; every form names each event once
TEMPLATES: dict[tuple[Layout, int], tuple[str, ...]] = {
    ("single", 1): ("{c0}", "{c0}", "{n0}", "{c0} in a quiet place", "{c0} nearby"),
    ("sequence", 2): (
        "{c0} followed by {n1}",
        "{c0}, then {c1}",
        "{c0} and then {c1}",
        "after {n0}, {c1}",
        "{n0} followed by {n1}",
    ),
    ("sequence", 3): (
        "{c0} followed by {n1} and then {n2}",
        "{c0}, then {c1}, and finally {c2}",
        "{c0}, then {c1} followed by {n2}",
    ),
    ("overlap", 2): (
        "{c0} while {c1}",
        "{c0} as {c1}",
        "{c0} with {n1} in the background",
        "{c0} and {c1} at the same time",
    ),
    ("overlap_then", 3): (
        "{c0} while {c1}, then {c2}",
        "{c0} as {c1}, followed by {n2}",
        "{c0} with {n1} in the background, and then {c2}",
    ),
}


WORDINGS: dict[str, Wording] = {
    "Sine wave": Wording(
        "/m/01v_m0",
        (
            ("a steady tone plays", "a steady tone playing"),
            ("a pure tone sounds", "a pure tone"),
            ("a sine wave hums", "a sine wave humming"),
        ),
    ),
    "Chirp tone": Wording(
        "/m/0hdsk",
        (
            ("a tone sweeps repeatedly", "a sweeping tone"),
            ("an electronic chirp repeats", "an electronic chirp repeating"),
            ("a chirp glides in pitch", "a chirp gliding in pitch"),
        ),
    ),
    "White noise": Wording(
        "/m/0chx_",
        (
            ("white noise hisses", "white noise hissing"),
            ("a steady hiss is heard", "a steady hiss"),
            ("bright white noise plays", "bright white noise"),
        ),
    ),
    "Pink noise": Wording(
        "/m/0cj0r",
        (
            ("pink noise rushes", "pink noise rushing"),
            ("a soft pink noise plays", "soft pink noise"),
            ("a deep rush of noise is heard", "a deep rush of noise"),
        ),
    ),
    "Dial tone": Wording(
        "/m/015jpf",
        (
            ("a dial tone drones", "a dial tone droning"),
            ("a phone gives a dial tone", "the dial tone of a phone"),
            ("a telephone line hums with a dial tone", "a telephone dial tone"),
        ),
    ),
    "Busy signal": Wording(
        "/m/01z47d",
        (
            ("a busy signal beeps", "a busy signal beeping"),
            ("a phone line is busy", "a busy phone line"),
            ("a telephone busy signal repeats", "a telephone busy signal"),
        ),
    ),
    "Siren": Wording(
        "/m/03kmc9",
        (
            ("a siren wails", "a siren wailing"),
            ("an emergency siren blares", "an emergency siren blaring"),
            ("a siren rises and falls", "a siren rising and falling"),
        ),
    ),
    "Smoke detector, smoke alarm": Wording(
        "/m/01y3hg",
        (
            ("a smoke alarm beeps loudly", "a smoke alarm beeping loudly"),
            ("a smoke detector goes off", "a smoke detector going off"),
            ("a shrill smoke alarm sounds", "a shrill smoke alarm"),
        ),
    ),
    "Tick-tock": Wording(
        "/m/07qjznl",
        (
            ("a clock ticks", "a clock ticking"),
            ("a clock goes tick tock", "the tick tock of a clock"),
            ("a clock ticks steadily", "the steady ticking of a clock"),
        ),
    ),
    "Heart sounds, heartbeat": Wording(
        "/m/01jg02",
        (
            ("a heart beats", "a heart beating"),
            ("a heartbeat thumps", "a heartbeat thumping"),
            ("a heart pounds steadily", "the steady beat of a heart"),
        ),
    ),
    "Clicking": Wording(
        "/m/07qc9xj",
        (
            ("something clicks repeatedly", "repeated clicking"),
            ("sharp clicks are heard", "sharp clicks"),
            ("a switch clicks again and again", "a switch clicking again and again"),
        ),
    ),
    "Rain": Wording(
        "/m/06mb1",
        (
            ("rain falls", "rain falling"),
            ("rain patters down", "rain pattering down"),
            ("it rains steadily", "steady rain"),
        ),
    ),
    "Wind": Wording(
        "/m/03m9d0z",
        (
            ("wind blows", "wind blowing"),
            ("gusts of wind howl", "howling gusts of wind"),
            ("a strong wind blows", "a strong wind blowing"),
        ),
    ),
    "Thunder": Wording(
        "/m/0ngt1",
        (
            ("thunder rumbles", "thunder rumbling"),
            ("thunder claps", "a clap of thunder"),
            ("thunder rolls in the distance", "distant rolling thunder"),
        ),
    ),
    "Idling": Wording(
        "/m/07pb8fc",
        (
            ("an engine idles", "an engine idling"),
            ("a motor is idling", "an idling motor"),
            ("a vehicle engine idles roughly", "a vehicle engine idling roughly"),
        ),
    ),
    "Telephone bell ringing": Wording(
        "/m/07pp8cl",
        (
            ("a telephone rings", "a telephone ringing"),
            ("an old phone rings", "an old phone ringing"),
            ("a telephone bell rings", "a telephone bell ringing"),
        ),
    ),
    "Bell": Wording(
        "/m/0395lw",
        (
            ("a bell tolls", "a bell tolling"),
            ("a large bell is struck", "a large bell being struck"),
            ("a bell chimes slowly", "the slow chime of a bell"),
        ),
    ),
    "Foghorn": Wording(
        "/m/04fq5q",
        (
            ("a foghorn blows", "a foghorn blowing"),
            ("a ship sounds its foghorn", "the foghorn of a ship"),
            ("a deep foghorn blasts", "a deep foghorn blast"),
        ),
    ),
    "Buzzer": Wording(
        "/m/030rvx",
        (
            ("a buzzer goes off", "a buzzer going off"),
            ("a loud buzzer sounds", "a loud buzzer"),
            ("an electric buzzer buzzes", "an electric buzzer buzzing"),
        ),
    ),
    "Telephone dialing, DTMF": Wording(
        "/m/02c8p",
        (
            ("someone dials a phone number", "a phone number being dialed"),
            ("a touch tone phone is dialed", "touch tone dialing"),
            ("phone keys beep as a number is dialed", "the beeps of phone keys"),
        ),
    ),
}

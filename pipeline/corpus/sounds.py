"""Twenty AudioSet sound events as procedures with random parameters: no recordings, no licences, no network.

Every procedure takes (rng, num_samples) and returns a float waveform (T,) at 32 kHz of any loudness; `render` levels it.
Telephone and alarm figures are the North American call-progress tones (ITU-T E.180) and the T3 alarm pattern (ISO 8201).
"""

from collections.abc import Callable

import numpy as np

from pipeline.audio import SAMPLE_RATE_HZ

Wave = np.ndarray
Rng = np.random.Generator
FADE_S = 0.02  # against clicks where an event starts and ends


def render(name: str, rng: Rng, duration_s: float) -> Wave:
    """Return one event, faded at both ends and levelled to an RMS of 0.1; float64 (T,)."""
    num_samples = round(duration_s * SAMPLE_RATE_HZ)
    wave = SOUNDS[name](rng, num_samples)
    assert wave.shape == (num_samples,), (name, wave.shape)
    fade = np.minimum(1.0, np.arange(num_samples) / (FADE_S * SAMPLE_RATE_HZ))
    wave = wave * fade * fade[::-1]
    return wave * (0.1 / max(float(np.sqrt(np.mean(wave**2))), 1e-9))


def _time(n: int) -> Wave:
    return np.arange(n) / SAMPLE_RATE_HZ


def _tone(n: int, *frequencies_hz: float) -> Wave:
    return np.sum([np.sin(2 * np.pi * f * _time(n)) for f in frequencies_hz], axis=0)


def _sweep(frequency_hz: Wave) -> Wave:
    return np.sin(2 * np.pi * np.cumsum(frequency_hz) / SAMPLE_RATE_HZ)


def _noise(rng: Rng, n: int, low_hz: float, high_hz: float, exponent: float = 0.0) -> Wave:
    """Gaussian noise between two frequencies with power proportional to 1 / f^exponent."""
    m = -(-n // 4096) * 4096  # the transform of a length with large prime factors is ten times slower
    spectrum = np.fft.rfft(rng.standard_normal(m))
    frequency = np.maximum(np.fft.rfftfreq(m, 1 / SAMPLE_RATE_HZ), 1.0)
    band = (frequency >= low_hz) & (frequency <= high_hz)
    shaped: Wave = np.fft.irfft(spectrum * band * frequency ** (-exponent / 2), m)[:n]
    return shaped / max(float(shaped.std()), 1e-9)


def _gate(n: int, period_s: float, on_s: float) -> Wave:
    """Square on/off envelope with soft 5 ms edges."""
    square = (_time(n) % period_s < on_s).astype(float)
    edge = np.hanning(int(0.01 * SAMPLE_RATE_HZ))
    return np.convolve(square, edge / edge.sum(), mode="same")


def _strikes(n: int, onsets_s: Wave, strike: Wave, gains: Wave | None = None) -> Wave:
    """Place copies of one strike at the onsets."""
    wave = np.zeros(n + len(strike))
    for index, onset_s in enumerate(onsets_s):
        start = int(onset_s * SAMPLE_RATE_HZ)
        if start < n:
            wave[start : start + len(strike)] += strike * (1.0 if gains is None else gains[index])
    return wave[:n]


def _decay(n: int, time_constant_s: float) -> Wave:
    return np.exp(-_time(n) / time_constant_s)


def _drift(rng: Rng, n: int, rate_hz: float) -> Wave:
    """A slow random curve in [0, 1]."""
    points = max(4, int(n / SAMPLE_RATE_HZ * rate_hz) + 2)
    curve = np.interp(np.linspace(0, points - 1, n), np.arange(points), rng.random(points))
    return np.asarray(curve)


def _sine_wave(rng: Rng, n: int) -> Wave:
    return _tone(n, rng.uniform(300, 1500))


def _chirp(rng: Rng, n: int) -> Wave:
    low, high, period_s = rng.uniform(300, 700), rng.uniform(2500, 6000), rng.uniform(0.4, 1.2)
    phase = _time(n) % period_s / period_s
    return _sweep(low * (high / low) ** (phase if rng.random() < 0.5 else 1 - phase))


def _white_noise(rng: Rng, n: int) -> Wave:
    return _noise(rng, n, 20, 16_000)


def _pink_noise(rng: Rng, n: int) -> Wave:
    return _noise(rng, n, 20, 16_000, exponent=1.0)


def _dial_tone(rng: Rng, n: int) -> Wave:
    return _tone(n, 350, 440) + 0.02 * _noise(rng, n, 300, 3400)


def _busy_signal(rng: Rng, n: int) -> Wave:
    period_s = rng.choice([0.5, 1.0])  # fast busy (reorder) and busy
    return _tone(n, 480, 620) * _gate(n, period_s, period_s / 2)


def _siren(rng: Rng, n: int) -> Wave:
    low, high, rate_hz = rng.uniform(500, 700), rng.uniform(1200, 1600), rng.uniform(0.5, 2.5)
    wobble = 0.5 - 0.5 * np.cos(2 * np.pi * rate_hz * _time(n) + rng.uniform(0, 2 * np.pi))
    sweep = _sweep(low + (high - low) * wobble)
    return np.tanh(2 * sweep)


def _smoke_alarm(rng: Rng, n: int) -> Wave:
    beep = np.sign(_tone(n, rng.uniform(2900, 3400)))
    three = (_time(n) % 4.0 < 3.0).astype(float)  # T3: three half-second beeps, then a pause
    return beep * _gate(n, 1.0, 0.5) * (three if rng.random() < 0.5 else 1.0)


def _tick_tock(rng: Rng, n: int) -> Wave:
    half_s, m = rng.uniform(0.25, 0.5), int(0.04 * SAMPLE_RATE_HZ)
    tick, tock = (_tone(m, f) * _decay(m, 0.004) for f in (rng.uniform(2600, 3400), rng.uniform(1500, 2000)))
    ticks = np.arange(0, n / SAMPLE_RATE_HZ, 2 * half_s)
    return _strikes(n, ticks, tick) + _strikes(n, ticks + half_s, tock)


def _heartbeat(rng: Rng, n: int) -> Wave:
    beat_s, m = rng.uniform(0.6, 1.0), int(0.2 * SAMPLE_RATE_HZ)
    thump = _tone(m, rng.uniform(45, 65)) * np.hanning(m)
    beats = np.arange(0, n / SAMPLE_RATE_HZ, beat_s)
    return _strikes(n, beats, thump) + 0.7 * _strikes(n, beats + 0.28 * beat_s, thump)


def _clicking(rng: Rng, n: int) -> Wave:
    m = int(0.01 * SAMPLE_RATE_HZ)
    click = _noise(rng, m, 1000, 9000) * _decay(m, 0.001)
    onsets = np.cumsum(rng.uniform(0.08, 0.35, size=64))
    return _strikes(n, onsets, click, rng.uniform(0.6, 1.0, size=64))


def _rain(rng: Rng, n: int) -> Wave:
    m = int(0.006 * SAMPLE_RATE_HZ)
    drop = _noise(rng, m, 2000, 12_000) * _decay(m, 0.0015)
    count = int(n / SAMPLE_RATE_HZ * rng.uniform(80, 200))
    drops = _strikes(n, rng.uniform(0, n / SAMPLE_RATE_HZ, count), drop, rng.exponential(1.0, count))
    return drops + rng.uniform(0.1, 0.25) * _noise(rng, n, 1500, 14_000, exponent=0.5)


def _wind(rng: Rng, n: int) -> Wave:
    rumble, whistle = _noise(rng, n, 40, 900, exponent=1.5), _noise(rng, n, 500, 1000)
    gust = _drift(rng, n, 1.5)
    return rumble * (0.3 + gust) + 0.25 * whistle * gust**2


def _thunder(rng: Rng, n: int) -> Wave:
    crack = _noise(rng, n, 100, 4000, exponent=1.0) * _decay(n, rng.uniform(0.1, 0.25))
    rumble = _noise(rng, n, 25, 180, exponent=1.0) * _drift(rng, n, 6) * _decay(n, rng.uniform(1.0, 2.0))
    return crack + 1.5 * rumble


def _idling(rng: Rng, n: int) -> Wave:
    firing_hz = rng.uniform(18, 32)
    pulses = np.maximum(0, np.sin(2 * np.pi * firing_hz * _time(n))) ** 8
    hum = sum(_tone(n, firing_hz * k) / k for k in range(1, 9))
    return hum + pulses * _noise(rng, n, 60, 1500, exponent=0.7) * 2


def _telephone_bell(rng: Rng, n: int) -> Wave:
    base, strike_hz = rng.uniform(1200, 1600), rng.uniform(18, 24)
    ring = _tone(n, base, base * 1.21, base * 2.34) * (0.35 + np.abs(np.sin(np.pi * strike_hz * _time(n))))
    return ring * _gate(n, rng.uniform(1.4, 2.0), rng.uniform(0.8, 1.1))


def _bell(rng: Rng, n: int) -> Wave:
    base, m = rng.uniform(250, 600), 2 * SAMPLE_RATE_HZ
    partials = [(0.5, 1.8, 0.6), (1.0, 1.2, 1.0), (1.2, 0.8, 0.7), (1.5, 0.7, 0.5), (2.0, 0.5, 0.8), (2.7, 0.3, 0.4)]
    strike = sum(gain * _tone(m, base * ratio) * _decay(m, tau) for ratio, tau, gain in partials)
    return _strikes(n, np.arange(0, n / SAMPLE_RATE_HZ, rng.uniform(0.9, 1.6)), np.asarray(strike))


def _foghorn(rng: Rng, n: int) -> Wave:
    base = rng.uniform(80, 140)
    blast = sum(_tone(n, base * k) / k**1.2 for k in range(1, 12))
    return np.asarray(blast) * np.minimum(1.0, _time(n) / 0.2)


def _buzzer(rng: Rng, n: int) -> Wave:
    base = rng.uniform(170, 260)
    buzz = sum(_tone(n, base * k) / k**0.5 for k in range(1, 24, 2))
    return np.asarray(buzz) * (_gate(n, 0.8, 0.5) if rng.random() < 0.4 else 1.0)


def _dtmf(rng: Rng, n: int) -> Wave:
    rows, columns = (697, 770, 852, 941), (1209, 1336, 1477)
    period_s, wave = rng.uniform(0.2, 0.35), np.zeros(n)
    for start in range(0, n, int(period_s * SAMPLE_RATE_HZ)):
        m = min(int(0.6 * period_s * SAMPLE_RATE_HZ), n - start)
        wave[start : start + m] = _tone(m, rng.choice(rows), rng.choice(columns))
    return wave


SOUNDS: dict[str, Callable[[Rng, int], Wave]] = {
    "Sine wave": _sine_wave,
    "Chirp tone": _chirp,
    "White noise": _white_noise,
    "Pink noise": _pink_noise,
    "Dial tone": _dial_tone,
    "Busy signal": _busy_signal,
    "Siren": _siren,
    "Smoke detector, smoke alarm": _smoke_alarm,
    "Tick-tock": _tick_tock,
    "Heart sounds, heartbeat": _heartbeat,
    "Clicking": _clicking,
    "Rain": _rain,
    "Wind": _wind,
    "Thunder": _thunder,
    "Idling": _idling,
    "Telephone bell ringing": _telephone_bell,
    "Bell": _bell,
    "Foghorn": _foghorn,
    "Buzzer": _buzzer,
    "Telephone dialing, DTMF": _dtmf,
}
